# ruff: noqa
import sys; ms=sys.argv[1:]; sys.argv=["x"]; exec(open("scripts/tuning/tune.py").read().split('if __name__')[0])
for m in ms: measure(m, "again "+m, light=True)
