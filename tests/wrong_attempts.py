"""Plausible wrong answers to each exercise, all of which its check has to find (tests/lab/test_checks.py)."""

import itertools
import math
import re
from fractions import Fraction

import torch
import torch.nn.functional as F
from wrong_choices import CHOICES

from phi_lab.lab import checks
from phi_lab.lab.checks import PAIR
from phi_lab.stages import grpo
from phi_lab.stages.packing import pack_best_fit
from phi_lab.verify import verify


def of_name(name):
    """The check of an exercise."""
    return next(check for check in checks.ALL if check.name == name)


def share(verdicts):
    return verdicts.count("right") / len(verdicts)


def groups_of(rollouts):
    groups = {}
    for question, verdict in rollouts:
        groups.setdefault(question, []).append(verdict)
    return groups


def only_the_decided_count(rollouts, low, high):
    return only({q: [v for v in group if v in ("right", "wrong")] for q, group in groups_of(rollouts).items()},
                lambda value: low <= value <= high)


def only(groups, kept):
    return {question for question, group in groups.items() if group and kept(share(group))}


def share_of_all_rollouts(rollouts, low, high):
    """One share for all questions together."""
    everything = share([verdict for _, verdict in rollouts])
    return {question for question, _ in rollouts} if low <= everything <= high else set()


def only_neighbours_count(rollouts, low, high):
    """itertools.groupby on rollouts that are not sorted."""
    return {question for question, group in itertools.groupby(rollouts, key=lambda rollout: rollout[0])
            if low <= share([verdict for _, verdict in group]) <= high}


def plain_normal(right, n):
    p = right / n
    half = 1.96 * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def wilson_around_the_share(right, n):
    p, z = right / n, 1.96
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p - half, p + half


def wilson_with_a_bracket_missing(right, n):
    p, z = right / n, 1.96
    middle = (p + z * z / 2 * n) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def step(append_first=True, scale=True, keep=True):
    def cache_step(query, key, value, keys, values):
        longer_keys, longer_values = torch.cat([keys, key[None]]), torch.cat([values, value[None]])
        read_keys, read_values = (longer_keys, longer_values) if append_first else (keys, values)
        weights = (read_keys @ query / (len(query) ** 0.5 if scale else 1)).softmax(0)
        return weights @ read_values, longer_keys if keep else key[None], longer_values if keep else value[None]

    return cache_step


def causal_only(position_ids):
    rows, tokens = position_ids.shape
    return torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(rows, tokens, tokens)


def blocks_only(position_ids):
    documents = (position_ids == 0).cumsum(1)
    return documents[:, :, None] == documents[:, None, :]


def never_itself(position_ids):
    tokens = position_ids.shape[1]
    return blocks_only(position_ids) & torch.ones(tokens, tokens, dtype=torch.bool).tril(-1)


def first_row_for_all(position_ids):
    tokens = position_ids.shape[1]
    mask = blocks_only(position_ids) & torch.ones(tokens, tokens, dtype=torch.bool).tril()
    return mask[:1].expand(len(mask), tokens, tokens)


def margin(policy, reference):
    chosen, rejected = (now - before for now, before in zip(policy, reference, strict=True))
    return chosen - rejected


def normalised(rewards, mean_dim=1, guard=True, correction=0):
    mean = rewards.mean() if mean_dim is None else rewards.mean(mean_dim, keepdim=True)
    spread = rewards.std(1, keepdim=True, correction=correction)
    return (rewards - mean) / (spread.where(spread > 0, 1.0) if guard else spread)


def total_and_tokens(losses, mask):
    return (losses * mask).sum(1), mask.sum(1)


LOOPS = {
    "keep_questions": (
        lambda rollouts, low, high: only(groups_of(rollouts), lambda value: low < value < high),
        only_the_decided_count,
        share_of_all_rollouts,
        lambda rollouts, low, high: only(groups_of(rollouts), lambda value: value >= low),
        only_neighbours_count,
    ),
    "wilson": (plain_normal, wilson_around_the_share, wilson_with_a_bracket_missing,
               lambda right, n: tuple(min(1.0, max(0.0, value)) for value in plain_normal(right, n))),
    "cache_step": (step(append_first=False), step(scale=False), step(keep=False),
                   lambda query, key, value, keys, values: step()(query, value, value, keys, values)),
    "document_mask": (causal_only, blocks_only, never_itself, first_row_for_all,
                      lambda position_ids: blocks_only(position_ids)[0]),
    "labels": (
        lambda prompt, completion, width: [-100] * len(prompt) + completion[:-1] + [-100] * (
            width - len(prompt) - len(completion) + 1),
        lambda prompt, completion, width: prompt + completion + [-100] * (width - len(prompt) - len(completion)),
        lambda prompt, completion, width: [-100] * len(prompt) + completion + [0] * (
            width - len(prompt) - len(completion)),
        lambda prompt, completion, width: [-100] * len(prompt) + completion,
        lambda prompt, completion, width: ([-100] * len(prompt) + completion + [-100] * width)[1:width + 1],
        lambda prompt, completion, width: [-100] * (width - len(completion)) + completion,
        lambda prompt, completion, width: ([-100] * (len(prompt) - 1) + completion + [-100] * width)[:width],
    ),
    "dpo_loss": (
        lambda policy, reference, beta: -F.logsigmoid(beta * (policy[0] - policy[1])).mean(),
        lambda policy, reference, beta: -beta * F.logsigmoid(margin(policy, reference)).mean(),
        lambda policy, reference, beta: F.logsigmoid(beta * margin(policy, reference)).mean(),
        lambda policy, reference, beta: -F.logsigmoid(-beta * margin(policy, reference)).mean(),
        lambda policy, reference, beta: -F.logsigmoid(beta * margin(policy, reference)).sum(),
        lambda policy, reference, beta: -F.logsigmoid(beta * margin(policy, reference)).mean().detach(),
        lambda policy, reference, beta: -F.logsigmoid(
            beta * margin((policy[0], policy[1].detach()), reference)).mean(),
        lambda policy, reference, beta: -torch.log(torch.sigmoid(beta * margin(policy, reference))).mean(),
    ),
    "group_advantage": (
        lambda rewards: normalised(rewards, guard=False),
        lambda rewards: normalised(rewards, mean_dim=None),
        lambda rewards: normalised(rewards, correction=1),
        lambda rewards: rewards - rewards.mean(1, keepdim=True),
        lambda rewards: rewards,
    ),
    "policy_gradient_loss": (
        lambda new, old, advantages: -((new - old).exp().detach() * advantages).mean(),
        lambda new, old, advantages: ((new - old).exp() * advantages).mean(),
        lambda new, old, advantages: -((new - old) * advantages).mean(),
        lambda new, old, advantages: -(new * advantages).mean(),
        lambda new, old, advantages: -((new - new).exp() * advantages).mean(),
        lambda new, old, advantages: -((new - old).exp() * advantages).sum(),
    ),
    "clipped": (
        lambda ratio, advantages, epsilon: ratio.clamp(1 - epsilon, 1 + epsilon) * advantages,
        lambda ratio, advantages, epsilon: torch.max(
            ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon) * advantages),
        lambda ratio, advantages, epsilon: torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages),
        lambda ratio, advantages, epsilon: -torch.min(
            ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon) * advantages),
        lambda ratio, advantages, epsilon: (ratio * advantages).clamp(1 - epsilon, 1 + epsilon),
        lambda ratio, advantages, epsilon: ratio * advantages,
        lambda ratio, advantages, epsilon: torch.tensor(
            [min(r * a, min(max(r, 1 - epsilon), 1 + epsilon) * a) for r, a in zip(ratio.tolist(), advantages.tolist(),
                                                                                    strict=True)]),
    ),
    "two_means": (
        lambda losses, mask: (losses.mean(), losses.mean(1).mean()),
        lambda losses, mask: ((losses * mask).sum() / mask.sum(), (losses * mask).mean(1).mean()),
        lambda losses, mask: (((losses * mask).sum(1) / mask.sum(1)).mean(), (losses * mask).sum() / mask.sum()),
        lambda losses, mask: (losses * mask).sum() / mask.sum(),
        lambda losses, mask: (((losses * mask).sum() / mask.sum()).item(),
                              ((losses * mask).sum(1) / mask.sum(1)).mean().item()),
    ),
}


# ------------------------------------------------------------------ the other exercises


def first_fit_in_order(lengths, row_length):
    """A new row whenever the next answer does not fit: never looks back."""
    rows, room = [], 0
    for index, length in enumerate(lengths):
        if length > row_length:
            continue
        if length > room:
            rows.append([])
            room = row_length
        rows[-1].append(index)
        room -= length
    return rows


def best_fit_of(lengths, row_length, fits):
    """Best fit decreasing with the learner's own idea of what fits into which room."""
    rows, rooms = [], []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not fits(lengths[index], row_length):
            continue
        places = [row for row, room in enumerate(rooms) if fits(lengths[index], room)]
        if not places:
            rows.append([])
            rooms.append(row_length)
        row = min(places, key=rooms.__getitem__) if places else -1
        rows[row].append(index)
        rooms[row] -= lengths[index]
    return rows


def drops_what_fills_a_row(lengths, row_length):
    """`>=` for `>` where the too long are left out, and nowhere else."""
    without = [length if length < row_length else row_length + 1 for length in lengths]
    return best_fit_of(without, row_length, int.__le__)


def never_fills_a_row(lengths, row_length):
    """`<` for `<=` where a row is chosen."""
    return best_fit_of(lengths, row_length, lambda length, room: length < room or length == row_length == room)


def first_fit_decreasing(lengths, row_length):
    rows, rooms = [], []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if lengths[index] > row_length:
            continue
        row = next((row for row, room in enumerate(rooms) if room >= lengths[index]), None)
        if row is None:
            rows.append([])
            rooms.append(row_length)
            row = len(rows) - 1
        rows[row].append(index)
        rooms[row] -= lengths[index]
    return rows


def boxes(text):
    return re.findall(r"\\boxed\{([^}]*)\}", text)


def same_number(one, two):
    try:
        return Fraction(one) == Fraction(two)
    except ValueError:
        return False


def reward_by(read, same):
    """A reward that reads an answer by `read` and compares it by `same`."""

    def reward(completions, answers):
        pairs = zip(map(read, completions), answers, strict=True)
        return [1.0 if answer is not None and same(answer, gold) else -1.0 for answer, gold in pairs]

    return reward


def after_the_thoughts(text):
    rest = text.rpartition("</think>")[2]
    found = boxes("" if "<think>" in rest else rest)
    return found[-1] if found else None


def by_eval(answer, gold):
    return eval(answer) == eval(gold)  # noqa: S307 - the wrong answer that the check has to catch


def by_eval_without_builtins(answer, gold):
    try:
        return eval(answer, {"__builtins__": {}}) == eval(gold)  # noqa: S307 - as above
    except Exception:  # noqa: BLE001
        return False


def pairs_at_random(right, wrong, count, rng):
    count = min(count, len(right), len(wrong))
    return list(zip(rng.sample(list(right), count), rng.sample(list(wrong), count), strict=True))


def pairs_with_reuse(right, wrong, count, rng):
    every = [(good, bad) for good in right for bad in wrong]
    return sorted(every, key=lambda pair: abs(pair[0]["tokens"] - pair[1]["tokens"]))[:count]


def each_with_its_nearest(right, wrong, count, rng):
    """The nearest wrong answer of each right one, whoever has it already."""
    pairs = [(good, min(wrong, key=lambda bad: abs(good["tokens"] - bad["tokens"]))) for good in right]
    return sorted(pairs, key=lambda pair: abs(pair[0]["tokens"] - pair[1]["tokens"]))[:count]


def empties_its_lists(right, wrong, count, rng):
    pairs = PAIR.reference(right, wrong, count, rng)
    for good, bad in pairs:
        right.remove(good)
        wrong.remove(bad)
    return pairs


def balanced_but_never_dropped(rewards, random):
    advantages = torch.zeros_like(rewards)
    for row, values in enumerate(rewards):
        hits, misses = (values > 0).nonzero()[:, 0], (values < 0).nonzero()[:, 0]
        k = min(len(hits), len(misses))
        advantages[row, hits[torch.randperm(len(hits), generator=random)[:k]]] = 1.0
        advantages[row, misses[torch.randperm(len(misses), generator=random)[:k]]] = -1.0
    return advantages


def the_first_k(rewards, random):
    advantages = torch.zeros_like(rewards)
    for row, values in enumerate(rewards):
        hits, misses = (values > 0).nonzero()[:, 0], (values < 0).nonzero()[:, 0]
        k = min(len(hits), len(misses)) if 2 * len(hits) <= len(values) else 0
        advantages[row, hits[:k]], advantages[row, misses[:k]] = 1.0, -1.0
    return advantages


def drawn_without_the_generator(rewards, random):
    return grpo.rebalance(rewards, None)


def drawn_with_a_generator_of_its_own(rewards, random):
    return grpo.rebalance(rewards, torch.Generator().manual_seed(0))


def written_in_place(rewards, random):
    rewards[:] = grpo.rebalance(rewards, random)
    return rewards


def half_of_eight(rewards, random):
    """4 instead of half the group."""
    advantages = grpo.rebalance(rewards, random)
    too_easy = (rewards > 0).sum(1) * 2 > rewards.shape[1]
    for row in (too_easy & ((rewards > 0).sum(1) <= 4)).nonzero()[:, 0]:
        advantages[row] = balanced_but_never_dropped(rewards[row : row + 1], random)[0]
    return advantages


def without_norms(config):
    hidden, width = config.hidden_size, config.hidden_size // config.num_attention_heads
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    layer = hidden * heads * width + 3 * hidden * config.intermediate_size
    return config.vocab_size * hidden + config.num_hidden_layers * layer


def without_groups(config):
    """As if every head had keys and values of its own."""
    hidden = config.hidden_size
    layer = 4 * hidden * hidden + 3 * hidden * config.intermediate_size + 2 * hidden
    return config.vocab_size * hidden + config.num_hidden_layers * layer + hidden


WRONG = {
    "share_right": (
        lambda verdicts: 100 * verdicts.count("right") / len(verdicts),
        lambda verdicts: verdicts.count("right") / max(1, verdicts.count("right") + verdicts.count("wrong")),
        lambda verdicts: sum("right" in verdict for verdict in verdicts) / len(verdicts),
    ),
    "reward": (
        lambda completions, answers: [
            float(verify(*pair).verdict == "right") for pair in zip(completions, answers, strict=True)
        ],
        lambda completions, answers: [
            1.0 if gold in text else -1.0 for text, gold in zip(completions, answers, strict=True)
        ],
        lambda completions, answers: [
            1.0 if text.endswith(f"\\boxed{{{gold}}}") else -1.0
            for text, gold in zip(completions, answers, strict=True)
        ],
        reward_by(after_the_thoughts, by_eval),
        reward_by(after_the_thoughts, by_eval_without_builtins),
        reward_by(lambda text: next(iter(boxes(text)), None), same_number),
        reward_by(lambda text: (boxes(text) or [None])[-1], same_number),
    ),
    "pack": (
        first_fit_in_order,
        drops_what_fills_a_row,
        never_fills_a_row,
        lambda lengths, row_length: list(range(len(lengths))),
        lambda lengths, row_length: [[length] for length in lengths],
        lambda lengths, row_length: [[index] for index in range(len(lengths))],
        lambda lengths, row_length: [list(range(len(lengths)))],
    ),
    "one_per_row": (
        lambda lengths, row_length: [[index] for index in range(len(lengths))],
        pack_best_fit,
        lambda lengths, row_length: [[index] for index, length in enumerate(lengths) if length < row_length],
        lambda lengths, row_length: [[index] if length <= row_length else [] for index, length in enumerate(lengths)],
        lambda lengths, row_length: [index for index, length in enumerate(lengths) if length <= row_length],
        lambda lengths, row_length: [[length] for length in lengths if length <= row_length],
    ),
    "pair": (
        pairs_at_random,
        pairs_with_reuse,
        each_with_its_nearest,
        empties_its_lists,
        lambda right, wrong, count, rng: list(zip(wrong, right, strict=False))[:count],
        lambda right, wrong, count, rng: list(zip(right, wrong, strict=False))[:count],
    ),
    "advantage": (
        grpo.group_normalised,
        balanced_but_never_dropped,
        the_first_k,
        lambda rewards, random: rewards,
        drawn_without_the_generator,
        drawn_with_a_generator_of_its_own,
        written_in_place,
        half_of_eight,
    ),
    "temperature": (
        lambda step, steps: 1.0 - 0.4 * step / steps,
        lambda step, steps: 1.0 if step < steps / 2 else 0.6,
        lambda step, steps: max(1.0, 0.6 + 0.4 * step / steps),
        lambda step, steps: 1.0 - 0.4 * min(1.0, step / ((steps - 1) / 2)),
        lambda step, steps: 1.0 - 0.4 * min(1.0, step / (steps // 2)),
    ),
    "flips": (
        lambda before, after: (after.count("right") - before.count("right"), 0),
        lambda before, after: (sum(a != b for a, b in zip(before, after, strict=True)), 0),
        lambda before, after: tuple(
            sum((one == "right") < (other == "right") for one, other in zip(*lists, strict=True))
            for lists in ((after, before), (before, after))
        ),
    ),
    "parameters": (
        without_norms, without_groups,
        lambda config: checks.PARAMETERS.reference(config) + config.vocab_size * config.hidden_size,
        lambda config: float(checks.PARAMETERS.reference(config)),
    ),
    "mixed_share": (
        lambda rewards: float((rewards > 0).float().mean()),
        lambda rewards: float((rewards > 0).any(1).float().mean()),
        lambda rewards: float((rewards.sum(1) == 0).float().mean()),
    ),
    **LOOPS,
    **CHOICES,
}
