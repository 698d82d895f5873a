"""A stage in several launched processes: the same result in the same folder, a learner's functions with it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from phi_lab import cli
from phi_lab.config import presets, schema
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows
from phi_lab.core.run_folder import RunFolder, StageFolder
from phi_lab.distill import shards
from phi_lab.model import checkpoints, shapes
from phi_lab.pipeline import arms, controls, experiment, launch, notebooks, run, stage_runner
from phi_lab.stages import sft
from phi_lab.stages.packing import pack_best_fit

CONFIG = replace(presets.SMOKE, mid=replace(presets.SMOKE.mid, muon=False))


def opened(folder, data):
    """A run folder with a small distilled set, made for every test anew."""
    run.open_run(RunFolder(folder), CONFIG, 0)
    (folder / "data").mkdir()
    for name, source in (("right", "train-right"), ("validation", "validation-right"), ("wrong", "wrong")):
        (folder / "data" / f"{name}.jsonl").write_text((data / f"{source}.jsonl").read_text())
    (folder / "data" / "funnel.json").write_text("{}")
    (folder / "data" / "adopted.json").write_text("{}")
    return folder


def test_numbers_come_back_from_a_config():
    for name in schema.SCALES:
        for profile in schema.PROFILES:
            one = presets.run_config(name, profile)
            assert schema.config_from_dict(json.loads(json.dumps(one.row()))) == one


@pytest.mark.slow
def test_two_launched_processes_leave_what_one_leaves(tmp_path, data):
    folders = [opened(tmp_path / name, data) for name in ("one", "two")]
    lines = []

    def sixteen(lengths, row_length):  # at the end of an epoch nothing is left over, which two would share differently
        return pack_best_fit(lengths, row_length)[:16]

    alone, together = (
        stage_runner.run_stage("mid", RunFolder(folder), CONFIG, 0, lines.append, launch.local(count), pack=sixteen)
        for folder, count in zip(folders, (1, 2), strict=True)
    )
    assert (folders[1] / "mid" / "launch.log").is_file() and not (folders[0] / "mid" / "launch.log").exists()
    assert together.model == folders[1] / "mid" / "model" and (together.model / "model.safetensors").is_file()
    assert together.train_tokens == alone.train_tokens and together.seconds > 0
    assert together.metrics == read_rows(folders[1] / "mid" / "metrics.jsonl")
    losses = [[row["loss"] for row in one.metrics if "loss" in row] for one in (alone, together)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3) and len(losses[0]) > 0
    costs = [read_json(folder / "mid" / "done.json") for folder in folders]
    assert costs[0].keys() == costs[1].keys() and costs[0]["train_tokens"] == costs[1]["train_tokens"]
    assert lines[-1].startswith("mid: ")
    assert stage_runner.run_stage("mid", RunFolder(folders[1]), CONFIG, 0, lines.append) == together


@pytest.mark.slow
def test_a_learner_s_function_travels(tmp_path, data):
    """A closure that no other process can import: it keeps sixteen rows, and leaves a note."""
    folder, note = opened(tmp_path / "run", data), tmp_path / "note"

    def mine(lengths, row_length):
        note.write_text(str(os.getpid()))
        return pack_best_fit(lengths, row_length)[:16]

    result = stage_runner.run_stage("mid", RunFolder(folder), CONFIG, 0, launcher=launch.local(2), pack=mine)
    assert int(note.read_text()) != os.getpid() and result.metrics
    assert not StageFolder(folder / "mid").functions.exists()


@pytest.mark.slow
def test_notebook_02_trains_in_two_processes(tmp_path):
    page = notebooks.build(notebooks.SOURCES / "02_mid_training.py")
    environment = {**os.environ, "PHI_LAB_RUN": str(tmp_path / "run"), "PHI_LAB_PROCESSES": "2"}
    NotebookClient(page, timeout=None, resources={"metadata": {"path": str(paths.NOTEBOOKS)}}).execute(env=environment)
    tokens = read_json(tmp_path / "run" / "mid" / "done.json")["train_tokens"]
    assert f"{tokens:,} tokens" in nbformat.writes(page) and tokens > 0
    assert (tmp_path / "run" / "mid" / "launch.log").is_file()
    assert (tmp_path / "run" / "mid" / "model" / "model.safetensors").is_file()


def test_a_run_folder_from_elsewhere_brings_no_code(tmp_path):
    folder = StageFolder(tmp_path)
    folder.functions.write_bytes(b"cos\nsystem\n(S'echo broken'\ntR.")
    assert launch.load_functions(folder, None) == {}
    with pytest.raises(UserError, match="not what the starting process wrote"):
        launch.load_functions(folder, "0" * 64)


def test_what_goes_wrong_is_one_line(tmp_path, data, capsys):
    folder = opened(tmp_path / "run", data)
    with pytest.raises(UserError, match=r"^a batch of 8 cannot be divided among 3 processes: choose a divisor of it$"):
        stage_runner.run_stage("mid", RunFolder(folder), CONFIG, 0, launcher=launch.local(3))
    with pytest.raises(UserError, match="no-such-command: No such file.*a launcher is a command"):
        stage_runner.run_stage("mid", RunFolder(folder), CONFIG, 0, launcher=["no-such-command"])
    with pytest.raises(UserError, match=r"mid: the launched processes failed; .*launch\.log says why"):
        stage_runner.run_stage("mid", RunFolder(folder), CONFIG, 0, launcher=["false"])
    with pytest.raises(UserError, match="the launched processes failed"):
        stage_runner.run_stage("mid", RunFolder(folder), CONFIG, 0, launcher=["true"])
    capsys.readouterr()
    assert cli.main(["stage", "rl", "--out", str(folder)]) == 2
    assert "unknown stage 'rl': choose one of mid, sft, dpo, grpo" in capsys.readouterr().err
    (folder / "data" / "funnel.json").unlink()
    assert cli.main(["stage", "mid", "--out", str(folder)]) == 2
    assert "has no distilled set yet" in capsys.readouterr().err
    assert cli.main(["stage", "mid", "--out", str(tmp_path)]) == 2
    assert "config.json is missing" in capsys.readouterr().err


def test_who_launches_what(monkeypatch):
    assert launch.default_launcher(presets.FULL) == launch.default_launcher(presets.LAB) == launch.local(1) == ()
    assert launch.count(()) == 1
    assert launch.count(launch.local(3)) == 3 and launch.count(["srun", "torchrun"]) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    launchers = [launch.default_launcher(config) for config in (presets.FULL, presets.LORA, presets.LAB)]
    assert [launch.count(launcher) for launcher in launchers] == [4, 1, 1]
    assert launch.default_launcher(presets.LORA) == (*launch.TORCHRUN, "1")  # one process that sees one GPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert launch.default_launcher(presets.LAB) == ()


def test_a_batch_that_cannot_be_shared_is_told_before_anything_starts(tmp_path):
    with pytest.raises(UserError, match="^mid: 8 a step cannot be divided among 3 processes$"):
        run.run_chain(RunFolder(tmp_path / "run"), launcher=launch.local(3))
    for profile in schema.PROFILES:  # on the machines that people rent
        for stage in ("mid", "sft", "dpo", "grpo"):
            assert schema.global_batch_size(presets.run_config("full", profile), stage) % 8 == 0
    assert not (tmp_path / "run").exists()


@pytest.fixture
def gpus(monkeypatch):
    """gpus(count, gb) -> torch says that it sees so many of so much memory; nothing may be loaded onto them."""

    def seen(count, gb=80):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        about = SimpleNamespace(total_memory=gb * 1e9)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
        monkeypatch.setattr(stage_runner, "_train", lambda *_: pytest.fail("it trains"))

    return seen


def test_more_processes_than_gpus_are_told_before_anything_starts(tmp_path, data, student, gpus, monkeypatch, capsys):
    gpus(2)
    words = r"^4 processes need a GPU each, and torch sees 2: choose 2 or fewer$"
    with pytest.raises(UserError, match=words):
        run.run_chain(RunFolder(tmp_path / "run"), stop="sft", launcher=launch.local(4))
    with pytest.raises(UserError, match=words):  # before the set and the model are looked for
        run.run_chain(RunFolder(tmp_path / "run"), scale_name="full", model="nobody/nothing", launcher=launch.local(4))
    assert not (tmp_path / "run").exists()
    launch.require_gpus(2)
    folder = opened(tmp_path / "opened", data)  # in a process that a launcher of somebody's own has started
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert cli.main(["stage", "mid", "--out", str(folder)]) == 2
    assert capsys.readouterr().err == "phi-lab: 4 processes need a GPU each, and torch sees 2: choose 2 or fewer\n"


def test_each_launched_process_counts_the_memory_before_it_loads(tmp_path, data, student, gpus, monkeypatch, capsys):
    """Behind a launcher of somebody's own the starting process does not know how many there are."""
    config = replace(presets.LORA, model=str(student))
    run.open_run(RunFolder(tmp_path / "run"), config, 0)
    shutil.copytree(opened(tmp_path / "small", data) / "data", tmp_path / "run" / "data")
    gpus(4, gb=0.01)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    asked, real = [], stage_runner.require_memory
    monkeypatch.setattr(stage_runner, "require_memory", lambda *what: asked.append(what) or real(*what))
    assert cli.main(["stage", "mid", "--out", str(tmp_path / "run")]) == 2
    assert "phi-lab: mid at the scale lora takes about" in capsys.readouterr().err
    ((about, shape, processes, room),) = asked
    assert (about, shape.hidden_size, processes, room) == (config, 128, 4, 0.01 * 1e9)


def test_launched_processes_that_cannot_share_a_batch_end_before_they_look_at_data(tmp_path, monkeypatch):
    """Behind a launcher of somebody's own only they know their number."""
    run.open_run(RunFolder(tmp_path / "run"), CONFIG, 0)  # and no data
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(checkpoints, "load", lambda *_, **__: pytest.fail("it loads"))
    with pytest.raises(UserError, match="^a batch of 8 cannot be divided among 3 processes: choose a divisor of it$"):
        stage_runner.train_launched("mid", RunFolder(tmp_path / "run"))


def test_what_trains_in_this_process_takes_one_gpu(tmp_path, data, gpus, monkeypatch):
    """A trainer without a launcher would spread over all that torch sees, and TRL's refuse to."""
    gpus(4)
    words = "^one process trains on one GPU, and torch sees 4: put CUDA_VISIBLE_DEVICES=0 before the command$"
    for how in ({}, {"start": "base", "stop": "base"}):
        with pytest.raises(UserError, match=words):
            run.run_chain(RunFolder(tmp_path / "run"), **how)
    with pytest.raises(UserError, match=words):
        experiment.ladder(tmp_path / "ladder", range(1))
    with pytest.raises(UserError, match=words):
        experiment.chain(tmp_path / "ladder", 0)
    assert not (tmp_path / "run").exists() and not (tmp_path / "ladder" / "seed-0").exists()
    for module, name in ((shards, "collect_rollouts"), (sft, "train")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it samples or trains"))
    folder = opened(tmp_path / "opened", data)  # a notebook gets there step by step
    for train in (
        lambda: arms.run_paper_dpo(RunFolder(folder), CONFIG, 0),
        lambda: controls.control("sft-limo", RunFolder(folder), CONFIG, 0),
        lambda: stage_runner.run_stage("mid", RunFolder(folder), CONFIG, 0),
        lambda: cli.main(["stage", "mid", "--out", str(folder)]) == 2 and launch.require_one_gpu(),  # by hand
    ):
        with pytest.raises(UserError, match=words):
            train()
    monkeypatch.setenv("LOCAL_RANK", "3")
    launch.require_one_gpu()  # torchrun's processes have one each
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    launch.require_one_gpu()


def test_a_full_run_asks_for_the_disk_of_its_checkpoints(tmp_path, student, monkeypatch):
    """Three checkpoints of mid-training, with Adam's moments, and its model: 40 bytes a weight."""
    monkeypatch.setattr(shapes, "count_parameters", lambda folder: 1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 1 << 40, free << 20))
    config, free = replace(presets.FULL, model=str(student)), 300 + 40 * 1024 - 1
    with pytest.raises(UserError, match="less than 41,260 MB free"):
        run.open_run(RunFolder(tmp_path / "run"), config, 0)
    free += 1
    run.open_run(RunFolder(tmp_path / "run"), config, 0)


def test_ctrl_c_ends_the_launched_processes_too(tmp_path, data, monkeypatch):
    folder, note = opened(tmp_path / "run", data), tmp_path / "pid"
    script = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(99)"

    def interrupt(_):
        while not (note.exists() and note.read_text()):
            pass
        raise KeyboardInterrupt

    monkeypatch.setattr(launch.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stage_runner.run_stage("mid", RunFolder(folder), CONFIG, 0, launcher=[sys.executable, "-c", script, str(note)])
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_number_of_processes_is_a_number(tmp_path, monkeypatch):
    from phi_lab.lab import Lab

    monkeypatch.setenv("PHI_LAB_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("PHI_LAB_PROCESSES", "many")
    with pytest.raises(UserError, match="PHI_LAB_PROCESSES='many' is not a number of processes"):
        Lab()
    monkeypatch.setenv("PHI_LAB_PROCESSES", "1")
    assert Lab().launcher == ()
    monkeypatch.setenv("PHI_LAB_PROCESSES", "2")
    assert Lab().launcher[-2:] == ("--nproc-per-node", "2")


LEAVES = """
import atexit, os, sys
from accelerate import PartialState
from phi_lab.pipeline import launch
PartialState(cpu=True, backend="gloo")
atexit.register(os.abort)  # as torch's threads may while Python ends
sys.stdout.reconfigure(write_through=False)  # torchrun's processes write at once, and lines of two of them mix
print("written by", os.environ["RANK"])
launch.leave()
"""


def test_a_process_that_is_done_leaves_before_anything_can_abort_it(tmp_path):
    (tmp_path / "leaves.py").write_text(LEAVES)
    command = [*launch.local(2), str(tmp_path / "leaves.py")]
    inside = dict(launch.environment(launch.local(2)), PYTHONPATH=str(paths.ROOT))
    done = subprocess.run(command, capture_output=True, text=True, env=inside, cwd=paths.ROOT)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["written by 0", "written by 1"]  # stdout is a pipe: flushed
