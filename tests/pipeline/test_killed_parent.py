"""A command that has started other processes is killed, alone: they end with it, and the same command goes on."""

import os
import re
import subprocess
import sys
import time

import psutil
import pytest
from test_launch import opened

from phi_lab.core import paths
from phi_lab.core.files import read_rows

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="the kernel signals the children")]
PATIENCE = 20  # seconds for processes to end

TRAINING = """
import sys
from dataclasses import replace
from pathlib import Path
from phi_lab.config import presets
from phi_lab.core.run_folder import RunFolder
from phi_lab.pipeline import launch, stage_runner
config = replace(presets.SMOKE, mid=replace(presets.SMOKE.mid, muon=False))
stage_runner.run_stage("mid", RunFolder(Path(sys.argv[1])), config, 0, launcher=launch.local(2))
"""
COURSE = """
import sys
from pathlib import Path
from phi_lab.core import paths
from phi_lab.core.run_folder import RunFolder
from phi_lab.pipeline import notebooks
paths.NOTEBOOKS = Path(sys.argv[1]).parent / "notebooks"
notebooks.SOURCES = paths.NOTEBOOKS / "source"
notebooks.report.write_report = lambda out: out / "report.html"
notebooks.run_course(RunFolder(Path(sys.argv[1])), "smoke")
"""
NOTEBOOK = """# %% [markdown]
# # Title
#
# **Time**: about 5 seconds in the `lab` profile, 5 in `smoke`, on two CPU cores.

# %%
import os, pathlib, time
note = pathlib.Path(os.environ["PHI_LAB_RUN"]) / "{name}.note"
stop = {stop} and not note.exists()
note.write_text(str(os.getpid()))
time.sleep(600 if stop else 0)
"""


def started(program, out):
    """The command as a process of its own, which leads no group that a signal could reach the others by."""
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(paths.ROOT))
    return subprocess.Popen([sys.executable, "-c", program, str(out)], env=environment, cwd=paths.ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def killed(process, when):
    """Kill the process, and only this one, as soon as `when()`; returns its children and theirs that then end."""
    while not when():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    process.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=PATIENCE)
    for orphan in alive:
        orphan.kill()
    assert not alive, f"outlived their parent: {alive}"
    return family


def finished(process):
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


def test_the_parent_of_two_training_processes(tmp_path, data):
    whole, again = (opened(tmp_path / name, data) for name in ("whole", "again"))
    finished(started(TRAINING, whole))
    family = killed(started(TRAINING, again), lambda: list(again.glob("mid/trainer/checkpoint-*/whole.json")))
    assert len(family) >= 3  # torchrun and two that train
    assert not (again / "mid" / "done.json").exists()
    finished(started(TRAINING, again))
    weights = [folder / "mid" / "model" / "model.safetensors" for folder in (whole, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    steps = [[row["step"] for row in read_rows(folder / "mid" / "metrics.jsonl")] for folder in (whole, again)]
    assert steps[0] == steps[1]


def test_the_course(tmp_path):
    source, out = tmp_path / "notebooks" / "source", tmp_path / "run"
    source.mkdir(parents=True)
    for name in ("00_first", "01_second"):
        (source / f"{name}.py").write_text(NOTEBOOK.format(name=name, stop=name == "01_second"))
    note = out / "01_second.note"
    family = killed(started(COURSE, out), lambda: note.exists() and note.read_text())
    assert int(note.read_text()) in [process.pid for process in family]  # the kernel
    first = (out / "00_first.note").read_text()
    said = finished(started(COURSE, out))
    assert "00_first: done before" in said and re.search("01_second: about", said)
    assert (out / "00_first.note").read_text() == first
    assert (out / "notebooks" / "01_second.ipynb").is_file()
