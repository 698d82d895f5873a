"""Training of one stage in several processes, by torchrun: from a notebook or a command, on one machine or on many.

A notebook or `phi-lab run` is one process. With a launcher it prepares a stage as without one, hands the training to

    torchrun --nproc-per-node 8 -m phi_lab stage mid --out RUN

follows the metrics, and finds the same files in the run folder that it would have written itself. On several nodes the
launcher is whatever starts torchrun on each of them (docs/scaling.md); they share the folder. A learner's functions are
passed on by dill, from this process to its own children only: their command line has the file's digest, so that a run
folder from elsewhere cannot bring code.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import dill
import torch

from phi_lab.config.schema import RunConfig
from phi_lab.core import lifeline
from phi_lab.core.errors import UserError
from phi_lab.core.progress import Bar
from phi_lab.core.run_folder import RunFolder, StageFolder

# On this machine alone: its processes meet by a file that is theirs and talk over the loopback interface.
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--rdzv-backend", "c10d", "--rdzv-conf",
            "store_type=file", "--local-addr", "127.0.0.1", "--nproc-per-node")
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def local(processes: int) -> tuple[str, ...]:
    """The launcher of `processes` on this machine; empty for one process without a GPU, since this process trains
    itself. With GPUs even one is launched: it sees one of them, and leaves none of its memory behind.
    """
    return (*TORCHRUN, str(processes)) if processes > 1 or torch.cuda.is_available() else ()


def default_launcher(config: RunConfig) -> tuple[str, ...]:
    """A process for each GPU of this machine at a scale that shards the model, else one; on a CPU this process."""
    if not torch.cuda.is_available() or (config.scale == "cpu" and torch.cuda.device_count() == 1):
        return ()
    return local(torch.cuda.device_count() if config.mid.hardware.fsdp else 1)


def count(launcher: Sequence[str]) -> int | None:
    """How many processes a launcher starts; None for one that is not `local`."""
    if not launcher:
        return 1
    return int(launcher[-1]) if tuple(launcher[:-1]) == TORCHRUN else None


def require_gpus(processes: int) -> None:
    """Raises UserError where torch sees GPUs on this machine, but fewer than `processes`."""
    gpus = torch.cuda.device_count()
    if torch.cuda.is_available() and processes > gpus:
        raise UserError(f"{processes} processes need a GPU each, and torch sees {gpus}: choose {gpus} or fewer")


def require_one_gpu() -> None:
    """Raises UserError where this process would train without a launcher and sees several GPUs: a trainer would spread
    each batch over all of them, which TRL refuses.

    Nothing here can hide the others: CUDA reads CUDA_VISIBLE_DEVICES once, when the first library asks for it.
    """
    gpus = torch.cuda.device_count()
    if "LOCAL_RANK" not in os.environ and gpus > 1:
        raise UserError(
            f"one process trains on one GPU, and torch sees {gpus}: put CUDA_VISIBLE_DEVICES=0 before the command"
        )


def train(stage: str, run: RunFolder, launcher: Sequence[str], steps: int | None, functions: Mapping) -> None:
    """Train a stage by `launcher`, with a progress bar of `steps`, and wait for its end. The output of the processes is
    written to launch.log in the stage's folder.

    Raises UserError with the error line of a process, or with the name of that file.
    """
    folder = run.stage(stage)
    folder.path.mkdir(parents=True, exist_ok=True)
    command = [*launcher, "-m", "phi_lab", "stage", stage, "--out", str(run.path)]
    if functions:
        content = dill.dumps(dict(functions), recurse=True)
        folder.functions.write_bytes(content)
        command += ["--functions", hashlib.sha256(content).hexdigest()]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what this process measured with
    with folder.log.open("w") as output, Bar(steps, f"{stage}, launched", "step") as bar:
        try:
            child = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, preexec_fn=lifeline.in_child(),
                env={**environment(launcher), lifeline.LAUNCHED_BY: str(os.getpid())},
            )
        except OSError as error:
            raise UserError(f"{command[0]}: {error.strerror}; a launcher is a command, like torchrun") from None
        try:
            while child.poll() is None:
                time.sleep(0.5)
                bar.update(max(0, _last_step(folder) - bar.n))
        except BaseException:
            child.terminate()  # torchrun ends its processes; their checkpoints stay
            child.wait()
            raise
        finally:
            folder.functions.unlink(missing_ok=True)
    lines = folder.log.read_text(errors="replace").splitlines()
    for line in lines:
        if ": not whole, " in line:  # of a checkpoint that was skipped
            print(line)
    if child.returncode or not folder.finished:
        errors = [line.partition("phi-lab: ")[2] for line in lines if "phi-lab: " in line]
        raise UserError(errors[0] if errors else f"{stage}: the launched processes failed; {folder.log} says why")


def leave() -> None:
    """End this process with exit code 0, at once, if it has trained together with others: all is written by now.

    torch's threads that talk to the others outlive `destroy_process_group` where FSDP2 holds the group. Python ending
    under them may abort the process, and a stage that is complete would be reported as failed.
    """
    if not torch.distributed.is_initialized():
        return
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def environment(launcher: Sequence[str]) -> dict[str, str]:
    """The environment of launched processes. Those of `local` exchange their tensors over the loopback interface,
    unless the user has named another one.
    """
    inside = {} if count(launcher) is None else {"GLOO_SOCKET_IFNAME": LOOPBACK, "NCCL_SOCKET_IFNAME": LOOPBACK}
    return {**inside, **os.environ}


def load_functions(folder: StageFolder, digest: str | None) -> dict:
    """The learner's functions that the starting process left for this stage, if it passed on their digest."""
    if not digest:
        return {}
    content = folder.functions.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(f"{folder.functions} is not what the starting process wrote")
    return dill.loads(content)  # noqa: S301 - checked against this process's own parent


def _last_step(folder: StageFolder) -> int:
    """Steps done so far, by the last whole line of the metrics; 0 where they cannot be read just now."""
    try:
        return json.loads(folder.metrics.read_text().splitlines()[-1])["step"]
    except (OSError, ValueError, IndexError):
        return 0
