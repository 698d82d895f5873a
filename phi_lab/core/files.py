"""JSON Lines in and out, with errors that name the file and the field. A `.gz` ending means compressed."""

import gzip
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi_lab.core.errors import UserError

REMADE = "restore it, or delete it to have it made again"
KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}
LARGEST = 1e18  # number in a file: what is larger is damage, and overflows what computes with it
BOM = b"\xef\xbb\xbf"  # which some editors put before UTF-8


def read_rows(
    path: Path, columns: Iterable[str] = (), empty: bool = True, fix: str = "restore the file, or make it again"
) -> list[dict]:
    """All rows of a JSON Lines file. Raises UserError, with a `fix`, if it is missing, broken, lacks one of `columns`,
    or, where it must not be `empty`, has no row.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is {'a folder, and a file is expected' if path.is_dir() else 'missing'}")
    rows: list[dict] = []
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for line in lines:
                rows.append(_row(line if rows else line.removeprefix(BOM), columns))
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{path} is cut short or no gzip file; {fix}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}, line {len(rows) + 1}: not UTF-8; {fix}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}, line {len(rows) + 1}: not JSON; every line has to be one object; {fix}") from None
    except KeyError as error:
        raise UserError(f"{path}, line {len(rows) + 1}: column {error.args[0]}") from None
    if not rows and not empty:
        raise UserError(f"{path} is empty; {fix}")
    return rows


def _row(line: bytes, columns: Iterable[str]) -> dict:
    """Raises ValueError for a line that is no JSON object, KeyError for one without a column."""
    row = json.loads(line)  # which may not be UTF-8
    if not isinstance(row, dict):
        raise ValueError
    missing = [column for column in columns if column not in row]
    if missing:
        raise KeyError(f"{missing[0]!r} is missing; it has {', '.join(row)}")
    return row


def require_kinds(path: Path, rows: Iterable[Mapping], kinds: Mapping[str, type], fix: str, of: str = "line") -> None:
    """Raises UserError, naming the first row and field, where a value that a row of a file has is not of the type that
    `kinds` gives for it, one of `KINDS`. of: what the file's rows are called.
    """
    for number, row in enumerate(rows, 1):
        require_kind(f"{path}, {of} {number}", row, kinds, fix)


def require_kind(where: object, row: Mapping, kinds: Mapping[str, type], fix: str) -> None:
    """`require_kinds` of one row, which the message calls `where`."""
    for name, kind in kinds.items():
        if name in row and not _is_a(row[name], kind):
            raise UserError(f"{where}: {name!r} must be {KINDS[kind]}; {fix}")


def _is_a(value: object, kind: type) -> bool:
    """Whether a value of JSON is of a kind. A whole number is a number, too; NaN, infinity and `true` are none."""
    if kind is int or kind is float:
        numbers = int if kind is int else int | float
        return isinstance(value, numbers) and not isinstance(value, bool) and abs(value) <= LARGEST
    return isinstance(value, kind)


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


def read_json(path: Path, keys: Iterable[str] = (), fix: str = REMADE) -> Any:
    """One JSON document. Raises UserError, ending with `fix`, if it is missing, broken or lacks one of `keys`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (ValueError, RecursionError):  # no JSON, no UTF-8, too deep
        raise UserError(f"{path} is not JSON; {fix}") from None
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path}: {missing[0]!r} is missing; {fix}")
    return content


def read_table(path: Path, columns: Iterable[str] = (), fix: str = REMADE) -> list[dict]:
    """The rows of a JSON document that is a list of objects. Raises UserError as `read_json` does."""
    rows = read_json(path, fix=fix)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} has an unexpected form: no list of rows; {fix}")
    for number, row in enumerate(rows, 1):
        if missing := [column for column in columns if column not in row]:
            raise UserError(f"{path}, row {number}: {missing[0]!r} is missing; {fix}")
    return rows


def write_json(path: Path, content: dict | list) -> None:
    """Write one JSON document whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def ensure_same_manifest(
    path: Path, content: dict, redo: str, read: Callable[[Path], dict] = read_json, of: Sequence[str] = ()
) -> None:
    """Write a folder's manifest (what it was made from), or check that the one there, read by `read`, holds the same
    values. of: patterns of the files beside it that it speaks of; where there is none, it binds nothing, so a command
    that failed before it made one can be corrected.

    Raises UserError, naming the first value that differs, and `redo`: what to do about it.
    """
    if not path.exists() or of and not any(any(path.parent.glob(pattern)) for pattern in of):
        write_json(path, content)
        return
    saved = read(path)
    if not isinstance(saved, dict):
        raise UserError(f"{path} has an unexpected form; {REMADE}")
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
    """Write a temporary file, then rename it: a kill or a full disk leaves the old file as it was. A link stays
    one: the file that it leads to is written.

    If two processes write the same file, the last one wins. Raises UserError for a device, a pipe or a folder.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} cannot be written, as it is no file: remove it, or name another one")
    path = Path(os.path.realpath(path))
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
        replace_file(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def replace_file(beside: Path, target: Path) -> None:
    """Put a finished file in the place of `target`."""
    _sync(beside)
    os.replace(beside, target)


def _sync(path: Path) -> None:
    """Have a file's content on the disk before its new name: a power cut would leave the name with nothing in it."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def replace_folder(beside: Path, target: Path) -> None:
    """Put a finished folder in the place of `target`, which is removed if it exists."""
    for file in beside.rglob("*"):
        if file.is_file():
            _sync(file)
    remove_folder(target)
    os.replace(beside, target)


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it is there. It loses its name first: a kill never leaves half of it under that name."""
    nameless = folder.with_name(f".removed-{folder.name}")
    shutil.rmtree(nameless, ignore_errors=True)  # of a removal that was killed
    if folder.is_dir():
        os.replace(folder, nameless)
        shutil.rmtree(nameless, ignore_errors=True)


def require_model(folder: Path | str) -> None:
    """Raises UserError where `folder` has no config.json or no weights; nothing is loaded."""
    for name in ("config.json", "*.safetensors"):
        if not list(Path(folder).glob(name)):
            raise UserError(f"no model in {folder}: {name} is missing; name a folder with a saved checkpoint")
