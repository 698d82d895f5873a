"""The critic beside the group: advantages by hand, and what each baseline takes away from the reward's variance."""

from dataclasses import replace

import pytest
import torch
from stage_helpers import odd_text

from phi_lab import sampling
from phi_lab.model import shapes
from phi_lab.problems import arithmetic
from phi_lab.stages import minimal_grpo, minimal_ppo

# Two rollouts: prompt, three and two sampled tokens, padding. Of the critic's values those of 9 must not count.
MASK = torch.tensor([[0.0, 0, 1, 1, 1, 0], [0.0, 1, 1, 0, 0, 0]])
VALUES = torch.tensor([[9.0, 9, 0.2, 0.4, 0.8, 9], [9.0, 0.5, -0.5, 9, 9, 9]])
REWARDS = torch.tensor([1.0, -1.0])


@pytest.mark.parametrize(("decay", "wanted"), [
    # lambda 1: reward - value of each token
    (1.0, [[0, 0, 0.8, 0.6, 0.2, 0], [0, -1.5, -0.5, 0, 0, 0]]),
    # lambda 0: the next value - value; at the last token the reward - value
    (0.0, [[0, 0, 0.2, 0.4, 0.2, 0], [0, -1.0, -0.5, 0, 0, 0]]),
    # lambda 0.5: that, and half of the next token's advantage: 0.4 + 0.5 x 0.2 = 0.5, 0.2 + 0.5 x 0.5 = 0.45
    (0.5, [[0, 0, 0.45, 0.5, 0.2, 0], [0, -1.25, -0.5, 0, 0, 0]]),
])
def test_advantages_by_hand(decay, wanted):
    got = minimal_ppo.gae(REWARDS, VALUES, MASK, decay)
    assert torch.allclose(got, torch.tensor(wanted), atol=1e-6)


def test_discount_by_hand():
    """discount 0.5, lambda 1: the reward of the last token counts half at each token before it."""
    got = minimal_ppo.gae(REWARDS, torch.zeros_like(VALUES), MASK, 1.0, discount=0.5)
    assert torch.allclose(got, torch.tensor([[0, 0, 0.25, 0.5, 1.0, 0], [0, -0.5, -1.0, 0, 0, 0]]))


def test_critic_loss_counts_sampled_tokens_alone():
    """0.8² + 0.6² + 0.2² and 1.5² + 0.5², over five tokens."""
    loss = minimal_ppo.critic_loss(VALUES, REWARDS, MASK)
    assert loss.item() == pytest.approx((0.64 + 0.36 + 0.04 + 2.25 + 0.25) / 5)


def test_with_a_critic_that_says_nothing_ppo_is_grpo_without_a_baseline(tokenizer):
    """`policy_loss` takes an advantage a token: gae of zeros is the reward, at every sampled token."""
    model = shapes.build("phi-nano", len(tokenizer), 0)
    params = sampling.SamplingParams(n=4, temperature=1.0, max_tokens=3)
    batch, rewards = minimal_grpo.collect(
        model, tokenizer, arithmetic.sample_problems(2, 1), params, odd_text, lambda rewards, _: rewards
    )
    by_token = minimal_ppo.gae(rewards.flatten(), minimal_ppo.Critic(model)(batch.ids).detach(), batch.mask)
    assert by_token.shape == batch.mask.shape and torch.equal(by_token, batch.advantages * batch.mask)
    losses = [minimal_grpo.policy_loss(model, one, 1.0) for one in (batch, replace(batch, advantages=by_token))]
    assert losses[0].item() == losses[1].item() != 0


def test_what_a_baseline_takes_away(tokenizer):
    """The reward depends on the question alone. A group knows at once, so nothing remains; a critic has to learn it."""
    policy = shapes.build("phi-nano", len(tokenizer), 0)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    easy, hard = arithmetic.sample_problems(2, 1)
    rows = minimal_ppo.compare(
        policy, tokenizer, [easy, hard], steps=12, prompts_per_step=2, group_size=8, max_new_tokens=4,
        learning_rate=1e-3, on_step=lambda row: None,
        reward=lambda texts, answers: [1.0 if answer == easy.answer else -1.0 for answer in answers],
    )
    first, last = rows[0], rows[-1]
    assert first["reward_variance"] > 0.8 and all(row["group_variance"] == 0 for row in rows)
    assert first["critic_variance"] == pytest.approx(first["reward_variance"])  # it begins by predicting 0
    assert last["critic_variance"] < 0.1 * last["reward_variance"] and last["critic_loss"] < 0.1 * first["critic_loss"]
    assert all(row["critic_seconds"] > 0 and row["sampling_seconds"] > 0 for row in rows)
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
