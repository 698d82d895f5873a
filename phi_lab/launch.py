"""Several processes train one stage together: torchrun, from a notebook or a command, on one machine or on many.

A notebook or `phi-lab run` is one process. Given a launcher it prepares a stage as ever, hands the training to

    torchrun --standalone --nproc-per-node 8 -m phi_lab stage mid --out RUN

follows the metrics, and finds in the run folder what it would have left there itself. On several nodes the launcher is
whatever starts torchrun on each of them (docs/scaling.md); they share the folder. A learner's functions travel by dill,
from this process to its own children only: these know the file's digest from their environment, so that a run folder
from elsewhere can bring no code.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import dill
import torch

from phi_lab.errors import UserError
from phi_lab.progress import Bar
from phi_lab.scale import Numbers

PARTS = "parts.dill"
DIGEST = "PHI_LAB_PARTS"
LOG = "launch.log"


def local(processes: int) -> tuple[str, ...]:
    """The launcher of so many processes on this machine; of one: none."""
    if processes == 1:
        return ()
    return (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))


def usual(numbers: Numbers) -> tuple[str, ...]:
    """A process for each GPU of this machine, where the scale is one for several."""
    return local(torch.cuda.device_count() if numbers.mid.hardware.sharded and torch.cuda.is_available() else 1)


def train(stage: str, out: Path, launcher: Sequence[str], steps: int | None, parts: Mapping) -> None:
    """Train a stage of the run `out` by `launcher`, with a progress bar of `steps`, and wait for its end. What the
    processes say goes to launch.log in the stage's folder.

    Raises UserError with the line that a process ended with, or with the name of that file.
    """
    folder = out / stage
    folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if parts:
        content = dill.dumps(dict(parts), recurse=True)
        (folder / PARTS).write_bytes(content)
        environment[DIGEST] = hashlib.sha256(content).hexdigest()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what this process measured with
    command = [*launcher, "-m", "phi_lab", "stage", stage, "--out", str(out)]
    with (folder / LOG).open("w") as words, Bar(steps, f"{stage}, launched", "step") as bar:
        try:
            child = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT, env=environment)
        except OSError as error:
            raise UserError(f"{command[0]}: {error.strerror}; a launcher is a command, like torchrun") from None
        try:
            while child.poll() is None:
                time.sleep(0.5)
                bar.update(_steps(folder) - bar.n)
        except BaseException:
            child.terminate()  # torchrun ends its processes; their checkpoints stay
            child.wait()
            raise
    (folder / PARTS).unlink(missing_ok=True)
    if child.returncode or not (folder / "done.json").exists():
        said = (folder / LOG).read_text(errors="replace").splitlines()
        own = [line.partition("phi-lab: ")[2] for line in said if "phi-lab: " in line]
        raise UserError(own[0] if own else f"{stage}: the launched processes failed; {folder / LOG} says why")


def parts(folder: Path) -> dict:
    """The learner's functions that the starting process left for this stage."""
    if DIGEST not in os.environ:
        return {}
    content = (folder / PARTS).read_bytes()
    if hashlib.sha256(content).hexdigest() != os.environ[DIGEST]:
        raise UserError(f"{folder / PARTS} is not what the starting process wrote")
    return dill.loads(content)  # noqa: S301 - checked against this process's own parent


def _steps(folder: Path) -> int:
    """Steps done so far, by the last whole line of the metrics."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("}") else 0
