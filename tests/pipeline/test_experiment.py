"""Controls at equal compute and chains as observations: what they cost, that they resume, what the table says."""

import pytest

from phi_lab.config import presets
from phi_lab.config.schema import STAGES
from phi_lab.core import files
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows
from phi_lab.core.run_folder import RunFolder, StageFolder
from phi_lab.model import checkpoints
from phi_lab.pipeline import experiment, stage_runner

ARMS = {*STAGES, "dpo-own", "sft-limo", "grpo-sft", *(f"{stage}-control" for stage in STAGES[1:])}
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
