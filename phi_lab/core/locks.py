"""One process at a time in a folder that is written to: a run, a stage, a distilled set, a measurement.

The lock is the operating system's, on the file `.lock` in the folder, so that of a dead process is no lock. The file
names its holder. Processes that the holder has started may enter too, and so may the one that holds it, again.
"""

import errno
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import psutil

from phi_lab.core.errors import UserError
from phi_lab.core.formatting import one_line
from phi_lab.core.run_folder import RunFolder

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = ".lock"
PATIENCE = 1.5  # seconds: the children of a killed process may take a moment to end
_ours: set[Path] = set()
P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def locked(folder: Path, part: tuple[int, int] = (0, 1)) -> Iterator[None]:
    """Hold `folder`, which is made if it is missing, for this process; or with `part` (r, n) one of n parts of it,
    which as many processes may hold together. Parts of files that a killed process has left in it are removed.

    Raises UserError, with the holder's name and since when, where another process holds it.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file: choose another folder")
    try:
        new = not folder.exists()
        path = folder.resolve(strict=not new) / NAME
    except (OSError, RuntimeError) as error:  # of a link that leads to itself
        raise UserError(f"{folder}: no place for a folder ({one_line(error, 80)}): choose another one") from None
    if path in _ours:
        yield
        return
    names = [path] if part[1] == 1 else [path, path.with_name(f"{NAME}-{part[0]}-of-{part[1]}")]
    files: list[tuple[Path, int]] = []
    try:
        for name in names:
            file = _take(folder, name, shared=part[1] > 1 and name == path)
            if file is not None:
                files.append((name, file))
        if part[1] == 1:
            _ours.add(path)
            remove_leftovers(folder)
        yield
    finally:
        _ours.discard(path)
        for name, file in reversed(files):
            _release(name, file)
        if new:
            with suppress(OSError):  # unless it is empty: refused before anything was written
                folder.rmdir()


def one_process(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, in whose run (the argument that is a `RunFolder`) no other process works meanwhile."""

    @wraps(function)
    def alone(*arguments: P.args, **rest: P.kwargs) -> R:
        run = next(value for value in (*arguments, *rest.values()) if isinstance(value, RunFolder))
        with locked(run.path):
            return function(*arguments, **rest)

    return alone


def in_use(folder: Path) -> bool:
    """Whether a process works in `folder` now, as far as the lock's file tells: of a holder on another computer it says
    no more than that there was one. Takes no lock, so that it never stands in anybody's way.
    """
    path = folder / NAME
    holder = _holder(path)
    if holder.get("host") == socket.gethostname():
        return psutil.pid_exists(holder.get("pid", -1))
    return path.exists()


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes have left in `folder` and in the folders in it: parts of files, as `atomic_write`
    names them, and folders that have lost their names.
    """
    for path in [*folder.glob("*.part"), *folder.glob("*/*.part")]:
        pid = path.stem.rpartition(".")[2]
        if pid.isdecimal() and path.is_file() and not psutil.pid_exists(int(pid)):
            path.unlink(missing_ok=True)
    for path in [*folder.glob(".removed-*"), *folder.glob("*/.removed-*")]:
        shutil.rmtree(path, ignore_errors=True)


def belongs_to_a_process(name: str) -> bool:
    """Whether a file in a folder is a lock, or what a killed process has left: neither makes a folder somebody's."""
    return name.startswith((NAME, ".removed-")) or name.endswith(".part")


def _take(folder: Path, path: Path, shared: bool) -> int | None:
    """The open and locked file; None where one of this process's ancestors holds it, and in a folder for reading."""
    if shared and sys.platform == "win32":  # whose locks are never shared
        return None
    patience = time.monotonic() + PATIENCE
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)  # the last holder may have removed it, empty
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):  # where this process cannot write anyway
                return None
            raise
        if _locks(file, shared, path):
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):  # else its holder has just removed it
                if not shared:
                    _write_holder(file)
                return file
        else:
            holder = _holder(path)
            if holder.get("host") == socket.gethostname() and holder.get("pid") in _ancestors():
                os.close(file)
                return None
            if time.monotonic() > patience:
                os.close(file)
                raise UserError(f"{folder} is in use by {_sentence(holder)}: wait for its end, or choose another one")
            time.sleep(0.1)
        os.close(file)


def _locks(file: int, shared: bool, path: Path) -> bool:
    """Lock the open file; False where another process has it."""
    try:
        if sys.platform == "win32":
            os.lseek(file, 1 << 20, os.SEEK_SET)  # behind the holder's name, which others read
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        holder = _holder(path)
        return not (holder.get("host") == socket.gethostname() and psutil.pid_exists(holder.get("pid", -1)))


def _release(path: Path, file: int) -> None:
    """Remove the file while it is locked, unless others share it, and close it."""
    try:
        if sys.platform == "win32":
            os.close(file)
            path.unlink(missing_ok=True)
            return
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:
        pass
    if sys.platform != "win32":
        os.close(file)


def _write_holder(file: int) -> None:
    ours = Path(sys.argv[0]).name in ("phi-lab", "__main__.py") and len(sys.argv) > 1
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().isoformat(" ", "seconds"),
              "command": f"phi-lab {sys.argv[1]}" if ours else "Python"}  # without options, which may hold a secret
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, json.dumps(holder).encode())


def _holder(path: Path) -> dict:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _sentence(holder: dict) -> str:
    if not holder:
        return "another process"
    return "process {pid} on {host} since {since} ({command})".format(
        **{name: holder.get(name, "?") for name in ("pid", "host", "since", "command")})


def _ancestors() -> set[int]:
    try:
        return {process.pid for process in psutil.Process().parents()}
    except psutil.Error:
        return {os.getppid()}
