"""The funnel: passes rollouts through the filters, a question at a time, and counts what each filter removes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import get_args

from phi_lab.core.records import Rollout, VerdictName
from phi_lab.distill import filters
from phi_lab.distill.decontamination import BenchmarkIndex
from phi_lab.distill.filters import Filter, Rules


@dataclass
class Funnel:
    """Applies the filters to all rollouts of one question at a time, and counts what each removes."""

    rules: Rules = field(default_factory=Rules)
    benchmarks: BenchmarkIndex | None = None
    questions: int = 0
    rollouts: int = 0
    rescued: int = 0  # rejected by the rules, accepted by the judge
    removed: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.state = filters.FunnelState(self.rules, self.benchmarks)

    def filter(self, rollouts: Iterable[Rollout]) -> Iterator[tuple[list[Rollout], list[Rollout]]]:
        """Yield (accepted rollouts that pass all filters, distinct wrong ones) of each question, in order. A question's
        rollouts have to be consecutive. Memory grows with questions of natural text, not with rollouts.
        """
        for _, group in groupby(rollouts, key=lambda row: row["id"]):
            yield self._filter_question(list(group))

    def _filter_question(self, rollouts: list[Rollout]) -> tuple[list[Rollout], list[Rollout]]:
        self.questions, self.rollouts = self.questions + 1, self.rollouts + len(rollouts)
        self.verdicts.update(row["verdict"] for row in rollouts)
        self.rescued += sum(filters.accepted(row) and row["verdict"] != "right" for row in rollouts)
        rollouts = self._apply(filters.QUESTION_FILTERS, rollouts)
        if not rollouts:
            return [], []
        pass_rate = sum(map(filters.accepted, rollouts)) / len(rollouts)
        rated: list[Rollout] = [
            {**row, "pass_rate": pass_rate, "repeats": filters.repeats(row["completion"])} for row in rollouts
        ]
        wrong = filters.distinct([row for row in rated if row["verdict"] == "wrong" and not filters.accepted(row)])
        right = self._apply(filters.ROLLOUT_FILTERS, rated)
        self.state.kept_per_domain[rated[0]["domain"]] += len(right)
        return right, wrong

    def _apply(self, steps: Sequence[Filter], rollouts: list[Rollout]) -> list[Rollout]:
        for filter_ in steps:
            kept = filter_.keep(rollouts, self.state) if rollouts else []
            self.removed[filter_.name] += len(rollouts) - len(kept)
            rollouts = kept
        return rollouts

    def report(self) -> dict:
        """The content of funnel.json: for each filter how many rollouts it kept and removed, and why."""
        steps, left = [], self.rollouts
        for step in (*filters.QUESTION_FILTERS, *filters.ROLLOUT_FILTERS):
            left -= self.removed[step.name]
            steps.append({"name": step.name, "kept": left, "removed": self.removed[step.name], "why": step.why})
        return {
            "questions": self.questions, "rollouts": self.rollouts, "steps": steps,
            "verdicts": {verdict: self.verdicts[verdict] for verdict in get_args(VerdictName)},
            "rescued": self.rescued, "domains": dict(self.state.kept_per_domain),
            "contaminated": self.state.contaminated,
        }
