"""Stage "base": pretraining of the tiny model that the recipe starts from, and bootstrapping of its teacher.

Phi-4-mini came out of five trillion tokens able to answer easy problems at once (MATH-500 71.8 %) and hard ones hardly
(AIME24 10 %). Ours is given the same state on purpose: direct answers to easy problems, bare facts, columns of digits
as scratch work that no question asked for, and the logic domain as the thing that nobody will ever train again.
A second phase brings more scratch work, as large models end their pretraining on reasoning text. The *teacher*
branches off after the first phase and is trained much longer on worked solutions written by a script; afterwards the
script steps back and only the teacher's own samples are used.

    phi-lab run --from base --to base --out runs/base
"""

import random
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from phi_lab import chat, models
from phi_lab.domains import arithmetic, logic
from phi_lab.files import read_rows
from phi_lab.scale import Training
from phi_lab.stages import language_modeling as lm
from phi_lab.stages.training import Result

# Shares of scratch work, facts, readings, plans, tables, logic and direct answers in the two phases of pretraining.
EARLY = (0.2, 0.05, 0.05, 0.0, 0.0, 0.14, 0.56)
LATE = (0.12, 0.03, 0.05, 0.3, 0.1, 0.15, 0.25)


def base_documents(
    tokenizer, count: int, seed: int, split: str = "train", shares: tuple[float, ...] = EARLY
) -> list[lm.Document]:
    """Scratch work without questions, notes of four kinds, logic, and questions answered directly, mostly easy ones.

    shares: of the documents, in the order of `EARLY` and `LATE`; they add up to 1.
    """
    rng, documents = random.Random(seed), []
    scratch, facts, readings, plans, tables, logical, _ = accumulate(shares)
    for _ in range(count):
        kind = rng.random()
        if kind < scratch:
            ids = tokenizer(arithmetic.scratch_work(rng, split)).input_ids + [tokenizer.eos_token_id]
            documents.append((ids, ids))
            continue
        if kind < tables:
            if kind < facts:
                pairs = arithmetic.facts(rng, split)
            elif kind < readings:
                pairs = arithmetic.readings(rng, split)
            else:
                pairs = arithmetic.plans(rng, split) if kind < plans else arithmetic.tables(rng)
            documents.append(_notes(tokenizer, pairs))
            continue
        if kind < logical:
            problem = logic.sample_split(rng, rng.randint(1, 4), split)
        else:
            level = rng.choices((1, 2, 3, 4), (88, 6, 3, 3))[0]
            problem = arithmetic.sample_split(rng, level, split, arithmetic.SMALL_AT_FIRST)
        documents.append(lm.document(tokenizer, problem.prompt, chat.completion_text(None, problem.answer)))
    return documents


def _notes(tokenizer, pairs: list[tuple[str, str]]) -> lm.Document:
    """Notes as one document; what cannot be known (which sum comes next) carries no loss."""
    ids, labels = [], []
    for asked, follows in pairs:
        unknown, known = tokenizer(asked).input_ids, tokenizer(follows).input_ids
        ids += unknown + known
        labels += [lm.IGNORE] * len(unknown) + known
    return ids, labels


def worked_documents(tokenizer, count: int, seed: int, split: str = "train") -> list[lm.Document]:
    """Questions with worked solutions in all three styles: what bootstraps the teacher."""
    rng, documents = random.Random(seed), []
    for _ in range(count):
        problem = arithmetic.sample_split(rng, rng.choices((1, 2, 3, 4), (12, 20, 34, 34))[0], split)
        work, answer = arithmetic.solution(problem, rng.choices(arithmetic.STYLES, (40, 30, 30))[0], rng)
        documents.append(lm.document(tokenizer, problem.prompt, chat.completion_text(work, answer)))
    return documents


def train_base(out: Path, early: Training, late: Training, seed: int = 0, model: str = "phi-nano") -> Result:
    """Pretrain a model from random weights, in two phases; the first one's model stays in `out/early/model`."""
    tokenizer = models.load_tokenizer()
    network = models.build(model, len(tokenizer), seed)
    if (out / "early" / "model").is_dir():
        network = models.load(out / "early" / "model")
    else:
        _pretrain(network, tokenizer, out / "early", early, seed, EARLY)
    result = _pretrain(network, tokenizer, out, late, seed + 2, LATE)
    first = read_rows(out / "early" / "metrics.jsonl")[-1]
    return replace(
        result, seconds=result.seconds + first["seconds"], train_tokens=result.train_tokens + first["tokens"]
    )


def _pretrain(network, tokenizer, out: Path, numbers: Training, seed: int, shares: tuple[float, ...]) -> Result:
    documents = base_documents(tokenizer, numbers.documents, seed, shares=shares)
    held = base_documents(tokenizer, 600, seed + 1, "validation", shares)
    return lm.fit(
        network, tokenizer, documents, held, out, numbers, pack=lm.pack_best_fit, packed=True, seed=seed, title="base"
    )


def train_teacher(base: Path, out: Path, numbers: Training, seed: int = 0) -> Result:
    """Train the teacher on scripted solutions, one pass, from the model in `base`, the first phase of pretraining."""
    tokenizer = models.load_tokenizer(base)
    documents = worked_documents(tokenizer, numbers.documents, seed)
    held = worked_documents(tokenizer, 600, seed + 1, "validation")
    return lm.fit(
        models.load(base), tokenizer, documents, held, out, numbers, pack=lm.pack_best_fit, packed=True, seed=seed,
        title="teacher",
    )  # fmt: skip
