"""Stage "base": pretraining of the tiny model that the recipe starts from, and bootstrapping of its teacher.

Phi-4-mini came out of five trillion tokens able to answer easy problems at once (MATH-500 71.8 %) and hard ones hardly
(AIME24 10 %). Ours is given the same state on purpose: direct answers to easy problems, columns of digits as bare facts,
the logic domain as the thing that nobody will ever train again. The *teacher* is that base, trained much longer on worked
solutions written by a script; afterwards the script steps back and only the teacher's own samples are used.

    phi-lab train-base --out data/base        phi-lab train-teacher --out data/teacher
"""

import random
from pathlib import Path

from phi_lab import chat, models
from phi_lab.domains import arithmetic, logic
from phi_lab.scale import Training
from phi_lab.stages import language_modeling as lm
from phi_lab.stages.training import Result


def base_documents(tokenizer, count: int, seed: int, split: str = "train") -> list[lm.Document]:
    """Short documents: questions answered directly, column notes, logic. Level 1 dominates, as easy text does anywhere."""
    rng, documents = random.Random(seed), []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.15:
            ids = tokenizer(arithmetic.column_note(rng)).input_ids + [tokenizer.eos_token_id]
            documents.append((ids, ids))
            continue
        if kind < 0.35:
            problem = logic.sample_split(rng, rng.randint(1, 4), split)
        else:
            problem = arithmetic.sample_split(rng, rng.choices((1, 2, 3, 4), (72, 14, 8, 6))[0], split)
        documents.append(lm.document(tokenizer, problem.prompt, chat.completion_text(None, problem.answer)))
    return documents


def worked_documents(tokenizer, count: int, seed: int, split: str = "train") -> list[lm.Document]:
    """Questions with worked solutions in all three styles: what bootstraps the teacher."""
    rng, documents = random.Random(seed), []
    for _ in range(count):
        problem = arithmetic.sample_split(rng, rng.choices((1, 2, 3, 4), (12, 20, 34, 34))[0], split)
        work, answer = arithmetic.solution(problem, rng.choices(arithmetic.STYLES, (50, 25, 25))[0], rng)
        documents.append(lm.document(tokenizer, problem.prompt, chat.completion_text(work, answer)))
    return documents


def train_base(out: Path, numbers: Training, seed: int = 0, model: str = "phi-nano") -> Result:
    """Pretrain a model from random weights."""
    tokenizer = models.load_tokenizer()
    network = models.build(model, len(tokenizer), seed)
    return lm.fit(
        network, tokenizer, base_documents(tokenizer, numbers.documents, seed), base_documents(tokenizer, 600, seed + 1, "validation"),
        out, numbers, pack=lm.pack_best_fit, packed=True, seed=seed, title="base",
    )  # fmt: skip


def train_teacher(base: Path, out: Path, numbers: Training, seed: int = 0) -> Result:
    """Train the teacher from the base on scripted solutions; one pass, nothing seen twice."""
    tokenizer = models.load_tokenizer()
    return lm.fit(
        models.load(base), tokenizer, worked_documents(tokenizer, numbers.documents, seed),
        worked_documents(tokenizer, 600, seed + 1, "validation"),
        out, numbers, pack=lm.pack_best_fit, packed=True, seed=seed, title="teacher",
    )  # fmt: skip
