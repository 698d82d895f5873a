r"""A thought of the small world taken apart: plan, steps with their columns, results, and what is left to do.

    <think>47+38,-12.47+38:7+8=15,4+3+1=8;85,-12.85-12:5-2=3,8-1=7;73.</think>\boxed{73}

`tables.show` lays it out as one adds on paper. Only what a thought says is read here; nothing in it is run.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from phi_lab.lab.exercises import first_slip
from phi_lab.model.chat import ARITHMETIC, STEP, THINK, THINK_END
from phi_lab.problems import step_check
from phi_lab.problems.problem import Problem

SUM = re.compile(r"\d{1,9}([-+]\d{1,9})*(=\d{1,9})?")  # a column that `first_slip` can check
FindSlip = Callable[[Sequence[str]], int | None]


class Line(NamedTuple):
    """One step of a thought as it is written. start: the index of its first character in the completion; operation:
    "47+38", "check 73+12", or "" for the plan; columns: ones first; slip: the index of a column that is wrong by its
    own sum; wrong: whether it is the first step that does not follow.
    """

    start: int
    operation: str
    columns: tuple[str, ...]
    result: str
    rest: tuple[str, ...]
    slip: int | None = None
    wrong: bool = False


def read(completion: str, problem: Problem | None = None, find_slip: FindSlip = first_slip) -> list[Line]:
    """The steps of a completion's thought, one line each; none where it has no thought about sums.

    A column that is wrong by its own sum is marked, in additions and subtractions. With the `problem` (and its steps)
    the first step that does not follow from those before it is marked as well. Division is written from the highest
    place; here its columns are turned round, so that ones come first everywhere.
    """
    thought, end, _ = completion.partition(THINK_END)
    steps = thought.removeprefix(THINK)
    if not end or not thought.startswith(THINK) or not ARITHMETIC.fullmatch(steps):
        return []
    wrong = step_check.first_wrong_step(problem, completion) if problem and problem.steps else None
    lines, start = [], len(THINK)
    for step in steps.removesuffix(".").split("."):
        lines.append(_line(step, start, start == wrong, find_slip, plan=not lines))
        start += len(step) + 1
    return lines


def _line(step: str, start: int, wrong: bool, find_slip: FindSlip, plan: bool) -> Line:
    if plan and not re.search("[:;=]", step):
        return Line(start, "", (), "", tuple(step.split(",")), wrong=wrong)
    operation, columns, result, rest = STEP.fullmatch(step).groups(default="")
    written = columns.split(",") if columns else []
    last = [column.rpartition(" no ")[2] for column in written]  # what a noticed slip was mended to
    slip = find_slip(last) if last and all(SUM.fullmatch(column) for column in last) else None
    if "/" in operation:
        written.reverse()
    return Line(start, operation, tuple(written), result, tuple(rest.split(",")) if rest else (), slip, wrong)
