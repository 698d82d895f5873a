# ruff: noqa
"""dpo8.py SEED OUT NAME key=value...: Rollout DPO again on the rollouts of OUT/dpo, with changed settings."""
import sys; args=sys.argv[:]; sys.argv=["x"]
exec(open("scripts/tuning/tune.py").read().split('if __name__')[0])
import shutil
from phi_lab.stages import rollout_dpo
seed, out, name = int(args[1]), Path(args[2]), args[3]
cfg = replace(L.dpo, **{k: (int(v) if v.isdigit() else float(v)) for k, v in (a.split("=") for a in args[4:])})
(out/name).mkdir(exist_ok=True)
for x in (out/"dpo").iterdir():
    if x.name in ("right.jsonl","wrong.jsonl","rollouts","funnel.json","sets.json","README.md","validation.jsonl") and not (out/name/x.name).exists(): (shutil.copytree if x.is_dir() else shutil.copy)(x, out/name/x.name)
qs = arithmetic.sample_problems(cfg.questions, seed+90_000, levels=arithmetic.LEVELS); data = RunFolder(out).data
timed(name, lambda: rollout_dpo.train(out/"sft/model", data.right, data.wrong, out/name, cfg, seed=seed, questions=qs)); measure(out/name/"model", name, seed=seed, settings=args[4:])
