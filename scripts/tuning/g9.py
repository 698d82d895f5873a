# ruff: noqa
"""g9.py SEED OUT START NAME [levels=5,6,7] [noselect=1] [rounds=4] key=value...: GRPO from OUT/START; NAME rft*: of=FOLDER at its compute."""
import sys; args=sys.argv[:]; sys.argv=["x"]
exec(open("scripts/tuning/tune.py").read().split('if __name__')[0])
from phi_lab.core.files import read_json
from phi_lab.pipeline import controls
from phi_lab.stages import rejection
seed, out, start, name = int(args[1]), Path(args[2]), args[3], args[4]
kw = dict(a.split("=") for a in args[5:])
levels = tuple(int(x) for x in kw.pop("levels", "1,2,3,4,5,6,7").split(","))
noselect, rounds, of = kw.pop("noselect", ""), int(kw.pop("rounds", 1)), kw.pop("of", ""); budget = float(kw.pop("budget", 0)); neg = float(kw.pop("neg", 1))
num = lambda v: int(v) if v.isdigit() else float(v)
cfg = replace(L.grpo, **{k: num(v) for k, v in kw.items() if not name.startswith("rft")})
if name.startswith("rft"):
    if of: d = read_json(out/of/"done.json"); budget = d["train_tokens"] + d["forward_tokens"]/3
    fit = controls.short_sft(L)
    if "lr" in kw: fit = replace(fit, learning_rate=float(kw["lr"]))
    qs = lambda count, seed: arithmetic.sample_problems(count, seed+50_000, levels=levels)
    r = timed(name, lambda: rejection.train(out/start/"model", qs, out/name, fit, budget=budget, rounds=4, max_tokens=384, seed=seed))
else:
    model = out/start/"model"; tot = [0, 0]
    for k in range(rounds):
        c = replace(cfg, steps=cfg.steps//rounds, candidate_prompts=(cfg.candidate_prompts//rounds if not noselect else cfg.steps//rounds*cfg.prompts_per_step))
        ps = arithmetic.sample_problems(c.candidate_prompts, seed+50_000+7_000*k, levels=levels)
        folder = out/name if k == rounds-1 else out/f"{name}-r{k}"
        extra = {"select": lambda sample, problems, *a: list(problems)} if noselect else {}
        if neg != 1: extra["advantage"] = lambda r, g: (lambda a: torch.where(a < 0, neg*a, a))(grpo.rebalance(r, g))
        r = timed(f"{name} {k}", lambda: grpo.train(model, ps, folder, c, seed=seed+k, **extra)); model = folder/"model"
        tot[0] += r.train_tokens; tot[1] += r.forward_tokens
    print("compute", tot, tot[0]+tot[1]/3, flush=True)
measure(out/name/"model", name+" from "+start, seed=seed, settings=args[5:])
