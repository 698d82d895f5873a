"""Every exercise's check: the reference passes, a stub waits, plausible wrong answers fail with a counter-example."""

import random

import pytest
import torch

from phi_lab.lab import checks
from phi_lab.stages import grpo
from phi_lab.verify import verify


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


def pairs_at_random(right, wrong, count, rng):
    count = min(count, len(right), len(wrong))
    return list(zip(rng.sample(list(right), count), rng.sample(list(wrong), count), strict=True))


def pairs_with_reuse(right, wrong, count, rng):
    every = [(good, bad) for good in right for bad in wrong]
    return sorted(every, key=lambda pair: abs(pair[0]["tokens"] - pair[1]["tokens"]))[:count]


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
    ),
    "pack": (
        first_fit_in_order,
        lambda lengths, row_length: [[index] for index in range(len(lengths))],
        lambda lengths, row_length: [list(range(len(lengths)))],
    ),
    "one_per_row": (
        lambda lengths, row_length: [[index] for index in range(len(lengths))],
        checks.pack_best_fit,
    ),
    "pair": (
        pairs_at_random,
        pairs_with_reuse,
        lambda right, wrong, count, rng: list(zip(wrong, right, strict=False))[:count],
        lambda right, wrong, count, rng: list(zip(right, wrong, strict=False))[:count],
    ),
    "advantage": (grpo.group_normalised, balanced_but_never_dropped, the_first_k, lambda rewards, random: rewards),
    "temperature": (
        lambda step, steps: 1.0 - 0.4 * step / steps,
        lambda step, steps: 1.0 if step < steps / 2 else 0.6,
        lambda step, steps: max(1.0, 0.6 + 0.4 * step / steps),
    ),
    "flips": (
        lambda before, after: (after.count("right") - before.count("right"), 0),
        lambda before, after: (sum(a != b for a, b in zip(before, after, strict=True)), 0),
    ),
    "parameters": (without_norms, without_groups),
    "mixed_share": (
        lambda rewards: float((rewards > 0).float().mean()),
        lambda rewards: float((rewards > 0).any(1).float().mean()),
    ),
}


def of_name(name):
    return next(check for check in checks.ALL if check.name == name)


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.name)
def test_the_reference_passes(check):
    verdict, why = check.judge(check.reference)
    assert verdict == checks.RIGHT, why


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: check.name)
def test_a_stub_waits_and_the_reference_is_used(check, capsys):
    assert check.judge(lambda *_: NotImplemented)[0] == checks.WAITING
    assert check.use(lambda *_: NotImplemented) is check.reference


@pytest.mark.parametrize(("name", "place"), [(name, i) for name, wrong in WRONG.items() for i in range(len(wrong))])
def test_a_plausible_wrong_answer_fails_with_a_counter_example(name, place):
    verdict, why = of_name(name).judge(WRONG[name][place])
    assert verdict == checks.WRONG
    assert len(why) > 20 and "raised" not in why, why


def test_every_check_has_two_wrong_answers():
    assert {check.name for check in checks.ALL} == set(WRONG)
    assert all(len(wrong) >= 2 for wrong in WRONG.values())


def test_a_right_answer_is_what_the_notebook_then_uses():
    def mine(verdicts):
        return verdicts.count("right") / len(verdicts)

    assert checks.SHARE_RIGHT.use(mine) is mine


def test_an_optimal_pairing_that_differs_from_the_reference_is_right_too():
    def lazy(right, wrong, count, rng):
        return checks.PAIR.reference(list(reversed(right)), list(reversed(wrong)), count, random.Random(7))

    assert checks.PAIR.judge(lazy)[0] == checks.RIGHT


def test_an_attempt_that_raises_is_shown_not_raised():
    verdict, why = checks.PACK.judge(lambda lengths, row_length: 1 / 0)
    assert verdict == checks.WRONG and "ZeroDivisionError" in why
    assert checks.PACK.judge(lambda lengths, row_length: 3)[0] == checks.WRONG
    assert checks.ADVANTAGE.judge(lambda rewards, random: [1])[0] == checks.WRONG


def test_an_endless_attempt_is_stopped(monkeypatch):
    monkeypatch.setattr(checks, "SECONDS", 0.3)

    def endless(lengths, row_length):
        while True:
            pass

    verdict, why = checks.PACK.judge(endless)
    assert verdict == checks.WRONG and "not ended" in why


def test_the_message_is_escaped(monkeypatch):
    said = []
    monkeypatch.setattr(checks, "display", lambda html: said.append(html.data))
    checks.SHARE_RIGHT.use(lambda verdicts: "<script>1</script>")
    assert "<script>" not in said[0] and checks.WRONG in said[0]
