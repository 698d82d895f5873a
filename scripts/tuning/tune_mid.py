# ruff: noqa
"""tune_mid.py SEED OUT NAME key=value...: mid-training on OUT's data with changed settings."""
import sys; args=sys.argv[:]; sys.argv=["x"]
exec(open("scripts/tuning/tune.py").read().split('if __name__')[0])
seed, out, name = int(args[1]), Path(args[2]), args[3]
cfg = replace(L.mid, **{k: (int(v) if v.isdigit() else float(v)) for k, v in (a.split("=") for a in args[4:])})
data = RunFolder(out).data
timed(name, lambda: mid_training.train(BASE, data.right, data.validation, out/name, cfg, seed=seed)); measure(out/name/"model", name, seed=seed, settings=args[4:])
