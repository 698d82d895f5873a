"""`phi-lab track`: what arrives at accelerate's own trackers, from a run that has ended and from one that goes on."""

import importlib.machinery
import os
import sys
import types

import pytest

from phi_lab import cli
from phi_lab.core.files import append_rows, append_text, write_json, write_rows
from phi_lab.core.run_folder import RunFolder
from phi_lab.report import track

LADDER = {"stage": "sft", "arm": "main", "benchmark": "hard", "protocol": "sampled", "temperature": 0.6, "k": 4,
          "n": 500, "accuracy": 0.25, "ci_low": 0.2, "ci_high": 0.3, "pass_at_k": None}
PASS = LADDER | {"protocol": "pass", "k": 8, "accuracy": 0.25, "pass_at_k": 0.5}
LOSS = [{"step": 1, "loss": 2.0, "tokens": 10, "seconds": 0.5}, {"step": 2, "loss": 1.0, "tokens": 20, "seconds": 1.0},
        {"step": 2, "eval_loss": 1.5, "tokens": 20, "seconds": 1.1}]


class Received:
    """What the packages wandb and trackio were given: one dict a run."""

    def __init__(self, name):
        self.runs, self.refusal = [], None
        self.module = types.ModuleType(name)
        self.module.__spec__ = importlib.machinery.ModuleSpec(name, None, origin="a test's")
        self.module.init, self.module.config = self.init, self

    def init(self, project, **settings):
        if self.refusal:
            raise ValueError(self.refusal)
        self.runs.append({"project": project, **settings, "config": {}, "rows": [], "finished": 0})
        return self

    def update(self, values, allow_val_change):
        self.runs[-1]["config"] |= values

    def log(self, values, step):
        assert not self.runs[-1]["finished"]
        self.runs[-1]["rows"].append((step, values))

    def finish(self):
        self.runs[-1]["finished"] += 1


@pytest.fixture(params=["wandb", "trackio"])
def received(request, monkeypatch):
    for name in ("WANDB_DIR", "WANDB_PROJECT", "TRACKIO_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    fake = Received(request.param)
    monkeypatch.setitem(sys.modules, request.param, fake.module)
    fake.name = request.param
    return fake


@pytest.fixture
def run(tmp_path):
    """A run whose SFT has ended and is measured."""
    run = RunFolder(tmp_path / "first")
    write_rows(run.stage("sft").metrics, LOSS)
    settings = {"sft": {"learning_rate": 0.5, "names": ["a", "b"]}, "profile": "lab"}
    write_json(run.config, {"seed": 7, "config": settings})
    write_json(run.ladder, [LADDER, PASS, LADDER | {"arm": "control"}, LADDER | {"stage": "base"}])
    return run


def measured(step):
    return step, {"accuracy/hard/sampled": 0.25, "pass@8/hard": 0.5}


def sent_rows(rows):
    return [(row["step"], {name: value for name, value in row.items() if name != "step"}) for row in rows]


def test_a_stage_is_a_tracker_run_with_its_settings_steps_and_accuracies(run, received, capsys):
    assert cli.main(["track", str(run.path), "--to", received.name]) == 0
    (got,) = received.runs
    assert got["rows"] == [*sent_rows(LOSS), measured(2)] and got["finished"] == 1
    assert got["config"] == {"seed": 7, "profile": "lab", "sft.learning_rate": 0.5, "sft.names": '["a", "b"]',
                             "stage": "sft"}
    assert (got["project"], got["name"], got["group"]) == ("phi-lab", "first/sft", "first")
    assert f"sft: 3 rows and 2 accuracies sent to {received.name}" in capsys.readouterr().out


def test_their_environment_names_project_and_folder(run, received, monkeypatch, tmp_path):
    monkeypatch.setenv(f"{received.name.upper()}_PROJECT", "mine")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    track.track(run.path, received.name)
    (got,) = received.runs
    assert got["project"] == "mine"
    assert got.get("dir") == (str(tmp_path / "elsewhere") if received.name == "wandb" else None)


def test_a_damaged_row_is_named_and_nothing_is_sent(run, received, refused):
    append_text(run.stage("dpo").metrics, '{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert "dpo/metrics.jsonl, line 2: not JSON" in refused("track", run.path, "--to", received.name)
    write_rows(run.stage("dpo").metrics, [{"step": 1, "loss": 0.5}, {"loss": 0.5}])
    assert "line 2: column 'step' is missing" in refused("track", run.path, "--to", received.name)
    write_rows(run.stage("dpo").metrics, [{"step": 1, "loss": "low"}])
    assert "line 1: loss is no number" in refused("track", run.path, "--to", received.name)
    write_rows(run.stage("dpo").metrics, [{"step": 1, "loss": 0.5}])
    write_json(run.ladder, {"hard": 1})
    assert "ladder.json has an unexpected form" in refused("track", run.path, "--to", received.name)
    assert received.runs == []


def test_a_tracker_that_does_not_start_is_one_line_without_the_key(run, received, refused, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-of-mine")
    received.refusal = "the key a-secret-of-mine\nis refused"
    line = refused("track", run.path, "--to", received.name)
    assert f"{received.name} does not start: the key *** is refused" in line


def test_a_missing_package_is_named_with_its_installation(run, refused, monkeypatch, tmp_path):
    """Also beside a folder `wandb`, which wandb itself writes: Python takes it for a package."""
    for name in ("wandb", "tensorboard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "wandb").mkdir()
    assert "wandb is not installed: pip install wandb" in refused("track", run.path, "--to", "wandb")
    assert "tensorboard is not installed: pip install tensorboard" in refused("track", run.path, "--to", "tensorboard")


def test_a_folder_without_metrics_is_refused(tmp_path, received, refused):
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "metrics.jsonl").touch()  # nothing is logged yet
    assert "no stage in it has logged anything yet" in refused("track", tmp_path, "--to", received.name)


@pytest.fixture
def looks(monkeypatch):
    """looks(*changes): a run that is followed, without waiting; at each look the next change happens, then it ends."""
    monkeypatch.setattr(track, "POLL", 0.0)

    def plan(*changes):
        left = list(changes)

        def in_use(_):
            if left:
                left.pop(0)()
            return bool(left)

        monkeypatch.setattr(track, "in_use", in_use)

    return plan


def test_a_run_is_followed_to_its_end(run, received, looks):
    """A row more, a resume that logs two steps again, the next stage, and its measurement at the very end."""
    run.ladder.unlink()
    sft, dpo = run.stage("sft").metrics, run.stage("dpo").metrics
    third, fourth, pairs = ({"step": n, "loss": 0.5, "tokens": 30, "seconds": 2.0} for n in (3, 4, 1))
    looks(lambda: append_rows(sft, [third]),
          lambda: write_rows(sft, LOSS[:1]),
          lambda: append_rows(sft, [*LOSS[1:], third | {"seconds": 9.0}, fourth]),
          lambda: write_json(run.ladder, [LADDER, PASS]),
          lambda: append_rows(dpo, [pairs]),
          lambda: write_json(run.ladder, [LADDER, PASS, LADDER | {"stage": "dpo"}]))
    track.track(run.path, received.name, follow=True)
    first, second = received.runs
    assert first["rows"] == [*sent_rows([*LOSS, third, fourth]), measured(4)]
    assert second["rows"] == [*sent_rows([pairs]), (1, {"accuracy/hard/sampled": 0.25})]
    assert first["finished"] == second["finished"] == 1


def test_of_several_stages_the_one_written_last_is_followed(run, received, looks):
    """Which may be none of the last by name or in the recipe: a control, or a stage that is trained again."""
    dpo = run.stage("dpo").metrics
    write_rows(dpo, LOSS[:1])
    os.utime(run.stage("sft").metrics, (1, 1))
    looks(lambda: append_rows(dpo, LOSS[1:]))
    track.track(run.path, received.name, follow=True)
    assert [(got["name"], len(got["rows"])) for got in received.runs] == [("first/sft", 4), ("first/dpo", 3)]


def test_a_row_that_is_being_written_is_waited_for(run, received, monkeypatch):
    metrics, row = run.stage("sft").metrics, {"step": 3, "loss": 0.5}
    monkeypatch.setattr(track.time, "sleep", lambda _: metrics.read_bytes().endswith(b"\n") or append_text(
        metrics, ' 0.5}\n'))
    append_text(metrics, '{"step": 3, "loss":')
    track.track(run.path, received.name)
    assert received.runs[0]["rows"] == [*sent_rows([*LOSS, row]), measured(3)]


def test_ctrl_c_ends_following_with_the_accuracies(run, received, looks, capsys):
    def press():
        raise KeyboardInterrupt

    looks(lambda: None, press)
    assert cli.main(["track", str(run.path), "--to", received.name, "--follow"]) == 0
    assert received.runs[0]["rows"][-1] == measured(2) and received.runs[0]["finished"] == 1
    assert "stopped following" in capsys.readouterr().out
