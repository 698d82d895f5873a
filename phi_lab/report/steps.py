"""How much a step of the ladder (a stage minus the one before it) differs from chain to chain.

Each chain has both ends of a step, of its own models, so its difference is measured directly. It holds more than the
seed of the stage: what luck the model before had and does not keep, and what a stage gains from one chain and not from
another. Components of single scores do not tell these. So it answers whether another *pipeline* would show the step,
not whether this model gained. Like a level, a step has a part that moves all problems alike and one that is other for
each problem (`spread.py`); only the second is larger on 30 problems than on 500.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from phi_lab.core.errors import UserError
from phi_lab.core.formatting import percent
from phi_lab.report.components import Nest, cells, drawn_expectations, sd_words
from phi_lab.report.contrasts import by_seed
from phi_lab.report.ladder_rows import STAGE_TITLES
from phi_lab.report.spread import interaction, jackknife


class Step(NamedTuple):
    """A stage over the one before it, or a stage by itself (`before` is None). mean: of its difference, a share.
    square: variance of the chains' differences. sampling: what the answers sampled add for each of `problems` problems,
    and by_problem: what else is other for each; drawn: (2, DRAWS) what both may be. All squares of shares.
    """

    stage: str
    before: str | None
    chains: int
    mean: float
    square: float
    sampling: float
    by_problem: float
    drawn: np.ndarray
    problems: int

    @property
    def words(self) -> str:
        """What it is a difference of."""
        stage = STAGE_TITLES.get(self.stage, self.stage)
        return f"{stage} over {STAGE_TITLES.get(self.before, self.before)}" if self.before else f"{stage} by itself"

    def variance(self, problems: int) -> tuple[float, float, float]:
        """Of the difference on so many problems, without what sampling adds; with its interval (95 %)."""
        (squares,) = drawn_expectations([self.square], [self.chains - 1])
        low, high = np.quantile(self._on(problems, squares, *self.drawn), (0.025, 0.975))
        middle = self._on(problems, np.array(self.square), np.array(self.sampling), np.array(self.by_problem))
        return float(middle), min(float(low), float(middle)), max(float(high), float(middle))

    def _on(self, problems: int, square: np.ndarray, sampling: np.ndarray, by_problem: np.ndarray) -> np.ndarray:
        alike = square - (sampling + by_problem) / self.problems
        return np.maximum(0.0, alike) + by_problem / problems


def measured(rows: Sequence[dict], stage: Nest, before: Nest | None = None) -> Step:
    """The step from the chains' own models of `before` to those of `stage`: the first training of each nest, over
    chains that have both. Raises UserError with fewer than two of them, where both have other problems, and as `cells`
    does.
    """
    nests = [one for one in (stage, before) if one is not None]
    names = [name for nest in nests for training in nest.arms for name in training]
    whole = by_seed(rows, names)
    if len(whole) < 2:
        raise UserError(f"{len(whole)} seeds with all of {' and '.join(nest.name for nest in nests)}: a step needs two")
    if len({found[name]["notes"]["problems"] for found in whole.values() for name in names}) > 1:
        raise UserError(f"{' and '.join(nest.name for nest in nests)} were measured on other problems")
    rights = []
    for nest in nests:
        _, counts, samples = cells([row for row in rows if row["seed"] in whole], nest)
        rights.append(counts[:, 0].sum(1))  # (chains, problems)
    answers = counts.shape[2] * samples
    right = np.stack(rights, 1)  # (chains, ends, problems)
    (sampling, by_problem), drawn = jackknife(lambda some: _by_problem(some, answers), right)
    means = _difference(right, answers).mean(1)
    return Step(stage.name, before and before.name, len(means), float(means.mean()), float(means.var(ddof=1)),
                float(sampling), float(by_problem), drawn, right.shape[-1])


def _difference(right: np.ndarray, answers: int) -> np.ndarray:
    """Shares of right answers (chains, problems): of the stage, minus of the one before if there is one."""
    shares = right / answers
    return shares[:, 0] - shares[:, 1] if shares.shape[1] > 1 else shares[:, 0]


def _by_problem(right: np.ndarray, answers: int) -> tuple[float, float]:
    """Of a difference, for one problem: what sampling adds, and what else is other for each problem; unbiased."""
    sampling = float((right * (answers - right)).mean((0, 2)).sum()) / (answers * (answers - 1)) / answers
    step = _difference(right, answers)
    crossed = interaction(step - step.mean(0)) * len(step) / (len(step) - 1)
    return sampling, crossed - sampling


def all_steps(rows: Sequence[dict], nests: Sequence[Nest]) -> dict[str, Step]:
    """Each stage's step, by its name: `nests` from the last stage to the first, which starts from what all chains
    share. And "whole": the last stage by itself, so from the shared base on.
    """
    found = {stage.name: measured(rows, stage, before)
             for stage, before in zip(nests, [*nests[1:], None], strict=True)}
    return {**found, "whole": measured(rows, nests[0])}


def table(steps: Sequence[Step]) -> list[list[str]]:
    """Header and a line for each step, in points; a stage by itself has its score."""
    lines = [["step", "chains", "points", "sd over chains", "of it evaluation", "sd without it", "on 30 problems"]]
    for one in steps:
        mean = f"{100 * one.mean:+.1f}" if one.before else percent(one.mean)
        evaluation = (one.sampling / one.problems) ** 0.5
        lines.append([one.words, f"{one.chains}", mean, f"{100 * one.square**0.5:.2f}", f"{100 * evaluation:.2f}",
                      *(sd_words(*(end**0.5 for end in one.variance(count))) for count in (one.problems, 30))])
    return lines
