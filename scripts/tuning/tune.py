# ruff: noqa
"""tune.py SEED OUT [step...]: chain of a tuning seed on validation questions."""
import sys, json, time
from dataclasses import replace
from pathlib import Path
import torch; torch.set_num_threads(1)
from phi_lab import sampling
from phi_lab.config import presets
from phi_lab.core.files import read_rows, write_rows
from phi_lab.core.run_folder import RunFolder
from phi_lab.distill import funnel, shards, teachers, training_sets
from phi_lab.model import checkpoints
from phi_lab.problems import arithmetic, logic
from phi_lab.stages import mid_training, sft, grpo
from phi_lab.verify import verify_many
import random
BASE, TEACHER = Path("data/checkpoints/base"), Path("data/teacher")
ROWS = Path("runs/tuning/rows.jsonl")
L = presets.LAB
val = arithmetic.sample_problems(750, 77_777, "validation", (3, 4, 5, 6, 7))
easy = arithmetic.sample_problems(300, 77_778, "validation", (1,))
rng = random.Random(77_779); tr = [logic.sample_split(rng, rng.randint(1, 3), "validation") for _ in range(600)]
def acc(net, tok, ps, n, t, cap=384, seed=5):
    g = sampling.sample(net, tok, [p.prompt for p in ps], sampling.SamplingParams(n=n, temperature=t, max_tokens=cap, seed=seed), title="eval")
    v = [x.verdict == "right" for x in verify_many([(s.text, p.answer) for p, gr in zip(ps, g) for s in gr])]
    return [sum(v[i*n:(i+1)*n])/n for i in range(len(ps))]
def measure(model, name, light=True, **kw):
    net, tok = checkpoints.load_to_sample(Path(model), "cpu"), checkpoints.load_tokenizer(Path(model))
    row = {"name": name, **kw}; t0 = time.time()
    a = acc(net, tok, val, 2 if light else 4, .6)
    lv = lambda a: {l: round(100*sum(x for x, p in zip(a, val) if p.level == l)/sum(p.level == l for p in val), 1) for l in (3,4,5,6,7)}
    m = lambda a: round(100*sum(a)/len(a), 2)
    row.update(hard=m(a), levels=lv(a), frac=m([x for x, p in zip(a, val) if p.family == "fraction"]))
    g = acc(net, tok, val, 1, 0.0); row.update(greedy=m(g), glevels=lv(g))
    if not light:
        row["cool"] = m(acc(net, tok, val, 1, .3))
    row["easy"] = m(acc(net, tok, easy, 1, .6)); row["transfer"] = m(acc(net, tok, tr, 1, .6))
    row["eval_s"] = round(time.time()-t0)
    with ROWS.open("a") as f: f.write(json.dumps(row)+"\n")
    print(json.dumps(row), flush=True); return row
import os
def distil(seed, out, questions=int(os.environ.get("QUESTIONS", L.distillation.questions))):
    plan = replace(L.distillation, samples=int(os.environ.get("SAMPLES", 8))); out.mkdir(parents=True, exist_ok=True); data = RunFolder(out).data
    if data.funnel.exists(): return data
    t0 = time.time()
    for folder, ps in ((data.validation_rollouts, arithmetic.sample_problems(plan.validation_questions, seed, "validation")), (data.rollouts, arithmetic.sample_problems(questions, seed))):
        shards.collect_rollouts(teachers.model_teacher(TEACHER, plan, seed), ps, folder, name="model", samples=plan.samples, temperature=plan.temperature, seed=seed)
    write_rows(data.validation, [row for right, _ in funnel.Funnel().filter(shards.rows(data.validation_rollouts)) for row in right])
    c = training_sets.write_training_sets(shards.rows(data.rollouts), data.path, about="x")
    rows = list(shards.rows(data.rollouts)); by = {}
    for r in rows: by.setdefault(r["level"], []).append(r["verdict"] == "right")
    print("distil", seed, round(time.time()-t0), c["rollouts"], c["steps"][-1]["kept"], {l: round(100*sum(x)/len(x), 1) for l, x in sorted(by.items())}, flush=True)
    return data
def done(p): return (p/"done.json").exists()
def timed(name, f):
    t0 = time.time(); r = f(); print(name, round(time.time()-t0), "s", r.train_tokens, r.forward_tokens, r.metrics[-1], flush=True); return r
if __name__ == "__main__":
    seed, out = int(sys.argv[1]), Path(sys.argv[2]); steps = sys.argv[3:] or ["mid", "sft", "grpo"]
    data = distil(seed, out)
    if "mid" in steps and not done(out/"mid"):
        timed("mid", lambda: mid_training.train(BASE, data.right, data.validation, out/"mid", L.mid, seed=seed)); measure(out/"mid/model", "mid", seed=seed)
    if "sft" in steps and not done(out/"sft"):
        timed("sft", lambda: sft.train(out/"mid/model", data.right, data.validation, out/"sft", L.sft, seed=seed)); measure(out/"sft/model", "sft", seed=seed)
    if "dpo" in steps and not done(out/"dpo"):
        from phi_lab.stages import rollout_dpo
        (out/"dpo").mkdir(exist_ok=True)
        qs = arithmetic.sample_problems(L.dpo.questions, seed+90_000, levels=arithmetic.LEVELS)
        timed("dpo", lambda: rollout_dpo.train(out/"sft/model", data.right, data.wrong, out/"dpo", L.dpo, seed=seed, questions=qs)); measure(out/"dpo/model", "dpo", seed=seed)
    if "grpo" in steps and not done(out/"grpo"):
        ps = arithmetic.sample_problems(L.grpo.candidate_prompts, seed+50_000, levels=arithmetic.LEVELS)
        timed("grpo", lambda: grpo.train(out/"dpo/model", ps, out/"grpo", L.grpo, seed=seed)); measure(out/"grpo/model", "grpo", seed=seed)
