"""Runs an experiment: each arm of each seed is trained, measured and written down as one row.

A seed is a process with one thread in the queue that the ladder's chains have, too (`pipeline/queue.py`). Its arms are
trained one after another in `out/seed-N`. The same command continues a run that was stopped, wherever that was.

    phi-lab experiment one_batch --seeds 10-21 --jobs 2 --chains runs/ladder --out runs/one_batch
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from phi_lab.config import presets
from phi_lab.config.schema import RunConfig
from phi_lab.core import paths
from phi_lab.core.code_state import code_state
from phi_lab.core.errors import UserError
from phi_lab.core.files import append_rows, atomic_write, drop_torn_line, ensure_same_manifest, read_rows, write_rows
from phi_lab.core.formatting import percent
from phi_lab.core.locks import locked
from phi_lab.core.memory import peak_rss_mb
from phi_lab.core.run_folder import EvalFolder, RunFolder
from phi_lab.evaluate import ladder
from phi_lab.experiments.design import ONE_CHAIN, Experiment, Log, Trial, chains_in
from phi_lab.model import checkpoints
from phi_lab.pipeline import launch, queue
from phi_lab.pipeline.run import open_run
from phi_lab.pipeline.stage_runner import check_start_checkpoint, finished_cost, finished_result, train_and_record
from phi_lab.report import contrasts

REDO = "another configuration, or other chains, are another run: choose --out"
BENCHMARKS = ("easy", "hard", "")  # `transfer` is left out: no experiment asks about it


def config_of(experiment: Experiment, profile: str) -> RunConfig:
    """The settings of the course, and how an experiment measures: greedy, at T = 0.6 and pass@8, no cooler sampling."""
    config = presets.run_config("cpu", profile)
    problems = experiment.problems * config.evaluation.problems
    measure = {"problems": problems, "cool_temperature": 0.0, "benchmarks": BENCHMARKS, **experiment.evaluation}
    evaluation = replace(config.evaluation, **measure)
    return replace(config, evaluation=evaluation)


def trial_of(experiment: Experiment, out: Path, seed: int, profile: str, chains: Path | None) -> Trial:
    """One seed, with the chain that it starts from. Raises UserError where that is missing."""
    if chains is not None and experiment.stage == "base":
        raise UserError(f"{experiment.name} makes its own chains: leave out --chains")
    config, settings = config_of(experiment, profile), experiment.settings[profile]
    run = RunFolder(out / f"seed-{seed}")
    if chains is None:
        return Trial(run, seed, config, settings, seed if experiment.makes_chains else None)
    found = chains_in(chains, experiment.stage)
    if seed not in found:
        raise UserError(f"{chains}: chain {seed} has not finished {experiment.stage}; a seed of {experiment.name} is a "
                        f"whole chain: choose --seeds from {', '.join(map(str, found))}")
    return Trial(run, seed, config, settings, seed, found[seed])


def manifest(experiment: Experiment, profile: str, chains: Path | None) -> dict:
    """What a folder's rows have in common. The models of a chain are not part of it: each arm checks what its seed
    starts from.
    """
    return {"experiment": experiment.name, "config": config_of(experiment, profile).row(),
            "settings": asdict(experiment.settings[profile]), "unit": unit(experiment, chains)}


def unit(experiment: Experiment, chains: Path | None) -> str:
    """What a seed is, in words."""
    if experiment.stage == "base":
        return "base seeds"
    return "chain seeds" if chains or experiment.makes_chains else ONE_CHAIN


# ------------------------------------------------------------------ one seed, in this process


def run_seed(
    experiment: Experiment, out: Path, seed: int, *, profile: str = "lab", chains: Path | None = None, log: Log = print
) -> Path:
    """Train and measure every arm of one seed in `out/seed-N`; returns the file of its rows, one an arm.

    Raises UserError for a folder of another configuration, a missing chain, and several GPUs.
    """
    launch.require_one_gpu()
    trial = trial_of(experiment, out, seed, profile, chains)
    ensure_same_manifest(out / "config.json", manifest(experiment, profile, chains), REDO)
    path, code = queue.rows_path(out, seed), code_state()
    with locked(trial.run.path):
        open_run(trial.run, trial.config, seed)
        drop_torn_line(path)
        waiting = [arm for arm in experiment.arms if arm not in {row["name"] for row in queue.rows(path)}]
        if waiting:
            experiment.prepare(trial, log)
        for arm in waiting:
            began = time.perf_counter()
            row = _arm_row(experiment, trial, arm, code, log)
            row |= {"unit": unit(experiment, chains), "seconds": round(time.perf_counter() - began, 1)}
            append_rows(path, [row])
    return path


def _arm_row(experiment: Experiment, trial: Trial, arm: str, code: dict, log: Log) -> dict:
    """Train and measure an arm; its row."""
    start, folder = experiment.start(trial, arm), trial.folder(arm)
    cost = {"seconds": 0.0, "train_tokens": 0, "forward_tokens": 0, "peak_rss_mb": peak_rss_mb()}
    model = start
    if arm not in experiment.untrained:
        check_start_checkpoint(folder, start)
        if not finished_result(folder):
            train_and_record(folder, lambda: experiment.train(trial, arm, folder.path), log)
        cost, model = finished_cost(folder), folder.model
        cost["forward_tokens"] += experiment.extra_forward(trial, arm)
    evaluation = replace(trial.config.evaluation,
                         temperature=experiment.untrained.get(arm, trial.config.evaluation.temperature))
    seed = experiment.evaluation_seed(trial, arm)
    ladder.evaluate(model, arm, trial.run.evals, evaluation, seed, resample_stale=True)
    measurements = ladder.ladder_rows(arm, arm, "main", trial.run.evals, evaluation, seed, cost)
    row = {
        "experiment": experiment.name, "seed": trial.seed, "name": arm, "chain": trial.chain,
        **queue.source(code, trial.config.digest()), "settings": asdict(trial.settings),
        "compute": round(cost["train_tokens"] + cost["forward_tokens"] / 3), "measurements": measurements,
        "diversity": diversity(trial.run.evals, arm, evaluation.temperature),
        "model": checkpoints.fingerprint(model), "start": checkpoints.fingerprint(start),
        "teacher": checkpoints.fingerprint(paths.TEACHER), "notes": experiment.notes(trial, arm),
    }
    log(f"{arm}: hard {percent(contrasts.accuracy(row) or 0.0)}, {row['compute']:,} training tokens")
    return row


def diversity(evals: EvalFolder, arm: str, temperature: float) -> float:
    """The share of different completions among the samples of a problem of `hard`, its mean over problems: 1 where no
    two are alike, 1 / samples where all are.
    """
    texts: dict[str, list[str]] = {}
    for row in read_rows(evals.answers(arm, "hard"), ("id", "temperature", "completion")):
        if row["temperature"] == temperature:
            texts.setdefault(row["id"], []).append(row["completion"])
    return round(sum(len(set(each)) / len(each) for each in texts.values()) / len(texts), 4)


# ------------------------------------------------------------------ many seeds, a process each


def run(
    experiment: Experiment, out: Path, seeds: Sequence[int], *, profile: str = "lab", jobs: int = 1,
    chains: Path | None = None, log: Log = print,
) -> Path:
    """Run `seeds`, `jobs` of them side by side; returns the file of all rows, `out/NAME.jsonl`.

    Raises UserError for a folder of another configuration, a missing chain, and at the end for a seed that failed.
    """
    launch.require_one_gpu()
    for seed in seeds:
        trial_of(experiment, out, seed, profile, chains)

    def arguments(seed: int) -> list[str]:
        given = ["--chains", str(chains)] if chains else []
        return ["experiment", experiment.name, "--seeds", f"{seed}-{seed}", "--in-process", "--profile", profile,
                *given, "--out", str(out)]

    with locked(out):
        ensure_same_manifest(out / "config.json", manifest(experiment, profile, chains), REDO)
        queue.side_by_side(out, seeds, list(experiment.arms), arguments, jobs, log, lambda: collect(experiment, out))
    return out / f"{experiment.name}.jsonl"


def collect(experiment: Experiment, out: Path) -> Path:
    """Write the rows of all seeds into `out/NAME.jsonl`, by seed and in the order of the arms; returns it."""
    path = out / f"{experiment.name}.jsonl"
    write_rows(path, queue.all_rows(out, list(experiment.arms)))
    return path


def conclude(experiment: Experiment, out: Path) -> str:
    """Write the tables `out/NAME.md` and the figure `out/NAME.svg` of the rows so far; returns the tables. Raises
    UserError with fewer than two seeds that have all arms.
    """
    from phi_lab.report import figures_experiments

    rows = contrasts.read(out / f"{experiment.name}.jsonl")
    text = experiment.reading.summary(rows, experiment.arms, experiment.claims)
    figures_experiments.save(experiment.name, rows, experiment.arms, experiment.claims, out / f"{experiment.name}.svg")
    atomic_write(out / f"{experiment.name}.md", f"# {experiment.name}\n\n{experiment.question}\n\n{text}\n".encode())
    return text
