"""Made-up rows of an experiment, whose accuracies a test chooses."""

import numpy as np

BUDGET = 9_000  # training tokens of an arm in the tests of one_batch


def measured(share, benchmark="hard", how="sampled"):
    heat = {"sampled": 0.6, "greedy": 0.0, "pass": 0.6}[how]
    return {"stage": "x", "arm": "main", "benchmark": benchmark, "protocol": how, "n": 100, "correct": 0,
            "accuracy": share, "ci_low": share, "ci_high": share, "temperature": heat, "k": 4,
            "pass_at_k": share if how == "pass" else None, "parts": {}}


def row(seed, name, share, experiment="one_batch", **other):
    """A row with the accuracy `share` by every protocol on `hard`, and half of it on `easy`."""
    return {
        "experiment": experiment, "seed": seed, "name": name, "unit": "chain seeds", "chain": seed,
        "compute": 600_000, "model": f"{name}-{seed}", "start": "s", "commit": "c0ffee", "dirty": False,
        "code": "c0de", "config": "d1ce", "settings": {}, "device": {}, "time": "2026", "seconds": 1.0,
        "diversity": 0.5, "notes": {},
        "measurements": [measured(share, how=how) for how in ("sampled", "greedy", "pass")] + [
            measured(share / 2, "easy", how) for how in ("sampled", "greedy")],
    } | other


def rows_of(experiment, shares, seeds):
    """Rows of every arm for `seeds`; shares(arm, seed) -> its accuracy."""
    return [row(seed, arm, shares(arm, seed), experiment.name) for seed in seeds for arm in experiment.arms]


def nested_rows(experiment, seeds, sds=(0.02, 0.01), problems=200, samples=4, by_problem=0.0, rng=None):
    """Rows of an experiment with nests: a chain adds a normal number with the standard deviation sds[0] to a share of
    75 %, a training one with sds[1], and one with `by_problem` to each problem; answers are drawn from that.
    """
    rng, rows = rng or np.random.default_rng(0), []
    for seed in seeds:
        for nest in experiment.nests:
            chain = 0.75 + sds[0] * rng.normal()
            for training in nest.arms:
                share = np.clip(chain + sds[1] * rng.normal() + by_problem * rng.normal(size=problems), 0, 1)
                for arm in training:
                    right = rng.binomial(samples, share, problems)
                    notes = {"right": "".join(map(str, right)), "samples": samples, "problems": "first"}
                    rows.append(row(seed, arm, float(right.mean() / samples), experiment.name, notes=notes,
                                    unit="base seeds" if nest.levels[0] == "base" else "chain seeds"))
    return rows
