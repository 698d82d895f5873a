"""The verifier's workers: bounded by their own processor time, replaced when they die, and gone with their parent."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from phi_lab.verify import equal, worker

posix = pytest.mark.skipif(not worker.OUT_OF_TIME, reason="this platform bounds the clock's time")


WORK = """
import time
from phi_lab.verify import worker

def work(seconds):
    while time.process_time() < seconds:
        pass
    return True

def main():
    worker.serve(lambda: lambda seconds: work(time.process_time() + seconds), 1 << 30)
"""


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """Workers of this test alone, which take the seconds of processor time that they are asked for; one of them has
    answered a question."""
    (tmp_path / "hard_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool = worker.Pool("hard_work")
    assert pool.ask([0.0], 5)[0] == "right"
    yield pool
    pool.close()


@posix
def test_a_verdict_does_not_depend_on_what_else_the_machine_does(pool):
    """The worker stands still for three times its deadline, as under load, and answers all the same."""
    one = pool.idle[0].process
    os.kill(one.pid, signal.SIGSTOP)
    threading.Timer(1.5, one.send_signal, (signal.SIGCONT,)).start()
    start = time.monotonic()
    assert pool.ask([0.1], 0.5)[0] == "right"
    assert time.monotonic() - start > 1.4
    assert pool.idle[0].process is one


@posix
def test_the_deadline_is_processor_time_of_one_question(pool):
    one = pool.idle[0]
    assert [pool.ask([0.3], 0.5)[0] for _ in range(3)] == ["right"] * 3 and pool.idle == [one]
    start = time.monotonic()
    assert pool.ask([30.0], 0.5) == ("timeout", "the worker did not answer in time")
    assert one.process.returncode == -worker.OUT_OF_TIME and not one.late
    assert time.monotonic() - start < 15
    assert pool.ask([0.0], 5)[0] == "right"


@posix
def test_a_worker_that_gets_no_processor_time_is_no_verdict(pool, monkeypatch):
    pool.idle[0].process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(worker, "PATIENCE", 3.0)
    assert pool.ask([0.0], 5)[0] == "right"  # of another worker
    monkeypatch.setattr(worker, "PATIENCE", 0.0)
    with pytest.raises(RuntimeError, match="no processor time"):
        pool.ask([30.0], 60)


def test_a_worker_that_dies_is_replaced_by_the_spare_one(pool):
    for _ in range(4):
        spare = pool.spare
        for one in pool.idle:
            one.process.kill()
        assert pool.ask([0.0], 5)[0] == "right"
        assert pool.idle == [spare] and pool.spare is not None  # nobody waits for a start


def test_a_question_that_kills_every_worker_is_a_timeout(pool, monkeypatch):
    monkeypatch.setattr(worker._Worker, "exchange", lambda self, *_: self.process.kill() or b"")
    monkeypatch.setattr(worker._Worker, "wait_until_ready", lambda self: None)
    assert pool.ask([0.0], 5) == ("timeout", "the worker died")


def test_works_from_many_threads():
    results = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(equal(str(n), rf"\sqrt{{{n * n}}}"))) for n in range(2, 10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_worker_outlives_its_parent(tmp_path):
    """Not even where another process holds the other end of its input, so that it never ends."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, subprocess, sys\n"
        "from phi_lab.verify import equal, worker\n"
        "assert equal('2', r'\\sqrt{4}')\n"
        "workers = [*worker._pool.idle, worker._pool.spare]\n"
        "held = [one.input.fileno() for one in workers]\n"
        "other = subprocess.Popen(['sleep', '60'], pass_fds=held, stdout=-3, stderr=-3)\n"
        "print(other.pid, *(one.process.pid for one in workers), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    env = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    said = subprocess.run([sys.executable, str(script)], env=env, timeout=120, capture_output=True, text=True).stdout
    other, *workers = map(int, said.split())
    try:
        assert len(workers) == 2
        until = time.monotonic() + 30
        while any(map(alive, workers)):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert alive(other)
    finally:
        os.kill(other, signal.SIGKILL)


def alive(pid):
    """Does a process run? One that ended and that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
