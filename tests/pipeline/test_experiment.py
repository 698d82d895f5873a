"""Controls at equal compute and chains as observations: what they cost, that they resume, what the table says."""

import html
import random

import nbformat
import pytest

from phi_lab.config import presets
from phi_lab.config.schema import STAGES
from phi_lab.core import files, paths, stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows
from phi_lab.core.run_folder import RunFolder, StageFolder
from phi_lab.lab import tables
from phi_lab.lab.views import NO_CHAINS
from phi_lab.model import checkpoints
from phi_lab.pipeline import experiment, stage_runner
from phi_lab.report import figures, replications, report

ARMS = {*STAGES, "dpo-paper", "sft-limo", "grpo-sft", *(f"{stage}-control" for stage in STAGES[1:])}
ARMS |= {f"{stage}-shipped" for stage in STAGES[1:-1]}  # what the stages of a smoke run started from


@pytest.fixture(scope="module")
def queue(tiny, tmp_path_factory):
    """Folder of a queue with one tiny chain in it."""
    out = tmp_path_factory.mktemp("ladder")
    assert experiment.ladder(out, range(3, 4), profile="smoke", log=lambda line: None) == out / "chains.jsonl"
    return out


@pytest.mark.slow
def test_a_chain_is_one_row_with_every_arm(queue):
    (row,) = read_rows(queue / "chains.jsonl")
    assert row["seed"] == 3 and set(row["accuracy"]) == ARMS and row["seconds"] > 0
    for entry in read_json(queue / "seed-3" / "ladder.json"):
        if entry["temperature"] > 0 and entry["pass_at_k"] is None:
            name = entry["stage"] if entry["arm"] == "main" else f"{entry['stage']}-{entry['arm']}"
            assert row["accuracy"][name][entry["benchmark"]] == pytest.approx(entry["accuracy"], abs=1e-5)
    assert row["models"]["sft-control"] == checkpoints.fingerprint(queue / "seed-3" / "sft-control" / "model")
    made = {name: weights for name, weights in row["models"].items() if not name.startswith("dpo")}  # dpo: one step
    assert len(set(made.values())) == len(made) == 8  # every arm was trained to something of its own


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*STAGES[1:], "grpo-sft"])
def test_a_control_starts_where_its_stage_started_and_takes_its_compute(queue, stage):
    folder, stage, control = queue / "seed-3", stage.split("-")[0], stage if "-" in stage else f"{stage}-control"
    started = [read_json(folder / name / "student.json") for name in (stage, control)]
    second = control == "grpo-sft"
    rung, control = (stage_runner.finished_result(StageFolder(folder / name)) for name in (stage, control))
    assert started[0] == started[1]
    a_step = control.train_tokens / control.metrics[-1]["step"]
    if stage == "grpo" and not second:  # its control is counted in epochs
        a_step = stage_runner.finished_result(StageFolder(folder / "dpo")).train_tokens
    least = a_step + control.forward_tokens / 3  # a control trains for a step, however short its stage was
    assert abs(control.compute - rung.compute) <= max(a_step / 2 + 1, least - rung.compute + 1)
    if stage == "grpo" and not second:  # whole epochs of DPO's own pairs
        epochs = round(control.train_tokens / a_step)
        assert a_step == pytest.approx(control.train_tokens / epochs, rel=1e-3)


def test_chains_of_another_configuration_are_another_ladder(tmp_path):
    files.write_json(tmp_path / "config.json", {"config": presets.run_config("cpu", "lab").row()})
    with pytest.raises(UserError, match="config.json: config differs.*chains of another configuration"):
        experiment.ladder(tmp_path, range(1), profile="smoke")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.slow
def test_sampling_and_scoring_are_part_of_the_compute(queue):
    folder = queue / "seed-3"
    for stage in ("mid", "sft"):
        assert stage_runner.finished_result(StageFolder(folder / stage)).forward_tokens == 0
    for stage in ("dpo", "grpo"):
        result = stage_runner.finished_result(StageFolder(folder / stage))
        assert result.forward_tokens > 0 and result.compute == result.train_tokens + result.forward_tokens / 3
    grpo = stage_runner.finished_result(StageFolder(folder / "grpo"))
    assert grpo.forward_tokens > grpo.metrics[-1]["tokens"] > grpo.train_tokens  # more is sampled than learned from


@pytest.mark.slow
def test_a_finished_chain_is_not_run_again(queue, monkeypatch):
    def never(*arguments, **rest):
        raise AssertionError("worked again on what was finished")

    monkeypatch.setattr(experiment, "run_chain", never)
    before = (queue / "chains.jsonl").read_bytes()
    experiment.ladder(queue, range(3, 4), profile="smoke", log=lambda line: None)
    assert (queue / "chains.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_stopped_chain_goes_on(queue, monkeypatch):
    """Without its row, a chain whose parts are finished is only written down again."""

    def never(*arguments, **rest):
        raise AssertionError("trained again what was finished")

    monkeypatch.setattr(stage_runner, "train_and_record", never)
    before = (queue / "chains.jsonl").read_bytes()
    (queue / "chains.jsonl").unlink()
    experiment.ladder(queue, range(3, 4), profile="smoke", log=lambda line: None)
    assert (queue / "chains.jsonl").read_bytes() == before


def test_no_control_without_its_stage(tmp_path):
    with pytest.raises(UserError, match="dpo: no finished stage"):
        experiment.control("dpo", RunFolder(tmp_path), None, 0)


def some(count):
    """Made-up chains in which every stage but DPO brings ten points, and DPO as much as its control."""
    rng, found = random.Random(0), []
    for seed in range(count):
        climb = dict(zip(STAGES, (0.0, 0.4, 0.5, 0.5, 0.6), strict=True))
        levels = climb | {f"{stage}-control": climb[before] for before, stage in zip(STAGES, STAGES[1:], strict=False)}
        levels["grpo-sft"] = climb["dpo"]
        accuracy = {
            name: dict.fromkeys(("easy", "hard", "transfer"), level + rng.gauss(0.1, 0.01))
            for name, level in levels.items()
        }
        found.append({"seed": seed, "accuracy": accuracy})
    return found


def test_rungs_are_paired_over_chains_and_corrected():
    made = some(6)
    found = replications.stage_gains(made)
    assert [row["stage"] for row in found] == [*STAGES[1:], "grpo-sft"]
    hard = {name: [chain["accuracy"][name]["hard"] for chain in made] for name in made[0]["accuracy"]}
    for before, row in zip(STAGES, found[:-1], strict=False):
        assert row["over"] == stats.paired_t(hard[row["stage"]], hard[before])
        assert row["control"] == stats.paired_t(hard[row["stage"]], hard[f"{row['stage']}-control"])
    assert found[-1]["control"] == stats.paired_t(hard["grpo"], hard["grpo-sft"])
    assert [row["p_holm"] for row in found[:-1]] == stats.holm([row["over"].p for row in found[:-1]])
    assert [row["control_p_holm"] for row in found] == stats.holm([row["control"].p for row in found])
    assert [row["p_holm"] < 0.05 for row in found[:-1]] == [True, True, False, True]
    text = replications.summary(made)
    assert all(f"| {name} |" in text for name in hard) and "p, Holm" in text
    assert "p, Holm" not in replications.summary(made[:1])  # one chain shows means only
    with pytest.raises(UserError, match="two are needed"):
        replications.stage_gains(made[:1])


def test_chains_in_smoke_are_compared_with_what_their_stages_started_from():
    made = some(3)
    for chain in made:
        chain["accuracy"]["mid-shipped"] = {"hard": chain["accuracy"]["sft"]["hard"] + 0.01}
    sft, dpo = replications.stage_gains(made)[1:3]
    assert sft["over"].mean == pytest.approx(-0.01) and dpo["over"].mean != pytest.approx(-0.01)
    assert replications.gains_table(made)[0][1] == "over what it started from"
    left, right = figures.replications(made).axes[:2]
    assert right.containers[0].lines[0].get_xdata()[0] == pytest.approx(-1)
    assert [label.get_text() for label in left.get_xticklabels()][2].endswith("shipped mid")
    means = [list(bars.lines[0].get_xdata()) for bars in left.containers if bars.lines[0].get_linestyle() == "-"]
    assert means == [[0, 1], [2, 3, 4]]


def test_the_picture_shows_means_of_chains_and_controls(tmp_path):
    made = some(4)
    axes = figures.replications(made).axes[0]
    main, control, again = (container.lines[0] for container in axes.containers)
    for stage, height in zip(STAGES, main.get_ydata(), strict=True):
        assert height == pytest.approx(100 * sum(chain["accuracy"][stage]["hard"] for chain in made) / 4)
    for stage, x, height in zip(STAGES[1:], *control.get_data(), strict=True):
        assert round(x) == STAGES.index(stage)
        assert height == pytest.approx(25 * sum(chain["accuracy"][f"{stage}-control"]["hard"] for chain in made))
    (height,) = again.get_ydata()
    assert height == pytest.approx(25 * sum(chain["accuracy"]["grpo-sft"]["hard"] for chain in made))
    over, beside = (container.lines[0].get_xdata() for container in figures.replications(made).axes[1].containers)
    _, sft, dpo, grpo, second = replications.stage_gains(made)
    assert list(over) == pytest.approx([100 * row["over"].mean for row in (sft, dpo, grpo)])  # as the table, in points
    assert list(beside) == pytest.approx([100 * row["control"].mean for row in (sft, dpo, second)])
    _, _, (whiskers,) = axes.containers[0].lines
    low, high = whiskers.get_segments()[1][:, 1]
    same = stats.paired_t([100 * chain["accuracy"]["mid"]["hard"] for chain in made], [0.0] * 4)
    assert (low, high) == pytest.approx((same.low, same.high))
    files.write_rows(tmp_path / "chains.jsonl", made)
    replications.write_summary(tmp_path / "chains.jsonl")
    assert (tmp_path / "chains.svg").stat().st_size > 5000
    assert (tmp_path / "summary.md").read_text().startswith("| arm | easy | hard")


def test_published_chains_are_in_every_page_and_nothing_else_changes(tmp_path):
    made = some(3)
    for name in ("docs", "data", "queue"):
        (tmp_path / name).mkdir()
    files.write_rows(tmp_path / "queue" / "chains.jsonl", made[::-1])
    for name in replications.PAGES:
        (tmp_path / name).write_text(f"above\n{replications.MARKS[0]}old{replications.MARKS[1]}\nbelow\n")
    replications.publish(tmp_path / "queue", tmp_path)
    assert read_rows(tmp_path / "data" / "chains.jsonl") == made
    for name in replications.PAGES:
        marked = replications.summary(made).join(replications.MARKS)
        assert (tmp_path / name).read_text() == f"above\n{marked}\nbelow\n"
    assert replications.fingerprint(made) in (tmp_path / "docs" / "ladder.svg").read_text()


def shown(name):
    """What a committed notebook shows, as one text."""
    page = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", 4)
    outputs = [output for cell in page.cells for output in cell.get("outputs", []) if "data" in output]
    return "\n".join("".join(output["data"].get("text/html", "")) for output in outputs)


def test_results_report_and_notebooks_show_the_same_chains(tmp_path):
    """All of them from the committed rows, and from nothing else."""
    published, root = replications.published(), paths.ROOT
    files.write_json(tmp_path / "ladder.json", [])
    page = report.write_report(tmp_path).read_text()
    stages = {"02_mid_training": "mid", "03_sft": "sft", "04_rollout_dpo": "dpo", "05_grpo": "grpo"}
    if not published:
        for name in replications.PAGES:
            assert "".join(replications.MARKS) in (root / name).read_text()
        assert all(NO_CHAINS in shown(name) for name in (*stages, "06_report_card"))
        assert "none are published" in page
        return
    for name in replications.PAGES:
        tables_between_marks = replications.summary(published).join(replications.MARKS)
        assert tables_between_marks in (root / name).read_text(), "phi-lab experiment publish"
    assert replications.fingerprint(published) in (root / "docs" / "ladder.svg").read_text()
    head, *rungs = replications.gains_table(published)
    for name, stage in stages.items():
        lines = [line for line in rungs if line[0].split(",")[0] == stage]
        assert tables.table("", head, lines) in shown(name), f"{name} was executed with other chains"
    for head, *lines in (replications.gains_table(published), replications.means_table(published)):
        assert tables.table("", head, lines) in shown("06_report_card"), "06 was executed with other chains"
    for line in [*replications.gains_table(published), *replications.means_table(published)]:
        assert all(html.escape(cell) in page for cell in line)


@pytest.mark.parametrize(("count", "page", "says"), [(1, replications.MARKS, "two are needed"), (2, "", "are missing")])
def test_what_cannot_be_published_changes_nothing(tmp_path, count, page, says):
    (tmp_path / "docs").mkdir()
    files.write_rows(tmp_path / "chains.jsonl", some(count))
    for name in replications.PAGES:
        (tmp_path / name).write_text("".join(page))
    with pytest.raises(UserError, match=says):
        replications.publish(tmp_path, tmp_path)
    assert all((tmp_path / name).read_text() == "".join(page) for name in replications.PAGES)
