# ruff: noqa
"""tune_grpo.py SEED OUT START NAME key=value...: GRPO from OUT/START with changed settings."""
import sys; args=sys.argv[:]; sys.argv=["x"]
exec(open("scripts/tuning/tune.py").read().split('if __name__')[0])
seed, out, start, name = int(args[1]), Path(args[2]), args[3], args[4]
cfg = replace(L.grpo, **{k: (int(v) if v.isdigit() else float(v)) for k, v in (a.split("=") for a in args[5:])})
ps = arithmetic.sample_problems(cfg.candidate_prompts, seed+50_000, levels=arithmetic.LEVELS)
timed(name, lambda: grpo.train(out/start/"model", ps, out/name, cfg, seed=seed)); measure(out/name/"model", name+" from "+start, seed=seed, settings=args[5:])
