"""Is it the stage, or only more compute? Controls at equal FLOPs, and independent chains.

Anyone can draw a rising curve by stopping the first stage early. So beside each rung stands its *control*: the model
that the stage started from, trained on as the stage before would have trained it, with the same seed, for the FLOPs
that the stage took (sampling and scoring included, see `Result.compute`). A rung counts when it beats that. GRPO has
a second one, because to go on with Rollout DPO for that long ruins the model: the same start, trained on as in SFT. One
chain is one observation (`phi_lab.report.replications`): its own distillation sample, its own training, its own controls.

    phi-lab experiment ladder --seeds 6 --out runs/ladder
    phi-lab experiment publish --out runs/ladder    # into README, docs/results.md and their picture
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from phi_lab.config import presets
from phi_lab.config.schema import STAGES, RunConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import append_rows, ensure_same_manifest, read_json, read_rows
from phi_lab.model import checkpoints
from phi_lab.pipeline import run
from phi_lab.report import replications
from phi_lab.report.ladder_rows import protocol
from phi_lab.stages import base, mid_training, rollout_dpo, sft
from phi_lab.stages.training import Result


def ladder(out: Path, seeds: range, *, profile: str = "lab", say: Callable[[str], None] = print) -> Path:
    """Run a chain of the small world with its controls for every seed, each in `out/seed-N`; returns the file of rows,
    one a chain.

    A stopped queue goes on where it was: finished steps and finished chains are found again. Raises UserError as
    `run.chain` does.
    """
    path, config = out / "chains.jsonl", presets.run_config("cpu", profile)
    ensure_same_manifest(out / "numbers.json", {"numbers": config.row()}, "chains of other numbers are another ladder: choose --out")
    done = {row["seed"] for row in read_rows(path)} if path.exists() else set()
    for place, seed in enumerate(seeds):
        if seed in done:
            continue
        say(f"chain {place + 1} of {len(seeds)}, seed {seed}")
        folder = out / f"seed-{seed}"
        run.chain(folder, profile=profile, seed=seed, say=say)
        for stage in STAGES[1:]:
            control(stage, folder, config, seed, say)
        control("grpo", folder, config, seed, say, before="sft")
        limo(folder, config, seed, say)
        append_rows(path, [chain_row(folder)])
        replications.write_summary(path)
    return path


def control(
    stage: str, out: Path, config: RunConfig, seed: int, say: Callable[[str], None] = print, before: str | None = None
) -> None:
    """Train and measure the control of `stage` in a run that has it: the stage before, continued at equal FLOPs.

    With `before`, that stage's training is continued instead, from the same start. Mid-training goes on with the rate
    that SFT has, falling to zero, so that SFT's rung is not merely its falling rate. Raises UserError when the run
    lacks the stage or, for DPO and GRPO, the one before it.
    """
    arm = before or "control"
    before = before or STAGES[STAGES.index(stage) - 1]
    rung, previous = run.finished(out / stage), run.finished(out / before)
    for name, found in ((stage, rung), (before, previous or before in ("base", "mid"))):
        if not found:
            raise UserError(f"{out / name}: no finished stage, and the control of {stage} is measured by it")
    student = run.student_for(stage, out, config)

    def train(folder: Path) -> Result:
        say(f"{stage}: {arm}, {before} continued for {rung.compute:,.0f} tokens")
        data = run.training_data(out, config, seed, say)
        right, wrong, held = (data / f"{name}.jsonl" for name in ("right", "wrong", "validation"))
        if before == "base":
            plan = replace(presets.TEACHER, steps=_steps(rung.compute, presets.TEACHER.batch_size * presets.TEACHER.row_length))
            return base.train_more(student, folder, plan, seed)
        if before == "mid":
            steps = _steps(rung.compute, config.mid.batch_size * config.mid.row_length)
            plan = replace(config.mid, steps=steps, lr_schedule=config.sft.lr_schedule, warmup_ratio=config.sft.warmup_ratio,
                           learning_rate=config.sft.learning_rate, eval_steps=0, patience=0)
            return mid_training.train(student, right, held, folder, plan, seed=seed)
        if before == "sft":
            plan = replace(
                config.sft, steps=_steps(rung.compute, previous.train_tokens / previous.metrics[-1]["step"])
            )
            return sft.train(student, right, held, folder, plan, seed=seed)
        # the same pairs again: to choose and score them is paid once, whatever the epochs
        left = rung.compute - previous.forward_tokens / 3
        plan = replace(config.dpo, epochs=_steps(left, previous.train_tokens))
        chooser = run.student_for("dpo", out, config)

        def same(_, *rest):
            return rollout_dpo.filter_by_student_likelihood(checkpoints.load(chooser), *rest)

        return rollout_dpo.train(student, right, wrong, folder, plan, seed=seed, select=same)

    run.run_arm(stage, arm, student, out, config, seed, train, say)


def _steps(compute: float, tokens_a_step: float) -> int:
    return max(1, round(compute / tokens_a_step))


def limo(out: Path, config: RunConfig, seed: int, say: Callable[[str], None] = print) -> None:
    """SFT of the base on its small, good set, without mid-training: "less is more" on a model that is too small.

    Nothing follows from its fall on `easy` yet: SFT of the base on all right answers, as many steps, falls as deep.

    The paper (section 2) found that this lowers Phi-4-Mini's accuracy, which is why its recipe starts with
    mid-training.
    """
    student = run.student_for("mid", out, config)

    def train(folder: Path) -> Result:
        say("sft: of the base")
        data = run.training_data(out, config, seed, say)
        return sft.train(student, data / "right.jsonl", data / "validation.jsonl", folder, config.sft, seed=seed)

    run.run_arm("sft", "limo", student, out, config, seed, train, say)


def chain_row(folder: Path) -> dict:
    """One finished chain as one row: seed, git_commit, seconds, fingerprints of its models, accuracy[name][benchmark].

    Names are those of the stages, with "-own", "-control", "-sft", "-limo" for other arms, and "-shipped" for what the
    next stage started from where that was no model of this chain.
    """
    config, accuracy, seconds = read_json(folder / "config.json"), {}, 0.0
    for row in read_json(folder / "ladder.json"):
        if protocol(row) == "sampled":
            name = run.arm_name(row["stage"], row["arm"])
            accuracy.setdefault(name, {})[row["benchmark"]] = round(row["accuracy"], 5)
            seconds += row["seconds"] if row["benchmark"] == "hard" else 0
    made = {
        name: checkpoints.fingerprint(folder / name / "model") for name in accuracy if (folder / name / "model").is_dir()
    }
    return {
        "seed": config["seed"], "git_commit": config["git_commit"], "seconds": round(seconds), "models": made,
        "accuracy": accuracy,
    }
