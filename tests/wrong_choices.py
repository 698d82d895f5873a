"""Plausible wrong answers to the exercises about columns, positions, choices and gains (with `wrong_attempts.py`)."""

import math
import re
import statistics

import torch

from phi_lab.lab import exercises


def slip_of(columns, wrong):
    return next((place for place, column in enumerate(columns) if wrong(*column.partition("=")[::2])), None)


def terms_sum(terms):
    return sum(int(term) for term in re.findall(r"[-+]?\d+", terms))


def interval(gains, deviation, z=1.96, root=True):
    mean = statistics.mean(gains)
    half = z * deviation(gains) / (math.sqrt(len(gains)) if root else 1)
    return mean, mean - half, mean + half


def gains(before, after):
    return [new - old for old, new in zip(before, after, strict=True)]


def as_if_independent(before, after):
    half = 1.96 * math.sqrt((statistics.variance(before) + statistics.variance(after)) / len(before))
    mean = statistics.mean(after) - statistics.mean(before)
    return mean, mean - half, mean + half


def easiest_first(rows, count):
    return exercises.hardest_first([{**row, "pass_rate": 1 - row["pass_rate"]} for row in rows], count)


def three_questions(rows, count):
    """At most three a question, but counted over neighbours in the list only."""
    taken = []
    for row in sorted(rows, key=lambda row: row["pass_rate"]):
        if [other["id"] for other in taken[-2:]] != [row["id"]] * 2 and len(taken) < count:
            taken.append(row)
    return taken


CHOICES = {
    "first_slip": (
        lambda columns: slip_of(columns, lambda terms, written: written and terms_sum(terms) != int(written)) or None,
        lambda columns: slip_of(columns, lambda terms, written: written and sum(
            map(int, re.findall(r"\d+", terms))) != int(written)),
        lambda columns: slip_of(columns, lambda terms, written: terms_sum(terms) != int(written or 0)),
        lambda columns: None,
        lambda columns: slip_of(columns, lambda terms, written: written and terms_sum(terms) % 10 != int(written)),
        lambda columns: next((len(columns) - 1 - place for place, column in enumerate(reversed(columns))
                              if exercises.first_slip([column]) is not None), None),
    ),
    "position_ids": (
        lambda lengths: list(range(sum(lengths))),
        lambda lengths: [position + 1 for length in lengths for position in range(length)],
        lambda lengths: [number for number, length in enumerate(lengths) for _ in range(length)],
        lambda lengths: [list(range(length)) for length in lengths],
        lambda lengths: torch.cat([torch.arange(length) for length in lengths]),
    ),
    "rate_factor": (
        lambda step, steps: 1 - step / steps,
        lambda step, steps: (steps - step) / (steps / 5),
        lambda step, steps: 1.0 if step < 0.8 * steps else 0.0,
        lambda step, steps: min(1.0, (steps - step) / (steps // 5)),
        lambda step, steps: min(1.0, (steps - 1 - step) / (steps / 5)),
    ),
    "hardest_first": (
        easiest_first,
        lambda rows, count: sorted(rows, key=lambda row: row["pass_rate"])[:count],
        lambda rows, count: sorted(rows, key=lambda row: row["pass_rate"])[:3],
        lambda rows, count: list({row["id"]: row for row in sorted(rows, key=lambda row: row["pass_rate"])}.values())[
            :count],
        three_questions,
    ),
    "paired_gain": (
        as_if_independent,
        lambda before, after: interval(gains(before, after), statistics.pstdev),
        lambda before, after: interval(gains(after, before), statistics.stdev),
        lambda before, after: interval(gains(before, after), statistics.stdev, root=False),
        lambda before, after: interval(gains(before, after), statistics.variance),
        lambda before, after: tuple(100 * one for one in interval(gains(before, after), statistics.stdev)),
    ),
    "plausible": (
        lambda wrong, logprobs, max_nll: [row for row, one in zip(wrong, logprobs, strict=True) if one <= -max_nll],
        lambda wrong, logprobs, max_nll: [row for row, one in zip(wrong, logprobs, strict=True) if one <= max_nll],
        lambda wrong, logprobs, max_nll: [row for row, one in zip(wrong, logprobs, strict=True) if one > -max_nll],
        lambda wrong, logprobs, max_nll: [row for row, one in zip(wrong, logprobs, strict=True) if one >= -6],
        lambda wrong, logprobs, max_nll: [place for place, one in enumerate(logprobs) if one >= -max_nll],
        lambda wrong, logprobs, max_nll: (row for row, one in zip(wrong, logprobs, strict=True) if one >= -max_nll),
    ),
    "sequence_logprob": (
        lambda logits, ids, mask: exercises.sequence_logprob(logits, ids, mask) / mask.sum(1),
        lambda logits, ids, mask: (logits.log_softmax(-1).gather(2, ids[..., None])[..., 0] * mask).sum(1),
        lambda logits, ids, mask: (logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0] * mask[:, :-1]
                                   ).sum(1),
        lambda logits, ids, mask: exercises.sequence_logprob(logits, ids, (ids > 0).long()),
        lambda logits, ids, mask: -exercises.sequence_logprob(logits, ids, mask),
        lambda logits, ids, mask: exercises.sequence_logprob(logits, ids, mask).sum(),
        lambda logits, ids, mask: exercises.sequence_logprob(logits, ids, mask).detach(),
        lambda logits, ids, mask: (logits[:, :-1].gather(2, ids[:, 1:, None])[..., 0] * mask[:, 1:]).sum(1),
    ),
}
