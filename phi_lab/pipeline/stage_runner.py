"""One stage of a run: the checkpoint it starts from, its training here or in launched processes, its mark when done.

The stages are imported where they train: with TRL they take seconds to load, and reading a run needs none of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from phi_lab import sampling
from phi_lab.config import presets
from phi_lab.config.schema import STAGES, RunConfig, config_from_dict, global_batch_size, read_config
from phi_lab.core import locks, paths
from phi_lab.core.energy import Meter
from phi_lab.core.errors import UserError
from phi_lab.core.files import ensure_same_manifest, read_json, read_rows, remove_folder
from phi_lab.core.locks import locked, one_process
from phi_lab.core.marks import first_damage
from phi_lab.core.run_folder import RunFolder, StageFolder
from phi_lab.model import checkpoints, shapes
from phi_lab.pipeline import launch
from phi_lab.pipeline.plan import require_memory
from phi_lab.pipeline.run_data import grpo_problems, training_data

if TYPE_CHECKING:
    from phi_lab.stages.training import TrainingResult

COST = ("seconds", "train_tokens", "forward_tokens", "peak_rss_mb")  # columns of the ladder that done.json has, too


@one_process
def run_stage(
    stage: str, run: RunFolder, config: RunConfig, seed: int, log: Callable[[str], None] = print,
    launcher: Sequence[str] = (), **functions,
) -> TrainingResult:
    """Train one stage, unless it is finished; returns its result. `functions` are a learner's: pack=, pair=, reward=,
    advantage=. `launcher` is a command that starts the training processes, such as torchrun; without one this process
    trains.
    """
    if stage == "base":
        return _run_base(run, seed, log)
    folder, start = run.stage(stage), start_checkpoint(stage, run, config)
    check_start_checkpoint(folder, start)
    if result := finished_result(folder):
        return result
    log(f"{stage}: training")
    training_data(run, config, seed, log)
    if not launcher:
        return train_and_record(folder, lambda: _train(stage, run, start, config, seed, functions), log)
    steps = None if stage == "dpo" or getattr(getattr(config, stage), "epochs", 0) else getattr(config, stage).steps
    launch.train(stage, run, launcher, steps, functions)
    result = finished_result(folder)
    log(f"{stage}: {result.seconds:.0f} s, {result.train_tokens:,} tokens")
    return result


def _run_base(run: RunFolder, seed: int, log: Callable[[str], None]) -> TrainingResult:
    """Pretrain the base, then the teacher, a wider model from random weights."""
    from phi_lab.stages import base

    log("base and teacher: training")
    folder, teacher = run.stage("base"), run.teacher
    result = finished_result(folder) or train_and_record(
        folder, lambda: base.train_base(folder.path, presets.BASE, seed), log)
    if not teacher.finished:
        train_and_record(
            teacher, lambda: base.train_teacher(teacher.path, presets.TEACHER, seed), log)
    return result


def _train(stage: str, run: RunFolder, start: Path, config: RunConfig, seed: int, functions: Mapping) -> TrainingResult:
    from phi_lab.stages import grpo, mid_training, rollout_dpo, sft

    data, out = run.data, run.stage(stage).path
    torch.manual_seed(seed)  # of a new adapter; the trainers set theirs later
    if stage == "mid":
        return mid_training.train(start, data.right, data.validation, out, config.mid, seed=seed, **functions)
    if stage == "sft":
        return sft.train(start, data.right, data.validation, out, config.sft, seed=seed, **functions)
    if stage == "dpo":
        asked = config.dpo.questions if config.dpo.pairs != "teacher" else 0
        questions = grpo_problems(data, asked, seed + 40_000) if asked else []
        return rollout_dpo.train(
            start, data.right, data.wrong, out, config.dpo, seed=seed, questions=questions, **functions
        )
    problems = grpo_problems(data, config.grpo.candidate_prompts, seed)
    return grpo.train(start, problems, out, config.grpo, seed=seed, **functions)


def train_launched(
    stage: str, run: RunFolder, digest: str | None = None, log: Callable[[str], None] = print
) -> None:
    """Train one stage of a run that has its config and its data: what each launched process executes. digest: of the
    learner's functions, if there are any.

    Raises UserError for a run without config or data, a batch that the processes cannot share, more processes than
    GPUs, and GPUs with too little memory: a user's own launcher may start any number of them.
    """
    from phi_lab.stages.training import per_process_batch, world_size

    config, seed = saved_config(run)
    folder = run.stage(stage)
    presets.require_trained_stage(stage)
    per_process_batch(global_batch_size(config, stage))
    launch.require_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if not run.data.funnel.exists():
        raise UserError(
            f"{run.data.path} has no distilled set yet: start with `phi-lab run`, which makes or imports one")
    start = start_checkpoint(stage, run, config)
    check_start_checkpoint(folder, start)
    if folder.finished:
        return
    if config.scale != "cpu" and torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(checkpoints.device()).total_memory
        require_memory(config, shapes.load_config(start), world_size(), memory)
    functions = launch.load_functions(folder, digest)

    def train() -> TrainingResult:
        return _train(stage, run, start, config, seed, functions)

    if int(os.environ.get("RANK", "0")) == 0:
        train_and_record(folder, train, log)
    else:
        train()


def saved_config(run: RunFolder) -> tuple[RunConfig, int]:
    """Configuration and seed of a run, out of its config.json. Raises UserError where that is damaged."""
    saved = read_config(run.config)
    try:
        return config_from_dict(saved["config"]), int(saved["seed"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"has an unexpected form ({error!r})"
        raise UserError(f"{run.config} {reason}: restore it, or choose another --out") from None


def finished_result(folder: StageFolder) -> TrainingResult | None:
    """The result that a finished stage left in its folder; None if it is not finished. Raises UserError where its files
    are not what training left.
    """
    if not folder.finished:
        return None
    from phi_lab.stages.training import TrainingResult

    require_undamaged(folder)
    remove_folder(folder.trainer)  # of a process that was killed between its mark and this
    cost = finished_cost(folder)
    return TrainingResult(
        folder.model, read_rows(folder.metrics), cost["seconds"], cost["train_tokens"], cost["forward_tokens"])


def finished_cost(folder: StageFolder) -> dict:
    """What a finished stage took, in the columns of the ladder. Raises UserError for a damaged done.json."""
    done = read_json(folder.done, COST, f"delete {folder.path} to train it again")
    return {name: done[name] for name in (*COST, "joules") if name in done}


def require_undamaged(folder: StageFolder) -> None:
    """Raises UserError where model or metrics of a finished stage are not as its done.json says. That of release 0.1
    says nothing of them.
    """
    again = f"delete {folder.path} to train it again"
    done = read_json(folder.done, fix=again)
    try:
        damage = first_damage(folder.path, done.get("files", {}))
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{folder.done} has an unexpected form; {again}") from None
    if damage:
        raise UserError(f"{folder.path}/{damage}; {again}")


def train_and_record(
    folder: StageFolder, train: Callable[[], TrainingResult], log: Callable[[str], None]
) -> TrainingResult:
    """Train, and add joules to the mark of the finished stage, done.json, where they can be measured and all of the
    training was done now. Raises UserError as `launch.require_one_gpu` does.
    """
    from phi_lab.stages.training import mark_finished

    launch.require_one_gpu()
    before_training = {folder.student, folder.path / locks.NAME}
    resumed = folder.path.exists() and not {*folder.path.iterdir()} <= before_training
    with locked(folder.path):  # launched processes, which a user may start by hand, hold no more than that
        with Meter() as meter:
            result = train()
        if meter.joules is not None and not resumed:
            mark_finished(folder, result, joules=round(meter.joules))
        elif not folder.finished:  # not trained by one of our trainers, which mark what they save
            mark_finished(folder, result)
    sampling.release_memory()
    log(f"{folder.path.name}: {result.seconds:.0f} s, {result.train_tokens:,} tokens")
    return result


# ------------------------------------------------------------------ the checkpoint that a stage starts from


def start_checkpoint(stage: str, run: RunFolder, config: RunConfig) -> Path:
    """The model folder that a stage starts from: that of the stage before it in this run, else the shipped one."""
    before = STAGES[STAGES.index(stage) - 1]
    previous, shipped = run.stage(before), paths.SHIPPED / before
    if previous.finished and (config.profile != "smoke" or config.scale != "cpu"):
        require_undamaged(previous)
        return previous.model
    if config.scale != "cpu":
        if before != "base":
            raise UserError(f"no checkpoint of {before} in {run.path}: run --from {before} first")
        return checkpoints.resolve_model(config.model)
    if not (shipped / "config.json").is_file():
        raise UserError(f"no checkpoint of {before} in {run.path} or in {shipped}: run --from {before} first")
    return shipped


def check_start_checkpoint(folder: StageFolder, start: Path) -> None:
    """Write down which weights a stage starts from. Raises UserError in a folder that started from other weights."""
    manifest = {"weights": checkpoints.fingerprint(start)}
    ensure_same_manifest(folder.student, manifest, f"delete {folder.path} to train it again")


def starts_from_shipped(stage: str, run: RunFolder, config: RunConfig) -> bool:
    """Whether a stage starts, or started, from the shipped checkpoint of the stage before, while this run has another
    model of that stage, or has trained from there on and not measured it. Then the two are no chain.
    """
    if stage == "base" or config.scale != "cpu":
        return False
    before = STAGES[STAGES.index(stage) - 1]
    own, student = run.stage(before).model, run.stage(stage).student
    if not own.is_dir():  # the shipped one stands in the ladder itself, if it was measured
        return before != "base" and student.exists() and not run.evals.manifest(before).exists()
    if student.exists():
        started_from = read_json(student, ("weights",))["weights"]
    else:
        started_from = checkpoints.fingerprint(start_checkpoint(stage, run, config))
    return started_from == checkpoints.fingerprint(paths.SHIPPED / before) != checkpoints.fingerprint(own)
