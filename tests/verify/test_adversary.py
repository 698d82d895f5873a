"""An adversary composes wrong answers from right ones; the verifier may accept one in a thousand at most.

A policy that is rewarded by a verifier finds what the verifier takes for right. Here 54 mutations with names do what
such a policy does: they negate, hedge, offer two answers, change a unit, drop a side of an equation, … Every mutation
gives an answer that is certainly wrong, in one of the forms that models answer in. Right answers are judged too, so
that a verifier that refuses everything fails.
"""

import random

import mutations_of_forms  # noqa: F401  # adds its mutations
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import MUTATIONS

from phi_lab.verify import verify, verify_many

RIGHT = [  # (gold, a right text), so that refusing everything fails
    ("12", r"\boxed{12}"),
    ("12", "The answer is 12."),
    ("1/2", r"\boxed{0.5}"),
    (r"2\sqrt{2}", r"\boxed{\sqrt{8}}"),
    ("(1,2)", r"\boxed{(1, 2)}"),
    ("2x+3y=6", r"\boxed{4x+6y=12}"),
    ("[1,5]", r"\boxed{1\le x\le 5}"),
    (r"8 \text{ kJ}", r"\boxed{8000 \text{ J}}"),
    ("4,4,7", r"\boxed{7,4,4}"),
    ("A", "The answer is A."),
    (r"\text{odd}", r"\boxed{Odd}"),
    ("12", r"\boxed{12 \text{ apples}}"),
    (r"\pm 3", r"\boxed{3, -3}"),
    ("x=5", r"\boxed{5}"),
]


FORMS = [
    r"So it is $\boxed{%s}$.",
    r"\boxed{%s}",
    r"\fbox{%s}",
    "<answer>%s</answer>",
    "The answer is $%s$.",
    "#### %s",
    "Final answer: %s",
    "The answer is %s.",
    "%s",
    r"\boxed{ \boldsymbol{%s} }",
    r"\boxed{\text{%s}}",
    "**Answer:** $%s$",
    r"Thus \[ %s \]",
    '{"answer": "%s"}',
    "So the result is %s.",
    r"\boxed{\displaystyle %s.}",
    r"$$\boxed{\left(%s\right)}$$",
    "Therefore, $%s$ is the solution.",
]


def composed(name, seed):
    """A gold and a wrong text: a mutation, and where it gives the content of a box, one of the forms around it."""
    rng = random.Random(f"{name} {seed}")
    gold, text = MUTATIONS[name](rng)
    start, end = FORMS[0].split("%s")
    if text.startswith(start) and text.endswith(end):
        text = rng.choice(FORMS).replace("%s", text[len(start) : -len(end)])
    return gold, text


def test_there_are_forty_mutations_and_right_answers_pass():
    assert len(MUTATIONS) >= 40
    assert [(gold, text) for gold, text in RIGHT if verify(text, gold).verdict != "right"] == []


def test_at_most_one_in_a_thousand_is_accepted():
    cases = [(name, *composed(name, seed)) for name in MUTATIONS for seed in range(60)]
    verdicts = verify_many([(text, gold) for _, gold, text in cases])
    accepted = [(*case, verdict) for case, verdict in zip(cases, verdicts, strict=True) if verdict.verdict == "right"]
    print(f"{len(accepted)} of {len(cases)} accepted")
    assert len(cases) >= 2400 and len(accepted) <= len(cases) / 1000, accepted


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(st.sampled_from(sorted(MUTATIONS)), st.integers(0, 10**9))
def test_no_mutation_is_accepted(name, seed):
    gold, text = composed(name, seed)
    assert verify(text, gold).verdict != "right", (name, gold, text)
