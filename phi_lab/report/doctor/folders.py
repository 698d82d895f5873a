"""Where the doctor finds what it reads: a run of this project, a stage of it, a distilled set, or any run of TRL."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows, require_kinds
from phi_lab.core.run_folder import DataFolder, RunFolder
from phi_lab.report.doctor import rules
from phi_lab.report.doctor.finding import MIN_ROWS, Finding, first_third, last_third, series
from phi_lab.report.doctor.pairs import template_without_stop
from phi_lab.report.doctor.reinforcement import GAIN, hacking
from phi_lab.report.ladder_rows import STAGE_TITLES, protocol

MOST_ROLLOUTS = 20_000  # read of one folder, from its first shards on
LOGGED = {"loss", "eval_loss", "reward", "grad_norm", "learning_rate", "rewards/margins"}  # at least one is in a log
PAIR = {"prompt": str, "chosen": str, "rejected": str}
STAGES = (*STAGE_TITLES, "teacher")


@dataclass(frozen=True)
class Checked:
    """One thing that was read, how much of it, and what was found."""

    source: str  # its path within the folder
    count: int
    unit: str  # what `count` counts
    findings: list[Finding]


def check_folder(path: Path) -> list[Checked]:
    """Check everything that is known in a folder: of a run, with all its stages and data; of one stage; of a distilled
    set; of TRL (trainer_state.json, checkpoints, logged completions). A file of rows is checked by itself.

    Raises UserError for a folder in which there is nothing to read, and for a file that cannot be read.
    """
    path = Path(path)
    if path.is_file():
        return [_check_file(path, path.name)]
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    checked = list(_check_one(path, ""))
    for folder in sorted((child for child in path.iterdir() if child.is_dir()), key=_by_stage):
        if _holds_something(folder):
            checked += _check_one(folder, f"{folder.name}/")
            checked += _check_answers(RunFolder(path), folder.name)
    checked += _check_ladder(RunFolder(path))
    if not checked:
        there = ", ".join(sorted(child.name for child in path.iterdir())[:5]) or "nothing"
        raise UserError(f"{path}: nothing to read in it, no rows of a metrics.jsonl, trainer_state.json, rollouts or "
                        f"pairs; it holds {there}")
    return checked


def check_stage(run: RunFolder, stage: str) -> list[Checked]:
    """Check one stage or arm of a run ("sft", "dpo-paper"), with its measured answers to `hard`; or its "data". Empty
    where there is nothing yet.
    """
    folder = run.path / stage
    checked = list(_check_one(folder, f"{stage}/")) if folder.is_dir() else []
    checked += _check_answers(run, stage)
    return checked + (_check_ladder(run) if stage == "grpo" else [])


# ------------------------------------------------------------------ one folder


def _holds_something(folder: Path) -> bool:
    """Whether a subfolder is a stage, a data folder, or a run of TRL; a checkpoint is read with the folder it is in."""
    names = ("metrics.jsonl", "trainer_state.json", "rollouts")
    return not folder.name.startswith("checkpoint-") and any((folder / name).exists() for name in names)


def _check_one(folder: Path, prefix: str) -> Iterator[Checked]:
    """What lies in this folder itself, without its stages."""
    data = DataFolder(folder)
    newest = _newest_checkpoint(folder)
    logs = [folder / "metrics.jsonl", folder / "trainer_state.json", newest / "trainer_state.json"]
    log = next(filter(Path.is_file, logs), None)  # the log in a checkpoint is the beginning of the folder's own
    if log and log.stat().st_size:  # it is empty until the first step is logged
        yield _check_file(log, prefix + log.relative_to(folder).as_posix())
    for name in ("rollouts", "completions"):
        if paths := sorted((folder / name).glob("*.parquet")):
            rows = _read_rollouts(paths)
            yield Checked(f"{prefix}{name}/", len(rows), "rollouts", rules.check_rollouts(rows))
    skipped = {data.right.name, data.wrong.name, data.validation.name, "metrics.jsonl"}  # filtered: say nothing alone
    for path in sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")]):
        if path.name not in skipped and _kind(read_rows(path)):
            yield _check_file(path, prefix + path.name)
    tokenizers = [place / "tokenizer_config.json" for place in (folder / "model", folder, newest)]
    if tokenizer := next(filter(Path.is_file, tokenizers), None):
        try:
            found = template_without_stop(_read_tokenizer(tokenizer.parent))
        except (AttributeError, KeyError, TypeError):
            raise UserError(f"{tokenizer.parent}: a file of this tokenizer has an unexpected form") from None
        name = prefix + tokenizer.relative_to(folder).as_posix()
        yield Checked(name, 1, "chat template", [found] if found else [])


def _check_file(path: Path, name: str) -> Checked:
    """Check one file: a log, or JSON Lines of rollouts or pairs, told apart by their columns."""
    if path.name == "trainer_state.json":
        state = read_json(path)
        rows = state.get("log_history") if isinstance(state, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{path}: no log_history in it; it is not a trainer's state")
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        rows = read_rows(path)
    else:
        raise UserError(f"{path}: expected metrics.jsonl, trainer_state.json, or JSON Lines of rollouts or pairs")
    if not rows:
        raise UserError(f"{path}: no rows in it; nothing was logged yet")
    kind = _kind(rows)
    if kind == "pairs":
        for number, row in enumerate(rows, 1):
            for side in ("prompt", "chosen", "rejected"):
                if side not in row:
                    raise UserError(f"{path}, line {number}: {side!r} is missing; a pair has prompt, chosen, rejected")
        require_kinds(path, rows, PAIR, "pairs of turns have to be written as text first")
        return Checked(name, len(rows), "pairs", rules.check_pairs(rows))
    if kind == "rollouts":
        rows = rows[:MOST_ROLLOUTS]
        return Checked(name, len(rows), "rollouts", rules.check_rollouts(rows))
    if not kind:
        for here, lacking in (("chosen", "rejected"), ("rejected", "chosen")):
            if here in rows[0]:
                raise UserError(f"{path}, line 1: {lacking!r} is missing; a pair has prompt, chosen, rejected")
        columns = ", ".join(list(dict.fromkeys(column for row in rows for column in row))[:6])
        raise UserError(f"{path}: not a log of phi-lab or TRL: none of {', '.join(sorted(LOGGED))} among its columns "
                        f"({columns})")
    return Checked(name, len(rows), "logged steps", rules.check_metrics(rows))


def _kind(rows: Sequence[dict]) -> str:
    """What rows are, by their columns: "pairs", "rollouts", "metrics", or ""."""
    columns = {column for row in rows for column in row}
    if {"chosen", "rejected"} <= columns:
        return "pairs"
    if "completion" in columns and columns & {"verdict", "reward", "answer", "finish_reason"}:
        return "rollouts"
    return "metrics" if columns & LOGGED and columns & {"step", "epoch"} else ""


# ------------------------------------------------------------------ a run


def _by_stage(folder: Path) -> tuple:
    """The data first, then stages in the recipe's order, each before its other arms."""
    stage = folder.name.partition("-")[0]
    order = STAGES.index(stage) if stage in STAGES else len(STAGES)
    return folder.name != "data", order, folder.name


def _check_answers(run: RunFolder, name: str) -> list[Checked]:
    """The form of a stage's measured answers to `hard`. Whether they are right is the ladder's matter."""
    path = run.evals.answers(name, "hard")
    if not path.is_file():
        return []
    rows = [rules.as_texts(row) for row in read_rows(path) if "completion" in row]
    return [Checked(f"evals/{path.name}", len(rows), "answers", rules.apply(rules.FORM_RULES, rows))]


def _check_ladder(run: RunFolder) -> list[Checked]:
    """GRPO's reward against the measured accuracy on `hard`: below that of its start, by intervals that do not meet."""
    if not (run.ladder.is_file() and run.stage("grpo").metrics.is_file()):
        return []
    rewards = series(read_rows(run.stage("grpo").metrics), "reward")
    try:
        measured = {
            (row["stage"], row["arm"]): row for row in read_json(run.ladder)
            if row["benchmark"] == "hard" and protocol(row) == "sampled"
        }
    except (KeyError, TypeError):
        raise UserError(f"{run.ladder}: not the ladder of a run") from None
    before, after = measured.get(("dpo", "shipped"), measured.get(("dpo", "main"))), measured.get(("grpo", "main"))
    if not (before and after and len(rewards) >= MIN_ROWS):
        return []
    found = []
    if last_third(rewards) - first_third(rewards) >= GAIN and after["ci_high"] < before["ci_low"]:
        found = [hacking(f"reward {first_third(rewards):.2f} → {last_third(rewards):.2f}, accuracy on hard "
                         f"{before['accuracy']:.1%} → {after['accuracy']:.1%}")]
    return [Checked("ladder.json", 2, "accuracies", found)]


# ------------------------------------------------------------------ files


def _newest_checkpoint(folder: Path) -> Path:
    """The trainer's checkpoint with the highest step; a path that does not exist where there is none."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()]
    return max(found, key=lambda path: int(path.name.partition("-")[2]), default=folder / "checkpoint-0")


def _read_rollouts(paths: Sequence[Path]) -> list[dict]:
    """Rollouts of Parquet shards, up to `MOST_ROLLOUTS`; TRL's logged completions get an id and the sum of their
    rewards.
    """
    rows: list[dict] = []
    for path in paths:
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path}: not a Parquet file ({str(error).splitlines()[0][:80]})") from None
        if "completion" not in table.column_names:
            raise UserError(f"{path}: no column completion; it has {', '.join(table.column_names[:6])}")
        rows += [rules.as_texts(row) for row in table.slice(0, MOST_ROLLOUTS - len(rows)).to_pylist()]
        if len(rows) >= MOST_ROLLOUTS:
            break
    return [row if "verdict" in row else _with_reward(row) for row in rows]


def _with_reward(row: dict) -> dict:
    rewards = [value for name, value in row.items() if isinstance(value, float) and name not in ("step", "advantage")]
    known = {"id": f"{row.get('step')} {row['prompt']}"} | ({"reward": sum(rewards)} if rewards else {})
    return {**row, **known}


def _read_tokenizer(folder: Path) -> dict:
    """The chat template of a saved tokenizer, and the texts of all tokens at which its model stops."""
    config = read_json(folder / "tokenizer_config.json")
    template = config.get("chat_template") or ""
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if isinstance(template, list):  # several by name
        template = "\n".join(part.get("template", "") for part in template)
    eos = config.get("eos_token")
    stops = [eos["content"] if isinstance(eos, dict) else eos] if eos else []
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            value = read_json(folder / name).get("eos_token_id")
            ids |= set(value if isinstance(value, list) else [value])
    if (folder / "tokenizer.json").is_file():
        added = read_json(folder / "tokenizer.json").get("added_tokens", [])
        stops += [token["content"] for token in added if token["id"] in ids]
    return {"template": template, "stop_tokens": list(dict.fromkeys(stops))}
