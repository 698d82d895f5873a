"""What the ladder was asked to reach, on chains whose accuracies are chosen.

python -m pytest tests/report/test_targets.py
"""

import pytest
from chain_examples import measurement

from phi_lab.report import targets

REACHED = {("base", "easy"): 0.7, ("base", "hard"): 0.02, ("base", "transfer"): 0.4, ("mid", "hard"): 0.6,
           ("grpo", "easy"): 0.96, ("grpo", "hard"): 0.8, ("grpo", "transfer"): 0.38}


def rows(changed, each=(0.0, 0.02, -0.02)):
    """Three chains whose last `hard` lies `each` away from what is asked for."""
    found = []
    for seed, more in enumerate(each):
        for (name, benchmark), share in (REACHED | changed).items():
            share += more if (name, benchmark) == ("grpo", "hard") else 0
            found.append({"seed": seed, "name": name, "measurements": [measurement(name, benchmark, "sampled", share)]})
    return found


def test_all_is_reached():
    head, *lines = targets.table(rows({}))
    assert head == ["asked", "found", "reached"] and [line[2] for line in lines] == ["yes"] * 8
    assert lines[0] == ["`base`, easy: 60 to 80 %", "70.0 %", "yes"]
    assert lines[4] == ["`grpo`, hard: at least 75 %", "80.0 %", "yes"]
    assert lines[5][1:] == ["-2.0 [-2.0, -2.0]", "yes"] and lines[6][1] == lines[7][1] == "2.0"


@pytest.mark.parametrize(("changed", "each", "missed"), [
    ({("base", "easy"): 0.85}, (0, 0, 0), [0]), ({("base", "hard"): 0.16}, (0, 0, 0), [1]),
    ({("mid", "hard"): 0.39}, (0, 0, 0), [2]), ({("grpo", "easy"): 0.94}, (0, 0, 0), [3]),
    ({("grpo", "hard"): 0.74}, (0, 0, 0), [4]), ({("grpo", "transfer"): 0.36}, (0, 0, 0), [5]),
    ({}, (0.025, 0, -0.025), [6]), ({}, (-0.05, 0.0125, 0.0125, 0.0125, 0.0125), [6]), ({}, (-0.06, 0, 0.06), [6, 7])])
def test_what_is_missed(changed, each, missed):
    _, *lines = targets.table(rows(changed, each))
    assert [number for number, line in enumerate(lines) if line[2] == "no"] == missed
