"""TensorBoard's own reader on what `phi-lab track` wrote. Skipped where it is missing: `make engines` tries it."""

import importlib.util

import pytest

from phi_lab import cli
from phi_lab.core.files import append_rows, write_json, write_rows
from phi_lab.core.run_folder import RunFolder

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="tensorboard is not installed "
                                "(`make engines` tries it)")
MEASURED = {"stage": "sft", "arm": "main", "benchmark": "hard", "protocol": "sampled", "temperature": 0.6, "k": 4,
            "n": 500, "accuracy": 0.25, "ci_low": 0.2, "ci_high": 0.3, "pass_at_k": None}


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path / "first")
    write_rows(run.stage("sft").metrics, [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    write_json(run.config, {"seed": 7, "config": {"sft": {"learning_rate": 0.5, "adapter": None, "names": ["a"]}}})
    write_json(run.ladder, [MEASURED])
    return run


def points(run, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "trackers" / "tensorboard" / "sft"))
    events.Reload()
    return [(point.step, point.value) for point in events.Scalars(name)]


def test_tensorboard_shows_steps_settings_and_accuracies(run):
    assert cli.main(["track", str(run.path), "--to", "tensorboard"]) == 0
    assert points(run, "loss") == [(1, 2.0), (2, 1.0)]
    assert points(run, "accuracy/hard/sampled") == [(2, 0.25)]
    (settings,) = (run.path / "trackers").rglob("hparams.yml")
    assert {"sft.learning_rate: 0.5", "seed: 7", "stage: sft"} <= set(settings.read_text().splitlines())


def test_a_second_call_replaces_what_the_first_wrote(run):
    assert cli.main(["track", str(run.path), "--to", "tensorboard"]) == 0
    append_rows(run.stage("sft").metrics, [{"step": 3, "loss": 0.5}])
    assert cli.main(["track", str(run.path), "--to", "tensorboard"]) == 0
    assert points(run, "loss") == [(1, 2.0), (2, 1.0), (3, 0.5)]
