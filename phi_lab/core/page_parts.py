"""Pages that are written by hand but for a part between two lines, which follows from data."""

from pathlib import Path

from phi_lab.core.errors import UserError


def fill(page: Path, marks: tuple[str, str], text: str) -> str:
    """The page with `text` between `marks`, nothing else changed and nothing written. Raises UserError where they are
    missing.
    """
    before, start, rest = page.read_text(encoding="utf-8").partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not (start and end):
        raise UserError(f"{page}: the lines {marks[0].strip()} and {marks[1].strip()} are missing")
    return before + start + text + end + after
