"""The exercises' checks: each says *not attempted yet*, *right*, or *wrong, because …* with the counter-example.

An exercise never blocks. `CHECK.use(mine)` returns the learner's function if it is right, else the reference,
and the rest of the notebook runs what it returns. An attempt that never ends is interrupted after a few seconds. Every
check is itself tested: its reference passes, and plausible wrong answers fail (tests/lab/test_checks.py).

The result goes under another name than the attempt's, so that the cell can be run again:

    from phi_lab.lab import checks; packer = checks.PACK.use(pack)
"""

import _thread
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from IPython import get_ipython
from IPython.display import HTML, display

from phi_lab.config import presets
from phi_lab.lab.exercises import flips, mixed_share, parameters, share_right
from phi_lab.model import shapes
from phi_lab.report.html import text
from phi_lab.report.plot_style import GREEN, ORANGE, RED
from phi_lab.stages import grpo, rollout_dpo
from phi_lab.stages.language_modeling import one_per_row, pack_best_fit

SECONDS = 5.0
WAITING, RIGHT, WRONG = "not attempted yet", "right", "wrong, because"


class NotAttempted(Exception):
    """The stub was left as it was."""


class Fault(Exception):
    """What is wrong with an attempt, where the check cannot go on."""


@contextmanager
def _time_limit(seconds: float, over: threading.Event) -> Iterator[None]:
    """Interrupt the block as Ctrl-C would when `seconds` are over; `over` tells this from the learner's own Ctrl-C.

    A signal ends a sleep too. Windows has none, and other threads take none: there, a loop of Python's ends at once and
    a sleep when it is over.
    """

    def interrupt(*_) -> None:
        over.set()
        raise KeyboardInterrupt

    def interrupt_main() -> None:
        over.set()
        _thread.interrupt_main()

    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    else:
        clock = threading.Timer(seconds, interrupt_main)
        clock.start()
        try:
            yield
        finally:
            clock.cancel()


@contextmanager
def _exit_raises() -> Iterator[None]:
    """In a notebook exit() lets the cell go on and then ends the kernel; in this block it raises SystemExit at once."""
    shell = get_ipython()
    if shell is None:
        yield
        return
    shell.ask_exit = sys.exit
    try:
        yield
    finally:
        del shell.ask_exit


@dataclass(frozen=True)
class Check:
    """An exercise: its name, the reference, and a function that finds what is wrong with an attempt (None: nothing)."""

    name: str
    reference: Callable
    fault: Callable[[Callable], str | None]

    def judge(self, attempt: Callable) -> tuple[str, str]:
        """(one of the three verdicts, why). An attempt may raise, hang or return nonsense; none of that escapes."""
        if attempt is self.reference:  # somebody's `pack = checks.PACK.use(pack)`, run twice
            return WAITING, "this is the reference; run the cell with your own function first, then this one"
        over = threading.Event()
        try:
            with _exit_raises(), _time_limit(SECONDS, over):
                why = self.fault(attempt)
        except NotAttempted:
            return WAITING, "the notebook goes on with the reference"
        except Fault as fault:
            return WRONG, str(fault)
        except KeyboardInterrupt:
            if not over.is_set():
                raise
            return WRONG, f"it had not ended after {SECONDS:.0f} seconds"
        except SystemExit:
            return WRONG, "it called exit(), which ends the whole program; `return` ends a function"
        except Exception as error:  # noqa: BLE001 - whatever a learner's code raises is an answer to show
            return WRONG, f"it raised {type(error).__name__}: {error}"
        return (WRONG, why) if why else (RIGHT, f"from here on the notebook uses your {self.name}")

    def use(self, attempt: Callable) -> Callable:
        """Show the verdict; returns the attempt if it is right, else the reference."""
        verdict, why = self.judge(attempt)
        colour, sign = {WAITING: (ORANGE, "○"), RIGHT: (GREEN, "✓"), WRONG: (RED, "✗")}[verdict]
        rest = (
            ""
            if verdict != WRONG
            else "<br>The notebook goes on with the reference; change your cell and run both again."
        )
        separator = " " if verdict == WRONG else ": "
        display(HTML(f'<p style="border-left:4px solid {colour};padding-left:.8em"><b>{sign} {self.name}: {verdict}</b>'
                     f"{separator}{text(why)}.{rest}</p>"))
        return attempt if verdict == RIGHT else self.reference


def ask(attempt: Callable, *arguments):
    """Call an attempt; NotImplemented means that nobody has written it yet."""
    result = attempt(*arguments)
    if result is NotImplemented:
        raise NotAttempted
    if result is None:
        raise Fault("it gave None; every way through the function has to end in `return` and a value")
    return result


def shown(value: object) -> str:
    """A value in a counter-example, cut to a readable length."""
    said = str(value.tolist() if isinstance(value, torch.Tensor) else value)
    return said if len(said) < 160 else said[:157] + "..."


# ------------------------------------------------------------------ one function an exercise


def _share_right(attempt):
    for verdicts in (["right", "wrong"], ["right", "unfinished", "wrong", "unparsed"], ["right"] * 3, ["wrong"],
                     ["right", "not right"]):
        wanted, got = share_right(verdicts), ask(attempt, list(verdicts))
        if abs(got - wanted) > 1e-9:
            return f'share_right({verdicts}) gave {shown(got)}, and {wanted:.2f} of them are exactly "right"'


RAN: list[str] = []  # an attempt at `reward` that runs the code in a model's answer leaves a mark here


def _reward(attempt):
    # Both codes give 15. The two exclamation marks let the verifier give up before it asks its LaTeX parser.
    marks, harmless = "__import__('phi_lab').lab.checks.RAN.append('!!') or 15", "(lambda _: 15)('!!')"
    cases = (
        ("<think>7+8=15.</think>\\boxed{15}", "15", "right"),
        ("<think>7+8=16.</think>\\boxed{16}", "15", "wrong"),
        ("<think>…38/24.</think>\\boxed{38/24}", "19/12", "right: 38/24 is 19/12"),
        ("<think>7+8=15.</think>\\boxed{150}", "15", "wrong: the answer is what stands in the box, all of it"),
        ("<think>7+8=15.15.15.15", "15", "unfinished: nothing was answered"),
        ("<think>\\boxed{16}? No, 7+8=15.</think>\\boxed{15}", "15", "right: a box inside the thoughts does not count"),
        ("<think>\\boxed{15}? No, 7+8=16.</think>\\boxed{16}", "15", "wrong: a box inside the thoughts does not count"),
        ("<think>7+8=15, \\boxed{15}.", "15", "unfinished: the thoughts never end, and a box inside does not count"),
        (f"<think>7+8=?</think>\\boxed{{{harmless}}}", "15", "wrong: Python code is no number, and must not be run"),
        (f"<think>7+8=?</think>\\boxed{{{marks}}}", "15", "wrong: Python code is no number, and must not be run"),
    )
    RAN.clear()
    got = ask(attempt, [case[0] for case in cases], [case[1] for case in cases])
    if RAN:
        return (
            f"the answer {cases[-1][0]} was run as Python code: a model that is trained on this reward could learn to "
            "write code that gives itself +1, or that deletes your files"
        )
    if len(got) != len(cases):
        return f"{len(cases)} answers went in and {len(got)} rewards came out"
    for (completion, gold, why), value in zip(cases, got, strict=True):
        wanted = 1.0 if why.startswith("right") else -1.0
        if value != wanted:
            return (
                f"the answer {completion} to a problem with gold {gold} got {shown(value)}, not {wanted:+.0f} ({why})"
            )


def _rows_fault(rows, lengths: Sequence[int], row_length: int) -> str | None:
    if not all(isinstance(row, Iterable) for row in rows):
        return "each row has to be a list of indices, also a row of one document: [[0], [1]]"
    used = [index for row in rows for index in row]
    if unknown := [index for index in used if index not in range(len(lengths))]:
        return f"there is no document {shown(unknown[0])}: a row lists indices, 0 to {len(lengths) - 1}, not lengths"
    if twice := [index for index in used if used.count(index) > 1]:
        return f"document {twice[0]} stands in two places"
    for number, row in enumerate(rows):
        if len(row) == 0:
            return f"row {number} is empty: what is longer than a row is left out, and needs no row either"
        if (total := sum(lengths[index] for index in row)) > row_length:
            rest = ": what is longer than a row is left out" if len(row) == 1 else ""
            return f"row {shown(row)} holds {total} tokens, and there is room for {row_length}{rest}"
    if missing := [i for i, length in enumerate(lengths) if length <= row_length and i not in used]:
        exactly = ", and it fits: it fills a row exactly" if lengths[missing[0]] == row_length else ""
        return f"document {missing[0]} ({lengths[missing[0]]} tokens) is missing{exactly}"
    return None


def _pack(attempt):
    chance = random.Random(0)
    short = [[chance.randint(1, 12) for _ in range(count)] for count in range(3, 13) for _ in range(20)]
    long = [chance.randint(1, 9) for _ in range(60)]  # last: what fails here only is too long to show
    for lengths in ([10, 4], [6, 4], [5, 7, 5, 3], [5, 5, 5, 5], [2, 12, 5], *short, long):
        rows, best = ask(attempt, list(lengths), 10), pack_best_fit(lengths, 10)
        why = _rows_fault(rows, lengths, 10)
        if not why and len(rows) > len(best):
            enough = f"{len(best)} {'is' if len(best) == 1 else 'are'} enough"
            why = f"{len(rows)} rows, and {enough}" + (f": {best}" if lengths is not long else "")
        if why:
            said = "60 random lengths from 1 to 9" if lengths is long else lengths
            return f"pack({said}, 10) gave {shown(rows)}: {why}"


def _unpacked(attempt):
    for lengths in ([6, 4], [3, 3, 3], [10, 4], [2, 12, 5]):
        rows = ask(attempt, list(lengths), 10)
        why = _rows_fault(rows, lengths, 10)
        if not why and any(len(row) != 1 for row in rows):
            why = "two answers share a row"
        if why:
            return f"one_per_row({lengths}, 10) gave {shown(rows)}: {why}"


def _pair(attempt):
    for goods, bads, count in (([30, 80], [78, 20], 1), ([30, 80, 50], [52, 33], 2), ([40], [90, 45, 10], 2)):
        right, wrong = ([{"completion": f"{side}{n}", "tokens": n} for n in side_rows]
                        for side, side_rows in (("right", goods), ("wrong", bads)))
        pairs = ask(attempt, right, wrong, count, random.Random(0))
        best = rollout_dpo.pair_closest_length(right, wrong, count, random.Random(0))
        gap, least = (sum(abs(a["tokens"] - b["tokens"]) for a, b in side) for side in (pairs, best))
        said = f"right answers of {goods} tokens and wrong ones of {bads}, count {count}: "
        if len(pairs) != len(best):
            return f"{said}{len(pairs)} pairs came out, not {len(best)}"
        for good, bad in pairs:
            if good not in right or bad not in wrong:
                return f"{said}a pair is ({good['completion']}, {bad['completion']}), and the right answer comes first"
        for side in zip(*pairs, strict=True):
            if len({row["completion"] for row in side}) < len(pairs):
                return f"{said}an answer was used twice"
        if gap > least:
            return f"{said}the lengths differ by {gap} tokens in all, and {least} is possible"


def _advantage(attempt):
    def of(*rows: str) -> torch.Tensor:
        return torch.tensor([[1.0 if sign == "+" else -1.0 for sign in row] for row in rows])

    eight, six = of("+-------", "++++----", "+++++---", "--------", "++++++++"), of("+-----", "+++---", "++++--")
    for rewards, kept in ((eight, (1, 4, 0, 0, 0)), (six, (1, 3, 0))):
        drawn = set()
        for seed in range(6):
            got, again = _advantages(attempt, rewards, seed), _advantages(attempt, rewards, seed)
            if why := _advantage_fault(rewards, got, kept):
                return why
            if not torch.equal(got, again):
                return (
                    f"the same rewards and a generator of the same seed gave {shown(got[0])}, then {shown(again[0])}: "
                    "draw with generator=random, else no run can be repeated"
                )
            drawn.add(tuple(got[0].tolist()))
        if len(drawn) == 1:
            return "the same wrong answers are kept every time; draw them at random, with generator=random"


def _advantages(attempt, rewards: torch.Tensor, seed: int) -> torch.Tensor:
    given = rewards.clone()
    got = ask(attempt, given, torch.Generator().manual_seed(seed))
    if not torch.equal(given, rewards):
        raise Fault("it wrote into the rewards it was given, and others still need them; fill a new tensor")
    if not isinstance(got, torch.Tensor) or got.shape != rewards.shape:
        raise Fault(f"rewards of shape {tuple(rewards.shape)} have to give a tensor of the same shape")
    return got


def _advantage_fault(rewards: torch.Tensor, got: torch.Tensor, kept: Sequence[int]) -> str | None:
    for row, values, k in zip(rewards, got, kept, strict=True):
        said = f"rewards {shown(row.int())} gave {shown(values)}: "
        if not set(values.tolist()) <= {-1.0, 0.0, 1.0} or (values * row < 0).any():
            return said + "an advantage is +1 for a right answer that counts, -1 for a wrong one that counts, else 0"
        hits, misses = int((values > 0).sum()), int((values < 0).sum())
        if (hits, misses) != (k, k):
            return f"{said}{hits} right and {misses} wrong answers count, and it should be {k} of each"
    return None


def _temperature(attempt):
    wanted = grpo.anneal(presets.LAB.grpo)
    for steps in (30, 31, 100):
        for step in (0, steps // 4, steps // 3, steps // 2, steps // 2 + 1, 3 * steps // 4, steps - 1):
            got, right = ask(attempt, step, steps), wanted(step, steps)
            if abs(got - right) > 1e-6:
                return (
                    f"temperature({step}, {steps}) gave {shown(got)}, and it should be {right:.4f}: "
                    f"half of {steps} steps is {steps / 2:g}"
                )


def _flips(attempt):
    for before, after in ((["wrong", "right", "wrong"], ["right", "wrong", "right"]), (["right"] * 3, ["right"] * 3),
                          (["unfinished", "right"], ["wrong", "unparsed"])):
        got, wanted = tuple(ask(attempt, before, after)), flips(before, after)
        if got != wanted:
            return f"flips({before}, {after}) gave {got}: {wanted[0]} gained and {wanted[1]} lost"


def _parameters(attempt):
    for name in ("phi-nano", "phi-4-mini"):
        config = shapes.phi_config(name)
        got, wanted = ask(attempt, config), parameters(config)
        if got != wanted:
            return f"for {name} it gave {got:,}, and a count of the weights gives {wanted:,}: {got - wanted:+,}"


def _mixed_share(attempt):
    for rewards in ([[1, -1], [1, 1]], [[-1, -1], [-1, -1]], [[1, -1, -1], [-1, 1, 1], [1, 1, 1], [-1, -1, -1]]):
        tensor = torch.tensor(rewards, dtype=torch.float)
        got, wanted = float(ask(attempt, tensor)), mixed_share(tensor)
        if abs(got - wanted) > 1e-6:
            return f"mixed_share({rewards}) gave {got:.2f}, and {wanted:.2f} of the groups hold both kinds"


SHARE_RIGHT = Check("share_right", share_right, _share_right)
REWARD = Check("reward", grpo.verified, _reward)
PACK = Check("pack", pack_best_fit, _pack)
UNPACKED = Check("one_per_row", one_per_row, _unpacked)
PAIR = Check("pair", rollout_dpo.pair_closest_length, _pair)
ADVANTAGE = Check("advantage", grpo.rebalance, _advantage)
TEMPERATURE = Check("temperature", grpo.anneal(presets.LAB.grpo), _temperature)
FLIPS = Check("flips", flips, _flips)
PARAMETERS = Check("parameters", parameters, _parameters)
MIXED_SHARE = Check("mixed_share", mixed_share, _mixed_share)
ALL = (SHARE_RIGHT, REWARD, PACK, UNPACKED, PAIR, ADVANTAGE, TEMPERATURE, FLIPS, PARAMETERS, MIXED_SHARE)
