# ruff: noqa
"""dpo9.py SEED OUT NAME key=value...: Rollout DPO on the rollouts of OUT/dpo; NAME "chosen*": its control, of=FOLDER lr=."""
import sys; args=sys.argv[:]; sys.argv=["x"]
exec(open("scripts/tuning/tune.py").read().split('if __name__')[0])
import shutil
from phi_lab.pipeline import controls
from phi_lab.core.files import read_json
from phi_lab.stages import rollout_dpo
seed, out, name = int(args[1]), Path(args[2]), args[3]
kw = {k: v for k, v in (a.split("=") for a in args[4:])}
if name.startswith("chosen"):
    of = out/kw["of"]; d = read_json(of/"done.json"); epochs = float(kw.get("epochs", 1)); ep = d["train_tokens"]/epochs
    comp = d["train_tokens"] + ep/3
    cfg = controls.short_sft(L)
    if "lr" in kw: cfg = replace(cfg, learning_rate=float(kw["lr"]))
    if "bs" in kw: cfg = replace(cfg, batch_size=int(kw["bs"]))
    r = timed(name, lambda: rollout_dpo.train_on_chosen(out/"sft/model", read_rows(of/"pairs.jsonl"), out/name, cfg, seed=seed, compute=comp))
else:
    cfg = replace(L.dpo, **{k: (v if v in ("steps","student","teacher") else float(v) if v == "inf" else int(v) if v.isdigit() else float(v)) for k, v in kw.items()})
    (out/name).mkdir(exist_ok=True)
    for x in (out/"mA").iterdir():
        if x.name in ("right.jsonl","wrong.jsonl","rollouts","funnel.json","sets.json","README.md","validation.jsonl") and not (out/name/x.name).exists(): (shutil.copytree if x.is_dir() else shutil.copy)(x, out/name/x.name)
    qs = arithmetic.sample_problems(cfg.questions, seed+90_000, levels=arithmetic.LEVELS); data = RunFolder(out).data
    r = timed(name, lambda: rollout_dpo.train(out/"sft/model", data.right, data.wrong, out/name, cfg, seed=seed, questions=qs))
measure(out/name/"model", name, seed=seed, settings=args[4:])
