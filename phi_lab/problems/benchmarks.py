"""Three fixed benchmarks, shipped: they play MATH-500 (`easy`), AIME (`hard`) and GPQA (`transfer`) in the small world.

easy: one operation; hard: three or four; transfer: logic, which no stage after pretraining ever sees. 1,000 problems
each, all from the benchmark split, so no problem of theirs is ever trained on, in whatever wording
(tests/problems/test_world.py proves it). What may be trained on is a step: the columns of a longer problem can be those of an
easy one, as every sum is made of the same hundred sums of digits.

    python -m phi_lab.problems.benchmarks        # writes data/benchmarks again, byte for byte
"""

import os
import random
from pathlib import Path

from phi_lab.config.schema import INSTRUCTION
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, write_rows
from phi_lab.model import chat
from phi_lab.model.checkpoints import DATA
from phi_lab.problems import arithmetic, logic, sources

FOLDER = DATA / "benchmarks"
NAMES = ("easy", "hard", "transfer")
SIZE = 1000
LEVELS = {"easy": (1,), "hard": (3, 4), "transfer": (1, 2, 3)}


def load(name: str) -> list[dict]:
    """The rows of a benchmark: `id, domain, level, prompt, answer`; besides the lab's own, any of `sources.NAMED`, from
    the hub or from a folder that PHI_LAB_SETS names.

    Raises UserError for an unknown name, and for a set that cannot be found or read.
    """
    if name in NAMES:
        return read_rows(FOLDER / f"{name}.jsonl", ("id", "prompt", "answer"))
    if name not in sources.NAMED:
        raise UserError(f"unknown benchmark {name!r}: choose one of {', '.join((*NAMES, *sources.NAMED))}")
    folder = os.environ.get("PHI_LAB_SETS")
    return [problem.row() for problem, _ in sources.problems(name, Path(folder) if folder else None, measured=True)]


def question(name: str, prompt: str) -> str:
    """What a model is asked: a problem of the lab's own sets as it stands, one of a public set after the instruction of
    `phi_lab.evaluate.public_benchmarks`. A model of the small world answers in a box by itself; one from elsewhere has to be
    told.
    """
    return prompt if name in NAMES else chat.prepend_instruction(INSTRUCTION, prompt)


def build(folder: Path = FOLDER, seed: int = 2026) -> None:
    """Draw the benchmarks anew: different prompts, levels in turn."""
    for name in NAMES:
        rng, rows = random.Random(f"{name}-{seed}"), {}
        draw = logic.sample_split if name == "transfer" else arithmetic.sample_split
        while len(rows) < SIZE:
            problem = draw(rng, LEVELS[name][len(rows) % len(LEVELS[name])], "benchmark")
            rows.setdefault(problem.id, problem.row())
        write_rows(folder / f"{name}.jsonl", rows.values())


if __name__ == "__main__":
    build()
