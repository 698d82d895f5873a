"""Independent chains of the ladder, each stage beside its controls: what is published, and what any claim rests on.

A chain is one seed from distillation to GRPO, with all its controls (`controls.ARMS`): one observation. Each chain is a
process of its own with one thread, so that its numbers do not depend on what runs beside it, and works in its own
folder. What it finishes, a rung or a control, becomes one row of `rungs.jsonl` there, with all that `ladder.json` says
of it and with the code, settings and machine that made it. A queue that was stopped, by whatever and wherever, goes on
with the same command: nothing that is finished is repeated.

    phi-lab experiment ladder --seeds 6-17 --jobs 2 --out runs/ladder
    phi-lab experiment publish --out runs/ladder    # into docs/results.md and its picture
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from phi_lab import __version__
from phi_lab.config import presets
from phi_lab.config.schema import STAGES, RunConfig, read_config
from phi_lab.core import lifeline
from phi_lab.core.code_state import code_state
from phi_lab.core.errors import UserError
from phi_lab.core.files import append_rows, drop_torn_line, ensure_same_manifest, read_json, write_rows
from phi_lab.core.locks import locked
from phi_lab.core.progress import QUIET
from phi_lab.core.run_folder import RunFolder, arm_name
from phi_lab.pipeline import controls, launch
from phi_lab.pipeline.measure import measure
from phi_lab.pipeline.run import PACKAGES, open_run
from phi_lab.pipeline.stage_runner import finished_result, run_stage
from phi_lab.report.ladder_rows import read_ladder

COMMAND = (sys.executable, "-m", "phi_lab")
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
EVERY = 1.0  # seconds between two looks at the chains
REDO = "chains of another configuration are another ladder: choose --out"
Log = Callable[[str], None]


def rungs(arms: Sequence[str]) -> list[str]:
    """What a chain consists of, in its order: every stage, followed by those of `arms` that rival it. Raises UserError
    for an unknown arm.
    """
    if unknown := [name for name in arms if name not in controls.ARMS]:
        raise UserError(f"unknown control {unknown[0]!r}: choose one of {', '.join(controls.ARMS)}")
    return [name for stage in STAGES for name in (stage, *(arm for arm in arms if arm.partition("-")[0] == stage))]


def chain_config(profile: str) -> RunConfig:
    """The settings of a chain: those of the course at the scale cpu, measured on twice as many problems."""
    config = presets.run_config("cpu", profile)
    return replace(config, evaluation=replace(config.evaluation, problems=2 * config.evaluation.problems))


# ------------------------------------------------------------------ one chain, in this process


def chain(out: Path, seed: int, *, profile: str = "lab", arms: Sequence[str] = tuple(controls.ARMS), log: Log = print
          ) -> Path:
    """Train and measure one chain with its controls in `out/seed-N`; returns the file of its rows, one a rung.

    Raises UserError as `run.open_run`, `run_stage` and `controls.control` do, and for several GPUs.
    """
    names, config, run = rungs(arms), chain_config(profile), RunFolder(out / f"seed-{seed}")
    path, code = _path(out, seed), code_state()
    launch.require_one_gpu()
    ensure_same_manifest(out / "config.json", {"config": config.row()}, REDO, read_config)
    with locked(run.path):
        open_run(run, config, seed)
        drop_torn_line(path)
        for name in names:
            done = _rows(path)
            if name in {row["name"] for row in done}:
                continue
            began = time.perf_counter()
            _climb(name, run, config, seed, log)
            seconds = time.perf_counter() - began
            append_rows(path, _new_rows(name, done, run, config, seed, code, seconds))
    return path


def _climb(name: str, run: RunFolder, config: RunConfig, seed: int, log: Log) -> None:
    """Train and measure a stage, or a control."""
    if name in controls.ARMS:
        return controls.control(name, run, config, seed, log)
    if name != "base":
        run_stage(name, run, config, seed, log)
    measure(name, run, config, seed, log)


def _new_rows(
    name: str, done: list[dict], run: RunFolder, config: RunConfig, seed: int, code: dict, seconds: float
) -> list[dict]:
    """The row of the rung `name`, and that of a shipped checkpoint which was measured as what a stage started from."""
    measured = defaultdict(list)
    for row in read_ladder(run.ladder):
        measured[row["stage"], row["arm"]].append(row)
    source = {
        **code, "config": config.digest(), "phi_lab": __version__, "versions": {one: version(one) for one in PACKAGES},
        "python": platform.python_version(), "device": device(), "time": datetime.now(UTC).isoformat(" ", "seconds"),
    }
    written, rows = {row["name"] for row in done}, []
    for (stage, arm), measurements in measured.items():
        if (full := arm_name(stage, arm)) in written:
            continue
        folder = run.stage(stage, arm)
        result = finished_result(folder)
        rows.append({
            "seed": seed, "name": full, "stage": stage, "arm": arm, **source,
            "seconds": round(seconds, 1) if full == name else 0.0,
            "compute": round(result.compute) if result else 0, "measurements": measurements,
            "model": read_json(run.evals.manifest(full), ("model",))["model"],
            "start": _fingerprint(folder.student), "teacher": _fingerprint(run.data.teacher),
        })
    return rows


def _fingerprint(path: Path) -> str | None:
    """That of the weights which a manifest names; None where it does not exist."""
    return read_json(path, ("weights",))["weights"] if path.exists() else None


def device() -> dict:
    """The machine on which a rung was made: processor, threads, and the GPU if there is one."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"system": platform.system(), "cpu": cpu, "threads": torch.get_num_threads(), "gpu": gpu}


# ------------------------------------------------------------------ many chains, a process each


def ladder(
    out: Path, seeds: Sequence[int], *, profile: str = "lab", jobs: int = 1,
    arms: Sequence[str] = tuple(controls.ARMS), log: Log = print,
) -> Path:
    """Run a chain for each of `seeds`, `jobs` of them side by side; returns the file of all rows, `out/chains.jsonl`.

    A chain that fails does not stop the others. Raises UserError for a folder whose chains have another configuration,
    and at the end, with its error line, for a chain that failed.
    """
    names = rungs(arms)
    launch.require_one_gpu()
    with locked(out):
        ensure_same_manifest(out / "config.json", {"config": chain_config(profile).row()}, REDO, read_config)
        waiting = [seed for seed in seeds if not set(names) <= {row["name"] for row in _rows(_path(out, seed))}]
        running: dict[int, _Chain] = {}
        failed: dict[int, str] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    seed = waiting.pop(0)
                    running[seed] = _Chain(out, seed, names, profile, arms)
                    log(f"seed {seed}: started, {len(waiting)} more to come")
                time.sleep(EVERY)
                for seed, one in list(running.items()):
                    if line := one.progress():
                        log(line)
                        collect(out)
                    if one.process.poll() is not None:
                        del running[seed]
                        if error := one.error():
                            failed[seed] = error
                            log(f"seed {seed}: {error}")
        finally:
            for one in running.values():
                one.process.terminate()
                one.process.wait()
        path = collect(out)
    if failed:
        raise UserError("; ".join(f"seed {seed}: {error}" for seed, error in failed.items()))
    return path


class _Chain:
    """A chain that another process works on."""

    def __init__(self, out: Path, seed: int, names: Sequence[str], profile: str, arms: Sequence[str]):
        self.out, self.seed, self.names = out, seed, names
        self.began, self.seen = time.monotonic(), len(_rows(_path(out, seed)))
        self.log = out / f"seed-{seed}.log"
        chosen = ["--arms", ",".join(arms)] if arms else ["--without-controls"]
        command = [*COMMAND, "experiment", "chain", "--seeds", f"{seed}-{seed}", "--profile", profile, *chosen,
                   "--out", str(out)]
        environment = {**os.environ, **ONE_THREAD, QUIET: "1", lifeline.LAUNCHED_BY: str(os.getpid())}
        with self.log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment,
                                            preexec_fn=lifeline.in_child())

    def progress(self) -> str | None:
        """What is done and how long the rest will take, where something has been finished since the last call."""
        rows = _rows(_path(self.out, self.seed))
        if len(rows) == self.seen:
            return None
        self.seen, done = len(rows), [name for name in self.names if name in {row["name"] for row in rows}]
        left = remaining(_all_rows(self.out), [name for name in self.names if name not in done])
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
    """The seconds that `names` will take: each as long as that rung in the chains so far, else as the average one."""
    took = defaultdict(list)
    for row in rows:
        took[row["name"]].append(row["seconds"])
    average = sum(row["seconds"] for row in rows) / len(rows)
    return sum(sum(took[name]) / len(took[name]) if name in took else average for name in names)


def collect(out: Path) -> Path:
    """Write the rows of all chains into `out/chains.jsonl`, by seed and in the order of the ladder; returns it."""
    path = out / "chains.jsonl"
    write_rows(path, _all_rows(out))
    return path


def _all_rows(out: Path) -> list[dict]:
    order = {name: number for number, name in enumerate(rungs(tuple(controls.ARMS)))}
    rows = [row for path in out.glob("seed-*/rungs.jsonl") for row in _rows(path)]
    return sorted(rows, key=lambda row: (row["seed"], order.get(row["name"], -1)))


def _path(out: Path, seed: int) -> Path:
    return out / f"seed-{seed}" / "rungs.jsonl"


def _rows(path: Path) -> list[dict]:
    """The rows so far; a last one that is being written, or that a kill cut short, is left out."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_bytes().rpartition(b"\n")[0].splitlines()]
    except ValueError:
        raise UserError(f"{path} has a line that is not JSON: delete that line to have it made again") from None
