"""Nothing outlives what started it: a child process ends when its parent is killed.

A killed parent cannot end its children, so they look after themselves. On Linux the kernel sends the signal; elsewhere
a thread of the child looks for its parent every second.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

LAUNCHED_BY = "PHI_LAB_LAUNCHED_BY"  # process id, for a process with others between it and the one that launched it
_KERNEL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # found now: a new process should not load it
_SET_PARENT_DEATH_SIGNAL = 1
_forks_die_too = False


def die_with_parent() -> None:
    """End this process, at once, when the process that started it ends."""
    parent = os.getppid()
    if _KERNEL:
        _KERNEL(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # it ended just before
            os._exit(1)
    else:
        watched = {parent, int(os.environ.get(LAUNCHED_BY, parent))}
        threading.Thread(target=_watch, args=(watched,), daemon=True).start()


def in_child() -> Callable[[], None] | None:
    """What `subprocess.Popen(preexec_fn=...)` takes for a program that is not ours."""
    return die_with_parent if _KERNEL else None


@contextmanager
def forks_die_too() -> Iterator[None]:
    """Let every process that this one forks in the block die with it: for libraries that fork their own."""
    global _forks_die_too
    before, _forks_die_too = _forks_die_too, True
    try:
        yield
    finally:
        _forks_die_too = before


def _after_fork() -> None:
    if _forks_die_too:
        die_with_parent()


def _watch(parents: set[int]) -> None:
    while all(psutil.pid_exists(parent) for parent in parents):
        time.sleep(1)
    os._exit(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
