"""Measuring a stage of a run: its rows in ladder.json, and its answers to the ten problems in ten.json."""

import time
from collections.abc import Callable

from phi_lab.config.schema import STAGES, RunConfig
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, require_kinds, write_json
from phi_lab.core.formatting import percent_interval
from phi_lab.core.locks import one_process
from phi_lab.core.memory import peak_rss_mb
from phi_lab.core.records import LadderRow
from phi_lab.core.run_folder import RunFolder, arm_name
from phi_lab.evaluate import ladder
from phi_lab.model import checkpoints
from phi_lab.pipeline.stage_runner import finished_cost, require_undamaged, starts_from_shipped
from phi_lab.problems import benchmarks
from phi_lab.report.ladder_rows import SHIPPED_START, protocol, read_ladder


@one_process
def measure(
    stage: str, run: RunFolder, config: RunConfig, seed: int, log: Callable[[str], None] = print, arm: str = "main"
) -> list[LadderRow]:
    """Evaluate a stage and write its rows into ladder.json; returns them. Where a stage `starts_from_shipped`, that
    checkpoint is evaluated as well: its rows have the stage before and the arm "shipped".

    Raises UserError at a GPU scale for a stage that has no model yet.
    """
    name, folder = arm_name(stage, arm), run.stage(stage, arm)
    model = folder.model
    if not model.is_dir():
        if config.scale != "cpu" and name != "base":
            raise UserError(f"{folder.path}: no model; train {name} before it is measured")
        model = paths.SHIPPED / stage if config.scale == "cpu" else checkpoints.resolve_model(config.model)
    all_rows = read_ladder(run.ladder) if run.ladder.exists() else []
    old_rows = [row for row in all_rows if (row["stage"], row["arm"]) == (stage, arm)]
    if folder.finished:
        require_undamaged(folder)  # before its old rows go
    began = time.perf_counter()
    ladder.evaluate(model, name, run.evals, config.evaluation, seed, resample_stale=True)
    seconds = time.perf_counter() - began
    if folder.finished:
        cost = finished_cost(folder)
    else:  # measuring again changes nothing
        peak = old_rows[0]["peak_rss_mb"] if old_rows else peak_rss_mb()
        cost = {"seconds": 0.0, "train_tokens": 0, "forward_tokens": 0, "peak_rss_mb": peak}
    rows = ladder.ladder_rows(name, stage, arm, run.evals, config.evaluation, seed, cost)
    all_rows = [row for row in all_rows if row not in old_rows] + rows
    all_rows.sort(key=lambda row: (STAGES.index(row["stage"]), row["arm"] != "main"))
    write_json(run.ladder, all_rows)
    if arm == "main":
        write_json(run.ten_problems, ten_problems(run, config))
    accuracies = ", ".join(
        f"{row['benchmark']} {percent_interval(row['accuracy'], row['ci_low'], row['ci_high'])}"
        for row in rows if protocol(row) == "sampled"
    )
    log(f"{name}: {accuracies}; measured in {seconds:.0f} s")
    if arm == "main" and stage != "base":
        _measure_start(stage, run, config, seed, log)
    return rows


def _measure_start(stage: str, run: RunFolder, config: RunConfig, seed: int, log: Callable[[str], None]) -> None:
    """Measure the shipped checkpoint that a stage started from, or remove its rows where the stage no longer did."""
    before, rows = STAGES[STAGES.index(stage) - 1], read_ladder(run.ladder)
    if starts_from_shipped(stage, run, config):
        log(f"{stage} started from the shipped {before}, which is measured, too:")
        measure(before, run, config, seed, log, SHIPPED_START)
    elif stale := [row for row in rows if (row["stage"], row["arm"]) == (before, SHIPPED_START)]:
        write_json(run.ladder, [row for row in rows if row not in stale])


def ten_problems(run: RunFolder, config: RunConfig) -> list[dict]:
    """The same ten hard problems with the greedy answers of every measured stage."""
    hard = benchmarks.load(config.evaluation.benchmarks[1])
    problems = [{**problem, "completions": {}} for problem in hard[:10]]
    for stage in STAGES:
        path = run.evals.answers(stage, "hard")
        if not path.exists():
            continue
        answers = read_rows(path, ("id", "temperature", "completion", "verdict"), empty=False, fix=ladder.MEASURE_AGAIN)
        require_kinds(path, answers, ladder.ANSWER_KINDS, ladder.MEASURE_AGAIN)
        greedy = {row["id"]: row for row in answers if row["temperature"] == 0}
        for problem in problems:
            if problem["id"] in greedy:
                row = greedy[problem["id"]]
                problem["completions"][stage] = {"completion": row["completion"], "verdict": row["verdict"]}
    return problems
