# ruff: noqa
import sys; from pathlib import Path
import torch; torch.set_num_threads(1)
from phi_lab.stages import base
from phi_lab.config import presets
what,out=sys.argv[1:3]
r=(base.train_base if what=="base" else base.train_teacher)(Path(out), getattr(presets, what.upper()), 0)
print(what, r.seconds, r.train_tokens)
