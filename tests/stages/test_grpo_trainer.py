"""The seam to TRL's GRPOTrainer: the gradient by hand, the optimizer, vLLM, and the check of the sampler."""

import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from stage_helpers import GRPO, chance, everything, moved, odd_text, weights

from phi_lab import sampling
from phi_lab.config import schema
from phi_lab.core.errors import UserError
from phi_lab.model import chat, checkpoints
from phi_lab.problems import arithmetic
from phi_lab.stages import grpo, grpo_sampling


@pytest.mark.parametrize("advantage", [grpo.rebalance, grpo.group_normalised])
def test_the_gradient_is_the_one_on_paper(tmp_path, student, advantage, monkeypatch):
    """At every step it is that of -sum(advantage x log-probability) / tokens that count, at the temperature at which
    the step's rollouts were sampled.
    """
    parts = schema.HardwareConfig(micro_batch_size=5)  # several, the last of them smaller
    config = replace(GRPO, learning_rate=1e-9, steps=2, candidate_prompts=4, max_new_tokens=6, hardware=parts)
    problems, seen, real = arithmetic.sample_problems(4, 1), [], sampling.sample

    def sample(model, tokenizer, prompts, params, **rest):
        seen.append((params.temperature, prompts, groups := real(model, tokenizer, prompts, params, **rest)))
        return groups

    monkeypatch.setattr(sampling, "sample", sample)
    result = grpo.train(student, problems, tmp_path, config, seed=2, reward=odd_text, advantage=advantage,
                        select=everything, temperature=lambda step, steps: (0.7, 1.6)[step])
    assert [temperature for temperature, _, _ in seen] == [0.7, 1.6]
    model, tokenizer = checkpoints.load(student), checkpoints.load_tokenizer(student)
    for step, ((temperature, prompts, groups), metrics) in enumerate(zip(seen, result.metrics, strict=True)):
        assert sorted(prompts) == sorted(problem.prompt for problem in problems)
        rewards = torch.tensor([odd_text([one.text for one in group], []) for group in groups])
        advantages = advantage(rewards, chance(2 * 1_000_003 + step))
        loss, tokens = 0.0, 0
        for prompt, group, row in zip(prompts, groups, advantages, strict=True):
            asked = chat.prompt_ids(tokenizer, prompt)
            for one, value in zip(group, row, strict=True):
                if value:
                    logits = model(torch.tensor([asked + one.ids])).logits[0, len(asked) - 1 : -1] / temperature
                    loss = loss - value * logits.log_softmax(-1)[range(len(one.ids)), one.ids].sum()
                    tokens += len(one.ids)
        model.zero_grad()
        (loss / tokens).backward()
        norm = math.sqrt(sum(weight.grad.square().sum().item() for weight in model.parameters()))
        assert metrics["grad_norm"] == pytest.approx(norm, rel=2e-3), temperature
        assert metrics["kept_share"] == pytest.approx((advantages != 0).float().mean().item())
        assert metrics["reward"] == pytest.approx(rewards.mean().item(), abs=1e-5)
        lengths = [len(one.ids) for group in groups for one in group]
        assert metrics["mean_length"] == pytest.approx(sum(lengths) / len(lengths))


@pytest.mark.parametrize("by_muon", [True, False])
def test_grpo_moves_matrices_as_muon_does(tmp_path, student, by_muon):
    """All directions alike; AdamW follows the few that its gradient has. The first of two steps only warms up."""
    config = replace(GRPO, steps=2, max_new_tokens=6, muon=by_muon)
    result = grpo.train(student, arithmetic.sample_problems(4, 1), tmp_path, config, seed=0, reward=odd_text,
                        advantage=grpo.group_normalised, select=everything)
    before, after = weights(student), weights(result.model)
    spreads = []
    for name in before:
        if name.endswith("_proj.weight"):
            values = torch.linalg.svdvals(after[name] - before[name])
            spreads.append(float(values[0] / values[len(values) // 2]))
    assert spreads and (max(spreads) < 2 if by_muon else min(spreads) > 2), spreads


def test_a_sampler_that_is_another_model_is_refused(tmp_path, seven, monkeypatch):
    """A planted mismatch: every log-probability is 0.2 nats off. The true ones are within 1e-4."""
    folder, problems, _ = seven
    model, tokenizer = checkpoints.load(folder), checkpoints.load_tokenizer(folder)
    asked = [chat.prompt_ids(tokenizer, problem.prompt) for problem in problems]
    prompts = [problem.prompt for problem in problems]
    cool, usual = (sampling.SamplingParams(n=1, temperature=temperature, max_tokens=12) for temperature in (0.7, 1.0))
    groups = sampling.sample(model, tokenizer, prompts, cool, quiet=True)
    samples = [sample for (sample,) in groups]
    assert grpo_sampling.logprob_gap(model, asked, samples, 0.7) < 1e-4
    at_another_temperature = grpo_sampling.logprob_gap(model, asked, samples, 1.0)
    assert at_another_temperature > grpo_sampling.MAX_LOGPROB_GAP
    real = sampling.sample

    def shifted(*arguments, **rest):
        return [[replace(one, logprobs=[value - 0.2 for value in one.logprobs]) for one in group]
                for group in real(*arguments, **rest)]

    monkeypatch.setattr(sampling, "sample", shifted)
    with pytest.raises(UserError, match=r"differ by 0\.200 nats a token.*nothing is trained$"):
        grpo.train(folder, problems, tmp_path, GRPO, seed=0, reward=odd_text, select=everything)
    assert not (tmp_path / "model").exists()
    model.config.rope_parameters["rope_type"] = "longrope"
    with pytest.raises(UserError, match="LongRoPE"):
        groups = shifted(model, tokenizer, prompts, usual, quiet=True)
        grpo_sampling.require_parity(model, asked, [sample for (sample,) in groups], 1.0)


@pytest.mark.parametrize("shift", [0.0, -0.2])
def test_grpo_samples_from_the_vllm_that_trl_keeps(tmp_path, seven, monkeypatch, shift):
    """A stand-in for TRL's vLLM, that samples from the trainer's own model: what it is asked, and that its answers are
    what is trained on. Log-probabilities that are off refuse to train.
    """
    folder, problems, _ = seven
    seen = []

    class Generation:
        def __init__(self, model, processing_class, max_completion_length, max_model_length, mode, **_):
            self.model, self.tokenizer, self.longest = model, processing_class, max_completion_length
            assert mode == "colocate" and max_model_length > max_completion_length
            self.synced = 0

        def sync_weights(self):
            self.synced += 1

        def generate(self, prompts, images, num_generations, profiler=None):
            assert images is None and len(prompts) % num_generations == 0
            assert all(ids == prompts[place - place % num_generations] for place, ids in enumerate(prompts))
            seen.append((len(prompts), num_generations, self.temperature, self.synced))
            stops = sampling.stop_tokens(self.model, self.tokenizer)
            params = sampling.SamplingParams(
                n=1, temperature=self.temperature, max_tokens=self.longest, seed=len(seen)
            )
            raw = sampling.ENGINES["cpu"](self.model, prompts, params, stops, lambda count: None)
            with_shift = [[[value + shift] for value in logprobs] for _, logprobs in raw]
            return prompts, [ids for ids, _ in raw], with_shift, None

    from trl.trainer import grpo_trainer

    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", Generation)
    monkeypatch.setattr(sampling, "require_vllm", lambda: None)
    hardware = replace(GRPO.hardware, engine="vllm")
    config = replace(GRPO, steps=3, candidate_prompts=4, max_new_tokens=6, hardware=hardware)

    def train():
        return grpo.train(folder, problems, tmp_path, config, seed=0, reward=odd_text)

    if shift:
        with pytest.raises(UserError, match="nothing is trained"):
            train()
        return
    result = train()
    assert seen[0][:3] == (4, 1, config.temperature_start)  # choosing prompts, all in one call
    assert [one[:3] for one in seen[-3:]] == [(32, 8, grpo.anneal(config)(step, 3)) for step in range(3)]
    assert [one[3] for one in seen[-3:]] == [1, 2, 3]  # weights are sent before every step
    assert moved(folder, result.model) > 0


def test_without_vllm_grpo_says_so_before_anything_is_loaded(tmp_path, seven, monkeypatch):

    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr(checkpoints, "load", lambda *_: pytest.fail("loaded"))
    config = replace(GRPO, hardware=replace(GRPO.hardware, engine="vllm"))
    with pytest.raises(UserError, match="the engine vllm needs a GPU and pip install"):
        grpo.train(seven[0], seven[1], tmp_path, config, seed=0)


def test_processes_sample_with_random_numbers_of_their_own(student):
    """The first with those of a run in one process."""
    model, tokenizer = checkpoints.load_to_sample(student, "cpu"), checkpoints.load_tokenizer(student)

    def of_process(index):
        trainer = SimpleNamespace(
            processing_class=tokenizer, model=model, use_vllm=False, max_completion_length=8, engine="cpu",
            accelerator=SimpleNamespace(process_index=index, unwrap_model=lambda model: model))
        (group,) = grpo_sampling.sample_groups(trainer, ["What is 2+3?"], 4, 1.0, 7)
        return [one.ids for one in group]

    params = sampling.SamplingParams(n=4, temperature=1.0, max_tokens=8, seed=7)
    (alone,) = sampling.sample(model, tokenizer, ["What is 2+3?"], params, quiet=True)
    assert of_process(0) == [one.ids for one in alone] != of_process(1) != of_process(2)
