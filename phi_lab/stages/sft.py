"""Stage 2, supervised fine-tuning: a compact set of good completions, one a row, a learning rate that falls to zero.

The paper (section 3.2) fine-tunes on a small representative subset of the verified rollouts, without packing, so that
every completion ends where its row ends. How the authors chose the subset is not known. Ours is chosen by how a
completion is written: one of bare results was right by luck and teaches the risky way, so only half of those come in
(`mostly_written_out`). Of each level it takes those questions first that the teacher often failed, and of each question
up to three completions at random. Against mid-training continued at equal compute, with the same falling rate, this
choice is what improves the model: a subset of any right rollouts did not. Without any terse completion SFT ends higher
still, and Rollout DPO, which unlearns them, has nothing left to improve (docs/log.md).

    phi-lab run --from sft --to sft --out runs/my-run
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from phi_lab.config.schema import LanguageModelingConfig
from phi_lab.core.files import read_rows
from phi_lab.problems import worked_solutions
from phi_lab.problems.problem import WORLD
from phi_lab.stages import lm_trainer
from phi_lab.stages.packing import Pack, one_per_row
from phi_lab.stages.training import TrainingResult

TERSE_PERCENT = 50  # of the terse completions that may come in
LEVEL_SHARES = {1: 2, 2: 1, 3: 2, 4: 2, 5: 2}  # of the subset, by level
Choose = Callable[[list[dict], int, int], list[dict]]  # (right rollouts, count, seed) -> the subset


def mostly_written_out(completion: str) -> bool:
    """Whether its steps are written out, or its hash is among the first `TERSE_PERCENT` percent."""
    digest = int(hashlib.sha256(completion.encode()).hexdigest()[:6], 16)
    return worked_solutions.shows_columns(completion) or digest % 100 < TERSE_PERCENT


def choose(rows: list[dict], count: int, seed: int) -> list[dict]:
    """The compact subset: at most `count` rows, split over the levels by LEVEL_SHARES, at most three a question, low
    pass rates first; of the small world's, only those that `mostly_written_out` allows.

    rows: right rollouts with `id`, `domain`, `level`, `pass_rate`, `completion`.
    """
    rng, chosen = random.Random(seed), []
    rows = [row for row in rows if row["domain"] not in WORLD or mostly_written_out(row["completion"])]
    levels = sorted({row["level"] for row in rows})
    shares = sum(LEVEL_SHARES.get(level, 1) for level in levels)
    for level in levels:
        by_question = defaultdict(list)
        for row in rows:
            if row["level"] == level:
                by_question[row["id"]].append(row)
        questions = list(by_question.values())
        rng.shuffle(questions)
        questions.sort(key=lambda question: question[0]["pass_rate"])
        candidates = [row for question in questions for row in rng.sample(question, min(3, len(question)))]
        chosen += candidates[: max(1, count * LEVEL_SHARES.get(level, 1) // shares)]  # of few rows some of each level
    return chosen[:count]


def train(
    student: Path, data: Path, validation: Path, out: Path, config: LanguageModelingConfig, *, seed: int,
    pack: Pack = one_per_row, choose: Choose = choose,
) -> TrainingResult:
    """Fine-tune the model in `student` on a subset of `data` (right rollouts); it is saved in `out/model`.

    `pack` decides what shares a row; the paper's answer, and the default, is: nothing. `choose` takes the subset.
    """
    rows = read_rows(data, ("id", "domain", "level", "pass_rate", "tokens", "prompt", "completion"))
    held_out = read_rows(validation, ("prompt", "completion"))
    rows = choose(rows, config.documents, seed)
    return lm_trainer.fit_rollouts(
        student, rows, held_out, out, config, pack=pack, packed=False, seed=seed, title="SFT"
    )
