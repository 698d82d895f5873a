"""Rewards whose effect is known beforehand: each probe shows it, so the loop does what it says."""

import pytest
import torch

from phi_lab.core import stats
from phi_lab.lab import probes
from phi_lab.model import checkpoints


@pytest.fixture(scope="module")
def base(shipped):
    return checkpoints.load(shipped("base"))


def test_a_constant_reward_gives_exactly_no_gradient(base, tokenizer):
    norms = probes.constant_reward(base, tokenizer)
    assert norms["with baseline"] == 0.0
    assert norms["without baseline"] > 0.5


def test_a_reward_for_one_token_is_learned(base, tokenizer):
    rows = probes.one_token(base, tokenizer)
    assert rows[0]["reward"] < 0.3  # about a third of the random numbers hold a 7
    assert sum(row["reward"] for row in rows[-3:]) / 3 > 0.9


@pytest.mark.slow
def test_a_reward_for_length_moves_length(base, tokenizer):
    rows = probes.length(base, tokenizer)
    first, last = rows[0]["mean_length"], rows[-1]["mean_length"]
    assert 3 < first < 6
    assert last > 8


@pytest.mark.slow
def test_the_carry_is_learned_only_with_credit_over_time(base, tokenizer):
    shares = probes.carry(base, tokenizer)
    assert 0.02 < shares["before"] < 0.15  # one of sixteen
    assert shares["credit for all tokens"] > 0.9
    assert shares["credit for the last token"] < 0.3  # the carry is as it was: one of four


def test_last_token_by_hand():
    mask = torch.tensor([[0.0, 1, 1, 0], [0.0, 0, 1, 1], [1.0, 0, 0, 0], [0.0, 0, 0, 0]])
    assert probes.last_token(mask).tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.slow
def test_a_coin_moves_the_policy_and_teaches_it_nothing(base, tokenizer):
    """Some seeds end far from where they began, in either direction; their mean does not."""
    pairs = probes.coin(base, tokenizer, seeds=range(10))
    before, after = zip(*pairs, strict=True)
    assert all(0.02 < share < 0.15 for share in before)  # one of sixteen
    assert max(after) - min(after) > 0.15  # drift, and the lucky seed
    change = stats.paired_t(after, before)
    assert change.low < 0 < change.high
