"""Several processes train one stage together: torchrun, from a notebook or a command, on one machine or on many.

A notebook or `phi-lab run` is one process. Given a launcher it prepares a stage as ever, hands the training to

    torchrun --standalone --nproc-per-node 8 -m phi_lab stage mid --out RUN

follows the metrics, and finds in the run folder what it would have left there itself. On several nodes the launcher is
whatever starts torchrun on each of them (docs/scaling.md); they share the folder. A learner's functions travel by dill,
from this process to its own children only: their command line has the file's digest, so that a run folder from
elsewhere can bring no code.
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

from phi_lab.config.schema import RunConfig
from phi_lab.core.errors import UserError
from phi_lab.core.progress import Bar

PARTS = "parts.dill"
LOG = "launch.log"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


def local(processes: int) -> tuple[str, ...]:
    """The launcher of so many processes on this machine. Of one without a GPU: none. With GPUs one is launched as well:
    it sees one of them, and leaves none of its memory behind.
    """
    return (*TORCHRUN, str(processes)) if processes > 1 or torch.cuda.is_available() else ()


def usual(config: RunConfig) -> tuple[str, ...]:
    """At a GPU scale a process for each GPU of this machine if it is sharded, else one; on a CPU this process."""
    if not torch.cuda.is_available() or (config.scale == "cpu" and torch.cuda.device_count() == 1):
        return ()
    return local(torch.cuda.device_count() if config.mid.hardware.fsdp else 1)


def count(launcher: Sequence[str]) -> int | None:
    """How many processes a launcher starts; None for one that is not `local`."""
    if not launcher:
        return 1
    return int(launcher[-1]) if tuple(launcher[:-1]) == TORCHRUN else None


def require_gpus(processes: int) -> None:
    """Raises UserError where torch sees GPUs on this machine, and fewer than one for each of so many processes."""
    found = torch.cuda.device_count()
    if torch.cuda.is_available() and processes > found:
        raise UserError(f"{processes} processes need a GPU each, and torch sees {found}: choose {found} or fewer")


def require_one_gpu() -> None:
    """Raises UserError where this process would train without a launcher and sees several GPUs: a trainer would spread
    each batch over all of them, which TRL refuses.

    Nothing here can hide the others: CUDA reads CUDA_VISIBLE_DEVICES once, when the first library asks for it.
    """
    found = torch.cuda.device_count()
    if "LOCAL_RANK" not in os.environ and found > 1:
        raise UserError(
            f"one process trains on one GPU, and torch sees {found}: put CUDA_VISIBLE_DEVICES=0 before the command"
        )


def train(stage: str, out: Path, launcher: Sequence[str], steps: int | None, parts: Mapping) -> None:
    """Train a stage of the run `out` by `launcher`, with a progress bar of `steps`, and wait for its end. What the
    processes say goes to launch.log in the stage's folder.

    Raises UserError with the line that a process ended with, or with the name of that file.
    """
    folder = out / stage
    folder.mkdir(parents=True, exist_ok=True)
    command = [*launcher, "-m", "phi_lab", "stage", stage, "--out", str(out)]
    if parts:
        content = dill.dumps(dict(parts), recurse=True)
        (folder / PARTS).write_bytes(content)
        command += ["--parts", hashlib.sha256(content).hexdigest()]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what this process measured with
    with (folder / LOG).open("w") as words, Bar(steps, f"{stage}, launched", "step") as bar:
        try:
            child = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT)
        except OSError as error:
            raise UserError(f"{command[0]}: {error.strerror}; a launcher is a command, like torchrun") from None
        try:
            while child.poll() is None:
                time.sleep(0.5)
                bar.update(max(0, _steps(folder) - bar.n))
        except BaseException:
            child.terminate()  # torchrun ends its processes; their checkpoints stay
            child.wait()
            raise
        finally:
            (folder / PARTS).unlink(missing_ok=True)
    if child.returncode or not (folder / "done.json").exists():
        said = (folder / LOG).read_text(errors="replace").splitlines()
        own = [line.partition("phi-lab: ")[2] for line in said if "phi-lab: " in line]
        raise UserError(own[0] if own else f"{stage}: the launched processes failed; {folder / LOG} says why")


def parts(folder: Path, digest: str | None) -> dict:
    """The learner's functions that the starting process left for this stage, if it named their digest."""
    if not digest:
        return {}
    content = (folder / PARTS).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"{folder / PARTS} is not what the starting process wrote")
    return dill.loads(content)  # noqa: S301 - checked against this process's own parent


def _steps(folder: Path) -> int:
    """Steps done so far, by the last whole line of the metrics; 0 where they cannot be read just now."""
    try:
        return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    except (OSError, ValueError, IndexError):
        return 0
