"""A new ladder beside the published chains: one line where they can be compared, and never a wrong one."""

from dataclasses import replace

import pytest
from chain_examples import chain_rows, measurement

from phi_lab.config import presets
from phi_lab.config.schema import STAGES
from phi_lab.core import stats
from phi_lab.core.files import write_json, write_rows
from phi_lab.core.run_folder import RunFolder
from phi_lab.report import chain_rows as published
from phi_lab.report import expectation, report

LAB = presets.LAB
LEVELS = {"base": -0.05, "mid": 0.4, "sft": 0.6, "dpo": 0.62, "grpo": 0.7}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished course, and twelve published chains of its settings, base and teacher."""
    run = RunFolder(tmp_path / "run")
    write_rows(tmp_path / "chains.jsonl", chain_rows(range(12), LEVELS, config=LAB.digest()))
    monkeypatch.setattr(published, "PUBLISHED", tmp_path / "chains.jsonl")
    opened(run, LAB)
    write_json(run.stage("mid").student, {"weights": "ba5e"})
    write_json(run.data.teacher, {"weights": "7ea"})
    climbed(run)
    return run


def opened(run, config):
    write_json(run.config, {"scale": config.scale, "profile": config.profile, "seed": 0, "config": config.row()})


def climbed(run, **ends):
    """ladder.json of a run that ends where the chains do, but for `ends`."""
    shares = {stage: level + 0.1 for stage, level in LEVELS.items()} | ends
    write_json(run.ladder, [measurement(stage, "hard", kind, share) for stage, share in shares.items()
                            for kind in ("sampled", "greedy")])


def test_a_run_that_ends_among_the_chains_is_as_expected(run):
    values = [chain.accuracy("grpo") for chain in published.chains(published.published())]
    among = f"the 12 published chains end at {100 * min(values):.0f} to {100 * max(values):.0f}"
    assert expectation.compare_with_chains(run) == f"hard 80.0 %; {among}: as expected"
    page = report.write_report(run.path).read_text()
    assert f"<p>Beside other seeds: hard 80.0 %; {among}: as expected.</p>" in page
    assert page.count(among) == 1 and page.index(among) < page.index("<h2>"), "once, at the top"
    low, high = stats.prediction_interval(values)
    for end, says in ((low + 1e-6, "as expected"), (high - 1e-6, "as expected"), (low - 1e-6, "lower than 95 %"),
                      (high + 1e-6, "higher than 95 %")):
        climbed(run, grpo=end)
        assert says in expectation.compare_with_chains(run)


def test_a_run_that_ends_outside_hears_where_it_left(run):
    climbed(run, sft=0.5, dpo=0.5, grpo=0.55)
    line = expectation.compare_with_chains(run)
    assert line.startswith("hard 55.0 %; the 12 published chains end at ") and "lower than 95 % of new ones" in line
    assert "The first stage outside is SFT, with 50.0 % where" in line and line.endswith(f"`phi-lab doctor {run.path}`")
    climbed(run, grpo=0.55)
    assert "The first stage outside is GRPO" in expectation.compare_with_chains(run)


def test_a_course_is_compared_on_its_own_half_of_the_problems(run):
    """The chains were measured on twice as many, and the first half of them may be the easier one."""
    rows = chain_rows(range(12), LEVELS, config=LAB.digest())
    for measured in (one for row in rows for one in row["measurements"] if one["protocol"] == "sampled"):
        right, n = measured["parts"]["first half"]
        measured["parts"]["first half"] = [right + n // 10, n]
        measured["n"] = 4 * 2 * LAB.evaluation.problems
    write_rows(published.PUBLISHED, rows)
    assert "lower than 95 %" in expectation.compare_with_chains(run)
    climbed(run, **{stage: level + 0.2 for stage, level in LEVELS.items()})
    assert expectation.compare_with_chains(run).endswith("as expected")
    opened(run, replace(LAB, evaluation=replace(LAB.evaluation, problems=2 * LAB.evaluation.problems)))
    assert "higher than 95 %" in expectation.compare_with_chains(run)  # measured on all of them


@pytest.mark.parametrize(("change", "says"), [
    (lambda config: replace(config, mid=replace(config.mid, epochs=4)), "mid.epochs differs"),
    (lambda config: replace(config, sft=replace(config.sft, hardware=replace(config.sft.hardware, liger=True))),
     "sft.hardware.liger differs"),
    (lambda config: replace(config, model="phi-mini"), "model differs"),
])
def test_other_settings_are_named_and_not_compared(run, change, says):
    opened(run, change(LAB))
    assert expectation.compare_with_chains(run) == f"hard 80.0 %; not comparable with the published chains: {says}"


def test_another_base_teacher_or_version_is_named(run):
    write_json(run.data.teacher, {"weights": "other"})
    assert expectation.compare_with_chains(run).endswith("its teacher is another one")
    run.data.teacher.unlink()  # a set that was made elsewhere
    assert expectation.compare_with_chains(run).endswith("its teacher is another one")
    write_json(run.stage("mid").student, {"weights": "other"})
    assert expectation.compare_with_chains(run).endswith("its base is another one")
    write_rows(published.PUBLISHED, chain_rows(range(3), LEVELS, config="of before"))
    assert expectation.compare_with_chains(run).endswith("other settings than this version has")


@pytest.mark.parametrize("config", [
    presets.SMOKE, presets.LORA, replace(LAB, evaluation=replace(LAB.evaluation, temperature=0.5)),
    replace(LAB, evaluation=replace(LAB.evaluation, samples=1)),
    replace(LAB, evaluation=replace(LAB.evaluation, problems=20)),
], ids=["smoke", "lora", "temperature", "samples", "few problems"])
def test_nothing_is_said_of_another_scale_profile_or_measurement(run, config):
    opened(run, config)
    write_rows(published.PUBLISHED, [row | {"measurements": [one | {"n": 8000} for one in row["measurements"]]}
                                     for row in chain_rows(range(12), LEVELS, config=LAB.digest())])
    assert expectation.compare_with_chains(run) is None


def test_nothing_is_said_of_an_unfinished_run_or_without_chains(run):
    write_json(run.ladder, [measurement(stage, "hard", "sampled", 0.5) for stage in STAGES[:-1]])
    assert expectation.compare_with_chains(run) is None
    climbed(run)
    published.PUBLISHED.unlink()
    assert expectation.compare_with_chains(run) is None


def test_a_stage_from_a_shipped_checkpoint_is_no_chain(run):
    climbed(run)
    rows = [measurement(stage, "hard", "sampled", 0.5) for stage in STAGES]
    write_json(run.ladder, [*rows, measurement("mid-shipped", "hard", "sampled", 0.5)])
    assert "SFT starts from a shipped checkpoint" in expectation.compare_with_chains(run)
