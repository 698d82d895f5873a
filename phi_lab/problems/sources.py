"""Published sets of problems: well-known ones by name, any dataset of the hub, any file with columns.

A row has a question, a gold answer, and maybe traces: responses that some teacher has already given. Traces are
rollouts, and are verified like any other (`teachers.trace_teacher`). How a row is read: `rows.py`. Rows are streamed,
so a set may be larger than memory. Every set may lie in a folder instead of on the hub:

    phi-lab distill --problems math500 --data DIR --teacher endpoint --teacher-url http://localhost:8000/v1 --out OUT
    phi-lab distill --problems openr1-math --teacher traces --out OUT
"""

import csv
import difflib
import logging
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from phi_lab.core.errors import UserError
from phi_lab.core.formatting import one_line
from phi_lab.problems import rows
from phi_lab.problems.problem import Problem
from phi_lab.problems.rows import USUAL, Columns

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.%\[\]+-]+)?", re.ASCII)
FORMATS = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".gz": "json", ".parquet": "parquet", ".csv": "csv"}
SHARD = re.compile(r"-(\d+)-of-(\d+)\b")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the hub. traces_are_gold: it was published with right traces only and has no other gold answer.
    eval_split: the split that models are evaluated on, where it is not the one that they are trained on. gated: the hub
    gives it to accounts with access only.
    """

    path: str
    split: str = "train"
    config: str | None = None
    traces_are_gold: bool = False
    eval_split: str | None = None
    gated: bool = False


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
    "gpqa-diamond": HubDataset("Idavidrein/gpqa", config="gpqa_diamond", gated=True),
    "limo": HubDataset("GAIR/LIMO"),
    "s1k": HubDataset("simplescaling/s1K-1.1"),
}


def read_problems(
    name: str, folder: Path | None = None, columns: Columns = USUAL, evaluation: bool = False
) -> Iterator[tuple[Problem, list[str]]]:
    """(problem, traces) for every row of a set: a name of `NAMED`, a file or folder, or a dataset of the hub
    ("owner/set:split").

    `evaluation`: the split that models are evaluated on. With `folder`, a set is read from there instead of the hub:
    NAME.jsonl, NAME.parquet, NAME/*, all shards of the wanted split. Rows without a question or an answer are skipped.
    Raises UserError for what cannot be found or read, for a set without a column for the question or the answer, and
    for one whose rows are all skipped.
    """
    dataset = NAMED.get(name)
    if evaluation and dataset and dataset.eval_split:
        dataset = replace(dataset, split=dataset.eval_split)
    found, number, used = None, 0, 0
    for number, row in enumerate(map(rows.with_lettered_choices, _rows(name, dataset, folder)), 1):
        try:
            if found is None:  # the first row's columns are every row's
                found, schema = rows.recognise(row, name, columns, bool(dataset and dataset.traces_are_gold))
            prompt, traces = rows.question_of(row, found.prompt or ""), rows.traces_of(row, found, schema)
            gold = (rows.gold_of(row, found.answer) if found.answer
                    else rows.final_answer(traces[0]) if traces else "")
        except ValueError as error:
            raise UserError(f"{name}, row {number}: {one_line(error)}; name its columns with --prompt-column, "
                            "--answer-column and --trace-column") from None
        if not prompt or not gold:
            continue
        used += 1
        level = row["level"] if isinstance(row.get("level"), int) else 0
        yield Problem(name, "text", level, " ".join(prompt.casefold().split()), prompt, gold), traces
    if not used:
        why = f"none of its {number} rows has both a question and a gold answer" if number else "no row in it"
        raise UserError(f"{name}: {why}")


def require_known(name: str, folder: Path | None) -> None:
    """Raises UserError, at once and without the network, for a set that cannot exist: a file that is missing or empty,
    or a name that is neither known nor of the hub's form.
    """
    if Path(name).suffix in FORMATS and name not in NAMED:
        if not Path(name).is_file():
            raise UserError(f"{name} is {'a folder that is called like a file' if Path(name).is_dir() else 'missing'}")
        if not Path(name).stat().st_size:
            raise UserError(f"{name} is empty")
    elif not (name in NAMED or folder is not None or name and Path(name).is_dir() or HUB_NAME.fullmatch(name)):
        close = difflib.get_close_matches(name, NAMED, 1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"no set {one_line(name, 80)!r}: {meant}Known are {', '.join(NAMED)}; besides, a file that "
                        f"ends in {', '.join(FORMATS)}, a folder of such files, or owner/dataset:split of the hub")


def _rows(name: str, dataset: HubDataset | None, folder: Path | None) -> Iterator[dict]:
    """The rows of a file, of a set in `folder`, or of a dataset on the hub."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    require_known(name, folder)
    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it logs what is raised, and that is told in one line
    paths = None
    if dataset is None and Path(name).suffix in FORMATS:
        paths = [Path(name)]
    elif dataset is None and Path(name).is_dir():
        paths = find_copy(Path(name).resolve().name, None, Path(name).resolve())
    elif folder is not None:
        paths = find_copy(name, dataset, folder)
    elif dataset is None:
        hub_path, _, split = name.partition(":")
        dataset = HubDataset(hub_path, split or "train")
    try:
        if paths and FORMATS[paths[0].suffix] == "csv":
            yield from _csv_rows(paths)
        elif paths:
            files = list(map(str, paths))
            yield from load_dataset(FORMATS[paths[0].suffix], data_files=files, split="train", streaming=True)
        elif dataset:
            yield from load_dataset(dataset.path, dataset.config, split=dataset.split, streaming=True)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError, StopIteration, csv.Error,
            DatasetNotFoundError) as error:
        where = paths[0] if paths else f"{dataset.path if dataset else name} on the hub"
        gate = (f"; only accounts with access get it (https://huggingface.co/datasets/{dataset.path}): leave it out, "
                "which phi-lab run does with --leave-out-gated, or"
                if dataset and dataset.gated and not paths else ";")
        raise UserError(f"{where}: cannot be read ({one_line(error)}){gate} --local-copies DIR reads a copy") from None


def _csv_rows(paths: Iterable[Path]) -> Iterator[dict]:
    """The rows of CSV files, every value as it is written: 007 stays 007."""
    csv.field_size_limit(2**31 - 1)  # of a trace
    for path in paths:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            yield from csv.DictReader(lines, restkey="rest")


def find_copy(name: str, dataset: HubDataset | None, folder: Path) -> list[Path]:
    """The files of a set in a folder of local copies: NAME.ENDING, or all shards of the wanted configuration and split
    in the folder NAME, which `folder` itself may be, or in one that is called as the set is on the hub.

    Raises UserError where there are none, where shards are missing, and for several configurations of which none is
    the wanted one.
    """
    names = {name, dataset.path.rpartition("/")[2]} if dataset else {name}
    files = sorted(path for path in folder.glob("**/*") if path.suffix in FORMATS and path.is_file())
    single = [path for path in files if SHARD.sub("", path.name.split(".")[0]) in names]
    inside = [path for path in files if names & {folder.name, *path.relative_to(folder).parts[:-1]}]
    if single:
        return _whole([path for path in single if (path.parent, path.suffix) == (single[0].parent, single[0].suffix)])
    if not inside:
        raise UserError(f"{folder}: no {name}.jsonl, {name}.parquet or folder {name} in it")
    parents = sorted({path.parent for path in inside})
    wanted = [parent for parent in parents if dataset and parent.name == dataset.config]
    if len(parents) > 1 and not wanted:
        raise UserError(f"{folder}: {name} has several configurations, {', '.join(path.name for path in parents)}; "
                        f"name the one that is meant, as in --problems {parents[0]}")
    inside = [path for path in inside if path.parent == (wanted or parents)[0]]
    return _whole(_of_split([path for path in inside if path.suffix == inside[0].suffix], dataset))


def _of_split(paths: list[Path], dataset: HubDataset | None) -> list[Path]:
    """The files of the wanted split, "train" for a set of one's own; all of them where none is named after a split.

    Raises UserError where the wanted one is not there and several others are.
    """
    wanted = dataset.split if dataset else "train"
    of = {split: [path for path in paths if split in re.split("[-._]", path.name)] for split in {wanted, *SPLITS}}
    there = sorted(split for split, files in of.items() if files)
    if wanted not in there and len(there) > 1:
        raise UserError(f"{paths[0].parent}: no file of the split {wanted}, only of {', '.join(there)}")
    return of[wanted] or (of[there[0]] if there else paths)


def _whole(paths: list[Path]) -> list[Path]:
    """The files, if none of a set's shards is missing."""
    for path in paths:
        shard = SHARD.search(path.name)
        if shard and int(shard[2]) != len(paths):
            raise UserError(f"{path.parent}: {len(paths)} of {int(shard[2])} shards; copy the others beside them")
    return paths
