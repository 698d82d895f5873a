"""What environment variables set in a notebook, and how its page stays quiet.

PHI_LAB_RUN: the run folder; without it `runs/course`. PHI_LAB_PROFILE: `lab`, `lesson` or `smoke`.
PHI_LAB_SEED: a number.
PHI_LAB_SCALE: `cpu`, `lora`, `qlora` or `full`; without it the scale with which the folder was opened.
PHI_LAB_DATA: a folder of `phi-lab distill`, to train on that set. PHI_LAB_MODEL: at a GPU scale, a model folder or a
name on the hub. PHI_LAB_SETS: a folder with copies of the benchmarks. PHI_LAB_LEAVE_OUT_GATED=1: as `phi-lab run
--leave-out-gated`.
PHI_LAB_PROCESSES: how many processes train a stage together, by torchrun; without it, at the scale full, one per GPU.
"""

import logging
import os
import sys
import warnings
from pathlib import Path

from phi_lab.config import schema
from phi_lab.config.schema import RunConfig, read_config
from phi_lab.core.errors import UserError
from phi_lab.core.paths import ROOT
from phi_lab.core.run_folder import RunFolder
from phi_lab.pipeline import launch

FOLDERS = {"lab": "runs/course", "lesson": "runs/lesson", "smoke": "runs/course-smoke"}  # of each profile


def run_folder(profile: str) -> RunFolder:
    """The run folder of a profile, or PHI_LAB_RUN."""
    return RunFolder(ROOT / os.environ.get("PHI_LAB_RUN", FOLDERS[profile]))


def seed() -> int:
    """PHI_LAB_SEED, else 0. Raises UserError where it is no number."""
    value = os.environ.get("PHI_LAB_SEED", "0")
    if not value.isdecimal():
        raise UserError(f"PHI_LAB_SEED={value!r} is not a number: unset it, or write for example PHI_LAB_SEED=1")
    return int(value)


def default_scale(run: RunFolder) -> str:
    """PHI_LAB_SCALE, else the scale in the run's config.json, else "cpu". Raises UserError for an unknown scale."""
    scale = os.environ.get("PHI_LAB_SCALE")
    if scale and scale not in schema.SCALES:
        raise UserError(f"PHI_LAB_SCALE={scale!r} is no scale: unset it, or choose one of {', '.join(schema.SCALES)}")
    saved = read_config(run.config).get("config") if run.config.exists() and not scale else {}
    if not isinstance(saved, dict):
        raise UserError(f"{run.config} has an unexpected form: restore it, or choose another folder")
    return scale or saved.get("scale", "cpu")


def launcher(config: RunConfig) -> tuple[str, ...]:
    """The command that starts a stage in PHI_LAB_PROCESSES processes, else the usual one of the configuration.

    Raises UserError where PHI_LAB_PROCESSES is no number.
    """
    processes = os.environ.get("PHI_LAB_PROCESSES", "")
    if processes and not (processes.isdecimal() and int(processes)):
        raise UserError(f"PHI_LAB_PROCESSES={processes!r} is not a number of processes: unset it, or write 2")
    return launch.local(int(processes)) if processes else launch.default_launcher(config)


def display_path(path: Path) -> str:
    """A path relative to the repository where it is inside of it, else its last part."""
    return path.resolve().relative_to(ROOT).as_posix() if path.resolve().is_relative_to(ROOT) else path.name


def silence_libraries() -> None:
    """Turn off warnings and progress bars of libraries: a page shows only our own."""
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # read when the library is loaded, which takes seconds
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    if "transformers" in sys.modules:  # the page loaded it first
        sys.modules["transformers"].logging.set_verbosity_error()
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
