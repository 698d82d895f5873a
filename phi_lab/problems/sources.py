"""Where problems come from: the small world, well-known sets by name, any dataset of the hub, any file with columns.

A set has a question, a gold answer, and maybe traces: what some teacher has already said. Traces are rollouts, and are
verified like any other (`teachers.traces`). Columns are found by their usual names; a map says where they are called
otherwise. Rows are streamed, so a set may be larger than memory. Every set can lie in a folder instead of the hub:

    phi-lab distill --problems math500 --data DIR --teacher endpoint --teacher-url http://localhost:8000/v1 --out OUT
    phi-lab distill --problems openr1-math --teacher traces --out OUT
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from phi_lab import verify
from phi_lab.core.errors import UserError
from phi_lab.model import chat
from phi_lab.problems.problem import Problem

PROMPTS = ("problem", "question", "prompt")
ANSWERS = ("answer", "final_answer", "correct", "ground_truth_solution", "solution")
TRACES = ("generations", "traces", "conversations", "deepseek_solution", "deepseek_attempt", "completion", "solution")
THOUGHTS = {"deepseek_solution": "deepseek_reasoning", "deepseek_attempt": "deepseek_thinking_trajectory"}
ENDINGS = {".jsonl": "json", ".json": "json", ".gz": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class Source:
    """A set on the hub. `gold`: its traces were published as right ones and are all the gold there is. `measured`: the
    split that models are measured on, where it is another than the one that they learn from.
    """

    path: str
    split: str = "train"
    name: str | None = None
    gold: bool = False
    measured: str | None = None


NAMED = {
    "gsm8k": Source("openai/gsm8k", "train", "main", measured="test"),
    "math500": Source("HuggingFaceH4/MATH-500", "test"),
    "aime24": Source("HuggingFaceH4/aime_2024"),
    "aime25": Source("math-ai/aime25", "test"),
    "amc23": Source("math-ai/amc23", "test"),
    "olympiadbench": Source("math-ai/olympiadbench", "test"),
    "aqua-rat": Source("deepmind/aqua_rat", "train", "raw"),
    "openr1-math": Source("open-r1/OpenR1-Math-220k", "train", "default"),
    "openthoughts": Source("open-thoughts/OpenThoughts-114k", "train", "metadata"),
    "bespoke-stratos": Source("bespokelabs/Bespoke-Stratos-17k", gold=True),
    "gpqa-diamond": Source("Idavidrein/gpqa", name="gpqa_diamond"),  # asks for an account of one's own
    "limo": Source("GAIR/LIMO"),
    "s1k": Source("simplescaling/s1K-1.1"),
}


@dataclass(frozen=True)
class Columns:
    """Names of columns where they are not the usual ones."""

    prompt: str | None = None
    answer: str | None = None
    traces: str | None = None


def problems(
    name: str, folder: Path | None = None, columns: Columns = Columns(), measured: bool = False
) -> Iterator[tuple[Problem, list[str]]]:
    """(problem, traces) for every row of a set: a name of `NAMED`, a file, or any set of the hub ("owner/set:split").

    `measured`: the split that models are measured on. With `folder`, a named set is read from there instead of the
    hub: NAME.jsonl, NAME.parquet, NAME/*, or one such file below. Rows without a question or an answer are left out.
    Raises UserError for what cannot be found or read, and for a set without a column for the question or the answer.
    """
    source = NAMED.get(name)
    if measured and source and source.measured:
        source = replace(source, split=source.measured)
    first = True
    for row in map(_lettered, _rows(name, source, folder)):
        if first:
            prompt, answer, traces = (
                _column(row, wanted, usual, name, required)
                for wanted, usual, required in (
                    (columns.prompt, PROMPTS, not _turns(row)),
                    (columns.answer, ANSWERS, not (source and source.gold)),
                    (columns.traces, TRACES, False),
                )
            )
            first = False
        asked = row[prompt] if prompt else _turns(row)[0]
        said = _traces(row, traces)
        found = row[answer] if answer else said[0] if said else None
        if not asked or found is None or not (gold := _gold(str(found))):
            continue
        options = row.get("options")
        asked = "\n".join([asked.strip(), *(options or [])])
        level = row.get("level")
        yield Problem(name, "text", level if isinstance(level, int) else 0, " ".join(asked.casefold().split()), asked,
                      gold), said


def _rows(name: str, source: Source | None, folder: Path | None) -> Iterator[dict]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    path = Path(name) if source is None and Path(name).suffix in ENDINGS else None
    if folder is not None and path is None:
        found = sorted(
            p for p in folder.glob("**/*") if p.suffix in ENDINGS and name in (p.name.split(".")[0], p.parent.name)
        )
        if not found:
            raise UserError(f"{folder}: no {name}.jsonl, {name}.parquet or folder {name} in it")
        path = min(found, key=lambda one: source is None or source.split not in one.name)  # its own split if there
    try:
        if path:
            if not path.is_file():
                raise UserError(f"{path} is missing")
            yield from load_dataset(ENDINGS[path.suffix], data_files=str(path), split="train", streaming=True)
            return
        if source is None:
            hub, _, split = name.partition(":")
            source = Source(hub, split or "train")
        yield from load_dataset(source.path, source.name, split=source.split, streaming=True)
    except (OSError, ValueError, DatasetNotFoundError) as error:
        where = path or f"{source.path} on the hub"
        words = " ".join(str(error).split())[:200]
        raise UserError(f"{where}: cannot be read ({words}); --data FOLDER takes a copy of yours") from None


def _lettered(row: dict) -> dict:
    """GPQA's rows hold one right and three wrong answers: as choices A to D, in an order that the question decides."""
    if "Correct Answer" not in row:
        return row
    names = ("Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3)))
    choices = [str(row[name]).strip() for name in names]
    order = random.Random(row["Question"]).sample(range(4), 4)
    lines = [f"{letter}) {choices[place]}" for letter, place in zip("ABCD", order, strict=True)]
    return {"problem": "\n".join([row["Question"].strip(), *lines]), "answer": "ABCD"[order.index(0)]}


def _column(row: dict, wanted: str | None, usual: tuple[str, ...], name: str, required: bool) -> str | None:
    if wanted and wanted not in row:
        raise UserError(f"{name}: no column {wanted!r}; it has {', '.join(row)}")
    found = wanted or next((column for column in usual if column in row), None)
    if required and not found:
        raise UserError(f"{name}: none of the columns {', '.join(usual)}; it has {', '.join(row)}: say which is meant")
    return found


def _turns(row: dict) -> list[str]:
    """What was said in turn, in sets of conversations."""
    turns = row.get("conversations") or row.get("messages") or []
    return [turn.get("value") or turn.get("content") or "" for turn in turns if turn.get("role") != "system"]


def _traces(row: dict, column: str | None) -> list[str]:
    """The traces of a row in this course's form, with the thoughts between <think> tags."""
    if column is None:
        return []
    found = row[column]
    if column == "conversations":
        found = _turns(row)[1:2]
    elif isinstance(found, str):
        thoughts = row.get(THOUGHTS.get(column, ""))
        found = [f"{chat.THINK}{thoughts}{chat.THINK_END}{found}" if thoughts else found]
    return [_thinking(text) for text in found or [] if text]


def _thinking(text: str) -> str:
    """Bespoke-Stratos and OpenThoughts mark thoughts with words of their own."""
    for theirs, ours in (("<|begin_of_thought|>", chat.THINK), ("<|end_of_thought|>", chat.THINK_END),
                         ("<|begin_of_solution|>", ""), ("<|end_of_solution|>", "")):
        text = text.replace(theirs, ours)
    return text.strip()


def _gold(text: str) -> str:
    """The final answer in whatever stands in the gold column: after GSM8K's ####, in the last box, or all of it."""
    _, marked, after = text.rpartition("####")
    if marked:
        return after.strip()
    return (verify.extract(text) or "") if "\\boxed" in text else text.strip()
