"""Break it yourself: what counts as a rise, whether a prediction held, and the controls that ask for it first."""

import random

import pytest

from phi_lab.lab import break_it
from phi_lab.lab.failures import Failure
from phi_lab.report import doctor

EVIL = "<img src=x onerror=alert(1)>"


def failure(rewards, lengths, right, **more):
    rows = [{"step": step, "reward": reward, "mean_length": length, "kept_share": 1.0, **more}
            for step, (reward, length) in enumerate(zip(rewards, lengths, strict=True), 1)]
    answers = [{"id": "1", "prompt": EVIL, "answer": "15", "completion": EVIL, "finish_reason": "stop",
                "verdict": "wrong"}]
    finding = doctor.Finding("repetition", EVIL, "means", "cause", "remedy")
    return Failure(rows, answers, [finding, finding], right)


COLLAPSE = failure([0.6, 0.4, -1, -1, -1, -1], [150, 160, 256, 256, 256, 256], (0.7, 0.0))
STILL = failure([-1.0] * 6, [24.0] * 6, (0.7, 0.7))


@pytest.mark.parametrize(("values", "wanted"), [
    ([0.4, 0.42, 0.44, 0.5, 0.52, 0.55, 0.58, 0.6, 0.61], "rises"),
    ([0.6, 0.4, -1, -1, -1, -1, -1, -1, -1], "falls"),
    ([-1.0] * 9, "stays"),
    ([-1, -1, -1, -1, -0.96, -1, -1, -1, -0.98], "stays"),
    ([0.3, -0.3, 0.3, -0.3, 0.2, -0.2, 0.1, 0.3, -0.1], "stays"),
    ([0.7, 0.2], "falls"), ([0.7, 0.68], "stays"), ([0.1, 0.5, 0.9], "rises"),
])
def test_a_direction(values, wanted):
    assert break_it.direction(values, 0.05) == wanted


def test_a_coin_seldom_moves_and_a_slope_as_large_as_its_noise_does():
    """Nine means of 48 coins: at most one run in ten counts as a change; with a slope, nearly all do."""
    rng = random.Random(0)
    coins = [[sum(rng.choice((-1, 1)) for _ in range(48)) / 48 for _ in range(9)] for _ in range(300)]
    assert sum(break_it.direction(values, 0.05) != "stays" for values in coins) < 30
    slopes = [[value + 0.14 * step for step, value in enumerate(values)] for values in coins]
    assert sum(break_it.direction(values, 0.05) == "rises" for values in slopes) > 270


def test_the_outcome_of_a_collapse_and_of_nothing():
    assert break_it.outcome(COLLAPSE) == {"reward": "falls", "length": "rises", "right": "falls"}
    assert break_it.outcome(STILL) == {"reward": "stays", "length": "stays", "right": "stays"}


def test_predictions_are_held_against_what_was_seen():
    page = break_it.compared(COLLAPSE, {"reward": "falls", "length": "falls", "right": "falls"})
    assert "2 of 3 predictions held" in page and page.count("✓") == 2 and page.count("✗") == 1
    assert "70.0 % before, 0.0 % after" in page and "+0.60 at the first step, -1.00 at the last" in page


def test_all_that_a_run_tells_is_on_its_page_and_escaped():
    page = break_it.shown(COLLAPSE, "a rate", {"reward": "falls", "length": "rises", "right": "falls"})
    assert EVIL not in page and "The doctor finds repetition." in page and "3 of 3 predictions held" in page
    alt = break_it.figure(COLLAPSE, "a rate").alt
    assert "mean reward from 0.6 at step 1 to -1 at step 6" in alt and "share right" not in alt
    beside = failure([0.1, 0.2], [10, 20], (0.5, 0.1), accuracy=0.25)
    assert "share right from 0.25" in break_it.figure(beside, "length").alt


def test_the_gallery_has_right_answers_before_and_after():
    page = break_it.gallery_table({"a rate": COLLAPSE, "24 tokens": STILL})
    assert "70.0 % → 0.0 %" in page and "70.0 % → 70.0 %" in page and EVIL not in page
    assert page.count("repetition") == 2, "a finding's name once a line"


def test_nothing_runs_before_all_is_predicted():
    calls = []
    box = break_it.widget({"a rate": lambda: calls.append(1) or COLLAPSE, "24 tokens": lambda: STILL})
    cause, guesses, run, view = box.children
    assert run.disabled and not view.value
    guesses.children[0].value = guesses.children[1].value = "falls"
    assert run.disabled
    guesses.children[2].value = "falls"
    assert not run.disabled
    run.click()
    assert calls == [1] and "2 of 3 predictions held" in view.value and not run.disabled
    cause.value = "24 tokens"
    assert run.disabled and not view.value and guesses.children[0].value is None, "another cause, another prediction"


def test_a_run_that_is_interrupted_can_be_started_again():
    def stopped():
        raise KeyboardInterrupt

    box = break_it.widget({"a rate": stopped})
    _, guesses, run, _ = box.children
    for guess in guesses.children:
        guess.value = "stays"
    with pytest.raises(KeyboardInterrupt):
        run.click()
    assert not run.disabled and run.description == "run it"
