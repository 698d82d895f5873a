"""Stage "base": pretraining of the tiny model that the recipe starts from, and training of its teacher.

Phi-4-mini came out of five trillion tokens able to answer easy problems at once (MATH-500 71.8 %) and hard ones rarely
(AIME24 10 %). Ours is brought to the same state on purpose: direct answers to easy problems, bare facts, columns of
digits as scratch work that no question asked for, and the logic domain, which no later stage trains on.
The *teacher* is a wider model (2.2 million parameters), trained on the same text and on worked solutions written by a
script; afterwards only the teacher's own samples are used, and never the script's.

    phi-lab run --from base --to base --out runs/base
"""

from pathlib import Path

from phi_lab.config.schema import LanguageModelingConfig
from phi_lab.model import checkpoints, shapes
from phi_lab.stages import lm_trainer
from phi_lab.stages.packing import pack_best_fit
from phi_lab.stages.pretraining_text import DOCUMENT_TOKENS, base_documents, teacher_documents
from phi_lab.stages.training import TrainingResult


def train_base(out: Path, config: LanguageModelingConfig, seed: int = 0) -> TrainingResult:
    """Pretrain a `phi-nano` from random weights for one pass; it is saved in `out/model`."""
    tokenizer = checkpoints.load_tokenizer()
    documents = base_documents(tokenizer, config.documents, seed)
    held_out = base_documents(tokenizer, 600, seed + 1, "validation")
    return lm_trainer.fit(
        shapes.build("phi-nano", len(tokenizer), seed), tokenizer, documents, held_out, out, config,
        pack=pack_best_fit, packed=True, seed=seed, title="base",
    )


def continue_pretraining(student: Path, out: Path, config: LanguageModelingConfig, seed: int = 0) -> TrainingResult:
    """Pretrain the model in `student` for `config.steps` more on fresh text: the control of mid-training."""
    tokenizer = checkpoints.load_tokenizer(student)
    count = config.steps * config.batch_size * config.row_length // DOCUMENT_TOKENS
    return lm_trainer.fit(
        checkpoints.load(student), tokenizer, base_documents(tokenizer, count, seed + 1000), [], out, config,
        pack=pack_best_fit, packed=True, seed=seed, title="base, continued",
    )


def train_teacher(out: Path, config: LanguageModelingConfig, seed: int = 0) -> TrainingResult:
    """Train the teacher, a `phi-micro`, from random weights for one pass; it is saved in `out/model`."""
    tokenizer = checkpoints.load_tokenizer()
    documents = teacher_documents(tokenizer, config.documents, seed)
    held_out = teacher_documents(tokenizer, 600, seed + 1, "validation")
    return lm_trainer.fit(
        shapes.build("phi-micro", len(tokenizer), seed), tokenizer, documents, held_out, out, config,
        pack=pack_best_fit, packed=True, seed=seed, title="teacher",
    )
