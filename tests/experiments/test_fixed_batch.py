"""The loop over a fixed batch: its losses against TRL's and against the minimal ones, its steps, its compute."""

import math

import pytest
import torch
from trl.experimental.gkd import GKDTrainer

from phi_lab.core.files import read_json, read_rows
from phi_lab.experiments import fixed_batch
from phi_lab.experiments.fixed_batch import Example
from phi_lab.model import checkpoints, shapes
from phi_lab.stages import minimal_grpo


@pytest.fixture(scope="module")
def models(student, tokenizer):
    """A student and another random model as its teacher."""
    return checkpoints.load(student).eval(), shapes.build("phi-nano", len(tokenizer), 7).eval()


@pytest.fixture
def examples():
    return [Example([5, 6, 7], [8, 9, 10, 11], 1.0), Example([5, 6], [12, 13], -1.0), Example([9], [8, 7, 6], -1.0)]


def test_the_batch_puts_losses_on_completions_alone(examples):
    batch = fixed_batch.to_batch(examples)
    assert batch.ids.tolist()[1] == [5, 6, 12, 13, 0, 0, 0]
    assert batch.mask.tolist() == [[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0]]


def test_distillation_is_trls_reverse_kl(models, examples):
    model, teacher = models
    batch = fixed_batch.to_batch(examples)
    ours = (fixed_batch.reverse_kl(teacher)(model, batch) * batch.mask[:, 1:]).sum() / batch.mask.sum()
    labels = torch.where(batch.mask > 0, batch.ids, -100)[:, 1:]
    with torch.no_grad():
        sides = [one(batch.ids).logits[:, :-1] for one in (model, teacher)]
    theirs = GKDTrainer.generalized_jsd_loss(*sides, labels, beta=1.0)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5) and ours > 0.01
    forward = GKDTrainer.generalized_jsd_loss(*sides, labels, beta=0.0)
    assert ours.item() != pytest.approx(forward.item(), rel=1e-3)  # the two directions differ here


def test_grpo_is_the_minimal_one(models, examples):
    """With the log-probabilities of another model as the old ones some ratios are clipped, some are not."""
    model, other = models
    old = fixed_batch.scored(other, examples, 0.8)
    batch = fixed_batch.to_batch([Example(one.prompt, one.completion, one.advantage, values)
                                  for one, values in zip(examples, old, strict=True)])
    ours = (fixed_batch.policy_gradient(0.8, 0.2)(model, batch) * batch.mask[:, 1:]).sum() / batch.mask.sum()
    reference = minimal_grpo.token_logprobs(other, batch.ids, 0.8).detach()
    same = minimal_grpo.Batch(batch.ids, batch.mask[:, 1:], reference, batch.advantages)
    assert ours.item() == pytest.approx(minimal_grpo.policy_loss(model, same, 0.8).item(), rel=1e-5)
    for one, values in zip(examples, old, strict=True):  # each by itself, without padding
        alone = minimal_grpo.token_logprobs(other, torch.tensor([one.prompt + one.completion]), 0.8)[0]
        assert values == pytest.approx(alone[len(one.prompt) - 1 :].tolist(), abs=1e-4)


def test_steps_cost_what_is_paid_for_and_use_all_before_any_again():
    examples = [Example([1] * 4, [number] * (3 + number)) for number in range(10)]
    for compute in (60, 200, 1234):
        steps = fixed_batch.batches(examples, 4, compute, 4 / 3, seed=1)
        costs = [4 / 3 * sum(one.tokens for one in step) for step in steps]
        assert abs(sum(costs) - compute) <= max(costs) / 2 or len(steps) == 1
        order = [one.completion[0] for step in steps for one in step]
        for first in range(0, len(order) - 9, 10):
            assert sorted(order[first : first + 10]) == list(range(10))
    assert len(fixed_batch.batches(examples, 4, 1, 1.0, seed=1)) == 1  # never none


def test_training_counts_its_tokens_and_falls_to_a_rate_of_zero(student, models, examples, tmp_path):
    steps = [examples[:2], examples[1:], examples]
    result = fixed_batch.train(student, steps, fixed_batch.reverse_kl(models[1]), tmp_path, learning_rate=1e-3,
                               lr_schedule="cosine", read=30, title="x")
    assert result.train_tokens == 11 + 8 + 15 and result.compute == 34 + 10
    assert [row["learning_rate"] for row in result.metrics] == pytest.approx(
        [1e-3, 1e-3 * (1 + math.cos(math.pi / 3)) / 2, 1e-3 * (1 + math.cos(2 * math.pi / 3)) / 2])
    assert read_json(tmp_path / "done.json")["forward_tokens"] == 30 and read_rows(tmp_path / "metrics.jsonl")
    assert checkpoints.fingerprint(tmp_path / "model") != checkpoints.fingerprint(student)
    again = fixed_batch.train(student, steps, fixed_batch.reverse_kl(models[1]), tmp_path / "b", learning_rate=1e-3,
                              lr_schedule="cosine", read=30, title="x")
    assert checkpoints.fingerprint(again.model) == checkpoints.fingerprint(result.model)


def test_distillation_brings_the_student_nearer_to_its_teacher(student, models, examples, tmp_path):
    result = fixed_batch.train(student, [examples] * 12, fixed_batch.reverse_kl(models[1]), tmp_path,
                               learning_rate=3e-3, lr_schedule="linear", read=0, title="x")
    assert result.metrics[-1]["loss"] < 0.8 * result.metrics[0]["loss"]
