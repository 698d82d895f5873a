"""The exercises' checks: each says *not attempted yet*, *right*, or *wrong, because …* with the counter-example.

An exercise never blocks. `CHECK.use(mine)` returns the learner's function if it is right, else the reference,
and the rest of the notebook runs what it returns. An attempt that never ends is interrupted after a few seconds. Every
check is itself tested: its reference passes, and plausible wrong answers fail (tests/test_checks.py).

    from phi_lab.lab import checks; pack = checks.PACK.use(pack)
"""

import _thread
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from IPython.display import HTML, display

from phi_lab import models, scale
from phi_lab.lab.exercises import flips, mixed_share, parameters, share_right
from phi_lab.look import GREEN, ORANGE, RED
from phi_lab.page import text
from phi_lab.stages import grpo, rollout_dpo
from phi_lab.stages.language_modeling import one_per_row, pack_best_fit

SECONDS = 5.0
WAITING, RIGHT, WRONG = "not attempted yet", "right", "wrong, because"


class NotAttempted(Exception):
    """The stub was left as it was."""


@dataclass(frozen=True)
class Check:
    """An exercise: its name, the reference, and a function that finds what is wrong with an attempt (None: nothing)."""

    name: str
    reference: Callable
    fault: Callable[[Callable], str | None]

    def judge(self, attempt: Callable) -> tuple[str, str]:
        """(one of the three verdicts, why). An attempt may raise, hang or return nonsense; none of that escapes."""
        over = threading.Event()

        def stop() -> None:
            over.set()
            _thread.interrupt_main()  # as Ctrl-C would: works on every system, inside any loop of Python's

        clock = threading.Timer(SECONDS, stop)
        clock.start()
        try:
            why = self.fault(attempt)
        except NotAttempted:
            return WAITING, "the notebook goes on with the reference"
        except KeyboardInterrupt:
            if not over.is_set():
                raise
            return WRONG, f"it had not ended after {SECONDS:.0f} seconds"
        except Exception as error:  # noqa: BLE001 - whatever a learner's code raises is an answer to show
            return WRONG, f"it raised {type(error).__name__}: {error}"
        finally:
            clock.cancel()
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
                     f"{separator}{text(why)}.{rest}</p>"))  # fmt: skip
        return attempt if verdict == RIGHT else self.reference


def ask(attempt: Callable, *arguments):
    """Call an attempt; NotImplemented and None mean that nobody has written it yet."""
    result = attempt(*arguments)
    if result is NotImplemented or result is None:
        raise NotAttempted
    return result


def shown(value: object) -> str:
    """A value in a counter-example, cut to a readable length."""
    said = str(value.tolist() if isinstance(value, torch.Tensor) else value)
    return said if len(said) < 160 else said[:157] + "..."


# ------------------------------------------------------------------ one function an exercise


def _share_right(attempt):
    for verdicts in (["right", "wrong"], ["right", "unfinished", "wrong", "unparsed"], ["right"] * 3, ["wrong"]):
        wanted, got = share_right(verdicts), ask(attempt, verdicts)
        if abs(got - wanted) > 1e-9:
            return f"share_right({verdicts}) gave {shown(got)}, and {wanted:.2f} of them are right"


def _reward(attempt):
    cases = (
        ("<think>7+8=15.</think>\\boxed{15}", "15", "right"),
        ("<think>7+8=16.</think>\\boxed{16}", "15", "wrong"),
        ("<think>…38/24.</think>\\boxed{38/24}", "19/12", "right: 38/24 is 19/12"),
        ("<think>7+8=15.</think>\\boxed{150}", "15", "wrong: the answer is what stands in the box, all of it"),
        ("<think>7+8=15.15.15.15", "15", "unfinished: nothing was answered"),
    )
    got = ask(attempt, [case[0] for case in cases], [case[1] for case in cases])
    if len(got) != len(cases):
        return f"{len(cases)} answers went in and {len(got)} rewards came out"
    for (completion, gold, why), value in zip(cases, got, strict=True):
        wanted = 1.0 if why.startswith("right") else -1.0
        if value != wanted:
            return (
                f"the answer {completion} to a problem with gold {gold} got {shown(value)}, not {wanted:+.0f} ({why})"
            )


def _rows_fault(rows, lengths: Sequence[int], row_length: int) -> str | None:
    used = [index for row in rows for index in row]
    if len(used) > len(set(used)):
        return "a document stands in two places"
    if missing := [i for i, length in enumerate(lengths) if length <= row_length and i not in set(used)]:
        return f"document {missing[0]} ({lengths[missing[0]]} tokens) is missing"
    for row in rows:
        if (total := sum(lengths[index] for index in row)) > row_length:
            return f"row {row} holds {total} tokens"
    return None


def _pack(attempt):
    chance = random.Random(0)
    for lengths in ([6, 4], [5, 5, 5, 5], [3, 7, 4, 6], [2, 2, 12, 5], [chance.randint(1, 9) for _ in range(60)]):
        rows = ask(attempt, list(lengths), 10)
        why, enough = _rows_fault(rows, lengths, 10), len(pack_best_fit(lengths, 10))
        if not why and len(rows) > enough:
            why = f"{len(rows)} rows, and {enough} are enough"
        if why:
            return f"pack({shown(lengths)}, 10) gave {shown(rows)}: {why}"


def _unpacked(attempt):
    for lengths in ([6, 4], [3, 3, 3], [2, 12, 5]):
        rows = ask(attempt, list(lengths), 10)
        why = _rows_fault(rows, lengths, 10)
        if not why and any(len(row) != 1 for row in rows):
            why = "two answers share a row"
        if why:
            return f"one_per_row({lengths}, 10) gave {shown(rows)}: {why}"


def _pair(attempt):
    for goods, bads, count in (([30, 80], [78, 20], 1), ([30, 80, 50], [52, 33], 2), ([40], [90, 45, 10], 2)):
        right, wrong = ([{"completion": f"{side}{n}", "tokens": n} for n in side_rows]
                        for side, side_rows in (("right", goods), ("wrong", bads)))  # fmt: skip
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

    rewards, kept = of("+-------", "++++----", "+++++---", "--------", "++++++++"), (1, 4, 0, 0, 0)
    seen = set()
    for seed in range(6):
        got = ask(attempt, rewards.clone(), torch.Generator().manual_seed(seed))
        if not isinstance(got, torch.Tensor) or got.shape != rewards.shape:
            return f"rewards of shape {tuple(rewards.shape)} have to give a tensor of the same shape"
        for row, values, k in zip(rewards, got, kept, strict=True):
            said = f"rewards {shown(row.int())} gave {shown(values)}: "
            if not set(values.tolist()) <= {-1.0, 0.0, 1.0} or (values * row < 0).any():
                return (
                    said + "an advantage is +1 for a right answer that counts, -1 for a wrong one that counts, else 0"
                )
            hits, misses = int((values > 0).sum()), int((values < 0).sum())
            if (hits, misses) != (k, k):
                return f"{said}{hits} right and {misses} wrong answers count, and it should be {k} of each"
        seen.add(tuple(got[0].tolist()))
    return "the same wrong answers are kept every time; draw them at random" if len(seen) == 1 else None


def _temperature(attempt):
    wanted = grpo.anneal(scale.LAB.grpo)
    for steps in (30, 100):
        for step in (0, steps // 4, steps // 3, steps // 2, 3 * steps // 4, steps - 1):
            got, right = ask(attempt, step, steps), wanted(step, steps)
            if abs(got - right) > 0.8 / steps + 1e-9:
                return f"temperature({step}, {steps}) gave {shown(got)}, and it should be {right:.2f}"


def _flips(attempt):
    for before, after in ((["wrong", "right", "wrong"], ["right", "wrong", "right"]), (["right"] * 3, ["right"] * 3),
                          (["unfinished", "right"], ["wrong", "unparsed"])):  # fmt: skip
        got, wanted = tuple(ask(attempt, before, after)), flips(before, after)
        if got != wanted:
            return f"flips({before}, {after}) gave {got}: {wanted[0]} gained and {wanted[1]} lost"


def _parameters(attempt):
    for name in ("phi-nano", "phi-4-mini"):
        config = models.config(name)
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
TEMPERATURE = Check("temperature", grpo.anneal(scale.LAB.grpo), _temperature)
FLIPS = Check("flips", flips, _flips)
PARAMETERS = Check("parameters", parameters, _parameters)
MIXED_SHARE = Check("mixed_share", mixed_share, _mixed_share)
ALL = (SHARE_RIGHT, REWARD, PACK, UNPACKED, PAIR, ADVANTAGE, TEMPERATURE, FLIPS, PARAMETERS, MIXED_SHARE)
