"""Numbers, tables and error texts as people read them, in one form everywhere."""

from collections.abc import Sequence


def percent(share: float) -> str:
    """A share between 0 and 1 as a percentage: 0.618 -> "61.8 %"."""
    return f"{100 * share:.1f} %"


def percent_interval(share: float, low: float, high: float) -> str:
    """A share between 0 and 1 with its interval: "61.8 % [59.1, 64.3]"."""
    return f"{percent(share)} [{100 * low:.1f}, {100 * high:.1f}]"


def markdown_table(rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a Markdown table; the first row is its header."""
    head, *lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return [head, "|---" * len(rows[0]) + "|", *lines]


def one_line(text: object, limit: int = 200) -> str:
    """A library's error, or any other text, on one line of at most `limit` characters."""
    return printable(" ".join(str(text).split()))[:limit]


def printable(text: str, keep: str = "") -> str:
    """A text for a terminal: what could move its cursor or reverse its writing is shown as its escape, `\\x1b`, but for
    the characters of `keep`.
    """
    return "".join(char if char.isprintable() or char in keep else repr(char)[1:-1] for char in text)
