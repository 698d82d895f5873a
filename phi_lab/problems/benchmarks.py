"""Three fixed benchmarks, shipped: they stand for MATH-500 (`easy`), AIME (`hard`) and GPQA (`transfer`).

easy: one operation, 500 problems; hard: three to seven, 1,000 problems; transfer: logic, which no stage after
pretraining trains on, 1,000 problems. All are from the benchmark split, so none of them is ever trained on, in whatever
wording (tests/problems/test_benchmarks.py proves it). No two arithmetic problems share operands and operators: the same
sum in other words would count twice what is measured once. Truth values are too few for that: level 1 has a hundred
questions, which come in several orders. A step may be trained on: the columns of a longer problem can be those
of an easy one, as every sum is made of the same hundred sums of digits.

    python -m phi_lab.problems.benchmarks        # writes data/benchmarks again, byte for byte
"""

import os
import random
from pathlib import Path
from typing import cast

from phi_lab.config.schema import INSTRUCTION
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, write_rows
from phi_lab.core.paths import BENCHMARKS
from phi_lab.core.records import ProblemRow
from phi_lab.model import chat
from phi_lab.problems import arithmetic, logic, sources

NAMES = ("easy", "hard", "transfer")
SIZES = {"easy": 500, "hard": 1000, "transfer": 1000}
LEVELS = {"easy": (1,), "hard": arithmetic.HARD_LEVELS, "transfer": (1, 2, 3)}
SAMPLERS = {"easy": arithmetic.sample_split, "hard": arithmetic.sample_split, "transfer": logic.sample_split}


def load(name: str) -> list[ProblemRow]:
    """The problems of a benchmark. Besides one of `NAMES`, `name` may be one of `sources.NAMED`, which is read from the
    hub or from the folder in the environment variable PHI_LAB_SETS.

    Raises UserError for an unknown name, and for a set that cannot be found or read.
    """
    if name in NAMES:
        return cast(list[ProblemRow], read_rows(BENCHMARKS / f"{name}.jsonl", ("id", "prompt", "answer"), empty=False))
    if name not in sources.NAMED:
        raise UserError(f"unknown benchmark {name!r}: choose one of {', '.join((*NAMES, *sources.NAMED))}")
    folder = os.environ.get("PHI_LAB_SETS")
    problems = sources.read_problems(name, Path(folder) if folder else None, evaluation=True)
    return [problem.row() for problem, _ in problems]


def build_prompt(name: str, problem: str) -> str:
    """The user message for a problem of benchmark `name`.

    A model of the small world answers in a box by itself, so those problems stand alone; the problems of public sets
    follow the instruction of `phi_lab.evaluate.public_benchmarks`.
    """
    return problem if name in NAMES else chat.prepend_instruction(INSTRUCTION, problem)


def build(folder: Path = BENCHMARKS, seed: int = 2026) -> None:
    """Sample the benchmarks anew: different prompts, levels in turn."""
    for name in NAMES:
        rng, levels = random.Random(f"{name}-{seed}"), LEVELS[name]
        rows: dict[str, ProblemRow] = {}
        while len(rows) < SIZES[name]:
            problem = SAMPLERS[name](rng, levels[len(rows) % len(levels)], "benchmark")
            rows.setdefault(problem.id if name == "transfer" else problem.key, problem.row())
        write_rows(folder / f"{name}.jsonl", rows.values())


if __name__ == "__main__":
    build()
