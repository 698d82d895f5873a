"""How much a step of the ladder (a stage minus the one before it) differs from chain to chain.

Each chain has both ends of a step, of its own models, so its difference is measured directly: it holds the seed of the
stage, and that stages gain differently from different chains, which components of single scores do not tell. Like a
level, a step has a part that moves all problems alike and one that is other for each problem (`spread.py`); only the
second is larger on 30 problems than on 500.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from phi_lab.core.errors import UserError
from phi_lab.core.formatting import percent
from phi_lab.report.components import DRAWS, SEED, Nest, cells
from phi_lab.report.contrasts import by_seed
from phi_lab.report.spread import interaction


class Step(NamedTuple):
    """A stage over the one before it, or a stage by itself (`before` is None). mean: of its difference, a share.
    square: variance of the chains' differences, of which evaluations add `evaluation`; by_problem: what is other for
    each of `problems` problems; all squares of shares.
    """

    stage: str
    before: str | None
    chains: int
    mean: float
    square: float
    evaluation: float
    by_problem: float
    problems: int

    def variance(self, problems: int) -> tuple[float, float, float]:
        """Of the difference on so many problems, without what sampling adds; with its interval (95 %)."""
        drawn = self.square * (self.chains - 1) / np.random.default_rng(SEED).chisquare(self.chains - 1, DRAWS)
        low, high = np.quantile(self._on(problems, drawn), (0.025, 0.975))
        return float(self._on(problems, np.array(self.square))), float(low), float(high)

    def _on(self, problems: int, square: np.ndarray) -> np.ndarray:
        alike = square - self.evaluation - self.by_problem / self.problems
        return np.maximum(0.0, alike) + self.by_problem / problems


def measured(rows: Sequence[dict], stage: Nest, before: Nest | None = None) -> Step:
    """The step from the chains' own models of `before` to those of `stage`: the first training of each nest, over
    chains that have both. Raises UserError with fewer than two of them, and as `cells` does.
    """
    nests = [one for one in (stage, before) if one is not None]
    names = [name for nest in nests for training in nest.arms for name in training]
    whole = set(by_seed(rows, names))
    if len(whole) < 2:
        raise UserError(f"{len(whole)} seeds with all of {' and '.join(nest.name for nest in nests)}: a step needs two")
    shares, sampling = [], 0.0
    for nest in nests:
        _, counts, samples = cells([row for row in rows if row["seed"] in whole], nest)
        answers = counts.shape[2] * samples
        right = counts[:, 0].sum(1)  # (chains, problems)
        shares.append(right / answers)
        sampling += float((right * (answers - right)).mean()) / (answers * (answers - 1)) / answers
    step = shares[0] - (shares[1] if before else 0.0)
    chains, problems = step.shape
    crossed = interaction(step - step.mean(0)) * chains / (chains - 1)
    means = step.mean(1)
    return Step(stage.name, before and before.name, chains, float(means.mean()), float(means.var(ddof=1)),
                sampling / problems, max(0.0, crossed - sampling), problems)


def all_steps(rows: Sequence[dict], nests: Sequence[Nest]) -> dict[str, Step]:
    """Each stage's step, by its name: `nests` from the last stage to the first, which starts from what all chains
    share. And "whole": the last stage by itself, so from the shared base on.
    """
    found = {stage.name: measured(rows, stage, before)
             for stage, before in zip(nests, [*nests[1:], None], strict=True)}
    return {**found, "whole": measured(rows, nests[0])}


def table(steps: Sequence[Step]) -> list[list[str]]:
    """Header and a line for each step, in points."""
    lines = [["step", "chains", "points", "sd over chains", "of it evaluation", "sd without it, with its interval",
              "on 30 problems"]]
    for one in steps:
        words = f"{one.stage} over {one.before or 'what all chains share'}"
        mean = f"{100 * one.mean:+.1f}" if one.before else percent(one.mean)
        lines.append([words, f"{one.chains}", mean, f"{100 * one.square**0.5:.2f}", f"{100 * one.evaluation**0.5:.2f}",
                      deviation(*one.variance(one.problems)), deviation(*one.variance(30))])
    return lines


def deviation(*variances: float) -> str:
    """The standard deviation in points with its interval, of a variance with its ends."""
    middle, low, high = (100 * one**0.5 for one in variances)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"
