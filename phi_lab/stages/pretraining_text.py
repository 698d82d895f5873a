"""What the base and its teacher are trained on, text of the small world, and what later stages replay of it.

Pretraining mixes direct answers to easy problems, bare facts, columns of digits as scratch work that no question asked
for, and the logic domain, which no later stage trains on. The teacher reads worked solutions besides.
"""

import random
from collections.abc import Iterator, Mapping, Sequence

from phi_lab.core.progress import Bar
from phi_lab.model import chat
from phi_lab.problems import arithmetic, logic, pretraining_notes, worked_solutions
from phi_lab.stages.packing import IGNORE, Document, document

SHARES = {  # of pretraining, by kind of text
    "scratch": 0.19, "facts": 0.03, "readings": 0.05, "plans": 0.16, "tables": 0.03, "logic": 0.22, "direct": 0.32,
}
REPLAY_SHARES = {  # of replayed text: without direct answers, which a stage that teaches to reason contradicts
    "scratch": 0.09, "facts": 0.03, "readings": 0.03, "plans": 0.12, "tables": 0.03, "logic": 0.7,
}
NOTES = {
    "facts": pretraining_notes.facts, "readings": pretraining_notes.readings, "plans": pretraining_notes.plans,
    "tables": lambda rng, _: pretraining_notes.tables(rng),
}
DIRECT_LEVELS = {1: 90, 2: 4, 3: 3, 4: 3}  # of questions that pretraining answers at once
WORKED_LEVELS = {1: 12, 2: 20, 3: 30, 4: 30, 5: 8}  # of the teacher's worked solutions
WORKED_SHARE = 0.6  # of the teacher's documents; the rest is text of pretraining
STYLE_WEIGHTS = (40, 30, 30)
DOCUMENT_TOKENS = 60  # of a pretraining document; the mean is a few more


def base_documents(
    tokenizer, count: int, seed: int, split: str = "train", shares: Mapping[str, float] = SHARES
) -> list[Document]:
    """Scratch work without questions, notes of four kinds, logic, and questions answered directly, mostly easy ones;
    `shares` says how much of each.
    """
    rng = random.Random(seed)
    return [
        _base_document(tokenizer, rng, kind, split)
        for kind in _with_progress(rng.choices(list(shares), list(shares.values()), k=count), "writing text")
    ]


def _base_document(tokenizer, rng: random.Random, kind: str, split: str) -> Document:
    if kind in NOTES:
        return _notes(tokenizer, NOTES[kind](rng, split))
    if kind == "scratch":
        ids = chat.text_ids(tokenizer, pretraining_notes.scratch_work(rng, split)) + [tokenizer.eos_token_id]
        return ids, ids
    if kind == "logic":
        problem = logic.sample_split(rng, rng.randint(1, 4), split)
    else:
        level = rng.choices(list(DIRECT_LEVELS), list(DIRECT_LEVELS.values()))[0]
        problem = arithmetic.sample_split(rng, level, split)
    return document(tokenizer, problem.prompt, chat.completion_text(None, problem.answer))


def replay_documents(tokenizer, tokens: int, seed: int) -> list[Document]:
    """About `tokens` tokens of fresh pretraining text, for later stages to train on beside their own data: mostly what
    they would otherwise forget. In the paper too mid-training data is diverse [S].
    """
    documents, total = [], 0
    while total < tokens:
        more = base_documents(tokenizer, max(1, (tokens - total) // DOCUMENT_TOKENS), seed, shares=REPLAY_SHARES)
        for ids, labels in more:
            if total >= tokens:
                break
            documents.append((ids, labels))
            total += len(ids)
        seed += 1_000_003
    return documents


def _with_progress(items: Sequence, title: str) -> Iterator:
    with Bar(len(items), title, "document") as bar:
        for item in items:
            yield item
            bar.update(1)


def _notes(tokenizer, pairs: list[tuple[str, str]]) -> Document:
    """Notes as one document. The first text of a pair, a random choice that cannot be predicted, has no loss."""
    ids, labels = [], []
    for given, predictable in pairs:
        given_ids, predictable_ids = chat.text_ids(tokenizer, given), chat.text_ids(tokenizer, predictable)
        ids += given_ids + predictable_ids
        labels += [IGNORE] * len(given_ids) + predictable_ids
    return ids, labels


def teacher_documents(tokenizer, count: int, seed: int, split: str = "train") -> list[Document]:
    """Questions with worked solutions in all three styles, and text of pretraining: what the teacher is trained on."""
    rng, documents = random.Random(seed), []
    kinds, shares = list(SHARES), list(SHARES.values())
    for _ in _with_progress(range(count), "writing worked solutions"):
        if rng.random() >= WORKED_SHARE:
            documents.append(_base_document(tokenizer, rng, rng.choices(kinds, shares)[0], split))
            continue
        level = rng.choices(list(WORKED_LEVELS), list(WORKED_LEVELS.values()))[0]
        problem = arithmetic.sample_split(rng, level, split)
        style = rng.choices(worked_solutions.STYLES, STYLE_WEIGHTS)[0]
        work, answer = worked_solutions.write_solution(problem, style, rng)
        documents.append(document(tokenizer, problem.prompt, chat.completion_text(work, answer)))
    return documents
