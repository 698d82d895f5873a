"""For every test session: notebooks run in the smoke profile, in one temporary folder, and never touch runs/."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest


def pytest_configure(config):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    config.course_folder = Path(tempfile.mkdtemp(prefix="phi-lab-course-"))
    os.environ.update(PHI_LAB_RUN=str(config.course_folder / "run"), PHI_LAB_PROFILE="smoke", PHI_LAB_SEED="0")
    os.environ["OMP_NUM_THREADS"] = "1"  # on a busy machine the threads of so small a model wait for each other


def pytest_collection_modifyitems(items):
    """One of `make test`'s two workers takes all notebooks, in their order: each goes on where the one before ended."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.xdist_group("notebooks"))


def pytest_unconfigure(config):
    shutil.rmtree(config.course_folder, ignore_errors=True)
