"""An experiment's run: rows that say where they come from, a stop anywhere, chains dealt to seeds, the queue."""

import json
import os
import shutil
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from experiment_rows import rows_of

from phi_lab import cli
from phi_lab.config import presets
from phi_lab.config.schema import EvaluationConfig
from phi_lab.core import files
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, write_json
from phi_lab.core.run_folder import EvalFolder, StageFolder
from phi_lab.experiments import EXPERIMENTS, runner
from phi_lab.experiments.design import Experiment
from phi_lab.model import checkpoints
from phi_lab.pipeline import queue
from phi_lab.report import contrasts
from phi_lab.report.contrasts import Contrast
from phi_lab.stages.training import TrainingResult, mark_finished

CHANGES = ("seconds", "time", "peak_rss_mb")


@pytest.fixture
def few(monkeypatch, shipped):
    """Settings with which a model is measured in a moment: two problems, answers of four tokens."""
    shipped("sft")
    few = EvaluationConfig(problems=2, samples=2, pass_problems=1, pass_samples=3, max_new_tokens=4)
    config = replace(presets.SMOKE, evaluation=few)
    monkeypatch.setattr(presets, "run_config", lambda scale, profile: replace(config, profile=profile))


class Kill(BaseException):
    pass


@pytest.fixture
def stub():
    """An experiment whose arms copy their start: what is trained and prepared is written down."""
    done = []

    def train(trial, arm, out):
        done.append(arm)
        if arm == "two" and done.count("two") == 1:
            raise Kill
        folder = StageFolder(out)
        shutil.copytree(trial.model("sft"), folder.model, dirs_exist_ok=True)
        files.write_rows(folder.metrics, [])
        result = TrainingResult(folder.model, [], 1.0, 300, 60)
        mark_finished(folder, result)
        return result

    experiment = Experiment(
        name="one_batch", question="?", arms={"start": "", "dial": "", "one": "", "two": ""},
        contrasts=(Contrast("one", "start", "?"), Contrast("two", "one", "?")), seeds=range(2), stage="sft",
        makes_chains=False, settings={"smoke": EXPERIMENTS["one_batch"].settings["smoke"]}, problems=1,
        prepare=lambda trial, log: done.append("prepared"), start=lambda trial, arm: trial.model("sft"), train=train,
        untrained={"start": 0.6, "dial": 0.3}, notes=lambda trial, arm: {"arm": arm},
        extra_forward=lambda trial, arm: 30,
    )
    return experiment, done


def lasting(content):
    if isinstance(content, dict):
        return {key: lasting(value) for key, value in content.items() if key not in CHANGES}
    return [lasting(value) for value in content] if isinstance(content, list) else content


def test_stopped_anywhere_it_goes_on_and_repeats_nothing(few, stub, tmp_path, monkeypatch):
    experiment, done = stub
    lost, real = [], files.append_rows

    def append(path, rows):
        if rows[0]["name"] == "one" and not lost:
            path.open("a").write('{"seed": 0, "na')  # half a row
            lost.append(rows)
            raise Kill
        real(path, rows)

    monkeypatch.setattr(runner, "append_rows", append)
    for _ in range(2):
        with pytest.raises(Kill):
            runner.run_seed(experiment, tmp_path, 0, profile="smoke", log=lambda line: None)
    path = runner.run_seed(experiment, tmp_path, 0, profile="smoke", log=lambda line: None)
    assert done == ["prepared", "one", "prepared", "two", "prepared", "two"]  # "one" was trained once
    rows = {row["name"]: row for row in contrasts.read(path)}
    assert list(rows) == list(experiment.arms)
    assert lasting(rows["one"]) == lasting(lost[0][0])
    for name, row in rows.items():
        assert row["unit"] == "stage seeds on one chain" and row["chain"] is None and len(row["code"]) == 16
        assert row["start"] == checkpoints.fingerprint(runner.paths.SHIPPED / "sft")
        assert row["device"]["threads"] == 1 and row["time"].endswith("+00:00") and row["notes"] == {"arm": name}
        assert row["settings"] == {"questions": 30, "budget": 20_000, "grpo_batch": 8}
        trained = name in ("one", "two")
        assert row["compute"] == (300 + (60 + 30) / 3 if trained else 0)
        assert (row["model"] == row["start"]) and 0 < row["diversity"] <= 1
        heat = {one["protocol"]: one["temperature"] for one in row["measurements"] if one["benchmark"] == "hard"}
        warm = 0.3 if name == "dial" else 0.6
        assert heat == {"greedy": 0.0, "sampled": warm, "pass": warm}
        assert {one["benchmark"] for one in row["measurements"]} == {"easy", "hard"}
    before = path.read_bytes()
    runner.run_seed(experiment, tmp_path, 0, profile="smoke", log=lambda line: None)
    assert path.read_bytes() == before and done.count("prepared") == 3
    with pytest.raises(UserError, match="config.json: settings differs.*choose --out"):
        other = replace(experiment, settings={"smoke": replace(experiment.settings["smoke"], budget=7)})
        runner.run_seed(other, tmp_path, 0, profile="smoke")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_run_of_it_can_be_continued(name, tmp_path, monkeypatch):
    """Its settings are found in its folder as they were written: none is taken for one of an old release."""
    monkeypatch.setattr(queue, "side_by_side", lambda *_: None)
    for _ in range(2):
        runner.run(EXPERIMENTS[name], tmp_path, [1], log=lambda line: None)


def test_diversity_is_the_share_of_different_answers(tmp_path):
    evals, rows = EvalFolder(tmp_path), []
    for name, texts in (("p", "aabc"), ("q", "aaaa")):
        rows += [{"id": name, "temperature": 0.6, "completion": text} for text in texts]
        rows += [{"id": name, "temperature": 0.0, "completion": "z"}]
    files.write_rows(evals.answers("arm", "hard"), rows)
    assert runner.diversity(evals, "arm", 0.6) == (3 / 4 + 1 / 4) / 2


# ------------------------------------------------------------------ chains


@pytest.fixture
def ladder(tmp_path, shipped):
    """A folder of chains: 3 and 5 have finished SFT, 7 has not."""
    folder = tmp_path / "ladder"
    for seed in (3, 5, 7):
        shutil.copytree(shipped("sft"), folder / f"seed-{seed}" / "sft" / "model")
        if seed != 7:
            write_json(folder / f"seed-{seed}" / "sft" / "done.json", {})
    return folder


def test_a_seed_is_the_chain_of_that_seed(few, stub, ladder, tmp_path):
    experiment, _ = stub
    trial = runner.trial_of(experiment, tmp_path, 5, "smoke", ladder)
    assert trial.chain == 5 and trial.model("sft") == ladder / "seed-5" / "sft" / "model"
    assert trial.model("base") == runner.paths.SHIPPED / "base"
    assert runner.unit(experiment, ladder) == "chain seeds"
    with pytest.raises(UserError, match="chain 4 has not finished sft; .*choose --seeds from 3, 5$"):
        runner.trial_of(experiment, tmp_path, 4, "smoke", ladder)
    with pytest.raises(UserError, match="no chain that has finished sft"):
        runner.trial_of(experiment, tmp_path, 0, "smoke", tmp_path / "nowhere")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_without_chains_only_who_makes_them_has_chain_seeds(name, few, tmp_path):
    """Seeds that all start from the shipped checkpoints are no chains, and no row calls them so."""
    experiment = EXPERIMENTS[name]
    alone = runner.trial_of(experiment, tmp_path, 4, "smoke", None)
    start = experiment.start(alone, next(iter(experiment.arms)))
    if name in ("one_batch", "rl_devices"):
        assert alone.chain is None and start == runner.paths.SHIPPED / "sft"
        assert runner.unit(experiment, None) == "stage seeds on one chain"
    else:
        assert alone.chain == 4
        assert runner.unit(experiment, None) == ("base seeds" if name == "variance_bases" else "chain seeds")


def test_a_folder_has_seeds_of_one_kind(few, stub, ladder, tmp_path):
    experiment, _ = stub
    manifests = [runner.manifest(experiment, "smoke", chains) for chains in (None, ladder)]
    assert manifests[0] != manifests[1]


# ------------------------------------------------------------------ the command

PRETENDER = textwrap.dedent("""
    import json, os, sys
    from phi_lab import cli
    from phi_lab.experiments import EXPERIMENTS
    sys.path.insert(0, os.environ["HERE"])
    from experiment_rows import rows_of
    options = cli.build_parser().parse_args(sys.argv[1:])
    (seed,), out = options.seeds, options.out
    assert options.which == "one_batch" and options.in_process and options.profile == "smoke"
    assert os.environ["OMP_NUM_THREADS"] == "1" and not options.chains
    path = out / f"seed-{seed}" / "rungs.jsonl"
    path.parent.mkdir(exist_ok=True)
    rows = rows_of(EXPERIMENTS["one_batch"], lambda arm, seed: 0.4 + 0.001 * len(arm) * (seed + 1), [seed])
    with path.open("a") as file:
        for row in rows:
            print(json.dumps(row), file=file, flush=True)
""")


def test_the_command_runs_seeds_and_writes_tables_and_figure(tmp_path, monkeypatch, capsys):
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here.parents[1]), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("HERE", str(here))
    monkeypatch.setattr(queue, "COMMAND", (sys.executable, "-c", PRETENDER))
    monkeypatch.setattr(queue, "EVERY", 0.05)
    command = ["experiment", "one_batch", "--profile", "smoke", "--seeds", "1-3", "--jobs", "2", "--out", str(tmp_path)]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "3 seeds (chain seeds)." in said and said.rstrip().endswith("one_batch.jsonl")
    rows = read_rows(tmp_path / "one_batch.jsonl")
    assert [(row["seed"], row["name"]) for row in rows] == [
        (seed, arm) for seed in (1, 2, 3) for arm in EXPERIMENTS["one_batch"].arms]
    assert (tmp_path / "one_batch.svg").exists()
    assert "| `own-matched` above `teacher-pairs`" in (tmp_path / "one_batch.md").read_text()
    monkeypatch.setattr(queue, "Worker", lambda *_: pytest.fail("started a finished seed"))
    assert cli.main(command) == 0
    assert json.loads((tmp_path / "config.json").read_text())["experiment"] == "one_batch"


@pytest.mark.parametrize(("words", "line"), [
    ("", "name what to run, such as ladder or mid_training, or give --list"),
    ("one_batch", "--out is missing"),
    ("one_batch --out new --profile long", "unknown profile 'long'"),
    ("one_batch --out new --arms grpo", "go with ladder and chain, not with one_batch"),
    ("one_batch --out new --chains nowhere", "nowhere: no chain that has finished sft"),
    ("ladder --out new --chains x", "--chains and --in-process go with mid_training, one_batch, rl_devices, variance"),
])
def test_a_mistake_is_one_line(words, line, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert line in refused("experiment", *words.split())
    assert not list(tmp_path.iterdir())


def test_the_command_knows_every_experiment():
    from phi_lab.cli import experiment

    assert tuple(EXPERIMENTS) == experiment.QUESTIONS
    assert len(rows_of(EXPERIMENTS["one_batch"], lambda *_: 0.5, [1])) == 12
