"""Attempts that are nearly right: those that pass on small cases, write into what they were given, or make a gradient
up, and right ones in another style.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from wrong_attempts import of_name

from phi_lab.lab import grading


def reference(name):
    return of_name(name).reference


def dpo(policy, start, beta, log_sigmoid):
    margin = (policy[0] - start[0]) - (policy[1] - start[1])
    return -log_sigmoid(beta * margin).mean()


def whole_tensor_clip(ratio, advantage, epsilon):
    right = (advantage > 0).all()
    return ratio.clamp(max=1 + epsilon) * advantage if right else ratio.clamp(min=1 - epsilon) * advantage


def lower_limit_fixed(ratio, advantage, epsilon):
    return torch.minimum(ratio * advantage, ratio.clamp(0.8, 1 + epsilon) * advantage)


def made_up(name):
    """The right numbers, in tensors whose gradient leads nowhere."""
    def attempt(*given):
        got = reference(name)(*[one.detach() if isinstance(one, torch.Tensor) else one for one in given])
        loose = [one.clone().requires_grad_() for one in (got if isinstance(got, tuple) else (got,))]
        return tuple(loose) if isinstance(got, tuple) else loose[0]
    return attempt


def detached_normaliser(logits, ids, mask):
    logp = logits - logits.logsumexp(-1, keepdim=True).detach()
    return (logp[:, :-1].gather(2, ids[:, 1:, None])[..., 0] * mask[:, 1:]).sum(1)


def one_start_for_all(logits, ids, mask):
    start = int(mask[0].argmax())
    moved = mask.clone()
    moved[:, start:] = (ids[:, start:] > 0).long()
    return reference("sequence_logprob")(logits, ids, moved)


def writes_ids(logits, ids, mask):
    ids[mask == 0] = -100
    return -F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(
        len(ids), -1).sum(1)


def advantage_in_place(rewards):
    rewards -= rewards.mean(1, keepdim=True)
    return rewards / (rewards.std(1, keepdim=True, correction=0) + 1e-9)


def pair_by_tokens(right, wrong, count, random):
    pairs, used = [], set()
    for one in sorted(((abs(r["tokens"] - w["tokens"]), i, j) for i, r in enumerate(right)
                       for j, w in enumerate(wrong))):
        r, w = right[one[1]], wrong[one[2]]
        if len(pairs) < count and ("r", r["tokens"]) not in used and ("w", w["tokens"]) not in used:
            used |= {("r", r["tokens"]), ("w", w["tokens"])}
            pairs.append((r, w))
    return pairs


def consuming_pack(lengths, row_length):
    rows = reference("pack")(list(lengths), row_length)
    lengths[:] = [0] * len(lengths)
    return rows


def document_mask_in_place(positions):
    mask = reference("document_mask")(positions)
    positions[positions > 0] = 1
    return mask


def cache_of_width_four(query, key, value, keys, values):
    keys, values = torch.cat([keys, key[None]]), torch.cat([values, value[None]])
    return (keys @ query / 2).softmax(0) @ values, keys, values


def cache_query_in_place(query, key, value, keys, values):
    query /= len(query) ** 0.5
    keys, values = torch.cat([keys, key[None]]), torch.cat([values, value[None]])
    return (keys @ query).softmax(0) @ values, keys, values


def share_over_mean_group(rollouts, low, high):
    names = {name for name, _ in rollouts}
    size = len(rollouts) / len(names)
    share = {name: sum(q == name and v == "right" for q, v in rollouts) / size for name in names}
    return {name for name in names if low <= share[name] <= high}


def two_verdicts_only(rollouts, low, high):
    return reference("keep_questions")(
        [(q, v) for q, v in rollouts if v not in ("unparsed", "timeout")], low, high)


def plausible_by_deletion(wrong, logprobs, limit):
    for place in reversed(range(len(wrong))):
        if logprobs[place] < -limit:
            del wrong[place]
    return wrong


def no_thought_no_reward(completions, answers):
    rewards = reference("reward")(completions, answers)
    return [value if "</think>" in text else -1.0 for text, value in zip(completions, rewards, strict=True)]


@pytest.mark.parametrize(("name", "attempt", "says"), [
    ("flips", lambda b, a: (sum(x == "wrong" and y == "right" for x, y in zip(b, a, strict=True)),
                            sum(x == "right" and y != "right" for x, y in zip(b, a, strict=True))), "gained"),
    ("reward", no_thought_no_reward, "an answer without thoughts counts"),
    ("clipped", whole_tensor_clip, "each token is clipped by itself"),
    ("clipped", lower_limit_fixed, "epsilon is an argument"),
    ("clipped", made_up("clipped"), "have no gradient"),
    ("two_means", made_up("two_means"), "have no gradient"),
    ("sequence_logprob", made_up("sequence_logprob"), "have no gradient"),
    ("sequence_logprob", lambda logits, ids, mask: reference("sequence_logprob")(logits.detach(), ids, mask)
     + 0 * logits.sum(), "their gradient is another"),
    ("sequence_logprob", detached_normaliser, "their gradient is another"),
    ("sequence_logprob", one_start_for_all, "should be"),
    ("sequence_logprob", writes_ids, "it wrote into what it was given (argument 2)"),
    ("dpo_loss", lambda *given: dpo(*given, lambda x: (x.sigmoid() + 1e-8).log()), "it should be 110.000"),
    ("dpo_loss", lambda *given: dpo(*given, lambda x: x.sigmoid().clamp(min=1e-6).log()), "it should be 110.000"),
    ("dpo_loss", lambda *given: dpo(*given, lambda x: x - (1 + x.exp()).log()), "to (-20, -1130)"),
    ("pair", pair_by_tokens, "1 pairs came out, not 2"),
    ("policy_gradient_loss", lambda n, o, a: -((n - o).exp() * a.sign()).mean(), "it should be"),
    ("policy_gradient_loss", lambda n, o, a: -((n - o).exp() * a).sum() / (a != 0).sum(), "it should be"),
    ("group_advantage", advantage_in_place, "it wrote into what it was given (argument 1)"),
    ("pack", consuming_pack, "it wrote into what it was given (argument 1)"),
    ("pack", lambda lengths, row_length: reference("pack")(lengths, 10), ", 300) gave"),
    ("one_per_row", lambda lengths, row_length: reference("one_per_row")(lengths, 10), ", 30) gave"),
    ("paired_gain", lambda b, a: reference("paired_gain")(sorted(b), sorted(a)), "before [0.0, 1.0, 0.5]"),
    ("mixed_share", lambda rewards: float((rewards.prod(1) < 0).float().mean()), "hold both kinds"),
    ("mixed_share", lambda rewards: float((rewards[:, 0] != rewards[:, -1]).float().mean()), "hold both kinds"),
    ("two_means", lambda loss, mask: (((loss * mask).sum() / mask.sum()), (
        (loss * mask).sum(1) / (loss * mask != 0).sum(1)).mean()), "the mean of completions was nan"),
    ("two_means", lambda loss, mask: (((loss * mask).sum() / mask.sum()), (
        (loss * mask).sum(1) / mask.sum(1)).sum() / 2), "the mean of completions"),
    ("document_mask", document_mask_in_place, "it wrote into what it was given"),
    ("cache_step", cache_of_width_four, "attention over all"),
    ("cache_step", cache_query_in_place, "it wrote into what it was given (argument 1)"),
    ("keep_questions", share_over_mean_group, "it should be"),
    ("keep_questions", two_verdicts_only, "it should be"),
    ("plausible", plausible_by_deletion, "it wrote into what it was given (argument 1)"),
    ("wilson", lambda right, n: tuple(100 * x for x in reference("wilson")(right, n)), "these are percent"),
    ("group_advantage", lambda r: torch.tensor(reference("group_advantage")(r).numpy().astype(np.float64)), ".float()"),
])
def test_what_is_nearly_right_is_wrong_and_told_why(name, attempt, says):
    verdict, why = of_name(name).grade(attempt)
    assert verdict == grading.WRONG and says in why, why
    assert len(why) < 400 and "cannot be compared" not in why, why


def test_a_count_of_numpy_s_is_a_count():
    assert of_name("parameters").grade(lambda config: np.int64(reference("parameters")(config)))[0] == grading.RIGHT


@pytest.mark.parametrize(("name", "attempt"), [
    ("rate_factor", lambda step, steps: float("nan")), ("temperature", lambda step, steps: float("nan")),
    ("wilson", lambda right, n: (float("nan"), float("nan"))), ("mixed_share", lambda rewards: float("nan")),
    ("paired_gain", lambda before, after: (float("nan"),) * 3), ("share_right", lambda verdicts: float("nan")),
    ("dpo_loss", lambda policy, start, beta: (policy[0] - policy[1]).mean() * float("nan")),
    ("group_advantage", lambda rewards: rewards * float("nan")),
])
def test_what_is_no_number_is_wrong(name, attempt):
    assert of_name(name).grade(attempt)[0] == grading.WRONG
