"""The chain: distil, mid-train, fine-tune, prefer, reinforce, measure after each. One run is one folder.

A run folder holds config.json (everything needed to repeat it), data/, one folder a stage, evals/, ladder.json,
ten.json and report.html. Every step that is finished is found again, so a stopped run continues with the same
command. The `lab` profile climbs from the shipped base; `smoke` starts each stage from the shipped checkpoint before
it, so that even a two-minute DPO or GRPO meets prompts that are sometimes right and sometimes wrong. Such a start is
measured as well (rows of the arm "shipped" in ladder.json): what the stage brought is the difference to that.

    phi-lab run --scale cpu --profile lab --seed 0 --out runs/my-run
"""

import hashlib
import itertools
import os
import platform
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoConfig

from phi_lab import __version__, sampling
from phi_lab.config import presets, schema
from phi_lab.config.schema import STAGES, RunConfig, global_batch_size
from phi_lab.core.energy import Meter
from phi_lab.core.errors import UserError
from phi_lab.core.files import ensure_same_manifest, read_json, read_rows, write_json, write_rows
from phi_lab.distill import funnel, shards, teachers, training_sets
from phi_lab.evaluate import ladder as evaluate
from phi_lab.model import chat, checkpoints
from phi_lab.model.checkpoints import DATA
from phi_lab.pipeline import launch
from phi_lab.pipeline.plan import require as require_memory
from phi_lab.problems import arithmetic
from phi_lab.problems.problem import WORLD, Problem
from phi_lab.report import report
from phi_lab.report.ladder_rows import SHIPPED_START
from phi_lab.stages import base, grpo, mid_training, rollout_dpo, sft, training
from phi_lab.stages.training import Result, per_process_batch

SHIPPED = DATA / "checkpoints"
DISTILLED = DATA / "distilled"
TEACHER = DATA / "teacher"
ADOPTED = "adopted.json"  # in a run's data/: the set came from elsewhere
ROOM_MB = 300  # a lab run leaves about 100 MB; its trainers need as much again while they work
# At a GPU scale that trains all weights in float32; an adapter takes less. Mid-training holds three checkpoints of 12
# bytes, a weight and Adam's two moments (the best, the last and the one being written), and the model that it saves, 4.
# GRPO: the models of the three stages before it, two such checkpoints, and its own model.
BYTES_A_WEIGHT = 40
SMALL = 100e6  # weights that a CPU can train at a GPU scale, to try it


def chain(
    out: Path, *, scale_name: str = "cpu", profile: str = "lab", seed: int = 0, start: str = "mid", stop: str = "grpo",
    data: Path | None = None, model: str | None = None, launcher: Sequence[str] | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Run the stages from `start` to `stop` and measure each; returns the path of the report. `data`: as in `adopt`.
    `model`: what a GPU scale starts from, instead of Phi-4-mini from the hub. `launcher`: as in `run_stage`; None is a
    process for each GPU at a scale that is sharded.

    Raises UserError for unknown names, a folder that belongs to another configuration, a missing checkpoint, a full
    disk, and GPUs that are too few or too many for what trains on them.
    """
    stages = stage_range(start, stop)
    config = presets.run_config(scale_name, profile)
    launcher = launch.usual(config) if launcher is None else launcher
    processes = launch.count(launcher)
    config = resolve_and_check(config, model, data or (out / "data" / ADOPTED).exists(), processes)
    if start == "base" and config.scale != "cpu":
        raise UserError(f"the scale {config.scale} starts from a finished base: --from mid")
    if profile == "smoke" and start == "base":
        raise UserError("the smoke profile starts from shipped checkpoints: use --profile lab with --from base")
    for stage in stages:
        if processes and stage != "base" and global_batch_size(config, stage) % processes:
            raise UserError(f"{stage}: {global_batch_size(config, stage)} a step cannot be divided among {processes} processes")
    if "base" in stages or ("dpo" in stages and config.dpo.on_policy_questions):  # which no launcher trains
        launch.require_one_gpu()
    open_folder(out, config, seed)
    if data:
        import_dataset(data, out)
    began = time.perf_counter()
    for stage in dict.fromkeys(("base", *stages)):
        if stage in stages:
            run_stage(stage, out, config, seed, say, launcher)
        measure(stage, out, config, seed, say)
        if stage == "dpo" and config.dpo.on_policy_questions:
            run_own_arm(out, config, seed, say)
    page = report.write_report(out)
    say(f"{page} written after {(time.perf_counter() - began) / 60:.1f} minutes")
    return page


def resolve_and_check(config: RunConfig, model: str | None, has_data: bool, processes: int | None) -> RunConfig:
    """The numbers of a run, with the model that a GPU scale starts from found, before anything is loaded. processes:
    that train together; None: nobody knows.

    Raises UserError for more processes than GPUs, a model at the scale cpu, a missing one or one without a chat
    template, a GPU scale without a distilled set, a large model without a GPU, and GPUs with too little memory.
    """
    launch.require_gpus(processes or 1)
    if config.scale == "cpu":
        if model:
            raise UserError("the scale cpu has its own base: --model goes with --scale lora, qlora or full")
        return config
    if not has_data:
        raise UserError(
            f"the scale {config.scale} trains on a distilled set: --data SET, made by "
            + config.distillation.command(model or config.model)
        )
    config = replace(config, model=model or config.model)
    base = checkpoints.resolve_model(config.model)
    model_config = AutoConfig.from_pretrained(base)
    if torch.cuda.is_available():
        if processes:
            require_memory(config, model_config, processes, torch.cuda.get_device_properties(0).total_memory)
        return config
    count = checkpoints.count_parameters(base)
    if count > SMALL:
        raise UserError(
            f"the scale {config.scale} needs an NVIDIA GPU for a model of {count / 1e9:.1f} B weights, and torch sees "
            f"none; phi-lab plan --scale {config.scale} says which"
        )
    return presets.without_gpu(config, "cpu" if model_config.model_type == "phi3" else "hf")


def stage_range(start: str, stop: str) -> tuple[str, ...]:
    """The stages from `start` to `stop`, both included. Raises UserError for unknown names or the wrong order."""
    for stage in (start, stop):
        if stage not in STAGES:
            raise UserError(f"unknown stage {stage!r}: choose one of {', '.join(STAGES)}")
    if STAGES.index(start) > STAGES.index(stop):
        raise UserError(f"--from {start} comes after --to {stop}: the order is {', '.join(STAGES)}")
    return STAGES[STAGES.index(start) : STAGES.index(stop) + 1]


def open_folder(out: Path, config: RunConfig, seed: int) -> None:
    """Create the run folder, or make sure that it is this run's."""
    wanted, path = {"numbers": config.row(), "seed": seed}, out / "config.json"
    if path.exists():
        ensure_same_manifest(path, wanted, f"choose another --out, or delete {out}")
        return
    if out.is_file():
        raise UserError(f"{out} is a file: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise UserError(f"{out} is not empty and has no config.json: choose another --out")
    room = ROOM_MB
    if config.scale != "cpu":
        room += BYTES_A_WEIGHT * checkpoints.count_parameters(checkpoints.resolve_model(config.model)) >> 20
    if shutil.disk_usage(out).free < room << 20:
        raise UserError(f"less than {room:,} MB free for {out}: make room or choose another --out")
    packages = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
    write_json(path, {
        "scale": config.scale, "profile": config.profile, **wanted,
        "phi_lab": __version__, "git_commit": _commit(), "python": platform.python_version(),
        "versions": {name: version(name) for name in packages}, "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    })


def run_stage(
    stage: str, out: Path, config: RunConfig, seed: int, say: Callable[[str], None] = print,
    launcher: Sequence[str] = (), **parts,
) -> Result:
    """Run one stage, or find it finished. `parts` are the learner's functions: pack=, pair=, reward=, advantage=.
    `launcher`: a command that starts the training processes, such as torchrun; none: this process trains.
    """
    folder = out / stage
    if stage == "base":
        say("base and teacher: training")
        result = finished(folder) or record(folder, lambda: base.train_base(folder, presets.BASE, seed), say)
        teacher = out / "teacher"
        if not finished(teacher):
            record(teacher, lambda: base.train_teacher(result.model, teacher, presets.TEACHER, seed), say)
        return result
    student = student_for(stage, out, config)
    check_start_checkpoint(folder, student)
    if found := finished(folder):
        return found
    say(f"{stage}: training")
    data = training_data(out, config, seed, say)
    if launcher and stage != "base":
        plan = getattr(config, stage)
        launch.train(stage, out, launcher, None if stage == "dpo" else plan.steps, parts)
        result = finished(folder)
        say(f"{stage}: {result.seconds:.0f} s, {result.train_tokens:,} tokens")
        return result
    return record(folder, lambda: _train(stage, student, data, folder, config, seed, parts), say)


def _train(
    stage: str, student: Path, data: Path, folder: Path, config: RunConfig, seed: int, parts: Mapping
) -> Result:
    right, wrong, validation = (data / f"{name}.jsonl" for name in ("right", "wrong", "validation"))
    torch.manual_seed(seed)  # of a new adapter; the trainers set theirs later
    if stage == "mid":
        return mid_training.train(student, right, validation, folder, config.mid, seed=seed, **parts)
    if stage == "sft":
        return sft.train(student, right, validation, folder, config.sft, seed=seed, **parts)
    if stage == "dpo":
        return rollout_dpo.train(student, right, wrong, folder, config.dpo, seed=seed, **parts)
    problems = candidates(data, config.grpo.candidate_prompts, seed)
    return grpo.train(student, problems, folder, config.grpo, seed=seed, **parts)


def train_launched(
    stage: str, out: Path, parts: str | None = None, say: Callable[[str], None] = print
) -> None:
    """The training of one stage in a run that is open and has its data: what each launched process runs. parts: digest
    of the learner's functions, if there are any.

    Raises UserError for a run without one of them, a batch that the processes cannot share, more of them than GPUs, and
    GPUs with too little memory: behind a launcher of somebody's own nobody has counted before.
    """
    saved = read_json(out / "config.json")
    config, seed, folder, data = schema.config_from_dict(saved["numbers"]), saved["seed"], out / stage, out / "data"
    if stage not in STAGES[1:]:
        raise UserError(f"unknown stage {stage!r}: choose one of {', '.join(STAGES[1:])}")
    per_process_batch(global_batch_size(config, stage))
    launch.require_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if not (data / "funnel.json").exists():
        raise UserError(f"{data} has no distilled set yet: start with `phi-lab run`, which makes or adopts one")
    student = student_for(stage, out, config)
    check_start_checkpoint(folder, student)
    if finished(folder):
        return
    if config.scale != "cpu" and torch.cuda.is_available():
        room = torch.cuda.get_device_properties(checkpoints.device()).total_memory
        require_memory(config, AutoConfig.from_pretrained(student), training.processes(), room)
    given = launch.parts(folder, parts)

    def train() -> Result:
        return _train(stage, student, data, folder, config, seed, given)

    if int(os.environ.get("RANK", "0")) == 0:
        record(folder, train, say)
    else:
        train()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # or gloo may abort while Python ends


def candidates(data: Path, count: int, seed: int) -> list[Problem]:
    """Prompts for RL: new ones of the small world, or with an adopted set of natural text its own questions."""
    rows = [row for name in ("right", "wrong") for row in read_rows(data / f"{name}.jsonl")]
    asked = {row["id"]: row for row in rows if row["domain"] not in WORLD and "answer" in row}
    if not asked:
        return arithmetic.sample_problems(count, seed + 50_000)
    chosen = random.Random(seed).sample(sorted(asked), min(count, len(asked)))
    return [Problem(row["domain"], "text", row["level"], name, row["prompt"], row["answer"])
            for name, row in ((name, asked[name]) for name in chosen)]


def check_start_checkpoint(folder: Path, student: Path) -> None:
    """Note whom a stage starts from; raises UserError in a folder that started from somebody else."""
    ensure_same_manifest(folder / "student.json", {"weights": checkpoints.fingerprint(student)}, f"delete {folder} to train it again")


def finished(folder: Path) -> Result | None:
    """What a finished stage left in its folder, if it is finished."""
    if not (folder / "done.json").exists():
        return None
    cost = read_json(folder / "done.json")
    return Result(
        folder / "model", read_rows(folder / "metrics.jsonl"), cost["seconds"], cost["train_tokens"],
        cost["forward_tokens"],
    )


def record(folder: Path, train: Callable[[], Result], say: Callable[[str], None]) -> Result:
    """Train, and write done.json, the mark of a finished stage, with what it cost: joules, too, where they can be read
    and no part of the training was done before. Raises UserError as `launch.require_one_gpu` does.
    """
    launch.require_one_gpu()
    resumed = (folder / "metrics.jsonl").exists()
    with Meter() as meter:
        result = train()
    write_json(folder / "done.json", {
        "seconds": round(result.seconds, 1), "train_tokens": result.train_tokens,
        "forward_tokens": result.forward_tokens, "peak_rss_mb": evaluate.peak_rss_mb(),
        **({} if meter.joules is None or resumed else {"joules": round(meter.joules)}),
    })
    sampling.release_memory()
    say(f"{folder.name}: {result.seconds:.0f} s, {result.train_tokens:,} tokens")
    return result


def student_for(stage: str, out: Path, config: RunConfig) -> Path:
    """The model a stage starts from: the stage before it in this run, else the shipped checkpoint of that stage."""
    before = STAGES[STAGES.index(stage) - 1]
    own, shipped = finished(out / before), SHIPPED / before
    if own and (config.profile != "smoke" or config.scale != "cpu"):
        return own.model
    if config.scale != "cpu":
        if before != "base":
            raise UserError(f"no checkpoint of {before} in {out}: run --from {before} first")
        return checkpoints.resolve_model(config.model)
    if not (shipped / "config.json").is_file():
        raise UserError(f"no checkpoint of {before} in {out} or in {shipped}: run --from {before} first")
    return shipped


def starts_apart(stage: str, out: Path, config: RunConfig) -> bool:
    """Whether a stage starts, or started, from the shipped checkpoint of the stage before, while this run has another
    model of that stage, or has trained from there on and not measured it. Then the two are no chain.
    """
    if stage == "base" or config.scale != "cpu":
        return False
    before = STAGES[STAGES.index(stage) - 1]
    own, known = out / before / "model", out / stage / "student.json"
    if not own.is_dir():  # the shipped one stands in the ladder itself, if it was measured
        return before != "base" and known.exists() and not (out / "evals" / f"{before}.json").exists()
    begun = read_json(known)["weights"] if known.exists() else checkpoints.fingerprint(student_for(stage, out, config))
    return begun != checkpoints.fingerprint(own) and begun == checkpoints.fingerprint(SHIPPED / before)


def training_data(out: Path, config: RunConfig, seed: int, say: Callable[[str], None] = print) -> Path:
    """The distilled training sets of this run, made on first use: questions asked here, and the shipped rollouts.

    A run that has adopted a set has that. The shipped rollouts are the shipped teacher's; a run with a teacher of its
    own asks as many questions more.
    """
    data, own = out / "data", finished(out / "teacher")
    if (data / ADOPTED).exists():
        return data
    teacher = own.model if own else TEACHER
    ensure_same_manifest(data / "teacher.json", {"weights": checkpoints.fingerprint(teacher)}, f"delete {data} to ask this teacher")
    if (data / "funnel.json").exists():
        return data
    plan = config.distillation
    count = plan.questions + (plan.shipped_questions if own else 0)
    say(f"distillation: {count} questions, {plan.samples} rollouts each")
    for folder, asked in (("validation", arithmetic.sample_problems(plan.validation_questions, seed, "validation")),
                          ("rollouts", arithmetic.sample_problems(count, seed))):
        shards.collect_rollouts(teachers.model(teacher, plan, seed), asked, data / folder, name="model", samples=plan.samples,
                    temperature=plan.temperature, seed=seed)
    held = funnel.Funnel().sift(shards.rows(data / "validation"))
    write_rows(data / "validation.jsonl", [row for right, _ in held for row in right])
    rows = shards.rows(data / "rollouts")
    if not own:
        rows = itertools.chain(rows, shipped_rollouts(plan.shipped_questions, {problem.id for problem in asked}))
    counts = training_sets.training_sets(rows, data, about="Sampled by `phi-lab run` from its teacher model.")
    say(f"distillation: {counts['steps'][-1]['kept']:,} of {counts['rollouts']:,} rollouts kept")
    return data


def import_dataset(folder: Path, out: Path) -> None:
    """Train the stages of the run `out` on the set that `phi-lab distill` left in `folder`, instead of an own one. The
    right rollouts of every 20th question are its validation set. Questions of natural text get the instruction that
    benchmarks are asked with.

    Raises UserError for a folder without such a set, and for a run that has other data.
    """
    right = read_rows(folder / "right.jsonl", ("id", "domain", "level", "pass_rate", "tokens", "prompt", "completion"))
    questions = list(dict.fromkeys(row["id"] for row in right))
    if len(questions) < 2:
        raise UserError(f"{folder}: right rollouts of {len(questions)} questions; training and validation need two")
    data, held = out / "data", set(questions[::20])
    if (data / "teacher.json").exists():
        raise UserError(f"{data} holds rollouts that this run has asked for: choose another --out")
    mark = {"set": hashlib.sha256((folder / "right.jsonl").read_bytes()).hexdigest()}
    if (data / ADOPTED).exists():
        return ensure_same_manifest(data / ADOPTED, mark, "choose another --out")
    for name in ("wrong.jsonl", "rollouts", "funnel.json"):
        if not (folder / name).exists():
            raise UserError(f"{folder / name} is missing: --data takes a whole folder of phi-lab distill")
    wrong = read_rows(folder / "wrong.jsonl", ("id", "domain", "prompt", "completion"))
    for row in [*right, *wrong]:
        if row["domain"] not in WORLD:
            row["prompt"] = chat.prepend_instruction(schema.INSTRUCTION, row["prompt"])
    write_rows(data / "right.jsonl", [row for row in right if row["id"] not in held])
    write_rows(data / "validation.jsonl", [row for row in right if row["id"] in held])
    write_rows(data / "wrong.jsonl", wrong)
    shutil.copytree(folder / "rollouts", data / "rollouts", dirs_exist_ok=True)
    shutil.copy(folder / "funnel.json", data)
    write_json(data / ADOPTED, mark)  # last: it says that all of it is there


def shipped_rollouts(questions: int, asked: set[str]) -> list[dict]:
    """The shipped rollouts to the first `questions` questions that are not in `asked` (ids)."""
    rows = [row for row in read_rows(DISTILLED / "rollouts.jsonl.gz") if row["id"] not in asked]
    wanted = set(list(dict.fromkeys(row["id"] for row in rows))[:questions])
    return [row for row in rows if row["id"] in wanted]


def measure(
    stage: str, out: Path, config: RunConfig, seed: int, say: Callable[[str], None] = print, arm: str = "main"
) -> list[dict]:
    """Evaluate a stage and write its rows into ladder.json and its answers to the ten problems into ten.json. What it
    started from is measured, too, where `starts_apart`; those rows have the stage before and the arm "shipped".

    Raises UserError at a GPU scale for a stage that has no model yet.
    """
    name = arm_name(stage, arm)
    model = out / name / "model"
    if not model.is_dir():
        if config.scale != "cpu" and name != "base":
            raise UserError(f"{out / name}: no model; train {name} before it is measured")
        model = SHIPPED / stage if config.scale == "cpu" else checkpoints.resolve_model(config.model)
    done = out / name / "done.json"
    ladder = read_json(out / "ladder.json") if (out / "ladder.json").exists() else []
    known = [row for row in ladder if (row["stage"], row["arm"]) == (stage, arm)]
    began = time.perf_counter()
    evaluate.evaluate(model, name, out / "evals", config.evaluation, seed, again=True)
    took = time.perf_counter() - began
    peak = known[0]["peak_rss_mb"] if known else evaluate.peak_rss_mb()  # running again changes nothing
    cost = (
        read_json(done)
        if done.exists()
        else {"seconds": 0.0, "train_tokens": 0, "forward_tokens": 0, "peak_rss_mb": peak}
    )
    rows = evaluate.ladder_rows(name, stage, arm, out / "evals", config.evaluation, seed, cost)
    ladder = [row for row in ladder if row not in known] + rows
    ladder.sort(key=lambda row: (STAGES.index(row["stage"]), row["arm"] != "main"))
    write_json(out / "ladder.json", ladder)
    if arm == "main":
        write_json(out / "ten.json", ten_problems(out))
    main = {row["benchmark"]: row for row in rows if row["temperature"] > 0 and row["pass_at_k"] is None}
    say(
        f"{name}: "
        + ", ".join(
            f"{k} {100 * v['accuracy']:.1f} % [{100 * v['ci_low']:.1f}, {100 * v['ci_high']:.1f}]"
            for k, v in main.items()
        )
        + f"; measured in {took:.0f} s"
    )
    if arm == "main" and stage != "base":
        _measure_start(stage, out, config, seed, say)
    return rows


def _measure_start(stage: str, out: Path, config: RunConfig, seed: int, say: Callable[[str], None]) -> None:
    before, ladder = STAGES[STAGES.index(stage) - 1], read_json(out / "ladder.json")
    if starts_apart(stage, out, config):
        say(f"{stage} started from the shipped {before}, which is measured, too:")
        measure(before, out, config, seed, say, SHIPPED_START)
    elif stale := [row for row in ladder if (row["stage"], row["arm"]) == (before, SHIPPED_START)]:  # of an earlier training
        write_json(out / "ladder.json", [row for row in ladder if row not in stale])


def ten_problems(out: Path) -> list[dict]:
    """The same ten hard problems as every measured stage answered them greedily."""
    from phi_lab.problems import benchmarks

    hard = read_json(out / "config.json")["numbers"]["evaluation"]["benchmarks"][1]
    ten = [{**problem, "completions": {}} for problem in benchmarks.load(hard)[:10]]
    for stage in STAGES:
        path = out / "evals" / f"{stage}.hard.jsonl"
        if not path.exists():
            continue
        greedy = {row["id"]: row for row in read_rows(path) if row["temperature"] == 0}
        for problem in ten:
            if problem["id"] in greedy:
                row = greedy[problem["id"]]
                problem["completions"][stage] = {"completion": row["completion"], "verdict": row["verdict"]}
    return ten


def arm_name(stage: str, arm: str) -> str:
    """What the folder and the files of a stage's arm are called: "dpo" for its main one, "dpo-own" for another."""
    return stage if arm == "main" else f"{stage}-{arm}"


def run_arm(
    stage: str, arm: str, student: Path, out: Path, config: RunConfig, seed: int, train: Callable[[Path], Result],
    say: Callable[[str], None] = print,
) -> None:
    """Train another arm of a stage from `student` by `train(folder)`, unless it is done, and measure it."""
    folder = out / arm_name(stage, arm)
    check_start_checkpoint(folder, student)
    if not finished(folder):
        record(folder, lambda: train(folder), say)
    measure(stage, out, config, seed, say, arm)


def run_own_arm(out: Path, config: RunConfig, seed: int, say: Callable[[str], None] = print) -> None:
    """The second DPO arm: pairs from the student's own rollouts instead of the teacher's."""
    student = student_for("dpo", out, config)

    def train(folder: Path) -> Result:
        plan = replace(config.distillation, questions=config.dpo.on_policy_questions)
        asked = arithmetic.sample_problems(plan.questions, seed + 90_000, levels=(3, 4))
        shards.collect_rollouts(teachers.model(student, plan, seed), asked, folder / "rollouts", name="student",
                    samples=plan.samples, temperature=plan.temperature, seed=seed)
        training_sets.training_sets(shards.rows(folder / "rollouts"), folder, about="Sampled from the student itself.")
        right, wrong = folder / "right.jsonl", folder / "wrong.jsonl"
        return rollout_dpo.train(student, right, wrong, folder, config.dpo, seed=seed)

    run_arm("dpo", "own", student, out, config, seed, train, say)


def _commit() -> str | None:
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=DATA, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
