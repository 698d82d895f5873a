"""Stage 1, mid-training: next-token prediction on every right rollout of the teacher, packed.

The paper (section 3.1) feeds about 30 B tokens of verified chains of thought, packed to 16K, for five epochs, "until
validation stops improving". Ours does the same on about a million tokens: the learning rate is constant until the
validation loss no longer falls, and then falls to zero within 75 steps (warmup-stable-decay, arXiv 2404.06395), since
weights that jump about at a constant rate end at 29 to 44 % on `hard` by chance alone (docs/log.md). Where it ends is
a plateau and not a choice. Deviation: the loss covers the answer only; a small world's questions teach nothing.

    phi-lab run --from mid --to mid --out runs/my-run
"""

from pathlib import Path

from phi_lab.config.schema import LanguageModelingConfig
from phi_lab.core.files import read_rows
from phi_lab.stages import language_modeling as lm
from phi_lab.stages.training import Result


def train(
    student: Path, data: Path, validation: Path, out: Path, config: LanguageModelingConfig, *, seed: int,
    pack: lm.Pack = lm.pack_best_fit,
) -> Result:
    """Train the model in `student` on `data` (JSON Lines with `prompt`, `completion`); the result is saved in
    `out/model`.

    pack(lengths, row_length) -> rows of document indices: every document at most once, no row over `row_length`.
    """
    rows, held = (read_rows(path, ("prompt", "completion")) for path in (data, validation))
    return lm.fit_rows(student, rows, held, out, config, pack=pack, packed=True, seed=seed, title="mid-training")
