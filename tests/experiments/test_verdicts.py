"""What rows of an experiment say: the statistics against hand-computed values, verdicts, tables, figures, --list."""

import json
import math
import re

import pytest
from experiment_rows import measured, row, rows_of

from phi_lab import cli
from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import write_rows
from phi_lab.experiments import EXPERIMENTS, verdicts
from phi_lab.report import contrasts, figures_experiments
from phi_lab.report.contrasts import Contrast

KEYS = ["name", "question", "arms", "seeds", "verdict", "p_value", "effect", "ci", "detectable",
        "greedy", "results_file"]
AB = [Contrast("a", "b", "is it?"), Contrast("c", "b", "is it not?", sign=-1)]


def test_a_contrast_by_hand():
    """Differences of a and b: 1, 2, 3, 4 and 5 points. Mean 3, sd sqrt(2.5), error sqrt(0.5); t(4, 97.5 %) is 2.776;
    t = 3 / 0.7071 = 4.243, p = 0.0132, and 0.0265 after Holm, as one of two. Those of c and b cancel: p = 1.
    """
    rows = [row(seed, "a", 0.5 + 0.01 * (seed + 1)) for seed in range(5)]
    rows += [row(seed, "b", 0.5) for seed in range(5)] + [row(seed, "c", 0.5 + (-1) ** seed * 0.001 * (seed < 4))
                                                          for seed in range(5)]
    first, second = contrasts.compare(rows, AB)
    assert first.effect.mean == pytest.approx(0.03) and first.seeds == 5
    assert first.effect.high - first.effect.mean == pytest.approx(0.02776 * math.sqrt(0.5), rel=1e-3)
    assert first.effect.p == pytest.approx(0.01324, abs=2e-5)
    assert first.p_holm == pytest.approx(2 * 0.01324, abs=4e-5)  # the smaller of two
    assert first.verdict == "supported"
    assert second.p_holm == pytest.approx(1.0) and second.verdict == "no difference shown"
    # 400,000 simulated samples of five with a mean of 2.05 deviations: 80.1 % have p < 0.025.
    assert first.detectable / (0.01 * math.sqrt(2.5)) == pytest.approx(2.05, abs=0.01)
    assert first.beside["greedy"].mean == pytest.approx(0.03) and set(first.beside) == {"sampled", "greedy", "pass"}


def test_a_difference_in_the_other_direction_does_not_support_a_claim():
    rows = [row(seed, name, share + 0.001 * (seed % 2)) for seed in range(6)
            for name, share in (("a", 0.4), ("b", 0.5 + 0.002 * seed), ("c", 0.3))]
    a, c = contrasts.compare(rows, AB)
    assert (a.verdict, c.verdict) == ("not supported", "supported")


def test_another_temperature_is_named_and_its_pass_at_k_is_not_compared():
    """pass@8 of a cooler sampler is lower, whatever the model has learned."""
    rows = [row(seed, name, 0.5 + 0.01 * seed) for seed in range(3) for name in "ab"]
    for one in rows[1::2]:
        for measurement in one["measurements"]:
            measurement["temperature"] = measurement["temperature"] and 0.3
    claim = [Contrast("a", "b", "?")]
    assert set(contrasts.compare(rows, claim)[0].beside) == {"sampled", "greedy"}
    table = contrasts.summary(rows, {"a": "warm", "b": "cool"}, claim)
    assert "| `b` | cool | 600,000 | 51.0 (T 0.3) | 51.0 | 51.0 (T 0.3) |" in table
    assert "| `a` | warm | 600,000 | 51.0 | 51.0 | 51.0 |" in table


def test_arms_at_the_floor_show_nothing():
    """Without spread every difference has p = 0: 0.2 points between 0.2 and 0.0 % are no finding."""
    def rows(level):
        return [row(seed, name, level + 0.002 * (name == "a") + 1e-5 * seed * (name == "a")) for seed in range(6)
                for name in "ab"]

    claim = [Contrast("a", "b", "?")]
    (low,), (high,) = contrasts.compare(rows(0.0), claim), contrasts.compare(rows(0.1), claim)
    assert low.p_holm < 0.001 and low.verdict == "no difference shown" and high.verdict == "supported"
    table = contrasts.summary(rows(0.0), {"a": "", "b": ""}, claim)
    assert "| no difference shown (both below 5 %) | – |" in table
    assert "| supported | 0.0 |" in contrasts.summary(rows(0.1), {"a": "", "b": ""}, claim)


def test_only_seeds_with_every_arm_count_and_one_is_too_few():
    rows = [row(seed, name, 0.5 + 0.01 * seed) for seed in range(3) for name in "abc"]
    assert [one.seeds for one in contrasts.compare(rows[:-1], AB)] == [2, 2]
    with pytest.raises(UserError, match="1 seeds with all arms: two are needed"):
        contrasts.compare(rows[:5], AB)


def test_a_claim_about_easy_is_tested_on_easy():
    rows = [row(seed, name, 0.5) for seed in range(3) for name in "ab"]
    for number, one in enumerate(rows):
        one["measurements"] += [measured(0.9, "transfer")]
        if one["name"] == "a":
            one["measurements"] = [measured(0.2 + 0.01 * number, "easy"), *one["measurements"][:3]]
    (found,) = contrasts.compare(rows, [Contrast("a", "b", "?", "easy", -1)])
    assert found.effect.mean == pytest.approx(0.22 - 0.25) and "pass" not in found.beside


def test_what_was_not_measured_is_named():
    rows = [row(seed, name, 0.5) for seed in range(3) for name in "ab"]
    with pytest.raises(UserError, match="a and b: not measured on transfer"):
        contrasts.compare(rows, [Contrast("a", "b", "?", "transfer")])


# ------------------------------------------------------------------ the experiments with contrasts

COMPARING = [one for one in EXPERIMENTS.values() if one.contrasts]  # the nested ones: test_variance.py


@pytest.mark.parametrize("experiment", COMPARING, ids=lambda one: one.name)
def test_an_experiment_says_beforehand_what_would_count(experiment):
    module = __import__(f"phi_lab.experiments.{experiment.name}", fromlist=["x"])
    for word in ("Question.", "Arms.", "Primary measure.", "Contrasts", "Seeds.", "Budget"):
        if (experiment.name, word) != ("one_batch", "Arms."):
            assert f"**{word}" in module.__doc__, word
    assert "What would count" in module.__doc__.replace("\n", " ")
    assert f"phi-lab experiment {experiment.name} --seeds " in module.__doc__
    for arm in experiment.arms:
        assert experiment.name == "mid_training" or f"`{arm}`" in module.__doc__, arm
    named = {name for one in experiment.contrasts for name in (one.name, one.against)}
    assert named <= set(experiment.arms) and set(experiment.untrained) <= set(experiment.arms)
    count = {9: "nine", 10: "ten", 12: "twelve"}[len(experiment.contrasts)]
    assert f"Holm over all {count}" in module.__doc__.replace("\n", " ")
    assert len(experiment.seeds) >= (8 if experiment.name == "mid_training" else 12)
    pairs = [(one.name, one.against, one.benchmark) for one in experiment.contrasts]
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("experiment", COMPARING, ids=lambda one: one.name)
def test_its_figure_says_in_words_what_it_shows(experiment, tmp_path):
    names = list(experiment.arms)
    rows = rows_of(experiment, lambda arm, seed: 0.3 + 0.01 * names.index(arm) + 0.001 * (seed * 7 % 3), range(3))
    for one in rows:
        if one["name"].endswith("-pairs"):
            one["notes"] = {"curves": [[1, -20.0, -30.0, 0.0], [3, -15.0 - one["seed"], -40.0, 1.5]]}
        if experiment.name == "one_batch":
            moved = 0.5 * (one["name"] == "own-pairs")
            one["notes"]["probe"] = {kind: -2.0 + moved for kind in figures_experiments.PROBES}
        if one["name"] in ("devices", "plain"):
            one["notes"] = {"entropy": [0.5, 0.25 + 0.03 * one["seed"]]}
    figure = figures_experiments.save(
        experiment.name, rows, experiment.arms, experiment.contrasts, tmp_path / "a.svg")
    assert "means of 3 seeds" in figure.alt
    for one in experiment.contrasts:
        assert f"{one.name} − {one.against}" in figure.alt
    if experiment.name == "one_batch":
        assert "own-pairs: margin at the end 0.75" in figure.alt
        assert re.search(r"log-probability of own wrong answers: .*own-pairs \+0\.5, .*nats", figure.alt)
    if experiment.name == "rl_devices":
        assert "devices: 50 % of a problem's answers differ" in figure.alt
        assert "entropy of devices 0.500 to 0.280 nats" in figure.alt and "entropy of hot" not in figure.alt
    if experiment.name == "mid_training":
        assert "hard, after mid-training: mid 41.1, mid-128 42.1" in figure.alt
        assert re.search(r"hard, others: base-512-slow [^;]*, mid-long \d", figure.alt)
    assert (tmp_path / "a.svg").read_text().count("<svg") == 1
    text = contrasts.summary(rows, experiment.arms, experiment.contrasts)
    assert text.startswith("3 seeds (chain seeds). Compute is the arm's own; a token that is only read or sampled ")
    assert "sampled counts as a third of one trained on. Supported: a difference in the claimed direction; not" in text
    fewer = [one for one in rows if (one["seed"], one["name"]) != (1, names[0])]
    text = contrasts.summary(fewer, experiment.arms, experiment.contrasts)
    assert text.startswith("2 seeds (chain seeds). Without all arms, and left out: 1.")
    assert len(re.findall(r"^\| `", text, re.MULTILINE)) == len(names) + len(experiment.contrasts)


# ------------------------------------------------------------------ the list


def test_the_list_before_and_after_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verdicts.listing, "__defaults__", (tmp_path,))
    assert cli.main(["experiment", "--list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [list(one) for one in found] == [KEYS] * 5
    assert [one["name"] for one in found] == ["mid_training", "one_batch", "rl_devices", "variance", "variance_bases"]
    for one in found:
        assert [one[key] for key in KEYS[4:]] == [None] * 7 and len(one["arms"]) >= 4
    assert found[1]["seeds"] == list(range(10, 22))
    experiment = EXPERIMENTS["one_batch"]
    rows = rows_of(experiment, lambda arm, seed: {"own-matched": 0.54, "teacher-pairs": 0.5}.get(arm, 0.4)
                   + 0.01 * (arm == "own-matched") * (seed % 2), range(4))
    write_rows(tmp_path / "data" / "experiments" / "one_batch.jsonl", rows)
    assert cli.main(["experiment", "--list", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)[1]
    assert one["results_file"] == "data/experiments/one_batch.jsonl" and one["seeds"] == [0, 1, 2, 3]
    assert one["effect"] == pytest.approx(4.5) and one["verdict"] == "supported"  # differences 4, 5, 4, 5 points
    assert one["ci"] == [pytest.approx(4.5 - 3.182 * 0.57735 / 2, abs=1e-3), pytest.approx(
        4.5 + 3.182 * 0.57735 / 2, abs=1e-3)]
    assert one["p_value"] < 0.01 and one["detectable"] > 0
    assert one["greedy"] == contrasts.points(stats.PairedT(0.045, one["ci"][0] / 100, one["ci"][1] / 100, 0.0))
    assert cli.main(["experiment", "--list"]) == 0
    said = capsys.readouterr().out
    assert "one_batch: What is one batch" in said
    assert f"supported, +4.5 points [+3.6, +5.4] (greedily {one['greedy']})" in said
    assert said.count("has not run; planned: ") == 4


def test_a_damaged_file_of_results_is_named(tmp_path):
    path = tmp_path / "data" / "experiments" / "rl_devices.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"seed": 1}\n')
    with pytest.raises(UserError, match="rl_devices.jsonl, line 1: column 'experiment' is missing"):
        verdicts.listing(tmp_path)
