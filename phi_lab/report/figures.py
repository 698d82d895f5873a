"""The figures of the course, the same ones in the notebooks and in the report.

Each is a pure function of rows that a stage wrote, and returns a Figure that shows itself in Jupyter; none touches
pyplot. They are defined in three files: the ladder (`figures_ladder`), training curves (`figures_training`), rollouts
and batches (`figures_data`).

Try it:  python -c "from phi_lab.report.figures import ladder; ladder([]).savefig('ladder.png')"
"""

from phi_lab.report.figures_data import funnel, lengths, packing
from phi_lab.report.figures_ladder import ladder, replications
from phi_lab.report.figures_training import dpo_curves, loss_curve, rl_curves, temperature_schedule

__all__ = [
    "dpo_curves", "funnel", "ladder", "lengths", "loss_curve", "packing", "replications", "rl_curves",
    "temperature_schedule",
]
