"""Rollouts on disk, sixteen thousand or ten million: asked, written down, verified, none lost, none twice.

Questions are taken in chunks; a chunk's rollouts end up in one Parquet shard. While a chunk is being answered, every
answer is appended to its journal the moment it arrives. When the last one is there, all are verified, put in the order
of the questions, and written as a shard, whole or not at all; then the journal goes. So a kill at any moment costs at
most the answers that were still on their way, and the shards do not depend on how often it happened: the same answers
give the same bytes.

    rollouts/manifest.json      whose answers these are; another teacher, seed or temperature is refused
    rollouts/000000.parquet     finished        rollouts/000001.jsonl       in work

Looking into them goes through DuckDB: `shards.query`, or

    phi-lab query runs/d "select verdict, count(*) from rollouts group by 1"
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, groupby, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from phi_lab.core.errors import UserError
from phi_lab.core.files import ensure_same_manifest
from phi_lab.core.progress import Bar
from phi_lab.problems.problem import Problem
from phi_lab.verify import verify_many

CHUNK = 250  # questions a shard
COLUMNS = {
    "id": pa.string(), "domain": pa.string(), "level": pa.int32(), "split": pa.string(), "prompt": pa.string(),
    "answer": pa.string(), "sample": pa.int32(), "completion": pa.string(), "verdict": pa.string(),
    "finish_reason": pa.string(), "tokens": pa.int32(), "teacher": pa.string(), "temperature": pa.float64(),
    "seed": pa.int64(),
}
SCHEMA = pa.schema(COLUMNS)
NONE = "no finished rollouts; `phi-lab distill` makes them"

SampleKey = tuple[int, int]  # question within its chunk, sample
Answer = tuple[str, str, int]  # text, finish_reason ("stop" or "length"), tokens


@dataclass
class Chunk:
    """Questions to ask together. `missing`: the (question, sample) places that have no answer yet."""

    problems: list[Problem]
    first: int  # place of the first question in the whole list
    missing: list[SampleKey]
    journal: Path
    answers: dict[SampleKey, Answer] = field(default_factory=dict)
    tick: Callable[[int], object] = lambda count: None  # for the bar: so many more are being handed on


# teacher(chunks, done): for every chunk, done(chunk, place, answer) for each of its missing places, in any order
Teacher = Callable[[Iterable[Chunk], Callable[[Chunk, SampleKey, Answer], None]], None]


def collect_rollouts(
    teacher: Teacher, asked: Iterable[Problem], out: Path, *, name: str, samples: int | Callable[[Problem], int],
    temperature: float, seed: int, part: tuple[int, int] = (0, 1), strict: bool = True,
) -> None:
    """Have every question answered `samples` times and verified, in shards under `out`; finished ones are not asked
    again. `part` (r, n): only every n-th chunk, from the r-th on, for one of n processes that share `out`.
    `strict`: as `verify` takes it; only a public benchmark is measured without.

    Raises UserError when `out` holds another teacher's, seed's or temperature's rollouts, for a broken journal, and at
    the end when some questions got no answer: the same command asks those again.
    """
    many = samples if callable(samples) else lambda _: samples
    common = {"teacher": name, "temperature": temperature, "seed": seed}
    whose = {**common, "samples": None if callable(samples) else samples}
    ensure_same_manifest(out / "manifest.json", whose, f"choose another folder or delete {out}")
    total = len(asked) * samples // part[1] if isinstance(asked, Sequence) and not callable(samples) else None
    with (
        Bar(total, f"rollouts, {name}", "rollout") as bar,
        ThreadPoolExecutor(1) as finisher,  # verifying one shard must not hold up the answers to the next
    ):
        writing, open_chunks = [], {}

        def chunks() -> Iterator[Chunk]:
            questions = iter(asked)
            for number in count():
                for shard in writing:
                    if shard.done():
                        shard.result()  # a full disk ends it now
                if not (problems := list(islice(questions, CHUNK))):
                    return
                if number % part[1] != part[0]:
                    continue
                chunk = _open(problems, number, many, out)
                if chunk is None:
                    bar.update(sum(map(many, problems)))
                    continue
                bar.update(len(chunk.answers))
                chunk.tick = bar.update
                if chunk.missing:
                    open_chunks[number] = chunk
                    yield chunk
                else:  # killed between the last answer and the shard
                    writing.append(finisher.submit(_finish, chunk, common, strict))

        def done(chunk: Chunk, place: SampleKey, answer: Answer) -> None:
            with chunk.journal.open("a", encoding="utf-8") as journal:
                journal.write(json.dumps([*place, *answer]) + "\n")
            chunk.answers[place] = answer
            chunk.missing.remove(place)
            if not chunk.missing:
                del open_chunks[chunk.first // CHUNK]
                writing.append(finisher.submit(_finish, chunk, common, strict))

        teacher(chunks(), done)
        for shard in writing:
            shard.result()
    if open_chunks:
        lost = sum(len(chunk.missing) for chunk in open_chunks.values())
        raise UserError(f"{out}: {lost} rollouts were not answered; the same command asks for them again")


def _open(problems: list[Problem], number: int, many: Callable[[Problem], int], out: Path) -> Chunk | None:
    """What is left to ask of a chunk, or None where its shard is finished."""
    shard, answers = out / f"{number:06d}.parquet", {}
    places = [(place, sample) for place, problem in enumerate(problems) for sample in range(many(problem))]
    if shard.exists():  # with fewer questions, when more are asked than last time
        where = {problem.id: question for question, problem in enumerate(problems)}
        rows = pq.read_table(shard).to_pylist()
        answers = {(where[row["id"]], row["sample"]): (row["completion"], row["finish_reason"], row["tokens"])
                   for row in rows if row["id"] in where}
        if len(answers) == len(places):
            return None
    journal = out / f"{number:06d}.jsonl"
    answers |= _read_journal(journal)
    missing = [place for place in places if place not in answers]
    return Chunk(problems, number * CHUNK, missing, journal, answers)


def _read_journal(path: Path) -> dict[SampleKey, Answer]:
    """The answers in a journal; a last line that a kill cut short is taken away."""
    content, answers = path.read_bytes() if path.exists() else b"", {}
    *whole, rest = content.split(b"\n")
    if rest:
        os.truncate(path, len(content) - len(rest))
    for number, line in enumerate(whole, 1):
        try:
            question, sample, text, reason, tokens = json.loads(line)
        except ValueError:
            raise UserError(f"{path}, line {number}: not an answer of the teacher; delete that line") from None
        answers[question, sample] = (text, reason, tokens)
    return answers


def _finish(chunk: Chunk, common: dict, strict: bool) -> None:
    """Verify a chunk's answers and write them as its shard."""
    answered = [
        (chunk.problems[question], sample, *answer) for (question, sample), answer in sorted(chunk.answers.items())
    ]
    verdicts = verify_many([(text, problem.answer) for problem, _, text, _, _ in answered], strict=strict)
    rows = [
        {
            **problem.row(), "split": problem.split, "sample": sample, "completion": text, "verdict": verdict.verdict,
            "finish_reason": reason, "tokens": tokens, **common,
        }
        for (problem, sample, text, reason, tokens), verdict in zip(answered, verdicts, strict=True)
    ]
    write(chunk.journal.with_suffix(".parquet"), rows)
    chunk.journal.unlink(missing_ok=True)


def write(path: Path, rows: list[dict]) -> None:
    """Write rows as Parquet, whole or not at all; the same rows give the same bytes."""
    beside = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:  # a lone surrogate has no bytes in UTF-8
        row["completion"] = row["completion"].encode("utf-8", "replace").decode()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), beside, compression="zstd")
    os.replace(beside, path)


def rows(folder: Path, questions: int | None = None) -> Iterator[dict]:
    """The finished rollouts of the first `questions` questions, or of all, a shard in memory at a time.

    Raises UserError where there are none.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise UserError(f"{folder}: {NONE}")
    everything = (row for path in paths for row in pq.read_table(path).to_pylist())
    for number, (_, group) in enumerate(groupby(everything, key=lambda row: row["id"])):
        if number == questions:
            return
        yield from group


def query(folder: Path, sql: str) -> list[dict]:
    """Rows of a DuckDB query over the finished rollouts, whose table is called `rollouts`. Raises UserError where there
    are none, and for SQL that DuckDB turns down.
    """
    import duckdb

    if not list(folder.glob("*.parquet")):
        raise UserError(f"{folder}: {NONE}")
    with duckdb.connect() as memory:
        memory.read_parquet(f"{folder}/*.parquet").create_view("rollouts")
        try:
            found = memory.execute(sql)
        except duckdb.Error as error:
            raise UserError(f"{folder}: {' '.join(str(error).split())[:300]}") from None
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
