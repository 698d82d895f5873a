"""Stage "base": pretraining of the tiny model that the recipe starts from, and training of its teacher.

Phi-4-mini came out of five trillion tokens able to answer easy problems at once (MATH-500 71.8 %) and hard ones rarely
(AIME24 10 %). Ours is brought to the same state on purpose: direct answers to easy problems, bare facts, columns of
digits as scratch work that no question asked for, and the logic domain, which no later stage trains on.
The *teacher* is this base trained on worked solutions written by a script; afterwards only the teacher's own samples
are used, and never the script's.

    phi-lab run --from base --to base --out runs/base
"""

import random
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from phi_lab.config.schema import LanguageModelingConfig
from phi_lab.core.progress import Bar
from phi_lab.model import chat, checkpoints, shapes
from phi_lab.problems import arithmetic, logic, pretraining_notes, worked_solutions
from phi_lab.stages import lm_trainer
from phi_lab.stages.packing import IGNORE, Document, document, pack_best_fit
from phi_lab.stages.training import TrainingResult

# Shares of scratch work, facts, readings, plans, tables, logic and direct answers in pretraining.
SHARES = (0.14, 0.03, 0.06, 0.15, 0.04, 0.22, 0.36)
DOCUMENT_TOKENS = 50  # of a pretraining document; the mean is a few more


def base_documents(tokenizer, count: int, seed: int, split: str = "train") -> list[Document]:
    """Scratch work without questions, notes of four kinds, logic, and questions answered directly, mostly easy ones."""
    rng, documents = random.Random(seed), []
    scratch, facts, readings, plans, tables, logical, _ = accumulate(SHARES)
    for _ in _with_progress(count, "writing pretraining text"):
        kind = rng.random()
        if kind < scratch:
            ids = chat.text_ids(tokenizer, pretraining_notes.scratch_work(rng, split)) + [tokenizer.eos_token_id]
            documents.append((ids, ids))
            continue
        if kind < tables:
            if kind < facts:
                pairs = pretraining_notes.facts(rng, split)
            elif kind < readings:
                pairs = pretraining_notes.readings(rng, split)
            else:
                pairs = pretraining_notes.plans(rng, split) if kind < plans else pretraining_notes.tables(rng)
            documents.append(_notes(tokenizer, pairs))
            continue
        if kind < logical:
            problem = logic.sample_split(rng, rng.randint(1, 4), split)
        else:
            level = rng.choices((1, 2, 3, 4), (88, 6, 3, 3))[0]
            problem = arithmetic.sample_split(rng, level, split)
        documents.append(document(tokenizer, problem.prompt, chat.completion_text(None, problem.answer)))
    return documents


def _with_progress(count: int, title: str) -> Iterator[int]:
    with Bar(count, title, "document") as bar:
        for number in range(count):
            yield number
            bar.update(1)


def _notes(tokenizer, pairs: list[tuple[str, str]]) -> Document:
    """Notes as one document. The first text of a pair, a random choice that cannot be predicted, has no loss."""
    ids, labels = [], []
    for given, predictable in pairs:
        given_ids, predictable_ids = chat.text_ids(tokenizer, given), chat.text_ids(tokenizer, predictable)
        ids += given_ids + predictable_ids
        labels += [IGNORE] * len(given_ids) + predictable_ids
    return ids, labels


def worked_documents(tokenizer, count: int, seed: int, split: str = "train") -> list[Document]:
    """Questions with worked solutions in all three styles: what the teacher is trained on."""
    rng, documents = random.Random(seed), []
    for _ in _with_progress(count, "writing worked solutions"):
        level = rng.choices((1, 2, 3, 4), (12, 20, 34, 34))[0]
        problem = arithmetic.sample_split(rng, level, split, arithmetic.EXTRA_FRACTIONS)
        style = rng.choices(worked_solutions.STYLES, (40, 30, 30))[0]
        work, answer = worked_solutions.write_solution(problem, style, rng)
        documents.append(document(tokenizer, problem.prompt, chat.completion_text(work, answer)))
    return documents


def train_base(out: Path, config: LanguageModelingConfig, seed: int = 0, model: str = "phi-nano") -> TrainingResult:
    """Pretrain a model from random weights for one pass; it is saved in `out/model`."""
    tokenizer = checkpoints.load_tokenizer()
    documents = base_documents(tokenizer, config.documents, seed)
    held_out = base_documents(tokenizer, 600, seed + 1, "validation")
    return lm_trainer.fit(
        shapes.build(model, len(tokenizer), seed), tokenizer, documents, held_out, out, config,
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


def train_teacher(base: Path, out: Path, config: LanguageModelingConfig, seed: int = 0) -> TrainingResult:
    """Train the teacher on scripted solutions for one pass, from the model in `base`."""
    tokenizer = checkpoints.load_tokenizer(base)
    documents = worked_documents(tokenizer, config.documents, seed)
    held_out = worked_documents(tokenizer, 600, seed + 1, "validation")
    return lm_trainer.fit(
        checkpoints.load(base), tokenizer, documents, held_out, out, config, pack=pack_best_fit, packed=True,
        seed=seed, title="teacher",
    )
