"""What a rule returns, and how rules read a log: columns by either of their names, and averages over parts of a run."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

MIN_ROWS = 6  # logged steps that a trend takes: a third of them is two


@dataclass(frozen=True)
class Finding:
    """What a rule has found: what it has seen, in numbers; what that means; the likeliest cause; what to try."""

    rule: str
    seen: str
    meaning: str
    cause: str
    remedy: str


def is_number(value: object) -> bool:
    """Whether a value of a log is a number, NaN and infinity included; a whole number beyond floating point is none."""
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)


def series(rows: Sequence[dict], *names: str) -> list[float]:
    """The finite values of the first column in `names` that the rows have, row by row; [] if they have none.

    The first name is this project's, the others TRL's.
    """
    for name in names:
        if values := [row[name] for row in rows if is_number(row.get(name)) and math.isfinite(row[name])]:
            return values
    return []


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def first_third(values: Sequence[float]) -> float:
    """The mean over the first third of a run."""
    return mean(values[: max(1, len(values) // 3)])


def last_third(values: Sequence[float]) -> float:
    """The mean over the last third of a run."""
    return mean(values[-max(1, len(values) // 3) :])


def at_last_temperature(rows: Sequence[dict]) -> list[dict]:
    """The last rows with one sampling temperature: entropy is measured at it, and falls with it. All rows where no
    temperature is logged.
    """
    last = next((row["temperature"] for row in reversed(rows) if "temperature" in row), None)
    tail = takewhile(lambda row: row.get("temperature", last) == last, reversed(rows))
    return list(tail)[::-1]
