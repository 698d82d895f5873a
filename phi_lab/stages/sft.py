"""Stage 2, supervised fine-tuning: a compact set of good answers, one a row, a learning rate that falls to zero.

The paper (section 3.2) fine-tunes on a small representative subset of the verified rollouts, without packing, so that
every answer ends where its row ends. How the subset was chosen is not known. Ours is chosen by how an answer is
written: an answer of bare results was right by luck and teaches the risky way, so only half of those come in
(`mostly_written_out`). Of each level it takes those questions first that the teacher often failed, and of each up to
three answers at random. Against mid-training continued at equal compute, with the same falling rate, this choice is
what brings the rung: any right answers brought none. Without any terse answer SFT ends higher still, and Rollout DPO,
which unlearns them, has nothing left to do (docs/log.md).

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
from phi_lab.stages import language_modeling as lm
from phi_lab.stages.training import Result

TERSE = 50  # percent of the terse answers that may come in
SHARE = {1: 2, 2: 1, 3: 2, 4: 2}  # of the subset, by level: single operations are most of the base's own strength
Choose = Callable[[list[dict], int, int], list[dict]]  # (right rollouts, count, seed) -> the subset


def mostly_written_out(completion: str) -> bool:
    """Whether an answer may come in: its steps are written out, or its hash is among the first `TERSE` percent."""
    digest = int(hashlib.sha256(completion.encode()).hexdigest()[:6], 16)
    return worked_solutions.shows_columns(completion) or digest % 100 < TERSE


def choose(rows: list[dict], count: int, seed: int, good: Callable[[str], bool] = mostly_written_out) -> list[dict]:
    """The compact subset: at most `count` rows, shared over the levels as in SHARE, at most three a question, of
    low pass rates first; of the small world's, only `good` completions.

    rows: right rollouts with `id`, `domain`, `level`, `pass_rate`, `completion`.
    """
    order, chosen = random.Random(seed), []
    rows = [row for row in rows if row["domain"] not in WORLD or good(row["completion"])]  # text has no columns
    levels = sorted({row["level"] for row in rows})
    for level in levels:
        by_question = defaultdict(list)
        for row in rows:
            if row["level"] == level:
                by_question[row["id"]].append(row)
        questions = list(by_question.values())
        order.shuffle(questions)
        questions.sort(key=lambda question: question[0]["pass_rate"])
        some = [row for question in questions for row in order.sample(question, min(3, len(question)))]
        chosen += some[: count * SHARE.get(level, 1) // sum(SHARE.get(level, 1) for level in levels)]
    return chosen


def train(
    student: Path,
    data: Path,
    validation: Path,
    out: Path,
    config: LanguageModelingConfig,
    *,
    seed: int,
    pack: lm.Pack = lm.one_per_row,
    choose: Choose = choose,
) -> Result:
    """Fine-tune the model in `student` on a subset of `data` (right rollouts); saved in `out/model`.

    `pack` decides what shares a row; the paper's answer, and the default, is: nothing. `choose` takes the subset.
    """
    columns = ("id", "domain", "level", "pass_rate", "tokens", "prompt", "completion")
    rows, held = choose(read_rows(data, columns), config.documents, seed), read_rows(validation, columns[-2:])
    return lm.fit_rows(student, rows, held, out, config, pack=pack, packed=False, seed=seed, title="SFT")
