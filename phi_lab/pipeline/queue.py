"""A queue of independent seeds, a process each: chains of the ladder, and the seeds of an experiment.

Each process has one thread, so that its numbers do not depend on what runs beside it, and works in a folder of its own,
`out/seed-N`. What it finishes becomes one row of `rungs.jsonl` there, with the code, settings and machine that made it
(`source`). A queue that was stopped goes on with the same command: what has a row is not done again.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from phi_lab import __version__
from phi_lab.core import lifeline
from phi_lab.core.errors import UserError
from phi_lab.core.progress import QUIET
from phi_lab.pipeline.run import PACKAGES

COMMAND = (sys.executable, "-m", "phi_lab")
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
EVERY = 1.0  # seconds between two looks at the processes
Log = Callable[[str], None]


def side_by_side(
    out: Path, seeds: Sequence[int], names: Sequence[str], arguments: Callable[[int], Sequence[str]], jobs: int,
    log: Log, on_row: Callable[[], object],
) -> None:
    """Work on `seeds`, `jobs` of them at a time, until each has a row for each of `names`.

    arguments: of the command that works on one seed in its process. on_row: called whenever there are new rows. A seed
    that fails does not stop the others. Raises UserError at the end, with its error line, for one that failed.
    """
    waiting = [seed for seed in seeds if not set(names) <= {row["name"] for row in rows(rows_path(out, seed))}]
    running: dict[int, Worker] = {}
    failed: dict[int, str] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                seed = waiting.pop(0)
                running[seed] = Worker(out, seed, names, arguments(seed))
                log(f"seed {seed}: started, {len(waiting)} more to come")
            time.sleep(EVERY)
            for seed, one in list(running.items()):
                if line := one.progress():
                    log(line)
                    on_row()
                if one.process.poll() is not None:
                    del running[seed]
                    if error := one.error():
                        failed[seed] = error
                        log(f"seed {seed}: {error}")
    finally:
        for one in running.values():
            one.process.terminate()
            one.process.wait()
    on_row()
    if failed:
        raise UserError("; ".join(f"seed {seed}: {error}" for seed, error in failed.items()))


class Worker:
    """A seed that another process works on."""

    def __init__(self, out: Path, seed: int, names: Sequence[str], arguments: Sequence[str]):
        self.out, self.seed, self.names = out, seed, names
        self.began, self.seen = time.monotonic(), len(rows(rows_path(out, seed)))
        self.log = out / f"seed-{seed}.log"
        environment = {**os.environ, **ONE_THREAD, QUIET: "1", lifeline.LAUNCHED_BY: str(os.getpid())}
        with self.log.open("w") as output:
            self.process = subprocess.Popen([*COMMAND, *arguments], stdout=output, stderr=subprocess.STDOUT,
                                            env=environment, preexec_fn=lifeline.in_child())

    def progress(self) -> str | None:
        """What is done and how long the rest will take, where something has been finished since the last call."""
        there = rows(rows_path(self.out, self.seed))
        if len(there) == self.seen:
            return None
        self.seen, done = len(there), [name for name in self.names if name in {row["name"] for row in there}]
        left = remaining(all_rows(self.out), [name for name in self.names if name not in done])
        return (f"seed {self.seed}: {done[-1]}, {len(done)} of {len(self.names)} after "
                f"{tqdm.format_interval(time.monotonic() - self.began)}, about {tqdm.format_interval(left)} left")

    def error(self) -> str | None:
        """The line with which a failed process ended; None for one that did not fail."""
        if not self.process.returncode:
            return None
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line.partition("phi-lab: ")[2] for line in lines if "phi-lab: " in line]
        return errors[-1] if errors else f"failed with {self.process.returncode}; {self.log} says why"


def remaining(rows: Sequence[dict], names: Sequence[str]) -> float:
    """The seconds that `names` will take: each as long as that one in the seeds so far, else as the average one."""
    took = defaultdict(list)
    for row in rows:
        took[row["name"]].append(row["seconds"])
    average = sum(row["seconds"] for row in rows) / len(rows)
    return sum(sum(took[name]) / len(took[name]) if name in took else average for name in names)


# ------------------------------------------------------------------ rows


def rows_path(out: Path, seed: int) -> Path:
    """The file of a seed's rows."""
    return out / f"seed-{seed}" / "rungs.jsonl"


def rows(path: Path) -> list[dict]:
    """The rows so far; a last one that is being written, or that a kill cut short, is left out. Raises UserError for a
    damaged line.
    """
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_bytes().rpartition(b"\n")[0].splitlines()]
    except ValueError:
        raise UserError(f"{path} has a line that is not JSON: delete that line to have it made again") from None


def all_rows(out: Path, order: Sequence[str] = ()) -> list[dict]:
    """The rows of all seeds in a folder, by seed and by their names' places in `order`."""
    place = {name: number for number, name in enumerate(order)}
    found = [row for path in out.glob("seed-*/rungs.jsonl") for row in rows(path)]
    return sorted(found, key=lambda row: (row["seed"], place.get(row["name"], -1)))


def source(code: dict, config: str) -> dict:
    """What a row says of where it comes from. code: `core.code_state.code_state` when the process began; config: the
    digest of the settings.
    """
    return {
        **code, "config": config, "phi_lab": __version__, "versions": {one: version(one) for one in PACKAGES},
        "python": platform.python_version(), "device": device(), "time": datetime.now(UTC).isoformat(" ", "seconds"),
    }


def device() -> dict:
    """The machine on which a row was made: processor, threads, and the GPU if there is one."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"system": platform.system(), "cpu": cpu, "threads": torch.get_num_threads(), "gpu": gpu}
