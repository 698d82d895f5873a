"""Published sets of problems: well-known ones by name, any dataset of the hub, any file with columns.

A row has a question, a gold answer, and maybe traces: responses that some teacher has already given. Traces are
rollouts, and are verified like any other (`teachers.from_traces`). Columns are found by their usual names; `Columns`
names those that are called otherwise. Rows are streamed, so a set may be larger than memory. Every set may lie in a
folder instead of on the hub:

    phi-lab distill --problems math500 --data DIR --teacher endpoint --teacher-url http://localhost:8000/v1 --out OUT
    phi-lab distill --problems openr1-math --teacher traces --out OUT
"""

import difflib
import logging
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from phi_lab import verify
from phi_lab.core.errors import UserError
from phi_lab.core.formatting import one_line
from phi_lab.model import chat
from phi_lab.problems.problem import Problem

PROMPTS = ("problem", "question", "prompt")
ANSWERS = ("answer", "final_answer", "correct", "ground_truth_solution", "solution")
TRACES = ("generations", "traces", "conversations", "deepseek_solution", "deepseek_attempt", "completion", "solution")
THOUGHTS = {"deepseek_solution": "deepseek_reasoning", "deepseek_attempt": "deepseek_thinking_trajectory"}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.%\[\]+-]+)?", re.ASCII)
FORMATS = {".jsonl": "json", ".json": "json", ".gz": "json", ".parquet": "parquet"}
THOUGHT_MARKS = (("<|begin_of_thought|>", chat.THINK), ("<|end_of_thought|>", chat.THINK_END),
                 ("<|begin_of_solution|>", ""), ("<|end_of_solution|>", ""))  # of Bespoke-Stratos and OpenThoughts


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub. traces_are_gold: it was published with right traces only and has no other gold answer.
    eval_split: the split that models are evaluated on, where it is not the one that they are trained on.
    """

    path: str
    split: str = "train"
    config: str | None = None
    traces_are_gold: bool = False
    eval_split: str | None = None


NAMED = {
    "gsm8k": HubDataset("openai/gsm8k", "train", "main", eval_split="test"),
    "math500": HubDataset("HuggingFaceH4/MATH-500", "test"),
    "aime24": HubDataset("HuggingFaceH4/aime_2024"),
    "aime25": HubDataset("math-ai/aime25", "test"),
    "amc23": HubDataset("math-ai/amc23", "test"),
    "olympiadbench": HubDataset("math-ai/olympiadbench", "test"),
    "aqua-rat": HubDataset("deepmind/aqua_rat", "train", "raw"),
    "openr1-math": HubDataset("open-r1/OpenR1-Math-220k", "train", "default"),
    "openthoughts": HubDataset("open-thoughts/OpenThoughts-114k", "train", "metadata"),
    "bespoke-stratos": HubDataset("bespokelabs/Bespoke-Stratos-17k", traces_are_gold=True),
    "gpqa-diamond": HubDataset("Idavidrein/gpqa", config="gpqa_diamond"),  # needs an account with access to it
    "limo": HubDataset("GAIR/LIMO"),
    "s1k": HubDataset("simplescaling/s1K-1.1"),
}


@dataclass(frozen=True)
class Columns:
    """The columns of question, answer and traces, where their names are not the usual ones."""

    prompt: str | None = None
    answer: str | None = None
    traces: str | None = None


def read_problems(
    name: str, folder: Path | None = None, columns: Columns = Columns(), evaluation: bool = False
) -> Iterator[tuple[Problem, list[str]]]:
    """(problem, traces) for every row of a set: a name of `NAMED`, a file, or a dataset of the hub ("owner/set:split").

    `evaluation`: the split that models are evaluated on. With `folder`, a set is read from there instead of the hub:
    NAME.jsonl, NAME.parquet, NAME/*, or one such file below. Rows without a question or an answer are skipped.
    Raises UserError for what cannot be found or read, and for a set without a column for the question or the answer.
    """
    dataset = NAMED.get(name)
    if evaluation and dataset and dataset.eval_split:
        dataset = replace(dataset, split=dataset.eval_split)
    found = None
    for row in map(_with_lettered_choices, _rows(name, dataset, folder)):
        if found is None:  # the first row's columns are every row's
            found = Columns(
                _column(row, columns.prompt, PROMPTS, name, required=not _turns(row)),
                _column(row, columns.answer, ANSWERS, name, required=not (dataset and dataset.traces_are_gold)),
                _column(row, columns.traces, TRACES, name, required=False),
            )
        prompt = row[found.prompt] if found.prompt else _turns(row)[0]
        traces = _traces(row, found.traces)
        answer = row[found.answer] if found.answer else traces[0] if traces else None
        if not prompt or answer is None or not (gold := _final_answer(str(answer))):
            continue
        prompt = "\n".join([prompt.strip(), *(row.get("options") or [])])
        level = row["level"] if isinstance(row.get("level"), int) else 0
        yield Problem(name, "text", level, " ".join(prompt.casefold().split()), prompt, gold), traces
    if found is None:
        raise UserError(f"{name}: no row in it")


def require_known(name: str, folder: Path | None) -> None:
    """Raises UserError, at once and without the network, for a set that cannot exist: a file that is missing, or a
    name that is neither known nor of the hub's form.
    """
    if name in NAMED or folder is not None:
        return
    if Path(name).suffix in FORMATS:
        if not Path(name).is_file():
            raise UserError(f"{name} is missing")
        if not Path(name).stat().st_size:
            raise UserError(f"{name} is empty")
    elif not HUB_NAME.fullmatch(name):
        close = difflib.get_close_matches(name, NAMED, 1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"no set {one_line(name, 80)!r}: {meant}Known are {', '.join(NAMED)}; besides, a .jsonl or "
                        ".parquet file, or owner/dataset:split of the hub")


def _rows(name: str, dataset: HubDataset | None, folder: Path | None) -> Iterator[dict]:
    """The rows of a file, of a set in `folder`, or of a dataset on the hub."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    require_known(name, folder)
    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it logs what is raised, and that is told in one line
    path = Path(name) if dataset is None and Path(name).suffix in FORMATS else None
    if folder is not None and path is None:
        path = _find_copy(name, dataset, folder)
    if path is None and dataset is None:
        hub_path, _, split = name.partition(":")
        dataset = HubDataset(hub_path, split or "train")
    if path and not path.is_file():
        raise UserError(f"{path} is missing")
    try:
        if path:
            yield from load_dataset(FORMATS[path.suffix], data_files=str(path), split="train", streaming=True)
        elif dataset:
            yield from load_dataset(dataset.path, dataset.config, split=dataset.split, streaming=True)
    except (OSError, ValueError, RecursionError, StopIteration, DatasetNotFoundError) as error:
        where = path or f"{dataset.path if dataset else name} on the hub"
        raise UserError(f"{where}: cannot be read ({one_line(error)}); --local-copies DIR reads a copy") from None


def _find_copy(name: str, dataset: HubDataset | None, folder: Path) -> Path:
    """The file of a set in a folder of local copies: that of the wanted split if there are several."""
    paths = sorted(
        path for path in folder.glob("**/*")
        if path.suffix in FORMATS and name in (path.name.split(".")[0], path.parent.name)
    )
    if not paths:
        raise UserError(f"{folder}: no {name}.jsonl, {name}.parquet or folder {name} in it")
    return min(paths, key=lambda path: dataset is None or dataset.split not in path.name)


def _with_lettered_choices(row: dict) -> dict:
    """GPQA's rows hold one right and three wrong answers: choices A to D, in an order that depends on the question."""
    if "Correct Answer" not in row:
        return row
    names = ("Correct Answer", *(f"Incorrect Answer {number}" for number in (1, 2, 3)))
    choices = [str(row[name]).strip() for name in names]
    order = random.Random(row["Question"]).sample(range(4), 4)
    lines = [f"{letter}) {choices[place]}" for letter, place in zip("ABCD", order, strict=True)]
    return {"problem": "\n".join([row["Question"].strip(), *lines]), "answer": "ABCD"[order.index(0)]}


def _column(row: dict, named: str | None, usual: tuple[str, ...], set_name: str, required: bool) -> str | None:
    """The column that the user named, or the first with a usual name."""
    if named and named not in row:
        raise UserError(f"{set_name}: no column {named!r}; it has {', '.join(row)}")
    column = named or next((column for column in usual if column in row), None)
    if required and not column:
        raise UserError(
            f"{set_name}: none of the columns {', '.join(usual)}; it has {', '.join(row)}: say which is meant"
        )
    return column


def _turns(row: dict) -> list[str]:
    """The texts of a conversation without its system prompt; empty where a row holds none."""
    turns = row.get("conversations") or row.get("messages") or []
    return [turn.get("value") or turn.get("content") or "" for turn in turns if turn.get("role") != "system"]


def _traces(row: dict, column: str | None) -> list[str]:
    """The traces of a row in this course's form, with the thoughts between <think> tags."""
    if column is None:
        return []
    traces = row[column]
    if column == "conversations":
        traces = _turns(row)[1:2]
    elif isinstance(traces, str):
        thoughts = row.get(THOUGHTS.get(column, ""))
        traces = [f"{chat.THINK}{thoughts}{chat.THINK_END}{traces}" if thoughts else traces]
    return [_with_think_tags(text) for text in traces or [] if text]


def _with_think_tags(text: str) -> str:
    for mark, tag in THOUGHT_MARKS:
        text = text.replace(mark, tag)
    return text.strip()


def _final_answer(text: str) -> str:
    """The final answer in a gold column: what follows GSM8K's ####, the last box, or all of it."""
    _, marker, after = text.rpartition("####")
    if marker:
        return after.strip()
    return (verify.extract(text) or "") if "\\boxed" in text else text.strip()
