"""Made-up nested scores: right answers with known components, and rows that hold them."""

import numpy as np

from phi_lab.report.components import Nest

ARMS = ("own", "again", "new", "new-2")
NEST = Nest("grpo", (("own", "again"), ("new", "new-2")))  # in no order but the nest's


def rows_of(counts, samples=4, names=ARMS):
    """Rows of arms for counts (units, trainings, evaluations, problems) of right answers."""
    found = []
    for seed, unit in enumerate(counts):
        for name, right in zip(names, np.reshape(unit, (4, -1)), strict=True):
            share, notes = float(right.mean() / samples), {"right": "".join(map(str, right))}
            found.append({
                "seed": seed, "name": name, "notes": {**notes, "samples": samples, "problems": "p"},
                "measurements": [{"benchmark": "hard", "protocol": "sampled", "accuracy": share}]})
    return found


def answers(rng, problems=300, units=12, samples=4, chain=0.03, training=0.02, by_chain=0.0, by_training=0.0):
    """Right answers (units, 2, 2, problems), and the shares of each training that they were drawn from."""
    share = (0.6 + 0.1 * rng.normal(size=problems) + chain * rng.normal(size=(units, 1, 1))
             + by_chain * rng.normal(size=(units, 1, problems)) + training * rng.normal(size=(units, 2, 1))
             + by_training * rng.normal(size=(units, 2, problems)))
    share = np.clip(share, 0, 1)
    return rng.binomial(samples, share[:, :, None], (units, 2, 2, problems)), share
