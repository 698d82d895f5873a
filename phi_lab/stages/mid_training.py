"""Stage 1, mid-training: next-token prediction on every right rollout of the teacher, packed.

The paper (section 3.1) trains on about 30 B tokens of verified chains of thought, packed to 16K, for five epochs. Ours
does the same on about half a million tokens. The learning rate is constant and falls to zero in the last fifth
(warmup-stable-decay, arXiv 2404.06395): so training ends at the same place on every seed, where a rule that waited for
the validation loss to stop falling ended anywhere between 450 and 1,125 steps, and `hard` between 55 and 72 %
(docs/log.md). A share of the tokens is text of pretraining, replayed, so that what no rollout shows is not forgotten.
Deviation: the loss covers the completion only; a small world's prompts teach nothing.

    phi-lab run --from mid --to mid --out runs/my-run
"""

from pathlib import Path

from phi_lab.config.schema import LanguageModelingConfig
from phi_lab.core.files import read_rows
from phi_lab.stages import lm_trainer
from phi_lab.stages.packing import Pack, pack_best_fit
from phi_lab.stages.training import TrainingResult


def train(
    student: Path, data: Path, validation: Path, out: Path, config: LanguageModelingConfig, *, seed: int,
    pack: Pack = pack_best_fit,
) -> TrainingResult:
    """Train the model in `student` on `data` (JSON Lines with `prompt`, `completion`); it is saved in `out/model`.

    pack(lengths, row_length) -> rows of document indices: every document at most once, no row over `row_length`.
    """
    rows, held_out = (read_rows(path, ("prompt", "completion")) for path in (data, validation))
    return lm_trainer.fit_rollouts(
        student, rows, held_out, out, config, pack=pack, packed=True, seed=seed, title="mid-training"
    )
