"""Is a gain the stage's, or only that of more compute? The rivals of each stage, at the compute that the stage took.

Anyone can draw a rising curve by stopping the stage before early. So each stage has *controls*: what else could have
been done from the same start, for the same compute, sampling and scoring included (`TrainingResult.compute`). A stage
has earned its rung when it beats them.

    mid-control     pretraining goes on, as long as mid-training took
    sft-control     SFT on right answers drawn at random, as many tokens as SFT chose: is it the choice?
    sft-limo        SFT's small set without mid-training: "less is more" on a model that is too small
    sft-all         the same schedule on all right answers: is it the small set, or so short a training?
    sft-limo-best   the small set for longer, the weights of the lowest validation loss kept
    sft-short       the shortest right answers, as many tokens as the small set: is it the length?
    dpo-control     SFT on the answers that Rollout DPO prefers: does it need the rejected ones?
    dpo-paper       Rollout DPO on the teacher's pairs, as in the paper: does it need the student's mistakes?
    grpo-rft        rejection fine-tuning in rounds: does it need wrong answers and importance ratios?
    grpo-sft        SFT on fresh answers of the teacher: does it need its own?
    grpo-coin       GRPO whose reward is a coin's: does it need the verifier?
"""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phi_lab.config.schema import STAGES, EvaluationConfig, LanguageModelingConfig, RunConfig
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.core.run_folder import RunFolder, StageFolder
from phi_lab.model import checkpoints
from phi_lab.pipeline import launch
from phi_lab.pipeline.arms import paper_dpo, run_arm
from phi_lab.pipeline.run_data import grpo_problems, training_data
from phi_lab.pipeline.stage_runner import finished_result, start_checkpoint
from phi_lab.stages import base, grpo, rejection, rollout_dpo, sft
from phi_lab.stages.packing import document
from phi_lab.stages.training import TrainingResult, mark_finished

ROUNDS = 4  # of rejection fine-tuning
LONGER = 4  # times SFT's compute, in which the small set finds its validation optimum
NO_LIMIT = 1_000_000  # steps, where epochs say how long
COLUMNS = ("id", "domain", "level", "pass_rate", "tokens", "prompt", "completion")


@dataclass(frozen=True)
class Rung:
    """What a control starts from, and what the stage took that it rivals."""

    run: RunFolder
    config: RunConfig
    seed: int
    start: Path  # the model
    result: TrainingResult  # of the stage

    @property
    def compute(self) -> float:
        """What the stage took, in training tokens."""
        return self.result.compute

    def rows(self) -> list[dict]:
        """All right rollouts that the run has distilled."""
        return read_rows(self.run.data.right, COLUMNS)

    def small_set(self) -> list[dict]:
        """What SFT chooses of them."""
        return sft.choose(self.rows(), self.config.sft.documents, self.seed)


# ------------------------------------------------------------------ mid-training's


def pretraining(rung: Rung, out: Path) -> TrainingResult:
    """Pretraining goes on with fresh text, by mid-training's schedule."""
    mid = rung.config.mid
    steps = max(1, round(rung.compute / (mid.batch_size * mid.row_length)))
    return base.continue_pretraining(rung.start, out, replace(mid, steps=steps, epochs=0.0, eval_steps=0), rung.seed)


# ------------------------------------------------------------------ SFT's


def fine_tune(rung: Rung, out: Path, rows: list[dict], compute: float, **settings: Any) -> TrainingResult:
    """SFT on exactly `rows` for `compute` training tokens, by SFT's schedule but for `settings`."""
    tokenizer, data = checkpoints.load_tokenizer(rung.start), rung.run.data
    tokens = sum(len(document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows)
    epochs = compute * (1 - rung.config.sft.replay_share) / tokens
    plan = replace(rung.config.sft, steps=NO_LIMIT, epochs=epochs, **settings)
    return sft.train(rung.start, data.right, data.validation, out, plan, seed=rung.seed, choose=lambda *_: rows)


def random_answers(rung: Rung, out: Path) -> TrainingResult:
    """SFT on right answers drawn at random, as many tokens as SFT's own choice."""
    rows = rung.rows()
    random.Random(rung.seed).shuffle(rows)
    return fine_tune(rung, out, up_to(rows, total(rung.small_set())), rung.compute)


def small_set(rung: Rung, out: Path) -> TrainingResult:
    """SFT on its own small set."""
    return fine_tune(rung, out, rung.small_set(), rung.compute)


def all_answers(rung: Rung, out: Path) -> TrainingResult:
    """SFT on every right answer, as long as on the small set."""
    return fine_tune(rung, out, rung.rows(), rung.compute)


def small_set_to_its_best(rung: Rung, out: Path) -> TrainingResult:
    """SFT on its small set for `LONGER` times the compute; the weights of the lowest validation loss are kept."""
    rows, compute = rung.small_set(), LONGER * rung.compute
    steps = compute * len(rows) / (total(rows) * rung.config.sft.batch_size)
    return fine_tune(rung, out, rows, compute, keep_best=True, eval_steps=max(1, round(steps / 20)))


def short_answers(rung: Rung, out: Path) -> TrainingResult:
    """SFT on the shortest right answers of each level, as many tokens of a level as the small set has."""
    small, rows, chosen = rung.small_set(), sorted(rung.rows(), key=lambda row: row["tokens"]), []
    for level in sorted({row["level"] for row in small}):
        tokens = total([row for row in small if row["level"] == level])
        chosen += up_to([row for row in rows if row["level"] == level], tokens)
    return fine_tune(rung, out, chosen, rung.compute)


def total(rows: list[dict]) -> int:
    """Tokens of the completions."""
    return sum(row["tokens"] for row in rows)


def up_to(rows: list[dict], tokens: int) -> list[dict]:
    """The first rows, until their completions have so many tokens."""
    kept, count = [], 0
    for row in rows:
        if count >= tokens:
            break
        kept.append(row)
        count += row["tokens"]
    return kept


# ------------------------------------------------------------------ Rollout DPO's


def chosen_answers(rung: Rung, out: Path) -> TrainingResult:
    """SFT on the chosen sides of Rollout DPO's pairs, which have cost what they have cost the stage."""
    stage = rung.run.stage("dpo")
    an_epoch = rung.result.train_tokens / rung.config.dpo.epochs  # of both sides: the reference model reads them once
    choosing = max(0, round(rung.result.forward_tokens - an_epoch))
    result = rollout_dpo.train_on_chosen(
        rung.start, read_rows(stage.pairs, ("prompt", "chosen")), out, short_sft(rung.config), seed=rung.seed,
        compute=rung.compute - choosing / 3)
    result = replace(result, forward_tokens=choosing)
    mark_finished(StageFolder(out), result)
    return result


def teacher_pairs(rung: Rung, out: Path) -> TrainingResult:
    """Rollout DPO as in the paper: both sides of a pair are the teacher's."""
    data, plan = rung.run.data, paper_dpo(rung.config.dpo)
    return rollout_dpo.train(rung.start, data.right, data.wrong, out, plan, seed=rung.seed)


def short_sft(config: RunConfig) -> LanguageModelingConfig:
    """SFT's settings with half of its batch and of its rate, for few answers; how long is left to the caller."""
    sft = config.sft
    return replace(sft, learning_rate=sft.learning_rate / 2, batch_size=max(1, sft.batch_size // 2), epochs=0.0,
                   eval_steps=0)


# ------------------------------------------------------------------ GRPO's


def own_right_answers(rung: Rung, out: Path) -> TrainingResult:
    """Rejection fine-tuning on the student's own right answers, in `ROUNDS` rounds."""
    return _rejection(rung, out, ROUNDS, None)


def fresh_teacher_answers(rung: Rung, out: Path) -> TrainingResult:
    """SFT on the teacher's right answers to questions that nobody has asked it before."""
    trained_here = rung.run.teacher.finished
    return _rejection(rung, out, 1, rung.run.teacher.model if trained_here else paths.TEACHER)


def _rejection(rung: Rung, out: Path, rounds: int, teacher: Path | None) -> TrainingResult:
    return rejection.train(
        rung.start, lambda count, seed: grpo_problems(rung.run.data, count, seed), out, short_sft(rung.config),
        budget=rung.compute, rounds=rounds, max_tokens=rung.config.grpo.max_new_tokens, seed=rung.seed,
        teacher=teacher)


def coin_reward(rung: Rung, out: Path) -> TrainingResult:
    """GRPO as it is, choice of prompts included, but for the reward, which is a coin's."""
    problems = grpo_problems(rung.run.data, rung.config.grpo.candidate_prompts, rung.seed)
    return grpo.train(rung.start, problems, out, rung.config.grpo, seed=rung.seed, reward=coin(rung.seed))


def coin(seed: int) -> Callable[[list[str], list[str]], list[float]]:
    """A reward of +1 or -1 that knows no answer: a bit of a hash of the text and of its place among those that are
    asked about, so that equal answers differ in it, and the same question is answered in the same way.

    One toss for each text would be no noise: `rebalance` drops groups with more than half "right", so it would push
    against the answer that a group gives most often (docs/log.md, 109).
    """

    def reward(completions: list[str], answers: list[str]) -> list[float]:
        placed = (f"{seed}/{place}/{text}" for place, text in enumerate(completions))
        return [1.0 if hashlib.sha256(one.encode()).digest()[0] % 2 else -1.0 for one in placed]

    return reward


# ------------------------------------------------------------------ all of them

ARMS: dict[str, Callable[[Rung, Path], TrainingResult]] = {
    "mid-control": pretraining, "sft-control": random_answers, "sft-limo": small_set, "sft-all": all_answers,
    "sft-limo-best": small_set_to_its_best, "sft-short": short_answers, "dpo-control": chosen_answers,
    "dpo-paper": teacher_pairs, "grpo-rft": own_right_answers, "grpo-sft": fresh_teacher_answers,
    "grpo-coin": coin_reward,
}
WITHOUT_MID_TRAINING = ("sft-limo", "sft-all", "sft-limo-best", "sft-short")  # these start from the base
AS_A_RUNG = ("dpo-paper",)  # measured like a stage, as a run of the course measures it, too


def control(
    name: str, run: RunFolder, config: RunConfig, seed: int, log: Callable[[str], None] = print
) -> None:
    """Train and measure one of `ARMS` in a run that has the stage which it rivals, unless that is done.

    Raises UserError for an unknown name, for a run that lacks the stage, and for several GPUs.
    """
    if name not in ARMS:
        raise UserError(f"unknown control {name!r}: choose one of {', '.join(ARMS)}")
    launch.require_one_gpu()
    stage, _, arm = name.partition("-")
    result = finished_result(run.stage(stage))
    if not result:
        raise UserError(f"{run.stage(stage).path}: no finished stage, which {name} rivals")
    start = start_checkpoint(STAGES[1] if name in WITHOUT_MID_TRAINING else stage, run, config)
    rung = Rung(run, config, seed, start, result)

    def train(folder: Path) -> TrainingResult:
        log(f"{name}: training, for about {result.compute:,.0f} tokens")
        training_data(run, config, seed, log)
        return ARMS[name](rung, folder)

    evaluation = config.evaluation if name in AS_A_RUNG else control_evaluation(config.evaluation)
    run_arm(stage, arm, start, run, replace(config, evaluation=evaluation), seed, train, log)


def control_evaluation(config: EvaluationConfig) -> EvaluationConfig:
    """How a control is measured: on as many problems as its stage, with two samples each and greedily, and no more."""
    return replace(config, samples=min(2, config.samples), cool_temperature=0.0, pass_problems=0)
