"""GRPO: reward, advantages, temperature and the choice of prompts by hand; what must not move does not."""

from dataclasses import replace

import pytest
import torch
from stage_helpers import (
    GRPO,
    chance,
    check_leftovers,
    everything,
    interrupted,
    log_probabilities,
    moved,
    odd_text,
    same,
)

from phi_lab import sampling
from phi_lab.config import presets, schema
from phi_lab.core.files import read_rows
from phi_lab.model import chat, checkpoints
from phi_lab.problems import arithmetic
from phi_lab.stages import grpo


def test_reward_is_plus_or_minus_one():
    texts = [r"<think>1+2=3.</think>\boxed{3}", r"\boxed{4}", "3", "", r"<think>\boxed{3}"]
    assert grpo.verified(texts, ["3"] * 5)[:2] == [1.0, -1.0]
    assert set(grpo.verified(texts, ["3"] * 5)) == {1.0, -1.0}
    assert grpo.verified([r"\boxed{38/24}"], ["19/12"]) == [1.0]


@pytest.mark.parametrize(
    ("right", "group", "k"),
    [(0, 8, 0), (1, 8, 1), (3, 8, 3), (4, 8, 4), (5, 8, 0), (8, 8, 0), (1, 16, 1), (2, 5, 2), (3, 5, 0)],
)
def test_rebalance_keeps_k_of_each_side(right, group, k):
    """k = min(right, wrong, G/2); nothing where more than half are right, or where k is 0."""
    rewards = torch.tensor([[1.0] * right + [-1.0] * (group - right)])
    for seed in range(5):
        advantages = grpo.rebalance(rewards, chance(seed))[0]
        assert (advantages[:right] == 1).sum() == (advantages[right:] == -1).sum() == k
        assert (advantages != 0).sum() == 2 * k


def test_rebalance_chooses_at_random_by_its_seed_and_each_prompt_for_itself():
    rewards = torch.tensor([[1.0] * 2 + [-1.0] * 10, [-1.0] * 12])
    chosen = {tuple(grpo.rebalance(rewards, chance(seed))[0].tolist()) for seed in range(20)}
    assert len(chosen) > 5
    assert torch.equal(grpo.rebalance(rewards, chance(1)), grpo.rebalance(rewards, chance(1)))
    assert not grpo.rebalance(rewards, chance(1))[1].any()
    assert torch.equal(rewards, torch.tensor([[1.0] * 2 + [-1.0] * 10, [-1.0] * 12]))  # left as they were


def test_group_normalised_by_hand():
    rewards = torch.tensor([[1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]])
    wanted = torch.tensor([[1.5, -0.5, -0.5, -0.5], [0] * 4, [0] * 4])  # mean -0.5, standard deviation 1
    assert torch.allclose(grpo.group_normalised(rewards, chance()), wanted, atol=2e-4)


def test_temperature_falls_over_the_first_half():
    temperature = grpo.anneal(schema.GRPOConfig(1e-5, steps=40, prompts_per_step=1, group_size=8, candidate_prompts=1))
    assert [temperature(step, 40) for step in (0, 5, 10, 20, 30, 39)] == pytest.approx([1.0, 0.9, 0.8, 0.6, 0.6, 0.6])
    assert grpo.anneal(schema.GRPOConfig(1e-5, 1, 1, 8, 1))(0, 1) == 1.0
    assert grpo.anneal(schema.GRPOConfig(1e-5, 4, 1, 8, 1, anneal_fraction=0.0))(3, 4) == pytest.approx(0.6)


def test_prompts_with_answers_alike_in_length_are_kept():
    """Ten prompts whose spread grows; three will not do. The most even 60 % of the rest stay, and a prompt that is
    answered well at once costs one rollout."""
    problems, counts = arithmetic.sample_problems(10, 3), []
    special = {
        problems[0].id: "rrrrrrrr",
        problems[1].id: "wwwwwwww",
        problems[2].id: "wrrrrrww",
    }  # the last: mostly right

    def ask(asked, samples, seed):
        counts.append((len(asked), samples))
        groups = []
        for problem in asked:
            spread, verdicts = problems.index(problem), special.get(problem.id, "wwwwwrrr")
            part = slice(0, 1) if samples == 1 else slice(1, None)
            groups.append([sampling.Sample([1] * (50 + (spread if one % 2 else -spread)), [], verdict, "stop")
                           for one, verdict in list(enumerate(verdicts))[part]])
        return groups

    def reward(texts, answers):
        return [1.0 if text == "r" else -1.0 for text in texts]

    config = schema.GRPOConfig(
        1e-5, steps=1, prompts_per_step=1, group_size=8, candidate_prompts=10, probe_rollouts=8, keep_fraction=0.6
    )
    chosen = grpo.select_uniform_length(ask, problems[::-1], config, 0, reward)
    assert chosen == problems[3:7]
    assert counts == [(10, 1), (9, 7)]
    assert grpo.select_uniform_length(ask, problems[:3], config, 0, reward) == problems[:3]  # none will do


@pytest.mark.parametrize("advantage", [grpo.rebalance, grpo.group_normalised])
@pytest.mark.parametrize("value", [1.0, -1.0])
def test_a_constant_reward_moves_nothing(tmp_path, student, advantage, value):
    result = grpo.train(student, arithmetic.sample_problems(4, 1), tmp_path, GRPO, seed=0, advantage=advantage,
                        reward=lambda texts, answers: [value] * len(texts))
    assert moved(student, result.model) == 0
    assert all(row["zero_variance_share"] == 1 and row["kept_share"] == 0 for row in result.metrics)


@pytest.mark.parametrize("advantage", [grpo.rebalance, grpo.group_normalised])
def test_a_rewarded_token_becomes_more_probable(tmp_path, seven, advantage):
    folder, problems, token = seven
    config = replace(GRPO, steps=12)
    result = grpo.train(folder, problems, tmp_path, config, seed=0, advantage=advantage, select=everything,
                        reward=lambda texts, answers: [1.0 if text == "7" else -1.0 for text in texts])

    def probability(where):
        model, tokenizer = checkpoints.load(where).eval(), checkpoints.load_tokenizer(where)
        with torch.no_grad():
            asked = [torch.tensor([chat.prompt_ids(tokenizer, problem.prompt)]) for problem in problems]
            logits = [model(ids).logits[0, -1] for ids in asked]
        return torch.stack(logits).softmax(-1)[:, token].mean().item()

    before, after = probability(folder), probability(result.model)
    assert 0.1 < before < 0.5 and after > before + 0.05, (before, after)
    assert moved(folder, result.model) > 0
    check_leftovers(result, tmp_path)
    assert set(grpo.METRICS) <= set(result.metrics[0])
    wanted = [grpo.anneal(config)(step, config.steps) for step in range(config.steps)]
    assert [row["temperature"] for row in result.metrics] == pytest.approx(wanted)


def test_a_learners_parts_are_what_runs(tmp_path, student):
    called = []

    def part(name, value):
        def function(*arguments):
            called.append(name)
            return value(*arguments)

        return function

    config = schema.GRPOConfig(1e-3, steps=2, prompts_per_step=4, group_size=8, candidate_prompts=4, max_new_tokens=1)
    grpo.train(student, arithmetic.sample_problems(4, 1), tmp_path, config, seed=0,
               reward=part("reward", odd_text), advantage=part("advantage", grpo.group_normalised),
               temperature=part("temperature", lambda step, steps: 0.9), select=part("select", everything))
    assert set(called) == {"reward", "advantage", "temperature", "select"}
    assert {row["temperature"] for row in read_rows(tmp_path / "metrics.jsonl")} == {0.9}


def test_every_prompt_is_asked_before_any_comes_again(tmp_path, student):
    problems, asked = arithmetic.sample_problems(4, 1), []
    assert len({problem.answer for problem in problems}) == 4

    def reward(texts, answers):
        asked.extend(answers[::8])
        return odd_text(texts, answers)

    config = schema.GRPOConfig(1e-3, steps=4, prompts_per_step=2, group_size=8, candidate_prompts=4, max_new_tokens=1)
    grpo.train(student, problems, tmp_path, config, seed=0, reward=reward, select=everything)
    assert len(set(asked[:4])) == len(set(asked[4:])) == 4


def test_without_probes_every_candidate_is_used_and_none_is_sampled_before(tmp_path, student):
    problems, batches = arithmetic.sample_problems(8, 1), []

    def reward(texts, answers):
        batches.append(set(answers))
        return odd_text(texts, answers)

    config = replace(GRPO, steps=2, probe_rollouts=0)
    result = grpo.train(student, problems, tmp_path, config, seed=0, reward=reward, select=lambda *_: 1 / 0)
    assert len(batches) == 2 and set.union(*batches) == {problem.answer for problem in problems}
    assert result.forward_tokens == result.metrics[-1]["tokens"]


@pytest.mark.slow
def test_grpo_killed_and_resumed_ends_at_the_same_weights(tmp_path, student, monkeypatch):
    """Sampling, temperature and the random choice of rebalancing all continue; prompts are chosen once."""
    config = schema.GRPOConfig(
        learning_rate=1e-3, steps=13, prompts_per_step=4, group_size=8, candidate_prompts=6, max_new_tokens=3
    )
    chosen = []

    def select(*asked):
        chosen.append(grpo.select_uniform_length(*asked))
        return chosen[-1]

    def run(out):
        problems = arithmetic.sample_problems(6, 1)
        return grpo.train(student, problems, out, config, seed=3, reward=odd_text, select=select)

    whole = run(tmp_path / "whole")
    resumed, steps = interrupted(monkeypatch, lambda: run(tmp_path / "resumed"), at=12)
    assert steps == [11, 12, 13]
    same(whole, resumed)
    assert len(chosen) == 2 and resumed.forward_tokens == whole.forward_tokens


@pytest.mark.slow
def test_smoke_grpo_meets_mixed_groups_and_improves_on_them(tmp_path, shipped, monkeypatch):
    """From the shipped DPO checkpoint: enough prompts are sometimes right; what was rewarded becomes more probable."""
    config, student, batches, real = presets.SMOKE.grpo, shipped("dpo"), [], sampling.sample

    def sample(model, tokenizer, prompts, params, **rest):
        groups = real(model, tokenizer, prompts, params, **rest)
        if not rest["title"]:  # a training batch, not the choice of prompts
            batches.append((prompts, groups))
        return groups

    monkeypatch.setattr(sampling, "sample", sample)
    problems = arithmetic.sample_problems(config.candidate_prompts, 50_000, levels=arithmetic.HARD_LEVELS)
    result = grpo.train(student, problems, tmp_path, config, seed=0)
    mixed = [1 - row["zero_variance_share"] for row in result.metrics]
    assert sum(mixed) / len(mixed) >= 0.1, mixed
    assert moved(student, result.model) > 0
    answers = {problem.prompt: problem.answer for problem in problems}

    def objective(folder):
        model, tokenizer = checkpoints.load(folder).eval(), checkpoints.load_tokenizer(folder)
        total = 0.0
        with torch.no_grad():
            for prompts, groups in batches:
                for prompt, group in zip(prompts, groups, strict=True):
                    rewards = torch.tensor([grpo.verified([one.text for one in group], [answers[prompt]] * len(group))])
                    for one, value in zip(group, grpo.group_normalised(rewards, chance())[0].tolist(), strict=True):
                        if value and one.finish_reason == "stop":
                            total += value * log_probabilities(model, tokenizer, prompt, one.text).sum().item()
        return total

    assert objective(result.model) > objective(student)
