"""One process at a time in a folder, and nothing that outlives its parent."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from phi_lab.core import files
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json
from phi_lab.core.locks import belongs_to_a_process, in_use, locked

HOLD = """
import sys, time
from pathlib import Path
from phi_lab.core.locks import locked
with locked(Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))):
    print("held", flush=True)
    time.sleep(float(sys.argv[4]))
"""


@pytest.fixture
def holder(tmp_path):
    """holder(part): a process that holds a part of the folder `tmp_path / "f"`, by default the whole."""
    started = []

    def start(part=(0, 1), seconds=60):
        command = [sys.executable, "-c", HOLD, tmp_path / "f", *part, seconds]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_folder_has_one_process_and_its_lock_says_which(tmp_path, holder):
    process = holder()
    with pytest.raises(UserError, match=f"f is in use by process {process.pid} on .* since 20..-..-.. ..:..:.. "):
        with locked(tmp_path / "f"):
            pass
    with pytest.raises(UserError, match="in use"):
        with locked(tmp_path / "f", (0, 2)):
            pass
    process.kill()  # no farewell
    process.wait()
    assert (tmp_path / "f" / ".lock").exists()
    with locked(tmp_path / "f"), locked(tmp_path / "f"):  # that of a dead process is taken over; one's own is free
        assert read_json(tmp_path / "f" / ".lock")["pid"] == os.getpid()
    assert not (tmp_path / "f" / ".lock").exists()


def test_in_use_tells_a_holder_that_works_from_one_that_was_killed(tmp_path, holder):
    folder = tmp_path / "f"
    assert not in_use(folder)
    process = holder()
    assert in_use(folder)
    process.kill()
    process.wait()
    assert (folder / ".lock").exists() and not in_use(folder)
    files.write_json(folder / ".lock", {"pid": process.pid, "host": "another"})
    assert in_use(folder)
    with locked(folder):
        assert in_use(folder)
    assert not in_use(folder)


def test_one_waits_for_a_process_that_is_about_to_end(tmp_path, holder):
    holder(seconds=0.5)
    with locked(tmp_path / "f"):
        pass


def test_workers_share_a_folder_and_exclude_others(tmp_path, holder):
    first, second = holder((0, 2)), holder((1, 2))
    with pytest.raises(UserError, match=f"in use by process {first.pid} "):
        with locked(tmp_path / "f", (0, 2)):
            pass
    for process in (first, second):
        with pytest.raises(UserError, match="in use"):
            with locked(tmp_path / "f"):
                pass
        process.kill()
        process.wait()
    with locked(tmp_path / "f"):
        pass
    assert not (tmp_path / "f" / ".lock").exists()


def test_what_the_holder_started_may_enter_too(tmp_path):
    with locked(tmp_path / "f"):
        command = [sys.executable, "-c", HOLD, str(tmp_path / "f"), "0", "1", "0"]
        assert subprocess.run(command, capture_output=True, text=True).stdout == "held\n"
        assert read_json(tmp_path / "f" / ".lock")["pid"] == os.getpid()


def test_leftover_parts_are_removed_and_never_make_a_folder_somebodys(tmp_path):
    (tmp_path / "f").mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    gone = gone.pid
    (tmp_path / "f" / f"config.json.{gone}.part").write_text("half")
    (tmp_path / "f" / "mine.part").write_text("a user's")
    with locked(tmp_path / "f"):
        assert not (tmp_path / "f" / f"config.json.{gone}.part").exists()
    assert (tmp_path / "f" / "mine.part").exists()
    for name in (".lock", ".lock-0-of-2", ".removed-trainer", "config.json.99.part"):
        assert belongs_to_a_process(name)
    assert not belongs_to_a_process("thesis.txt")


def test_a_refused_process_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "new"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()


def test_a_folder_loses_its_name_before_its_files(tmp_path, monkeypatch):
    folder = tmp_path / "trainer"
    folder.mkdir()
    (folder / "a").write_text("a")
    monkeypatch.setattr(shutil, "rmtree", lambda path, **_: path == folder and pytest.fail("it still has its name"))
    files.remove_folder(folder)
    assert not folder.exists() and (tmp_path / ".removed-trainer" / "a").exists()
    monkeypatch.undo()
    folder.mkdir()
    files.remove_folder(folder)  # what an earlier removal left goes, too
    assert not list(tmp_path.iterdir())


PARENT = """
import subprocess, sys
from phi_lab.core import lifeline
child = "import sys, time; print('up', flush=True); time.sleep(60)"
ours = "from phi_lab.core.lifeline import die_with_parent; die_with_parent(); " + child
if sys.argv[1] == "ours":
    subprocess.Popen([sys.executable, "-c", ours]).wait()
elif sys.argv[1] == "program":
    subprocess.Popen([sys.executable, "-c", child], preexec_fn=lifeline.in_child()).wait()
else:
    import os, time
    with lifeline.forks_die_too():
        if not os.fork():
            print("up", flush=True)
            time.sleep(60)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread looks for the parent")
@pytest.mark.parametrize("kind", ["ours", "program", "fork"])
def test_nothing_outlives_its_parent(kind):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, kind], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "up\n"
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    began = time.monotonic()
    assert parent.stdout.read() == ""  # ends when the last process that has the pipe open ends
    assert time.monotonic() - began < 10


def test_elsewhere_a_thread_looks_for_the_parent():
    program = ("import threading; from phi_lab.core import lifeline; lifeline._KERNEL = None; "
               "lifeline.die_with_parent(); import time; print('up', flush=True); time.sleep(60)")
    middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {program!r}]).wait()"
    parent = subprocess.Popen([sys.executable, "-c", middle], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "up\n"
    parent.kill()
    parent.wait()
    began = time.monotonic()
    assert parent.stdout.read() == "" and time.monotonic() - began < 10
