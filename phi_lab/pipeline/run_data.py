"""The training data of a run: rollouts of its teacher to new questions, or a distilled set from elsewhere."""

import hashlib
import itertools
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from phi_lab.config.schema import INSTRUCTION, RunConfig
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import ensure_same_manifest, read_json, read_rows, require_kinds, write_json, write_rows
from phi_lab.core.locks import one_process
from phi_lab.core.marks import first_damage
from phi_lab.core.run_folder import DataFolder, RunFolder
from phi_lab.distill import funnel, shards, teachers, training_sets
from phi_lab.model import chat, checkpoints
from phi_lab.problems import arithmetic
from phi_lab.problems.problem import WORLD, Problem

KINDS = {"id": str, "domain": str, "level": int, "prompt": str, "answer": str, "completion": str, "verdict": str,
         "pass_rate": float, "tokens": int}  # of what training reads from a row
SHIPPED_FIX = "it is part of the course: restore it, as with `git checkout data`"


@one_process
def training_data(run: RunFolder, config: RunConfig, seed: int, log: Callable[[str], None] = print) -> DataFolder:
    """The distilled training sets of this run, made on first use: new rollouts of its teacher, and the shipped ones.

    A run into which a set was imported has that set. The shipped rollouts are the shipped teacher's: a run that trained
    its own teacher samples answers to as many questions more instead. Raises UserError where the data are another
    teacher's.
    """
    data = run.data
    if data.imported.exists():
        require_undamaged_sets(data)
        return data
    trained_here = run.teacher.finished
    teacher = run.teacher.model if trained_here else paths.TEACHER
    manifest = {"weights": checkpoints.fingerprint(teacher)}
    ensure_same_manifest(data.teacher, manifest, f"delete {data.path} to ask this teacher")
    if data.funnel.exists():
        require_undamaged_sets(data)
        return data
    plan = config.distillation
    count = plan.questions + (plan.shipped_questions if trained_here else 0)
    log(f"distillation: {count} questions, {plan.samples} rollouts each")
    questions = arithmetic.sample_problems(count, seed)
    held_out = arithmetic.sample_problems(plan.validation_questions, seed, "validation")
    for folder, problems in ((data.validation_rollouts, held_out), (data.rollouts, questions)):
        shards.collect_rollouts(
            teachers.model_teacher(teacher, plan, seed), problems, folder, name="model", samples=plan.samples,
            temperature=plan.temperature, seed=seed,
        )
    filtered = funnel.Funnel().filter(shards.rows(data.validation_rollouts))
    write_rows(data.validation, [row for right, _ in filtered for row in right])
    rows = shards.rows(data.rollouts)
    if not trained_here:
        shipped = shipped_rollouts(plan.shipped_questions, {problem.id for problem in questions})
        rows = itertools.chain(rows, shipped)
    about = "Sampled by `phi-lab run` from its teacher model."
    counts = training_sets.write_training_sets(rows, data.path, about=about)
    log(f"distillation: {counts['steps'][-1]['kept']:,} of {counts['rollouts']:,} rollouts kept")
    return data


def shipped_rollouts(count: int, exclude: set[str]) -> list[dict]:
    """The shipped rollouts to the first `count` questions whose ids are not in `exclude`."""
    shipped = read_rows(paths.DISTILLED / "rollouts.jsonl.gz", ("id",), empty=False, fix=SHIPPED_FIX)
    rows = [row for row in shipped if row["id"] not in exclude]
    chosen = set(list(dict.fromkeys(row["id"] for row in rows))[:count])
    return [row for row in rows if row["id"] in chosen]


def require_undamaged_sets(data: DataFolder) -> None:
    """Raises UserError where a distilled set's files are not what was written; one of release 0.1 says nothing of them.
    """
    redo = f"delete {data.funnel} to have the sets made again"
    if not isinstance(read_json(data.funnel, fix=redo), dict):  # found now, and not when the report is written
        raise UserError(f"{data.funnel} has an unexpected form; {redo}")
    if not data.mark.exists():
        return
    try:
        damage = first_damage(data.path, read_json(data.mark, ("files",), redo)["files"])
    except (AttributeError, TypeError, ValueError):
        raise UserError(f"{data.mark} has an unexpected form; {redo}") from None
    if damage:
        raise UserError(f"{data.path}/{damage}; {redo}")


def read_set(source: Path) -> tuple[list[dict], list[dict]]:
    """The right and the wrong rows of a distilled set; no wrong ones where that file is missing. Raises UserError for a
    missing column, and for a field of another type than training reads: now, for a run keeps what it began with.
    """
    given = DataFolder(source)
    columns = ("id", "domain", "prompt", "completion")
    right = read_rows(given.right, (*columns[:2], "level", "pass_rate", "tokens", *columns[2:]))
    wrong = read_rows(given.wrong, columns) if given.wrong.exists() else []
    for path, rows in ((given.right, right), (given.wrong, wrong)):
        require_kinds(path, rows, KINDS, "mend that line, or make the set again")
    return right, wrong


@one_process
def import_dataset(source: Path, run: RunFolder, log: Callable[[str], None] = print) -> None:
    """Copy the set that `phi-lab distill` left in `source` into the run, to train on instead of its own rollouts. The
    right rollouts of every 20th question become its validation set. Questions of natural text get the instruction that
    precedes public benchmarks.

    Raises UserError for a folder without such a set, as `read_set` does, and for a run that has other data.
    """
    given, data = DataFolder(source), run.data
    right, wrong = read_set(source)
    questions = list(dict.fromkeys(row["id"] for row in right))
    if len(questions) < 2:
        raise UserError(f"{source}: right rollouts of {len(questions)} questions; training and validation need two")
    if data.teacher.exists():
        raise UserError(f"{data.path} holds rollouts that this run has sampled: choose another --out")
    manifest = {"set": hashlib.sha256(given.right.read_bytes()).hexdigest()}
    if data.imported.exists():
        return ensure_same_manifest(data.imported, manifest, "choose another --out")
    for path in (given.wrong, given.rollouts, given.funnel):
        if not path.exists():
            raise UserError(f"{path} is missing: --data takes a whole folder of phi-lab distill")
    require_undamaged_sets(given)
    if not {row["id"] for row in wrong} & {row["id"] for row in right}:
        log(f"{source}: no question has right and wrong rollouts, so Rollout DPO will have no pair: end the run before "
            "it with --to sft, or sample more with `phi-lab distill --samples N`")
    for row in [*right, *wrong]:
        if row["domain"] not in WORLD:
            row["prompt"] = chat.prepend_instruction(INSTRUCTION, row["prompt"])
    held_out = set(questions[::20])
    write_rows(data.right, [row for row in right if row["id"] not in held_out])
    write_rows(data.validation, [row for row in right if row["id"] in held_out])
    write_rows(data.wrong, [row for row in wrong if row["id"] not in held_out])  # GRPO asks what is in either
    shutil.copytree(given.rollouts, data.rollouts, dirs_exist_ok=True)
    shutil.copy(given.funnel, data.path)
    training_sets.write_mark(data)
    write_json(data.imported, manifest)  # last: it says that all of it is there


def grpo_problems(data: DataFolder, count: int, seed: int) -> list[Problem]:
    """Problems that a model answers in its training, GRPO's candidates: new ones of the small world, of all `LEVELS`,
    or with an imported set of natural text its own.
    """
    rows = [row for path in (data.right, data.wrong) for row in read_rows(path)]
    by_id = {row["id"]: row for row in rows if row["domain"] not in WORLD and "answer" in row}
    if not by_id:
        return arithmetic.sample_problems(count, seed + 50_000, levels=arithmetic.LEVELS)
    chosen = [by_id[name] for name in random.Random(seed).sample(sorted(by_id), min(count, len(by_id)))]
    return [
        Problem(row["domain"], "text", row["level"], row["id"], row["prompt"], row["answer"]) for row in chosen
    ]
