r"""Where a worked solution goes wrong: the first step that does not follow from what stands before it.

A completion of the small world is a plan, then steps, then its answer (`worked_solutions.py`):

    <think>47+38,-12.47+38:7+8=15,4+3+1=8;85,-12.85-12:5-2=3,8-1=7;73.</think>\boxed{73}

Everything before the first wrong step is right, so what a step has to say is known: the operation whose turn it is, its
columns, its result and the operations that remain. That is what lets Rollout DPO compare steps instead of answers.
"""

import re
from fractions import Fraction

from phi_lab.model.chat import THINK, THINK_END
from phi_lab.problems.arithmetic import apply
from phi_lab.problems.problem import Problem, Step
from phi_lab.problems.wordings import INVERSE
from phi_lab.problems.worked_solutions import COLUMNS, remaining_operations

STEP = re.compile(r"[^.<]*\.(?:check [^.<]*\.[^.<]*\.)?")  # with the check that undoes it and the result said again
ANSWER = re.compile(rf"{THINK_END}\\boxed\{{([^{{}}]*)\}}")
NUMBER = re.compile(r"[0-9]{1,9}(?:/0*[1-9][0-9]{0,8})?")


def first_wrong_step(problem: Problem, completion: str) -> int | None:
    r"""The index of the character with which the first wrong step of a completion begins; None where all are right.

    A plan, a step with its check, a fraction's value and the answer (from </think> on) count as a step each. A step is
    wrong if an operand, a column, the result or what it says remains is not what follows from the right steps before
    it, and also if it breaks off; a slip that is noticed ("7+8=16 no 7+8=15") is right. Only the form in which
    `write_solution` writes is known: another one counts as wrong. Raises ValueError for a problem without steps.
    """
    if not problem.steps:
        raise ValueError(f"{problem.id}: no steps are known of it")
    if not completion.startswith(THINK):
        return 0
    position, (plan, *rests) = len(THINK), remaining_operations(problem)
    first = step_at(completion, position)
    planned = not re.search("[:=]", first)
    if planned:
        if first != f"{','.join(plan)}.":
            return position
        position += len(first)
    for step, rest in zip(problem.steps, rests, strict=True):
        written = step_at(completion, position)
        if not _follows(written, step, "".join(f",{part}" for part in rest), planned):
            return position
        position += len(written)
    if problem.family == "fraction":
        written = step_at(completion, position)
        if not written.endswith(".") or not all(_is_worth(text, problem.answer) for text in written[:-1].split("=")):
            return position
        position += len(written)
    answer = ANSWER.fullmatch(completion, position)
    return None if answer and _is_worth(answer[1], problem.answer) else position


def step_at(completion: str, position: int) -> str:
    """The step that begins at a character of a completion, or all the rest where none ends after it."""
    match = STEP.match(completion, position)
    return match[0] if match else completion[position:]


def _follows(written: str, step: Step, rest: str, planned: bool) -> bool:
    """Whether a step that is written is `step`, and names `rest`; without a plan it may leave that out."""
    operator, left, right = step
    work, *check = written.removesuffix(".").split(".")
    result = apply(operator, left, right)
    endings = [f"{result}{rest}"] if planned else [f"{result}{rest}", f"{result}"]
    if not written.endswith("."):
        return False
    if not check:
        return _is_operation(work, step, endings)
    undoing, again = check
    undo: Step = (INVERSE[operator], result, right)
    return (_is_operation(work, step, [f"{result}"]) and again in endings
            and _is_operation(undoing.removeprefix("check "), undo, [f"{left} ok"]))


def _is_operation(written: str, step: Step, endings: list[str]) -> bool:
    """Whether a text is `step` with its columns and one of `endings`: "47+38:7+8=15,8;85" or, of digits, "4+3=7"."""
    operator, left, right = step
    operation = f"{left}{operator}{right}"
    if written in [f"{operation}={ending}" for ending in endings]:
        return True
    head, _, work = written.partition(":")
    columns, _, ending = work.partition(";")
    said, wanted = [column.rpartition(" no ")[2] for column in columns.split(",")], COLUMNS[operator](left, right)
    return head == operation and ending in endings and len(said) == len(wanted) and all(
        one in (column, column.rpartition("=")[2]) for one, column in zip(said, wanted, strict=True)
    )


def _is_worth(text: str, answer: str) -> bool:
    """Whether a whole number or a fraction, reduced or not, has the value of `answer`."""
    return bool(NUMBER.fullmatch(text)) and Fraction(text) == Fraction(answer)
