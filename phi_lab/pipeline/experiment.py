"""Independent chains of the ladder, each stage beside its controls: what is published, and what any claim rests on.

A chain is one seed from distillation to GRPO, with all its controls (`controls.ARMS`): one observation, and a process
of its own in the queue of `queue.py`. What it finishes, a rung or a control, becomes one row of `rungs.jsonl` in its
folder, with all that `ladder.json` says of it and with the code, settings and machine that made it.

    phi-lab experiment ladder --seeds 10-21 --jobs 2 --out runs/ladder
    phi-lab experiment publish --out runs/ladder    # into docs/results.md and its picture
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from phi_lab.config import presets
from phi_lab.config.schema import STAGES, RunConfig, read_config
from phi_lab.core.code_state import code_state
from phi_lab.core.errors import UserError
from phi_lab.core.files import append_rows, drop_torn_line, ensure_same_manifest, read_json, write_rows
from phi_lab.core.locks import locked
from phi_lab.core.run_folder import RunFolder, arm_name
from phi_lab.pipeline import controls, launch, queue
from phi_lab.pipeline.measure import measure
from phi_lab.pipeline.queue import Log, rows_path
from phi_lab.pipeline.run import open_run
from phi_lab.pipeline.stage_runner import finished_result, run_stage
from phi_lab.report.ladder_rows import read_ladder

REDO = "chains of another configuration are another ladder: choose --out"


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
    path, code = rows_path(out, seed), code_state()
    launch.require_one_gpu()
    ensure_same_manifest(out / "config.json", {"config": config.row()}, REDO, read_config)
    with locked(run.path):
        open_run(run, config, seed)
        drop_torn_line(path)
        for name in names:
            done = queue.rows(path)
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
    source = queue.source(code, config.digest())
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
    chosen = ["--arms", ",".join(arms)] if arms else ["--without-controls"]

    def arguments(seed: int) -> list[str]:
        return ["experiment", "chain", "--seeds", f"{seed}-{seed}", "--profile", profile, *chosen, "--out", str(out)]

    with locked(out):
        ensure_same_manifest(out / "config.json", {"config": chain_config(profile).row()}, REDO, read_config)
        queue.side_by_side(out, seeds, names, arguments, jobs, log, lambda: collect(out))
    return out / "chains.jsonl"


def collect(out: Path) -> Path:
    """Write the rows of all chains into `out/chains.jsonl`, by seed and in the order of the ladder; returns it."""
    path = out / "chains.jsonl"
    write_rows(path, queue.all_rows(out, rungs(tuple(controls.ARMS))))
    return path
