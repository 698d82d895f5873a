"""What an experiment found: each of its contrasts, which stood in its docstring before the first run, over seeds.

A contrast is a claim that one arm lies above (or below) another. Both have a row for each seed, so the test is a paired
t-test of the primary measure (accuracy at T = 0.6), with a 95 % interval, and Holm's method corrects for all contrasts
of the experiment together. What a contrast would have shown with 80 % power stands beside it: without that, "no
difference shown" says nothing. Greedy accuracy and pass@8 stand beside it too and are not tested.

A row is one arm of one seed: seed, name (the arm), unit (what a seed is), measurements (rows as in ladder.json) and
where it comes from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.core.formatting import markdown_table
from phi_lab.core.stats import ALPHA, POWER
from phi_lab.report.ladder_rows import protocol

T = 0.6  # of the primary measure
FLOOR = 0.05  # arms that are both below it, in the mean over seeds, cannot be told apart
PROTOCOLS = {"sampled": "T 0.6", "greedy": "greedy", "pass": "pass@8"}
COLUMNS = ("experiment", "seed", "name", "unit", "chain", "compute", "measurements", "model", "start", "commit",
           "dirty", "code", "config", "settings", "device", "time")


@dataclass(frozen=True)
class Contrast:
    """A claim: the arm `name` lies above `against` on `benchmark`; with sign -1 below it. question: what it decides."""

    name: str
    against: str
    question: str
    benchmark: str = "hard"
    sign: int = 1

    @property
    def direction(self) -> str:
        """"above" or "below"."""
        return "above" if self.sign > 0 else "below"

    @property
    def words(self) -> str:
        """The claim: "a above b on hard"."""
        return f"{self.name} {self.direction} {self.against} on {self.benchmark}"


class Tested(NamedTuple):
    """A contrast over seeds. Differences are shares, -1 to 1, of `contrast.name` minus `contrast.against`."""

    contrast: Contrast
    seeds: int
    effect: stats.PairedT
    p_holm: float
    detectable: float  # the smallest true difference that has p < ALPHA / (all contrasts) with a chance of POWER
    beside: dict[str, stats.PairedT]  # by protocol, those that both arms were measured by
    at_floor: bool  # whether both arms are below FLOOR

    @property
    def verdict(self) -> str:
        """"supported": a difference in the claimed direction, corrected p < 0.05; "not supported": one in the other
        direction; else, and for arms at the floor, "no difference shown".
        """
        if self.p_holm >= ALPHA or self.at_floor:
            return "no difference shown"
        return "supported" if self.effect.mean * self.contrast.sign > 0 else "not supported"

    @property
    def verdict_words(self) -> str:
        """The verdict, and that both arms are at the floor, if they are."""
        return f"{self.verdict} (both below {100 * FLOOR:.0f} %)" if self.at_floor else self.verdict

    @property
    def detectable_words(self) -> str:
        """The smallest true difference that would have been seen, in points; none at the floor."""
        return "–" if self.at_floor else f"{100 * self.detectable:.1f}"


class Primary(NamedTuple):
    """The answer to an experiment's first claim; effect, its 95 % interval and the smallest one that would have been
    seen with 80 % power are shares. greedy: the effect of greedy answers, which no claim is about; None where a claim
    is no difference of arms.
    """

    verdict: str
    p_holm: float
    effect: float
    low: float
    high: float
    detectable: float
    greedy: stats.PairedT | None = None


def read(path: Path) -> list[dict]:
    """The rows of an experiment. Raises UserError for a missing or damaged file."""
    return read_rows(path, COLUMNS)


def accuracy(row: Mapping, benchmark: str = "hard", how: str = "sampled") -> float | None:
    """The accuracy of a row, 0 to 1, or pass@k for the protocol "pass"; None where it was not measured."""
    one = measurement(row, benchmark, how)
    return None if one is None else one["pass_at_k"] if how == "pass" else one["accuracy"]


def measurement(row: Mapping, benchmark: str, how: str) -> dict | None:
    """The measurement of a row by a protocol; None where there is none."""
    return next((one for one in row["measurements"] if (one["benchmark"], protocol(one)) == (benchmark, how)), None)


def heat(row: Mapping, benchmark: str, how: str) -> float | None:
    """The temperature at which a row was measured by a protocol; None where it was not."""
    one = measurement(row, benchmark, how)
    return None if one is None else one["temperature"]


def by_seed(rows: Sequence[dict], names: Sequence[str]) -> dict[int, dict[str, dict]]:
    """The rows of each seed that has all of `names`, by arm; seeds in ascending order."""
    found: dict[int, dict[str, dict]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        found.setdefault(row["seed"], {})[row["name"]] = row
    return {seed: arms for seed, arms in found.items() if set(names) <= set(arms)}


def compare(rows: Sequence[dict], contrasts: Sequence[Contrast]) -> list[Tested]:
    """Every contrast over the seeds that hold all of the arms compared, in the order given.

    Raises UserError with fewer than two such seeds.
    """
    seeds = list(by_seed(rows, [name for one in contrasts for name in (one.name, one.against)]).values())
    if len(seeds) < 2:
        raise UserError(f"{len(seeds)} seeds with all arms: two are needed to compare them")

    def sides(one: Contrast, how: str) -> tuple[list[float], list[float]] | None:
        if how == "pass" and any(len({heat(arms[name], one.benchmark, how) for name in (one.name, one.against)}) > 1
                                 for arms in seeds):
            return None  # of other temperatures: pass@k rises with it
        pairs = [(accuracy(arms[one.name], one.benchmark, how), accuracy(arms[one.against], one.benchmark, how))
                 for arms in seeds]
        both = [(a, b) for a, b in pairs if a is not None and b is not None]
        return ([a for a, _ in both], [b for _, b in both]) if len(both) == len(pairs) else None

    primary = [sides(one, "sampled") for one in contrasts]
    for one, both in zip(contrasts, primary, strict=True):
        if both is None:
            raise UserError(f"{one.name} and {one.against}: not measured on {one.benchmark} at T = 0.6 on every seed")
    effects = [stats.paired_t(*both) for both in primary if both]
    found = []
    for one, both, effect, p_holm in zip(
            contrasts, primary, effects, stats.holm([each.p for each in effects]), strict=True):
        sd = float(np.subtract(*both).std(ddof=1))
        beside = {how: stats.paired_t(*other) for how in PROTOCOLS if (other := sides(one, how))}
        detectable = stats.detectable_effect(sd, len(seeds), POWER, ALPHA / len(contrasts))
        at_floor = max(np.mean(side) for side in both) < FLOOR
        found.append(Tested(one, len(seeds), effect, p_holm, detectable, beside, bool(at_floor)))
    return found


def primary(rows: Sequence[dict], contrasts: Sequence[Contrast]) -> Primary:
    """What `phi-lab experiment --list` says: the first contrast. Raises UserError as `compare` does."""
    one = compare(rows, contrasts)[0]
    return Primary(one.verdict, one.p_holm, one.effect.mean, one.effect.low, one.effect.high, one.detectable,
                   one.beside.get("greedy"))


def points(effect: stats.PairedT) -> str:
    """A difference of shares in points with its interval: "+1.2 [-0.3, +2.7]"."""
    return f"{100 * effect.mean:+.1f} [{100 * effect.low:+.1f}, {100 * effect.high:+.1f}]"


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of the seeds' values and the half width of its 95 % t interval; 0 for one value."""
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return float(sample.mean()), 0.0
    return float(sample.mean()), float(stats.t_quantile(len(sample) - 1) * sample.std(ddof=1) / len(sample) ** 0.5)


def summary(rows: Sequence[dict], arms: Mapping[str, str], contrasts: Sequence[Contrast]) -> str:
    """The tables of an experiment in Markdown: its arms, means over seeds in percent, and its contrasts in points."""
    seeds = by_seed(rows, list(arms))
    units = ", ".join(sorted({row["unit"] for row in rows}))
    columns = [("hard", how) for how in PROTOCOLS] + [("easy", "sampled")]
    lines = [["arm", "is", "compute, training tokens", *(f"{name}, {PROTOCOLS[how]}" for name, how in columns)]]
    for name, words in arms.items():
        of_arm = [found[name] for found in seeds.values()]
        cells = []
        for benchmark, how in columns:
            values = [accuracy(row, benchmark, how) for row in of_arm]
            there = [value for value in values if value is not None]
            at = {heat(row, benchmark, how) for row in of_arm} - {None, 0.0, T}
            cells.append(f"{100 * sum(there) / len(there):.1f}{f' (T {at.pop()})' if at else ''}" if there else "–")
        tokens = f"{sum(row['compute'] for row in of_arm) / max(1, len(of_arm)):,.0f}"
        lines.append([f"`{name}`", words, tokens, *cells])
    tested = compare(rows, contrasts)
    table = [["claim", "on", "points, T 0.6", "p, Holm", "verdict", "detectable (80 % power)", "greedy", "pass@8"]]
    for one in tested:
        beside = [points(one.beside[how]) if how in one.beside else "–" for how in ("greedy", "pass")]
        claim = one.contrast
        table.append([f"`{claim.name}` {claim.direction} `{claim.against}`: {claim.question}",
                      claim.benchmark, points(one.effect), f"{one.p_holm:.2g}", one.verdict_words,
                      one.detectable_words, *beside])
    head = f"{len(seeds)} seeds ({units})."
    if left_out := sorted({row["seed"] for row in rows} - set(seeds)):
        head += f" Without all arms, and left out: {', '.join(map(str, left_out))}."
    head += (" Compute is the arm's own; a token that is only read or sampled counts as a third of one trained on."
             " Supported: a difference in the claimed direction; not supported: one in the other. Intervals are 95 % "
             "of one difference alone; p and verdict hold for all claims together (Holm), so an interval may leave 0 "
             "out where no difference is shown.")
    return "\n\n".join([head, "\n".join(markdown_table(lines)), "\n".join(markdown_table(table))])
