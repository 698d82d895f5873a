"""JSON Lines in and out, with errors that name the file and the field. A `.gz` ending means compressed."""

import gzip
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from phi_lab.core.errors import UserError


def read_rows(path: Path, columns: Iterable[str] = ()) -> list[dict]:
    """All rows of a JSON Lines file. Raises UserError if it is missing, broken, or lacks one of `columns`."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing")
    rows = []
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: not JSON; every line has to be one object")
            missing = [column for column in columns if column not in row]
            if missing:
                raise UserError(f"{path}, line {number}: column {missing[0]!r} is missing; it has {', '.join(row)}")
            rows.append(row)
    return rows


def write_rows(path: Path, rows: Iterable[Mapping]) -> None:
    """Write a JSON Lines file whole or not at all. Compressed files carry no time, so equal rows give equal bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    content = text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes its own JSON escape
    atomic_write(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def append_rows(path: Path, rows: Iterable[Mapping]) -> None:
    """Add rows to a JSON Lines file."""
    append_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_text(path: Path, text: str) -> None:
    """Add text to the end of a file, whole or not at all: on a full disk the half that fitted is taken away again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = memoryview(text.encode("utf-8", "backslashreplace"))
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            while content:
                content = content[file.write(content) :]
        except OSError as error:
            file.truncate(size)
            error.filename = str(path)
            raise


def read_json(path: Path) -> Any:
    """One JSON document. Raises UserError if it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except json.JSONDecodeError:
        raise UserError(f"{path} is not JSON") from None


def write_json(path: Path, content: dict | list) -> None:
    """Write one JSON document whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def ensure_same_manifest(path: Path, content: dict, redo: str, read: Callable[[Path], dict] = read_json) -> None:
    """Write a folder's manifest (what it was made from), or check that the one there, read by `read`, holds the same
    values.

    Raises UserError, naming the first value that differs, and `redo`: what to do about it.
    """
    if not path.exists():
        write_json(path, content)
        return
    saved = read(path)
    for name, value in json.loads(json.dumps(content)).items():
        if saved.get(name) != value:
            raise UserError(f"{path}: {name} differs from this command's; {redo}")


def drop_torn_line(path: Path) -> None:
    """Remove a last line without its newline, which a kill cut short, from a file that rows are appended to."""
    content = path.read_bytes() if path.is_file() else b""
    if torn := content.rpartition(b"\n")[2]:
        os.truncate(path, len(content) - len(torn))


def read_journal(path: Path) -> list[str]:
    """The lines of a file that rows are appended to; [] if it is missing.

    A last line without its newline, which a kill cut short, is removed from the file. Raises UserError for a line that
    is not UTF-8.
    """
    drop_torn_line(path)
    content = path.read_bytes() if path.is_file() else b""
    *lines, _ = content.split(b"\n")
    try:
        return [line.decode("utf-8") for line in lines]
    except UnicodeDecodeError as error:
        number = 1 + next(i for i, line in enumerate(lines) if error.object == line)
        raise UserError(f"{path}, line {number}: not UTF-8; delete that line") from None


def atomic_write(path: Path, content: bytes) -> None:
    """Write a temporary file, then rename it: a kill or a full disk leaves the old file as it was.

    If two processes write the same file, the last one wins.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    beside.write_bytes(content)
    os.replace(beside, path)
