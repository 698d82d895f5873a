"""What each control trains on, from which model, for how long."""

import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch

from phi_lab.config import presets
from phi_lab.config.schema import STAGES
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows, write_rows
from phi_lab.core.run_folder import RunFolder
from phi_lab.model import checkpoints
from phi_lab.pipeline import controls
from phi_lab.problems import arithmetic
from phi_lab.report.ladder_rows import RIVALS
from phi_lab.stages import base, grpo, lm_trainer, packing, rejection, rollout_dpo, sft
from phi_lab.stages.training import TrainingResult

TRAINED, FORWARD = 20_000, 30_000
COMPUTE = TRAINED + FORWARD / 3


@pytest.fixture
def rung(tmp_path, data, shipped):
    """A rung of a run whose right answers are those of the script, some of them much longer."""
    rows = read_rows(data / "train-right.jsonl")
    for number, row in enumerate(rows):
        row["pass_rate"] = number % 5 / 5
    run = RunFolder(tmp_path)
    write_rows(run.data.right, rows)
    write_rows(run.data.validation, rows[:4])
    write_rows(run.data.wrong, [])
    assert len(sft.choose(rows, 20, 0)) < len(rows) / 2
    config = replace(presets.LAB, sft=replace(presets.LAB.sft, documents=20))
    return controls.Rung(run, config, 0, shipped("mid"), TrainingResult(run.path, [], 1.0, TRAINED, FORWARD))


@pytest.fixture
def fitted(monkeypatch):
    """What the language-model trainer was given: rows, settings."""
    seen = []

    def fit(student, rows, validation, out, config, **rest):
        seen.append((student, rows, validation, config))

    monkeypatch.setattr(lm_trainer, "fit_rollouts", fit)
    return seen


def tokens_trained(rung, rows, config):
    """What a trainer will count, but for the text that it replays: its steps times the mean tokens of a batch."""
    tokenizer = checkpoints.load_tokenizer(rung.start)
    lengths = [len(packing.document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows]
    return config.epochs * sum(lengths) / (1 - config.replay_share)


def names(rows):
    return {(row["id"], row["completion"]) for row in rows}


@pytest.mark.parametrize(("control", "times"), [
    ("sft-control", 1), ("sft-limo", 1), ("sft-all", 1), ("sft-limo-best", controls.LONGER), ("sft-short", 1),
])
def test_fine_tuning_takes_the_compute_of_its_stage_whatever_its_answers(rung, fitted, tmp_path, control, times):
    controls.ARMS[control](rung, tmp_path)
    ((student, rows, validation, config),) = fitted
    assert student == rung.start and len(validation) == 4
    assert tokens_trained(rung, rows, config) == pytest.approx(times * COMPUTE)
    assert lm_trainer.count_steps(len(rows), config) < config.steps  # no limit of steps cuts it short
    same = {"learning_rate", "batch_size", "lr_schedule", "warmup_ratio", "replay_share", "muon"}
    assert all(getattr(config, name) == getattr(rung.config.sft, name) for name in same)


def test_the_random_answers_are_as_many_tokens_as_sft_chose_and_other_ones(rung, fitted, tmp_path):
    controls.random_answers(rung, tmp_path)
    rows, small = fitted[0][1], rung.small_set()
    longest = max(row["tokens"] for row in rung.rows())
    assert 0 <= controls.total(rows) - controls.total(small) < longest
    assert names(rows) <= names(rung.rows()) and len(names(rows)) == len(rows)
    assert not names(rows) <= names(small)


def test_the_arms_without_mid_training_differ_in_their_answers_only(rung, fitted, tmp_path):
    for arm in (controls.small_set, controls.all_answers, controls.small_set_to_its_best):
        arm(rung, tmp_path)
    small, everything, best = (rows for _, rows, *_ in fitted)
    assert small == best == sft.choose(rung.rows(), 20, 0)
    assert names(everything) == names(rung.rows())
    assert [config.keep_best for *_, config in fitted] == [False, False, True]
    longest = fitted[2][3]
    assert 10 <= lm_trainer.count_steps(len(best), longest) / longest.eval_steps <= 30  # often enough to see the best


def test_short_answers_are_the_shortest_of_each_level_and_as_many_tokens(rung, fitted, tmp_path):
    controls.short_answers(rung, tmp_path)
    (_, rows, _, _), small = fitted[0], rung.small_set()
    tokens, everything = defaultdict(lambda: [0, 0]), defaultdict(list)
    for side, chosen in enumerate((small, rows)):
        for row in chosen:
            tokens[row["level"]][side] += row["tokens"]
    for row in rung.rows():
        everything[row["level"]].append(row["tokens"])
    for level, (wanted, got) in tokens.items():
        longest = max(row["tokens"] for row in rows if row["level"] == level)
        count = sum(row["level"] == level for row in rows)
        assert sorted(everything[level])[count - 1] == longest  # none left out is shorter
        assert 0 <= got - wanted < longest
    assert len(rows) >= len(small)


def test_pretraining_goes_on_as_long_as_mid_training_took(rung, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(base, "continue_pretraining", lambda *given: seen.append(given))
    controls.pretraining(rung, tmp_path)
    ((start, out, config, seed),) = seen
    mid = rung.config.mid
    assert (start, out, seed) == (rung.start, tmp_path, 0) and not config.epochs
    assert abs(config.steps * mid.batch_size * mid.row_length - COMPUTE) <= mid.batch_size * mid.row_length / 2
    assert (config.learning_rate, config.lr_schedule) == (mid.learning_rate, mid.lr_schedule)


@pytest.mark.parametrize(
    ("control", "rounds", "teacher"), [("grpo-rft", controls.ROUNDS, False), ("grpo-sft", 1, True)]
)
def test_rejection_fine_tuning_asks_grpos_questions_within_its_compute(
    rung, monkeypatch, tmp_path, control, rounds, teacher
):
    seen = []
    monkeypatch.setattr(rejection, "train", lambda *given, **rest: seen.append((given, rest)))
    controls.ARMS[control](rung, tmp_path)
    (((start, questions, out, _), rest),) = seen
    assert (start, out) == (rung.start, tmp_path)
    assert rest["budget"] == COMPUTE and rest["rounds"] == rounds
    assert rest["max_tokens"] == rung.config.grpo.max_new_tokens
    assert rest["teacher"] == (paths.TEACHER if teacher else None)
    asked = questions(30, 7)
    assert {problem.level for problem in asked} == set(arithmetic.LEVELS)
    assert {problem.split for problem in asked} == {"train"}


def test_dpos_control_pays_for_the_pairs_as_dpo_did_and_trains_for_the_rest(rung, monkeypatch, tmp_path):
    seen, pairs = [], [{"prompt": "1+1", "chosen": "2", "rejected": "3"}]
    write_rows(rung.run.stage("dpo").pairs, pairs)

    def train_on_chosen(start, rows, out, config, *, seed, compute):
        seen.append((start, rows, config, compute))
        return TrainingResult(out / "model", [], 1.0, round(compute))

    monkeypatch.setattr(rollout_dpo, "train_on_chosen", train_on_chosen)
    result = controls.chosen_answers(rung, tmp_path)
    ((start, rows, config, compute),) = seen
    assert (start, rows) == (rung.start, pairs) and not config.epochs
    an_epoch = TRAINED / rung.config.dpo.epochs
    assert compute == pytest.approx(TRAINED + an_epoch / 3, abs=1)  # the reference model's pass over the pairs is left
    assert result.compute == pytest.approx(COMPUTE, abs=1)
    assert read_json(tmp_path / "done.json")["forward_tokens"] == result.forward_tokens == round(FORWARD - an_epoch)


def test_the_papers_dpo_is_plain_dpo_on_all_of_the_teachers_pairs(rung, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(rollout_dpo, "train", lambda *given, **rest: seen.append((given, rest)))
    controls.teacher_pairs(rung, tmp_path)
    (((start, right, wrong, out, config), rest),) = seen
    assert (start, right, wrong, out) == (rung.start, rung.run.data.right, rung.run.data.wrong, tmp_path)
    ours = rung.config.dpo
    assert (config.pairs, config.max_student_nll, config.sft_weight) == ("teacher", math.inf, 0) and rest == {"seed": 0}
    assert (config.beta, config.batch_size, config.epochs) == (ours.beta, ours.batch_size, 1)


def test_a_coin_says_nothing_and_says_it_again():
    texts = [f"<think>{number}+1:{number + 1}.</think>\\boxed{{{number + 1}}}" for number in range(400)]
    answers = [str(number + 1 + number % 2) for number in range(400)]  # every other one is right
    rewards = controls.coin(3)(texts, answers)
    assert set(rewards) == {1.0, -1.0}
    assert rewards == controls.coin(3)(texts, answers) != controls.coin(4)(texts, answers)
    right = [value > 0 for value in grpo.verified(texts[:100], answers[:100])]
    assert sum(right) == 50
    for side in (0, 1):
        share = sum(value > 0 for value in rewards[side::2]) / 200
        assert 0.39 < share < 0.61  # three standard deviations around one half


def test_rebalancing_turns_a_coin_for_each_text_against_the_frequent_answer():
    """Six equal answers in a group of eight: with one toss for them all a group is kept only where they lose."""
    texts, six, random = ["a"] * 6 + ["b", "c"], {"text": 0.0, "answer": 0.0}, torch.Generator().manual_seed(0)
    assert abs(sum(controls.coin(0)(["a"] * 400, ["1"] * 400))) < 60
    for seed in range(400):
        by_answer = controls.coin(seed)(texts, ["1"] * 8)
        by_text = [by_answer[0]] * 6 + by_answer[6:]
        for kind, rewards in (("text", by_text), ("answer", by_answer)):
            six[kind] += float(grpo.rebalance(torch.tensor([rewards]), random)[0, :6].mean()) / 400
    assert six["text"] < -0.04 and abs(six["answer"]) < 0.03, six


def test_grpo_with_a_coin_is_grpo_but_for_its_reward(rung, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(grpo, "train", lambda *given, **rest: seen.append((given, rest)))
    controls.coin_reward(rung, tmp_path)
    (((start, problems, out, config), rest),) = seen
    assert (start, out, config) == (rung.start, tmp_path, rung.config.grpo)
    assert len(problems) == config.candidate_prompts and set(rest) == {"seed", "reward"}


def test_a_control_that_nobody_knows_or_whose_stage_is_missing(tmp_path):
    with pytest.raises(UserError, match="unknown control 'dpo': choose one of mid-control, sft-control, "):
        controls.control("dpo", RunFolder(tmp_path), presets.LAB, 0)
    with pytest.raises(UserError, match="grpo: no finished stage, which grpo-rft rivals"):
        controls.control("grpo-rft", RunFolder(tmp_path), presets.LAB, 0)


def test_controls_are_measured_on_as_many_problems_and_with_fewer_samples():
    full = presets.LAB.evaluation
    light = controls.control_evaluation(full)
    assert light == replace(full, samples=2, cool_temperature=0.0, pass_problems=0) != full
    assert controls.control_evaluation(replace(full, samples=1)).samples == 1


def test_what_is_compared_is_trained_and_what_is_trained_is_compared():
    named = {*RIVALS, *(rival for rivals in RIVALS.values() for rival in rivals)} - set(STAGES)
    assert named == set(controls.ARMS)
