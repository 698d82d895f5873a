"""What a mark of completion says of the files that it marks: size and content of each. A file that was cut short or
written over later is noticed before anything builds on it.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

LARGE = 64 << 20  # bytes; of a trainer's larger files only the beginning and the end are read


def fingerprints(folder: Path, paths: Iterable[Path], whole: bool = True) -> dict[str, list]:
    """[size, hash] of every file of `paths`, and of every file in a folder of them, by its path inside `folder`.

    whole: read large files from beginning to end, as `first_damage` then does, too.
    """
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return {
        file.relative_to(folder).as_posix(): [file.stat().st_size, _digest(file, whole)]
        for file in files if file.is_file()
    }


def first_damage(folder: Path, saved: dict[str, list], whole: bool = True) -> str | None:
    """What is wrong with the first file that no longer has its saved fingerprint; None where all have theirs."""
    for name, (size, _) in saved.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size:,} of {size:,} bytes"
    for name, (_, digest) in saved.items():
        if _digest(folder / name, whole) != digest:
            return f"{name} holds something else than was written"
    return None


def _digest(path: Path, whole: bool) -> str:
    with path.open("rb") as file:
        if whole or path.stat().st_size <= LARGE:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        return hashlib.sha256(_ends(file)).hexdigest()[:16]


def _ends(file: BinaryIO) -> bytes:
    begin = file.read(LARGE // 2)
    file.seek(-LARGE // 2, 2)
    return begin + file.read()
