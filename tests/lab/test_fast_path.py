"""The loss that notebooks 04 and 05 show beside the page's own is TRL's: equal where both are right, else not."""

from dataclasses import replace

import pytest
import torch

from phi_lab import sampling
from phi_lab.lab import fast_path
from phi_lab.model import shapes
from phi_lab.stages import minimal_dpo, minimal_grpo

PAIRS = [
    {"prompt": "Compute 7+8.", "chosen": r"<think>7+8=15.</think>\boxed{15}", "rejected": r"\boxed{16}"},
    {"prompt": "Find 9*7.", "chosen": "63", "rejected": "<think>9*7=62.</think>62"},
]


@pytest.fixture(scope="module")
def models(tokenizer):
    built = [shapes.build("phi-nano", len(tokenizer), seed) for seed in (0, 1)]
    with torch.no_grad():
        for weight in [weight for model in built for weight in model.parameters()]:
            weight.mul_(2 if weight.dim() > 1 else 1)  # so that no two tokens look alike
    return built


def test_dpo_loss_of_pairs_of_unequal_length(models, tokenizer):
    model, reference = models
    ids, mask = minimal_dpo.to_rows(tokenizer, PAIRS)
    with torch.no_grad():
        policy, start = (minimal_dpo.completion_logprobs(each, ids, mask) for each in models)
    for beta in (0.1, 0.5):
        page = minimal_dpo.dpo_loss(policy, start, mask.sum(1), beta).item()
        assert fast_path.dpo_loss(model, reference, tokenizer, PAIRS, beta) == pytest.approx(page, abs=1e-5)
    turned = [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in PAIRS]
    assert abs(fast_path.dpo_loss(model, reference, tokenizer, turned, 0.5) - page) > 0.01


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_grpo_loss_of_rollouts_of_unequal_length(models, tokenizer, temperature):
    model, other = models
    rollouts = [sampling.Sample(ids, [0.0] * len(ids), "", "stop") for ids in ([40, 41, 42, 1], [9, 1], [77, 60, 1])]
    batch = minimal_grpo.to_batch([[5, 17, 3], [5, 17, 3], [8, 2]], rollouts, torch.tensor([[1.0], [-1.0], [0.5]]))
    with torch.no_grad():  # sampled by another model, so that ratios differ from 1
        old = minimal_grpo.token_logprobs(other, batch.ids, temperature) * batch.mask
        batch = replace(batch, old=old)
        page = minimal_grpo.policy_loss(model, batch, temperature).item()
    assert fast_path.grpo_loss(model, tokenizer, batch, temperature) == pytest.approx(page, abs=1e-5)
    assert abs(fast_path.grpo_loss(model, tokenizer, batch, 1.6 - temperature) - page) > 1e-3
