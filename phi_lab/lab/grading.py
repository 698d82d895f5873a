"""How an exercise is graded: run the learner's attempt under limits, and show one of three verdicts.

The verdicts are *not attempted yet*, *right*, and *wrong, because …* with a counter-example. An exercise never blocks
the notebook: `Check.use` returns the attempt if it is right and the reference otherwise. An attempt that does not end
is interrupted after a few seconds. The checks themselves are in `checks.py`.
"""

import _thread
import ast
import inspect
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name

import torch
from IPython import get_ipython
from IPython.display import HTML, display

from phi_lab.lab.exercise_texts import Exercise
from phi_lab.report.html import text
from phi_lab.report.plot_style import GREEN, ORANGE, RED

TIME_LIMIT = 5.0  # seconds
NOT_ATTEMPTED, RIGHT, WRONG = "not attempted yet", "right", "wrong, because"


class StubUnchanged(Exception):
    """The function still returns NotImplemented."""


class WrongAttempt(Exception):
    """What is wrong with an attempt, raised where its check cannot go on."""


@dataclass(frozen=True)
class Check:
    """How an exercise is graded: its name, where its reference stands ("module:function"; those of stages take seconds
    to load, and are loaded when they are needed), a function that returns what is wrong with an attempt by that
    reference, or None, and the exercise's text.
    """

    name: str
    reference_path: str
    find_fault: Callable[[Callable, Callable], str | None]
    exercise: Exercise

    @cached_property
    def reference(self) -> Callable:
        """The reference, called as the attempt is."""
        return resolve_name(self.reference_path)

    def reference_source(self) -> str:
        """The reference's source text, read without importing its module."""
        module, _, name = self.reference_path.partition(":")
        source = Path(find_spec(module).origin).read_text()
        functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        return ast.get_source_segment(source, next(node for node in functions if node.name == name))

    def card(self) -> HTML:
        """The exercise for a page: title, stars, minutes, what to write, and folded, each inside the one before it,
        three hints and the reference. It needs no kernel once it is saved.
        """
        module = self.reference_path.partition(":")[0].replace(".", "/")
        folded = f"<p><code>{text(module)}.py</code></p>{_wrapped(self.reference_source())}"
        folded = f"<details><summary>Reference solution</summary>{folded}</details>"
        for number, hint in reversed(list(enumerate(self.exercise.hints, 1))):
            folded = f"<details><summary>Hint {number}</summary><p>{text(hint)}</p>{folded}</details>"
        one = self.exercise
        head = f"<b>{text(one.title)}</b> {'★' * one.stars} about {one.minutes} minutes"
        return HTML(f"<div><p>{head}</p><p>{text(one.statement)}</p>{folded}</div>")

    def grade(self, attempt: Callable) -> tuple[str, str]:
        """(one of the three verdicts, the reason). Whatever the attempt raises becomes a verdict."""
        if attempt is self.reference:  # after `pack = checks.PACK.use(pack)`, run twice
            return NOT_ATTEMPTED, "this is the reference; run the cell with your own function first, then this one"
        timed_out, reference = threading.Event(), self.reference  # loaded before the clock starts
        results: list = []
        try:
            with _exit_raises(), _time_limit(TIME_LIMIT, timed_out):
                why = self.find_fault(_watched(attempt, results), reference)
        except StubUnchanged:
            rest = "your lines are there, and it still ends in `return NotImplemented`; " if _has_lines(attempt) else ""
            return NOT_ATTEMPTED, f"{rest}the notebook goes on with the reference"
        except WrongAttempt as fault:
            return WRONG, str(fault)
        except KeyboardInterrupt:
            if not timed_out.is_set():
                raise
            return WRONG, f"it had not ended after {TIME_LIMIT:.0f} seconds"
        except SystemExit:
            return WRONG, "it called exit(), which ends the whole program; `return` ends a function"
        except Exception as error:  # noqa: BLE001 - what was returned cannot even be compared
            if not results:
                raise
            kind = type(results[-1]).__name__
            return WRONG, f"it gave {shown(results[-1])} ({kind}), which cannot be compared with what is asked: {error}"
        return (WRONG, why) if why else (RIGHT, f"from here on the notebook uses your {self.name}")

    def use(self, attempt: Callable) -> Callable:
        """Show the verdict; returns the attempt if it is right, else the reference."""
        verdict, why = self.grade(attempt)
        colour, sign = {NOT_ATTEMPTED: (ORANGE, "○"), RIGHT: (GREEN, "✓"), WRONG: (RED, "✗")}[verdict]
        separator, advice = ": ", ""
        if verdict == WRONG:
            separator = " "
            advice = "<br>The notebook goes on with the reference; change your cell and run both again."
        display(HTML(f'<p style="border-left:4px solid {colour};padding-left:.8em"><b>{sign} {self.name}: {verdict}</b>'
                     f"{separator}{text(why)}.{advice}</p>"))
        return attempt if verdict == RIGHT else self.reference


def _wrapped(code: str) -> str:
    """Source text for a window that may be narrower than its lines."""
    return f'<pre style="white-space:pre-wrap">{text(code)}</pre>'


def _watched(attempt: Callable, results: list) -> Callable:
    """The attempt. What it returns is added to `results`; what it raises becomes a WrongAttempt that tells its call."""

    def call(*arguments):
        try:
            results.append(attempt(*arguments))
        except Exception as error:
            given = ", ".join(map(_argument, arguments))
            raise WrongAttempt(f"called with {given} it raised {type(error).__name__}: {error}") from error
        return results[-1]

    return call


def _argument(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return shown(value) if isinstance(value, int | float | list | tuple | dict) else type(value).__name__


def _has_lines(attempt: Callable) -> bool:
    """Whether a function has more in it than a docstring and one line."""
    try:
        (found,) = ast.parse(textwrap.dedent(inspect.getsource(attempt))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return False
    return isinstance(found, ast.FunctionDef) and len(found.body) > 1 + (ast.get_docstring(found) is not None)


def call_attempt(attempt: Callable, *arguments):
    """The attempt's result. Raises StubUnchanged for NotImplemented, and WrongAttempt for None, for arguments that were
    written into, and for float64 where float32 was given.
    """
    before = [_copy(one) for one in arguments]
    result = attempt(*arguments)
    if result is NotImplemented:
        raise StubUnchanged
    if result is None:
        raise WrongAttempt("it gave None; every way through the function has to end in `return` and a value")
    for place, (one, other) in enumerate(zip(arguments, before, strict=True), 1):
        if not _same(one, other):
            raise WrongAttempt(f"it wrote into what it was given (argument {place}), and the page needs that again: "
                               "make a new list or tensor")
    if torch.float32 in _dtypes(arguments) and torch.float64 in _dtypes(result):
        raise WrongAttempt("its numbers are float64, and those it was given are float32: end in .float()")
    return result


def _copy(value: object) -> object:
    """A copy of tensors, lists and dictionaries, however deep; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, list | tuple):
        return [_copy(one) for one in value]
    return dict(value) if isinstance(value, dict) else value


def _same(value: object, copy: object) -> bool:
    """Whether a value is still what `_copy` made of it."""
    if isinstance(value, torch.Tensor):
        return torch.equal(value.detach(), copy)
    if isinstance(value, list | tuple):
        return len(value) == len(copy) and all(map(_same, value, copy))
    return value == copy if isinstance(value, dict | str | int | float) else True


def _dtypes(value: object) -> set[torch.dtype]:
    """Those of all tensors in it."""
    if isinstance(value, torch.Tensor):
        return {value.dtype}
    return set().union(*map(_dtypes, value)) if isinstance(value, list | tuple) else set()


def as_list(value: object) -> list:
    """A result that has to be a list. Raises WrongAttempt for anything else."""
    if not isinstance(value, list):
        raise WrongAttempt(f"it has to give a list, and gave {shown(value)} ({type(value).__name__})")
    return value


def shown(value: object) -> str:
    """A value in a counter-example, cut to 160 characters."""
    full = str(value.tolist() if isinstance(value, torch.Tensor) else value)
    return full if len(full) < 160 else full[:157] + "..."


@contextmanager
def _time_limit(seconds: float, timed_out: threading.Event) -> Iterator[None]:
    """Interrupt the block as Ctrl-C would after `seconds`; `timed_out` tells this from the learner's own Ctrl-C.

    A signal also ends a sleep. Windows has no such signal, and only the main thread receives it: elsewhere a timer
    interrupts Python's own loops at once, and a sleep only when it ends.
    """

    def interrupt(*_) -> None:
        timed_out.set()
        raise KeyboardInterrupt

    def interrupt_main() -> None:
        timed_out.set()
        _thread.interrupt_main()

    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        previous = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
    else:
        timer = threading.Timer(seconds, interrupt_main)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextmanager
def _exit_raises() -> Iterator[None]:
    """Let exit() raise SystemExit at once; in a notebook it would let the cell go on and then end the kernel."""
    shell = get_ipython()
    if shell is None:
        yield
        return
    shell.ask_exit = sys.exit
    try:
        yield
    finally:
        del shell.ask_exit
