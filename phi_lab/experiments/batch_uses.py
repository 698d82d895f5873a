"""The uses of one batch of rollouts: how each arm of the experiment `one_batch` is trained, and what is kept of it.

What they ask, and what would count, is in `one_batch.py`.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import and_
from pathlib import Path

import torch

from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.core.run_folder import DataFolder
from phi_lab.core.seeds import derive_seed
from phi_lab.distill import shards
from phi_lab.experiments import fixed_batch
from phi_lab.experiments.design import Log, Trial
from phi_lab.experiments.fixed_batch import Example
from phi_lab.model import checkpoints, shapes
from phi_lab.pipeline.arms import paper_dpo
from phi_lab.pipeline.controls import coin, short_sft
from phi_lab.problems import arithmetic
from phi_lab.problems.problem import Problem
from phi_lab.stages import grpo, preference_pairs, rollout_dpo
from phi_lab.stages.packing import IGNORE, document, pair_document
from phi_lab.stages.training import TrainingResult

QUESTIONS_FROM = 250_000  # added to a seed: no stage asks these questions
PROBE = 128  # pairs of either model whose log-probabilities are kept
WHOSE = ("teacher-pairs", "teacher-over-own", "own-matched")  # alike but for whose answers they are
CURVES = ("logps/chosen", "logps/rejected", "rewards/margins")


# ------------------------------------------------------------------ the batch


def questions(trial: Trial) -> list[Problem]:
    """What student and teacher are asked: the same questions of one to seven operations, of the train split."""
    return arithmetic.sample_problems(
        trial.settings.questions, trial.seed + QUESTIONS_FROM, levels=arithmetic.LEVELS)


def batch(trial: Trial, whose: str) -> DataFolder:
    """The rollouts of "own" or "teacher"."""
    return DataFolder(trial.run.path / f"batch-{whose}")


def sample_batch(trial: Trial, log: Log) -> None:
    """Sample and verify the batch, unless that is done."""
    for whose, model in (("own", trial.model("sft")), ("teacher", paths.TEACHER)):
        if not batch(trial, whose).funnel.exists():
            log(f"batch: {trial.settings.questions} questions to the {'student' if whose == 'own' else 'teacher'}")
            preference_pairs.sample_student(model, questions(trial), batch(trial, whose).path, trial.seed)


def sides(trial: Trial, whose: str) -> tuple[list[dict], list[dict]]:
    """The right and the wrong rollouts of "own" or "teacher"."""
    folder = batch(trial, whose)
    return read_rows(folder.right), read_rows(folder.wrong)


# ------------------------------------------------------------------ its uses


def pairs_of(trial: Trial, arm: str) -> list[dict]:
    """All preference pairs that an arm makes of the batch, shuffled; of `WHOSE` as many of each level as each of them
    has. Raises UserError where there are none.
    """
    plan = replace(trial.config.dpo, max_pairs=10**9)
    own, teacher = sides(trial, "own"), sides(trial, "teacher")
    if arm == "cut-pairs":
        rollouts = list(shards.rows(batch(trial, "own").rollouts))
        return preference_pairs.make_step_pairs(questions(trial), rollouts, plan, trial.seed)
    if arm in WHOSE:
        kinds = {"teacher-pairs": teacher, "teacher-over-own": (teacher[0], own[1]), "own-matched": own}
        made = {name: preference_pairs.make_pairs(*both, plan, trial.seed) for name, both in kinds.items()}
        return equally_many(made, levels_of(trial))[arm]
    rows = preference_pairs.make_pairs(*own, plan, trial.seed)
    return with_strangers(rows, trial.seed) if arm == "random-pairs" else list(rows)


def levels_of(trial: Trial) -> dict[str, int]:
    """The number of operations of each question of the batch."""
    return {problem.prompt: problem.level for problem in questions(trial)}


def equally_many(kinds: dict[str, list[dict]], levels: dict[str, int]) -> dict[str, list[dict]]:
    """Of each kind of pairs the first of every level, as many as the kind with the fewest of them has. Raises UserError
    where no level has pairs of all kinds.
    """
    fewest = reduce(and_, (count_levels(rows, levels) for rows in kinds.values()))  # of each level
    if not fewest:
        raise UserError("no number of operations has pairs of student and teacher: take more questions")
    found: dict[str, list[dict]] = {}
    for name, rows in kinds.items():
        left, found[name] = Counter(fewest), []
        for row in rows:
            if left[levels[row["prompt"]]]:
                left[levels[row["prompt"]]] -= 1
                found[name].append(row)
    return found


def count_levels(rows: Sequence[dict], levels: dict[str, int]) -> Counter[int]:
    """How many pairs there are of each level."""
    return Counter(levels[row["prompt"]] for row in rows)


def with_strangers(rows: Sequence[dict], seed: int) -> list[dict]:
    """The pairs, each with the rejected side of one of another prompt. Raises UserError where all have one prompt."""
    rng, found = random.Random(seed), []
    for row in rows:
        others = [other for other in rows if other["prompt"] != row["prompt"]]
        if not others:
            raise UserError("all pairs are of one question: take more questions")
        found.append({**row, "rejected": rng.choice(others)["rejected"]})
    return found


def as_often_as_paid(
    rows: Sequence[dict], lengths: Sequence[int], compute: float, batch_size: int
) -> tuple[list[dict], int]:
    """Pairs and epochs of DPO that cost about `compute` training tokens: e epochs of pairs with L tokens take e L, and
    their reference L / 3. e is the nearest to all pairs; then a part of them, or some of them twice, fills the rest.
    """
    total = sum(lengths)
    epochs = max(1, round(compute / total - 1 / 3))
    wanted = compute / (epochs + 1 / 3)
    count = max(1, round(wanted * len(rows) / total / batch_size)) * batch_size  # whole batches
    return [rows[number % len(rows)] for number in range(count)], epochs


def train_pairs(trial: Trial, arm: str, out: Path) -> TrainingResult:
    """DPO of the student on an arm's pairs."""
    rows, tokenizer = pairs_of(trial, arm), checkpoints.load_tokenizer(trial.model("sft"))
    lengths = [sum(len(pair_document(tokenizer, row, side)[0]) for side in ("chosen", "rejected")) for row in rows]
    used, epochs = as_often_as_paid(rows, lengths, trial.settings.budget, trial.config.dpo.batch_size)
    plan = replace(paper_dpo(trial.config.dpo), max_pairs=len(used), epochs=epochs)
    return rollout_dpo.train_on_pairs(trial.model("sft"), used, out, plan, seed=trial.seed)


def train_rejection(trial: Trial, arm: str, out: Path) -> TrainingResult:
    """SFT on the right answers that `own-pairs` has."""
    plan = replace(short_sft(trial.config), replay_share=0.0)
    return rollout_dpo.train_on_chosen(
        trial.model("sft"), pairs_of(trial, "own-pairs"), out, plan, seed=trial.seed, compute=trial.settings.budget)


def own_examples(trial: Trial) -> list[list[Example]]:
    """The student's rollouts as token ids, those of a question together."""
    tokenizer, groups = checkpoints.load_tokenizer(trial.model("sft")), defaultdict(list)
    for row in shards.rows(batch(trial, "own").rollouts):
        ids, labels = document(tokenizer, row["prompt"], row["completion"])
        if row["finish_reason"] == "length":  # it has not ended, so nothing is said of an end
            ids = ids[:-1]
        asked = labels.count(IGNORE)
        groups[row["id"]].append(Example(ids[:asked], ids[asked:]))
    return list(groups.values())


def train_grpo(trial: Trial, arm: str, out: Path) -> TrainingResult:
    """Passes of GRPO's clipped loss over the rollouts with an advantage."""
    groups, plan = own_examples(trial), trial.config.grpo
    rollouts = list(shards.rows(batch(trial, "own").rollouts))
    texts, answers = [row["completion"] for row in rollouts], [row["answer"] for row in rollouts]
    rewards = coin(trial.seed)(texts, answers) if arm == "coin" else [
        1.0 if row["verdict"] == "right" else -1.0 for row in rollouts]
    generator = torch.Generator().manual_seed(derive_seed(trial.seed, 0))
    advantages = grpo.rebalance(torch.tensor(rewards).view(len(groups), -1), generator).flatten().tolist()
    flat = [replace(one, advantage=value) for one, value in zip(
        [one for group in groups for one in group], advantages, strict=True) if value]
    if not flat:
        raise UserError("no question has right and wrong answers: take more questions")
    old = fixed_batch.scored(checkpoints.load(trial.model("sft")), flat, preference_pairs.TEMPERATURE)
    flat = [replace(one, old=values) for one, values in zip(flat, old, strict=True)]
    read = sum(one.tokens for one in flat)
    steps = fixed_batch.batches(flat, trial.settings.grpo_batch, trial.settings.budget - read / 3, 1.0, trial.seed)
    loss = fixed_batch.policy_gradient(preference_pairs.TEMPERATURE, plan.epsilon)
    return fixed_batch.train(trial.model("sft"), steps, loss, out, learning_rate=plan.learning_rate,
                             lr_schedule="linear", read=read, title=f"GRPO on one batch, {arm}")


def train_distill(trial: Trial, arm: str, out: Path) -> TrainingResult:
    """On-policy distillation: the student's own answers, right or wrong, scored by the teacher, of whose tokens each
    counts as many of the student's as it has times the weights.
    """
    plan, flat = short_sft(trial.config), [one for group in own_examples(trial) for one in group]
    teacher = checkpoints.load(paths.TEACHER).eval().requires_grad_(False)
    wider = shapes.count_parameters(paths.TEACHER) / shapes.count_parameters(trial.model("sft"))
    steps = fixed_batch.batches(flat, plan.batch_size, trial.settings.budget, 1 + wider / 3, trial.seed)
    read = round(wider * sum(one.tokens for batch in steps for one in batch))  # by the teacher
    return fixed_batch.train(trial.model("sft"), steps, fixed_batch.reverse_kl(teacher), out,
                             learning_rate=plan.learning_rate, lr_schedule="cosine", read=read,
                             title="on-policy distillation")


USES: dict[str, Callable[[Trial, str, Path], TrainingResult]] = {
    **dict.fromkeys((*WHOSE, "own-pairs", "cut-pairs", "random-pairs"), train_pairs),
    "rejection": train_rejection, "distill": train_distill, "grpo": train_grpo, "coin": train_grpo,
}


# ------------------------------------------------------------------ what is kept


def notes(trial: Trial, arm: str) -> dict:
    """"curves": of a preference arm, [step, log-probability of the chosen and of the rejected side in nats, margin in
    nats times beta] of each logged step, and "pairs": how many it has of each number of operations. "probe": mean
    log-probabilities, in nats, of right and wrong answers of the batch under the arm's model, those of `PROBE` pairs of
    the student's and of the teacher's each.
    """
    folder = trial.folder(arm)
    metrics = read_rows(folder.metrics) if folder.finished else []
    curves = [[row["step"], *(round(row[name], 3) for name in CURVES)] for row in metrics if set(CURVES) <= set(row)]
    place = folder.model if folder.finished else trial.model("sft")
    model, tokenizer = checkpoints.load(place).eval(), checkpoints.load_tokenizer(place)
    probe = {}
    for whose, kind in (("own", "own-pairs"), ("teacher", "teacher-pairs")):
        pairs = pairs_of(trial, kind)[:PROBE]
        for name, side in (("right", "chosen"), ("wrong", "rejected")):
            rows = [{"prompt": row["prompt"], "completion": row[side]} for row in pairs]
            values = preference_pairs.log_probabilities(model, tokenizer, rows)
            probe[f"{whose} {name}"] = round(sum(values) / len(values), 3)
    found = {"curves": curves, "probe": probe}
    if USES.get(arm) is train_pairs:
        levels = count_levels(pairs_of(trial, arm), levels_of(trial))
        found["pairs"] = {str(level): levels[level] for level in sorted(levels)}
    return found
