"""What was asked of the ladder before its chains ran, beside what the published chains give."""

import statistics
from collections.abc import Sequence

from phi_lab.config.schema import STAGES
from phi_lab.core import stats
from phi_lab.report.chain_rows import Chain, chains

END = STAGES[-1]
MEANS = (  # arm, benchmark, lowest and highest mean over chains, percent
    ("base", "easy", 60, 80), ("base", "hard", 0, 15), ("mid", "hard", 40, 65), (END, "easy", 95, 100),
    (END, "hard", 75, 100),
)
LOSS, SPREAD, REACH = 3, 2, 5  # points: `transfer` may fall, the ends' standard deviation, an end from their mean


def table(rows: Sequence[dict]) -> list[list[str]]:
    """Header and a line for each target: what was asked, what the chains give, and whether that is reached. Whether the
    rungs are earned stands in the table of comparisons.
    """
    made = chains(rows)
    lines = [["asked", "found", "reached"]]
    for name, benchmark, low, high in MEANS:
        mean = statistics.mean(values(made, name, benchmark))
        asked = f"{low} to {high} %" if low and high < 100 else f"at least {low} %" if low else f"at most {high} %"
        lines.append([f"`{name}`, {benchmark}: {asked}", f"{mean:.1f} %", _yes(low <= mean <= high)])
    change = stats.paired_t(values(made, END, "transfer"), values(made, "base", "transfer"))
    lines.append([f"transfer at the end: at most {LOSS} points below the base",
                  f"{change.mean:+.1f} [{change.low:+.1f}, {change.high:+.1f}]", _yes(change.mean >= -LOSS)])
    ends = values(made, END, "hard")
    spread, far = statistics.stdev(ends), max(abs(end - statistics.mean(ends)) for end in ends)
    lines.append([f"hard at the end: a standard deviation of at most {SPREAD} points", f"{spread:.1f}",
                  _yes(spread <= SPREAD)])
    lines.append([f"none further than {REACH} points from the mean", f"{far:.1f}", _yes(far <= REACH)])
    return lines


def values(made: Sequence[Chain], name: str, benchmark: str) -> list[float]:
    """The accuracy of an arm in each chain that measured it, in percent."""
    found = [chain.accuracy(name, benchmark) for chain in made]
    return [100 * one for one in found if one is not None]


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"
