"""Folders that release 0.1 left: "numbers" instead of "config" in them, and settings by their old names.

`release_0_1/` holds two files as it wrote them: config.json of a smoke run with seed 0, and evals/dpo.json of that run.
"""

import json
import shutil
from pathlib import Path

import pytest

from phi_lab import cli
from phi_lab.config import presets, schema
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_json, write_rows
from phi_lab.core.run_folder import EvalFolder, RunFolder
from phi_lab.evaluate import ladder
from phi_lab.lab import environment
from phi_lab.model import checkpoints
from phi_lab.pipeline import export, run
from phi_lab.problems import benchmarks
from phi_lab.report import report

SAVED = Path(__file__).parent / "release_0_1"


@pytest.fixture
def old(tmp_path):
    """A run folder that release 0.1 opened."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    shutil.copy(SAVED / "config.json", folder.config)
    return folder


def test_its_settings_are_today_s():
    saved = schema.read_config(SAVED / "config.json")
    assert "numbers" in read_json(SAVED / "config.json") and saved["seed"] == 0
    read = schema.config_from_dict(saved["config"])
    assert (read.scale, read.profile, read.grpo.temperature_start) == ("cpu", "smoke", 1.0)
    settings, today = saved["config"], json.loads(json.dumps(presets.SMOKE.row()))
    for part in ("distillation", "mid", "sft", "grpo"):
        assert set(settings[part]) <= set(today[part])  # every setting that still exists has today's name


def test_a_run_is_read_and_not_continued(old):
    """It was measured without cooler sampling, in another world of problems."""
    before = old.config.read_bytes()
    for config in (presets.SMOKE, schema.config_from_dict(schema.read_config(old.config)["config"])):
        with pytest.raises(UserError, match="config.json: config differs.*choose another --out"):
            run.open_run(old, config, 0)
    assert old.config.read_bytes() == before


def test_a_launched_process_and_a_notebook_read_it(old, capsys, monkeypatch):
    assert cli.main(["stage", "mid", "--out", str(old.path)]) == 2
    assert "has no distilled set yet" in capsys.readouterr().err  # which comes after the config
    saved = read_json(old.config)
    saved["numbers"]["scale"] = "qlora"
    write_json(old.config, saved)
    assert environment.default_scale(old) == "qlora"


def test_its_card_and_its_report_are_written(old, shipped, tmp_path):
    shutil.copytree(shipped("mid"), old.stage("mid").model)
    write_json(old.stage("mid").done, {})
    row = {"stage": "mid", "arm": "main", "benchmark": "hard", "temperature": 0.6, "k": 4, "pass_at_k": None, "n": 80,
           "correct": 40, "accuracy": 0.5, "ci_low": 0.4, "ci_high": 0.6, "seconds": 1.0, "train_tokens": 1,
           "forward_tokens": 0, "peak_rss_mb": 1, "seed": 0}
    write_json(old.ladder, [row])
    out = export.export(old, tmp_path / "phi")
    assert "| hard | 0.6 | 80 | 50.0 % |" in (out / "README.md").read_text()
    assert "<dt>batch_size</dt>" in report.write_report(old.path).read_text()


def test_answers_that_it_measured_are_kept_as_they_are(tmp_path, student, monkeypatch):
    folder = EvalFolder(tmp_path)
    write_json(folder.manifest("dpo"), {**read_json(SAVED / "eval.json"), "model": checkpoints.fingerprint(student)})
    for benchmark in benchmarks.NAMES:
        write_rows(folder.answers("dpo", benchmark), [])
    monkeypatch.setattr(checkpoints, "load_to_sample", lambda *_: pytest.fail("it samples"))
    with pytest.raises(UserError, match="dpo.json: config differs.*choose another --name"):
        ladder.evaluate(student, "dpo", folder, presets.SMOKE.evaluation, 0, resample_stale=True)
    assert all(folder.answers("dpo", benchmark).exists() for benchmark in benchmarks.NAMES)
