"""Kill and resume at a few points; tests/soak.py has many."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join([str(TESTS.parent), str(TESTS)]))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="forks, and kills with signal 9")]


@pytest.mark.parametrize(("what", "points"), [("set", 2), ("run", 3)])
def test_killed_again_and_again_it_ends_as_an_unbroken_one(what, points):
    command = [sys.executable, TESTS / "soak.py", "--only", what, "--points", str(points), "--seed", "1"]
    done = subprocess.run(list(map(str, command)), env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
