"""The pairs of Rollout DPO: which right answer is chosen over which wrong one, of three kinds (`DPOConfig.pairs`).

- "teacher", the paper's: right over wrong rollouts of the teacher, off-policy. Most of the teacher's mistakes are slips
  that the student would never make, and pairs of them teach it nothing, so `filter_by_student_likelihood` takes those
  that the student itself might write.
- "student": right over wrong rollouts that the student samples, on-policy. Only the verifier says which are right.
- "steps": a wrong rollout of the student is cut before its first wrong step (`problems/step_check.py`). That step is
  rejected, and chosen is a right one with which another of its rollouts goes on from the same beginning.

Whole answers are paired with those closest in length, so that length is not what a pair teaches.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab.config.schema import DistillationConfig, DPOConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.core.records import PreferencePair
from phi_lab.core.run_folder import DataFolder
from phi_lab.distill import shards, teachers, training_sets
from phi_lab.problems.problem import Problem
from phi_lab.problems.step_check import first_wrong_step, step_at
from phi_lab.stages.packing import collate, document, rows_dataset

# pair(right, wrong, count, rng) -> up to `count` (chosen, rejected) for one question
Pair = Callable[[Sequence[dict], Sequence[dict], int, random.Random], list[tuple[dict, dict]]]
SCORED_TOGETHER = 64  # rollouts in one forward pass of `log_probabilities`
TEMPERATURE = 0.8  # at which the student is sampled
MAX_TOKENS = 384  # of an answer
NO_PAIRS = "no question has both a right and a plausible wrong rollout: take more questions, or raise `max_student_nll`"


def pair_closest_length(
    right: Sequence[dict], wrong: Sequence[dict], count: int, rng: random.Random
) -> list[tuple[dict, dict]]:
    """The `count` pairs of one question's rollouts that differ least in tokens; each rollout is in one pair at most."""
    gaps = sorted(
        (abs(good["tokens"] - bad["tokens"]), rng.random(), i, j)
        for i, good in enumerate(right)
        for j, bad in enumerate(wrong)
    )
    pairs, used_right, used_wrong = [], set(), set()
    for _, _, i, j in gaps:
        if len(pairs) < count and i not in used_right and j not in used_wrong:
            used_right.add(i)
            used_wrong.add(j)
            pairs.append((right[i], wrong[j]))
    return pairs


def make_pairs(
    right: Iterable[dict], wrong: Iterable[dict], config: DPOConfig, seed: int, pair: Pair = pair_closest_length
) -> list[PreferencePair]:
    """`prompt` (the question), `chosen`, `rejected` rows from rollouts of the same questions; shuffled.

    Raises UserError when no question has both a right and a wrong rollout.
    """
    rng = random.Random(seed)
    sides: dict[str, tuple[list, list]] = defaultdict(lambda: ([], []))
    for side, rollouts in enumerate((right, wrong)):
        for row in rollouts:
            sides[row["id"]][side].append(row)
    rows: list[PreferencePair] = []
    for good, bad in sides.values():
        for chosen, rejected in pair(good, bad, config.pairs_per_question, rng) if good and bad else []:
            rows.append({"prompt": chosen["prompt"], "chosen": chosen["completion"],
                         "rejected": rejected["completion"]})
    if not rows:
        raise UserError(NO_PAIRS)
    rng.shuffle(rows)
    return rows[: config.max_pairs]


def make_step_pairs(
    questions: Iterable[Problem], rollouts: Iterable[dict], config: DPOConfig, seed: int
) -> list[PreferencePair]:
    """`prompt`, `prefix`, `chosen`, `rejected` rows from rollouts of problems whose steps are known; shuffled.

    Of each wrong rollout its first wrong step; it is dropped where no other rollout goes on from there with a right
    one. Of several right ones the closest in length is chosen. Raises UserError when no pair is left.
    """
    rng, by_id = random.Random(seed), {problem.id: problem for problem in questions}
    answers: dict[str, dict[str, dict]] = defaultdict(dict)  # by problem, by completion
    for row in rollouts:
        if by_id[row["id"]].steps:
            answers[row["id"]][row["completion"]] = row
    rows: list[PreferencePair] = []
    for name, distinct in answers.items():
        wrong_from = {text: first_wrong_step(by_id[name], text) for text in distinct}
        pairs: dict[tuple[str, str], PreferencePair] = {}
        for text, position in wrong_from.items():
            if position is None or distinct[text]["verdict"] != "wrong":
                continue
            prefix, rejected = text[:position], step_at(text, position)
            right = {step_at(other, position) for other, place in wrong_from.items()
                     if other.startswith(prefix) and (place is None or place > position)}
            if prefix and rejected and right:
                chosen = min(right, key=lambda step: (abs(len(step) - len(rejected)), step))
                pairs[prefix, rejected] = {"prompt": by_id[name].prompt, "prefix": prefix, "chosen": chosen,
                                           "rejected": rejected}
        rows += rng.sample(list(pairs.values()), min(len(pairs), config.pairs_per_question))
    if not rows:
        raise UserError(f"no two rollouts part at a wrong step: {NO_PAIRS.partition(': ')[2].partition(',')[0]}")
    rng.shuffle(rows)
    return rows[: config.max_pairs]


# ------------------------------------------------------------------ the rollouts


def read_rollouts(
    right: Path, wrong: Path, tokenizer: PreTrainedTokenizerFast, max_tokens: int
) -> tuple[list[dict], list[dict]]:
    """The right rollouts of one file and, of another, the wrong ones to the same questions; those of more than
    `max_tokens` tokens are left out (0: none are).
    """
    columns = ("id", "prompt", "completion", "tokens")
    right_rows = read_rows(right, columns)
    answered = {row["id"] for row in right_rows}
    sides = right_rows, [row for row in read_rows(wrong, columns) if row["id"] in answered]
    if max_tokens:
        sides = tuple(
            [row for row, count in zip(side, count_tokens(tokenizer, side), strict=True) if count <= max_tokens]
            for side in sides
        )
    return sides


def sample_student(student: Path, questions: Sequence[Problem], out: Path, seed: int) -> None:
    """Let the model in `student` answer every question eight times, and write rollouts/, right.jsonl and wrong.jsonl in
    `out`. What is there already is not sampled again.
    """
    plan = DistillationConfig(len(questions), 0, temperature=TEMPERATURE, max_new_tokens=MAX_TOKENS)
    folder = DataFolder(out)
    shards.collect_rollouts(
        teachers.model_teacher(student, plan, seed), questions, folder.rollouts, name="student", samples=plan.samples,
        temperature=plan.temperature, seed=seed,
    )
    training_sets.write_training_sets(shards.rows(folder.rollouts), out, about="Sampled from the student itself.")


def count_tokens(tokenizer: PreTrainedTokenizerFast, rows: Iterable[dict]) -> list[int]:
    """Tokens of each rollout with its prompt and its stop token."""
    return [len(document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows]


def log_probabilities(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: Sequence[dict]) -> list[float]:
    """log pi(completion and its stop token | prompt) of each rollout by the model, in nats, at temperature 1."""
    documents = [document(tokenizer, row["prompt"], row["completion"]) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: len(documents[index][0]))
    collator, logprobs = collate(tokenizer.pad_token_id), [0.0] * len(rows)
    for first in range(0, len(order), SCORED_TOGETHER):
        indices = order[first : first + SCORED_TOGETHER]
        batch = collator(list(rows_dataset(documents, [[index] for index in indices], 0, None)))
        labels = batch.pop("labels")[:, 1:].to(model.device)
        with torch.no_grad():
            logits = model(**{name: value.to(model.device) for name, value in batch.items()}).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        for index, loss in zip(indices, losses.sum(1).tolist(), strict=True):
            logprobs[index] = -loss
    return logprobs


def filter_by_student_likelihood(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, wrong: Sequence[dict], config: DPOConfig
) -> list[dict]:
    """The wrong rollouts that the model itself samples at least once in exp(`config.max_student_nll`) times; all of
    them, unscored, where that is infinite.
    """
    if math.isinf(config.max_student_nll):
        return list(wrong)
    logprobs = log_probabilities(model, tokenizer, wrong)
    return [row for row, value in zip(wrong, logprobs, strict=True) if value >= -config.max_student_nll]
