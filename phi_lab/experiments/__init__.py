"""The paper's questions, answered with intervals: one file an experiment, whose docstring fixed question, arms, primary
measure, seeds, budget and what would count before its first run. `runner.py` runs them, `verdicts.py` reads the rows.
"""

from phi_lab.experiments import mid_training, one_batch, rl_devices, variance, variance_bases

FILES = (mid_training, one_batch, rl_devices, variance, variance_bases)
EXPERIMENTS = {one.EXPERIMENT.name: one.EXPERIMENT for one in FILES}

__all__ = ["EXPERIMENTS"]
