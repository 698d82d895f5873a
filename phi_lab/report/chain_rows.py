"""Chains of the ladder as rows of chains.jsonl: one row for each rung or control of each seed.

`phi-lab experiment ladder` writes them. A row has seed, name ("sft", "sft-control"), the commit, code and settings it
was made with, fingerprints of its model, of the model it started from and of the teacher, and `measurements`: its rows
of ladder.json.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from phi_lab.config.schema import STAGES
from phi_lab.core.files import read_rows
from phi_lab.core.paths import DATA
from phi_lab.report.ladder_rows import RIVALS, SHIPPED_START, shipped_starts

PUBLISHED = DATA / "chains.jsonl"
COLUMNS = ("seed", "name", "measurements", "model", "start", "teacher", "commit", "dirty", "code", "config")


@dataclass
class Chain:
    """One seed from distillation to GRPO, with its controls."""

    seed: int
    measured: dict[tuple[str, str, str], dict] = field(default_factory=dict)  # by name, benchmark and protocol

    def names(self) -> list[str]:
        """Its rungs and controls, in the order of the rows."""
        return list(dict.fromkeys(name for name, _, _ in self.measured))

    def accuracy(
        self, name: str, benchmark: str = "hard", protocol: str = "sampled", part: str | None = None
    ) -> float | None:
        """A share between 0 and 1: accuracy, or pass@k for the protocol "pass", on a whole benchmark or on a `part` of
        it such as "level 5". None where it was not measured.
        """
        row = self.measured.get((name, benchmark, protocol))
        if row is None or part and part not in row["parts"]:
            return None
        if part:
            correct, n = row["parts"][part]
            return correct / n
        return row["pass_at_k"] if protocol == "pass" else row["accuracy"]


def published() -> list[dict]:
    """The rows of the published chains; none where none are published. Raises UserError for a damaged file."""
    return read_rows(PUBLISHED, COLUMNS) if PUBLISHED.exists() else []


def read_chain_rows(path: Path) -> list[dict]:
    """The rows of a file of chains. Raises UserError for a missing or damaged one."""
    return read_rows(path, COLUMNS)


def chains(rows: Iterable[dict]) -> list[Chain]:
    """The chains of these rows, by seed."""
    found: dict[int, Chain] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        chain = found.setdefault(row["seed"], Chain(row["seed"]))
        for measurement in row["measurements"]:
            chain.measured[row["name"], measurement["benchmark"], measurement["protocol"]] = measurement
    return list(found.values())


def all_names(chains: Sequence[Chain]) -> list[str]:
    """The rungs and controls of any of the chains, each once, in their order."""
    return list(dict.fromkeys(name for chain in chains for name in chain.names()))


def compared(names: Sequence[str]) -> list[tuple[str, str]]:
    """Which of `names` are compared with which: each stage with the one before, or with the shipped checkpoint that it
    started from, then with its rivals; then the other arms with theirs.
    """
    starts = shipped_starts(names)
    found = []
    for before, stage in pairwise(STAGES):
        start = f"{before}-{SHIPPED_START}" if stage in starts else before
        found += [(stage, start), *((stage, rival) for rival in RIVALS[stage])]
    found += [(arm, rival) for arm, rivals in RIVALS.items() if arm not in STAGES for rival in rivals]
    return [pair for pair in found if set(pair) <= set(names)]


def paired_accuracies(
    chains: Iterable[Chain], name: str, against: str, protocol: str = "sampled"
) -> list[tuple[float, float]]:
    """The accuracies of two arms on `hard`, of each chain that has both."""
    both = [(chain.accuracy(name, "hard", protocol), chain.accuracy(against, "hard", protocol)) for chain in chains]
    return [(a, b) for a, b in both if a is not None and b is not None]
