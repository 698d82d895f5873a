"""Is a gain the stage's, or only that of more compute? Controls at equal FLOPs, over independent chains.

Anyone can draw a rising curve by stopping the first stage early. So each stage of the ladder has a *control*: the model
that the stage started from, continued with the training of the stage before, with the same seed, for the FLOPs that the
stage took (sampling and scoring included, see `TrainingResult.compute`). A stage's gain counts when it beats its
control. GRPO has a second one, because continuing Rollout DPO for that long ruins the model: the same start, continued
as in SFT. One chain is one observation (`phi_lab.report.replications`): its own distillation, its own training, its
own controls.

    phi-lab experiment ladder --seeds 6 --out runs/ladder
    phi-lab experiment publish --out runs/ladder    # into README, docs/results.md and their picture
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from phi_lab.config import presets
from phi_lab.config.schema import STAGES, RunConfig, read_config
from phi_lab.core.errors import UserError
from phi_lab.core.files import append_rows, drop_torn_line, ensure_same_manifest, read_json, read_rows
from phi_lab.core.locks import locked
from phi_lab.core.run_folder import RunFolder, arm_name
from phi_lab.model import checkpoints
from phi_lab.pipeline.arms import run_arm
from phi_lab.pipeline.run import run_chain
from phi_lab.pipeline.run_data import training_data
from phi_lab.pipeline.stage_runner import finished_result, start_checkpoint
from phi_lab.report import replications
from phi_lab.report.ladder_rows import protocol, read_ladder
from phi_lab.stages import base, mid_training, rollout_dpo, sft
from phi_lab.stages.training import TrainingResult


def ladder(out: Path, seeds: range, *, profile: str = "lab", log: Callable[[str], None] = print) -> Path:
    """Run a chain of the small world with its controls for every seed, each in `out/seed-N`; returns the file of rows,
    one a chain.

    A stopped queue of chains continues where it was: finished steps and finished chains are not repeated. Raises
    UserError as `run_chain` does, and for a folder whose chains have another configuration.
    """
    with locked(out):
        path, config = out / "chains.jsonl", presets.run_config("cpu", profile)
        old_name = out / "numbers.json"  # of release 0.1
        manifest = old_name if old_name.exists() else out / "config.json"
        redo = "chains of another configuration are another ladder: choose --out"
        ensure_same_manifest(manifest, {"config": config.row()}, redo, read_config)
        drop_torn_line(path)
        done = {row["seed"] for row in read_rows(path)} if path.exists() else set()
        for number, seed in enumerate(seeds, 1):
            if seed in done:
                continue
            log(f"chain {number} of {len(seeds)}, seed {seed}")
            run = RunFolder(out / f"seed-{seed}")
            run_chain(run, profile=profile, seed=seed, log=log)
            for stage in STAGES[1:]:
                control(stage, run, config, seed, log)
            control("grpo", run, config, seed, log, before="sft")
            sft_of_the_base(run, config, seed, log)
            append_rows(path, [chain_row(run)])
            replications.write_summary(path)
        return path


def control(
    stage: str, run: RunFolder, config: RunConfig, seed: int, log: Callable[[str], None] = print,
    before: str | None = None,
) -> None:
    """Train and measure the control of `stage` in a run that has it: the stage before, continued at equal FLOPs.

    With `before`, the training of that stage is continued instead, from the same start. Mid-training continues with the
    learning rate of SFT, falling to zero, so that SFT's gain is not merely that of a falling rate. Raises UserError
    when the run lacks the stage or, for DPO and GRPO, the one before it.
    """
    arm = before or "control"
    before = before or STAGES[STAGES.index(stage) - 1]
    result, previous = finished_result(run.stage(stage)), finished_result(run.stage(before))
    for name, finished in ((stage, result), (before, previous or before in ("base", "mid"))):
        if not finished:
            raise UserError(f"{run.stage(name).path}: no finished stage, which the control of {stage} needs")
    start = start_checkpoint(stage, run, config)

    def train(folder: Path) -> TrainingResult:
        log(f"{stage}: {arm}, {before} continued for {result.compute:,.0f} tokens")
        training_data(run, config, seed, log)
        return _continue(before, run, start, folder, config, seed, result.compute, previous)

    run_arm(stage, arm, start, run, config, seed, train, log)


def _continue(
    stage: str, run: RunFolder, start: Path, folder: Path, config: RunConfig, seed: int, compute: float,
    previous: TrainingResult | None,
) -> TrainingResult:
    """Continue the training of `stage` from the model `start` for `compute` training tokens. previous: what the stage
    itself took in this run.
    """
    data = run.data
    if stage == "base":
        steps = _steps(compute, presets.TEACHER.batch_size * presets.TEACHER.row_length)
        return base.continue_pretraining(start, folder, replace(presets.TEACHER, steps=steps), seed)
    if stage == "mid":
        steps = _steps(compute, config.mid.batch_size * config.mid.row_length)
        plan = replace(config.mid, steps=steps, lr_schedule=config.sft.lr_schedule, eval_steps=0, patience=0,
                       warmup_ratio=config.sft.warmup_ratio, learning_rate=config.sft.learning_rate)
        return mid_training.train(start, data.right, data.validation, folder, plan, seed=seed)
    if stage == "sft":
        steps = _steps(compute, previous.train_tokens / previous.metrics[-1]["step"])
        return sft.train(start, data.right, data.validation, folder, replace(config.sft, steps=steps), seed=seed)
    # the same pairs again: scoring them, a forward pass over all, is paid for once, whatever the epochs
    an_epoch = previous.train_tokens / config.dpo.epochs
    plan = replace(config.dpo, epochs=_steps(compute - an_epoch / 3, an_epoch))
    return rollout_dpo.train_on_pairs(start, read_rows(run.stage("dpo").pairs), folder, plan, seed=seed)


def _steps(compute: float, tokens_per_step: float) -> int:
    return max(1, round(compute / tokens_per_step))


def sft_of_the_base(run: RunFolder, config: RunConfig, seed: int, log: Callable[[str], None] = print) -> None:
    """SFT of the base on its small, good set, without mid-training: the arm "limo" of SFT, "less is more" on a model
    that is too small.

    Nothing follows from its fall on `easy` yet: SFT of the base on all right answers, for as many steps, falls as deep.

    The paper (section 2) found that this lowers Phi-4-Mini's accuracy, which is why its recipe starts with
    mid-training.
    """
    start = start_checkpoint("mid", run, config)

    def train(folder: Path) -> TrainingResult:
        log("sft: of the base")
        data = training_data(run, config, seed, log)
        return sft.train(start, data.right, data.validation, folder, config.sft, seed=seed)

    run_arm("sft", "limo", start, run, config, seed, train, log)


def chain_row(run: RunFolder) -> dict:
    """One finished chain as one row: seed, git_commit, seconds, fingerprints of its models, accuracy[name][benchmark].

    Names are those of the stages, with "-paper", "-control", "-sft", "-limo" for other arms, and "-shipped" for what
    the next stage started from where that was no model of this chain.
    """
    config, accuracy, seconds, fingerprints = read_json(run.config, ("seed", "git_commit")), {}, 0.0, {}
    for row in read_ladder(run.ladder):
        if protocol(row) == "sampled":
            name = arm_name(row["stage"], row["arm"])
            accuracy.setdefault(name, {})[row["benchmark"]] = round(row["accuracy"], 5)
            seconds += row["seconds"] if row["benchmark"] == "hard" else 0
            model = run.stage(row["stage"], row["arm"]).model
            if name not in fingerprints and model.is_dir():
                fingerprints[name] = checkpoints.fingerprint(model)
    return {
        "seed": config["seed"], "git_commit": config["git_commit"], "seconds": round(seconds), "models": fingerprints,
        "accuracy": accuracy,
    }
