"""Rollouts on disk, sixteen thousand or ten million: sampled, verified, saved; none lost, none twice.

Problems are taken in groups of 250; the rollouts of a group form one shard. While a shard is open, every answer is
appended to its journal the moment it arrives. When the last one is there, all are verified, sorted by problem, and
written as Parquet, whole or not at all; then the journal is deleted. So a kill costs at most the answers on their way
(of a model here: those to one shard), and however often it happens, the same answers give the same bytes.

    rollouts/manifest.json      teacher, seed and temperature; a command with others is refused
    rollouts/000000.parquet     a complete shard        rollouts/000001.jsonl       the journal of an open one
    phi-lab query runs/d "select verdict, count(*) from rollouts group by 1"       (`query`, by DuckDB)
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from phi_lab.core.errors import UserError
from phi_lab.core.files import append_text, atomic_write, ensure_same_manifest, read_journal
from phi_lab.core.formatting import one_line
from phi_lab.core.locks import locked
from phi_lab.core.progress import Bar
from phi_lab.core.records import Rollout
from phi_lab.model import chat
from phi_lab.problems import Problem
from phi_lab.verify import Verdict, verify_many

PROBLEMS_PER_SHARD = 250
ANSWERS = ("*.parquet", "*.jsonl")  # files that hold some
UNFINISHED = Verdict("unfinished", None, "cut at the limit")
SCHEMA = pa.schema({
    "id": pa.string(), "domain": pa.string(), "level": pa.int32(), "split": pa.string(), "prompt": pa.string(),
    "answer": pa.string(), "sample": pa.int32(), "completion": pa.string(), "verdict": pa.string(),
    "finish_reason": pa.string(), "tokens": pa.int32(), "teacher": pa.string(), "temperature": pa.float64(),
    "seed": pa.int64(),
})
LOCKED: dict[str, Any] = dict.fromkeys((  # of DuckDB: SQL reaches nothing but its table
    "enable_external_access", "autoinstall_known_extensions", "autoload_known_extensions",
    "python_enable_replacements"), False)
NO_ROLLOUTS = "no finished rollouts; `phi-lab distill` makes them"

SampleKey = tuple[int, int]  # index of the problem within its shard, number of the sample


class Answer(NamedTuple):
    """One sampled answer. finish_reason: "stop", "length", or "refused" by an endpoint. tokens: the end included."""

    text: str
    finish_reason: str
    tokens: int


@dataclass
class RolloutShard:
    """The rollouts of up to `PROBLEMS_PER_SHARD` problems: a journal while answers arrive, then a Parquet file.

    first: index of its first problem in the whole list. pending: what has no answer yet. tick: advances the bar.
    """

    problems: list[Problem]
    first: int
    path: Path
    pending: list[SampleKey]
    answers: dict[SampleKey, Answer] = field(default_factory=dict)
    unasked: dict[SampleKey, Answer] = field(default_factory=dict)  # of a time when more was asked
    tick: Callable[[int], object] = lambda count: None

    @property
    def journal(self) -> Path:
        return self.path.with_suffix(".jsonl")

    def add(self, key: SampleKey, answer: Answer) -> None:
        """Append one answer to the journal."""
        append_text(self.journal, _journal_line(key, answer))
        self.answers[key] = answer
        self.pending.remove(key)

    def save(self, source: dict, strict: bool) -> None:
        """Verify all answers and write the Parquet file; `source`: teacher, temperature and seed, part of every row."""
        answers = [(self.problems[key[0]], key[1], *answer) for key, answer in sorted(self.answers.items())]
        verdicts = verify_many([(text, problem.answer) for problem, _, text, _, _ in answers], strict=strict)
        if strict:
            verdicts = [UNFINISHED if _cut_in_thought(answers[number]) else verdict
                        for number, verdict in enumerate(verdicts)]
        rows = cast(list[Rollout], [
            {
                **problem.row(), "split": problem.split, "sample": sample, "completion": text,
                "verdict": verdict.verdict, "finish_reason": reason, "tokens": tokens, **source,
            }
            for (problem, sample, text, reason, tokens), verdict in zip(answers, verdicts, strict=True)
        ])
        write(self.path, rows)
        _rewrite(self.journal, self.unasked)  # those were paid for, and are wanted when as much is asked again


def _cut_in_thought(answer: tuple[Problem, int, str, str, int]) -> bool:
    """Whether an answer was cut before any thought of it ended. Nobody can tell a plain answer from a thought whose
    opening tag a chat template wrote, and a thought may name the gold answer anywhere.
    """
    return answer[3] == "length" and chat.THINK_END not in answer[2]


Deliver = Callable[[RolloutShard, SampleKey, Answer], None]
# teacher(shards, deliver): calls deliver(shard, key, answer) for each pending key of every shard, in any order
Teacher = Callable[[Iterable[RolloutShard], Deliver], None]


def collect_rollouts(
    teacher: Teacher, problems: Iterable[Problem], out: Path, *, name: str, samples: int | Callable[[Problem], int],
    temperature: float, seed: int, part: tuple[int, int] = (0, 1), strict: bool = True,
    why: Callable[[], str] = lambda: "the same command asks for them again",
) -> None:
    """Let the teacher called `name` answer every problem `samples` times; save verified rollouts in shards under `out`.

    Answers that are there already are not sampled again. `part` (r, n): only every n-th shard, from the r-th on, for
    one of n processes that share `out`. `strict`: as `verify` takes it; False only for public benchmarks. Raises
    UserError when `out` holds rollouts of another teacher, seed or temperature, for a broken journal, and at the end
    when some problems got no answer: `why` says why.
    """
    source = {"teacher": name, "temperature": temperature, "seed": seed}
    manifest = {**source, "samples": None if callable(samples) else samples}
    total = None  # of rollouts; not known for a set that is streamed
    if isinstance(problems, Sequence) and not callable(samples):
        total = len(problems) * samples // part[1]
    with (
        locked(out, part),
        Bar(total, f"rollouts, {name}", "rollout") as bar,
        ThreadPoolExecutor(1) as writer,  # verifying one shard must not hold up the answers to the next
    ):
        ensure_same_manifest(out / "manifest.json", manifest, f"choose another folder or delete {out}", of=ANSWERS)
        samples_of = samples if callable(samples) else lambda _: samples
        collection = _Collection(out, samples_of, source, strict, bar.update, writer)
        teacher(collection.open_shards(problems, part), collection.deliver)
        for saving in collection.savings:
            saving.result()
    if lost := sum(len(shard.pending) for shard in collection.incomplete.values()):
        raise UserError(f"{out}: {lost} rollouts were not answered; {why()}")


@dataclass
class _Collection:
    """The shards between a teacher and the disk."""

    out: Path
    samples_of: Callable[[Problem], int]
    source: dict
    strict: bool
    tick: Callable[[int], object]
    writer: ThreadPoolExecutor
    savings: list[Future] = field(default_factory=list)
    incomplete: dict[Path, RolloutShard] = field(default_factory=dict)

    def open_shards(self, problems: Iterable[Problem], part: tuple[int, int]) -> Iterator[RolloutShard]:
        """The shards of this process that lack answers, one after another."""
        remaining = iter(problems)
        for number in count():
            if not (group := list(islice(remaining, PROBLEMS_PER_SHARD))):
                return
            if number % part[1] != part[0]:
                continue
            shard = _open_shard(group, number, self.samples_of, self.out)
            if shard is None:
                self.tick(sum(map(self.samples_of, group)))
                continue
            self.tick(len(shard.answers))
            shard.tick = self.tick
            if shard.pending:
                self.incomplete[shard.path] = shard
                yield shard
            else:  # killed between the last answer and the Parquet file
                self._save(shard)

    def deliver(self, shard: RolloutShard, key: SampleKey, answer: Answer) -> None:
        for saving in self.savings:
            if saving.done():
                saving.result()  # raises now if the disk is full
        shard.add(key, answer)
        if not shard.pending:
            del self.incomplete[shard.path]
            self._save(shard)

    def _save(self, shard: RolloutShard) -> None:
        self.savings.append(self.writer.submit(shard.save, self.source, self.strict))


def _open_shard(
    problems: list[Problem], number: int, samples_of: Callable[[Problem], int], out: Path
) -> RolloutShard | None:
    """A shard with the answers that it has so far, or None where it is complete."""
    path = out / f"{number:06d}.parquet"
    journal = path.with_suffix(".jsonl")
    asked = {(index, sample): None for index, problem in enumerate(problems) for sample in range(samples_of(problem))}
    saved = _read(path) if path.exists() else []  # incomplete where less was asked last time
    places = enumerate(dict.fromkeys(row["id"] for row in saved))
    index_of = {name: place for place, name in places if place >= len(problems)}  # of questions not asked now
    index_of |= {problem.id: index for index, problem in enumerate(problems)}
    answers = {(index_of[row["id"]], row["sample"]): Answer(row["completion"], row["finish_reason"], row["tokens"])
               for row in saved if row["id"] in index_of}
    if saved and {key for key in answers if key[0] < len(problems)} == asked.keys():
        if journal.exists():  # killed between writing the Parquet file and removing what it holds
            _rewrite(journal, {key: rest for key, rest in _read_answers(journal).items() if key not in answers})
        return None
    shard = RolloutShard(problems, number * PROBLEMS_PER_SHARD, path, [])
    for key, answer in (answers | _read_answers(journal)).items():
        (shard.answers if key in asked else shard.unasked)[key] = answer
    shard.pending = [key for key in asked if key not in shard.answers]
    return shard


def _journal_line(key: SampleKey, answer: Answer) -> str:
    return json.dumps([*key, *answer]) + "\n"


def _rewrite(journal: Path, answers: dict[SampleKey, Answer]) -> None:
    """Let the journal hold these answers and no others; without any there is no journal."""
    if answers:
        atomic_write(journal, "".join(_journal_line(*item) for item in answers.items()).encode())
    else:
        journal.unlink(missing_ok=True)


def _read_answers(journal: Path) -> dict[SampleKey, Answer]:
    answers = {}
    for number, line in enumerate(read_journal(journal), 1):
        try:
            index, sample, text, reason, tokens = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            raise UserError(f"{journal}, line {number}: not an answer of the teacher; delete that line") from None
        answers[index, sample] = Answer(text, reason, tokens)
    return answers


def write(path: Path, rows: list[Rollout]) -> None:
    """Write rollouts as Parquet, whole or not at all; the same rows give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:  # a lone surrogate has no bytes in UTF-8
        row["completion"] = row["completion"].encode("utf-8", "replace").decode()
    content = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), content, compression="zstd")
    atomic_write(path, content.getvalue().to_pybytes())


def _read(path: Path) -> list[Rollout]:
    """The rollouts of a complete shard. Raises UserError where the file is damaged."""
    try:
        return cast(list[Rollout], pq.read_table(path).select(SCHEMA.names).to_pylist())
    except (pa.ArrowException, KeyError, OSError) as error:
        reason = one_line(error, 80)
        raise UserError(f"{path} is damaged ({reason}); delete it to have its rollouts made again") from None


def rows(folder: Path, questions: int | None = None) -> Iterator[Rollout]:
    """The rollouts of the complete shards in a folder, of the first `questions` questions or of all; one shard in
    memory at a time.

    Raises UserError where there are none.
    """
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise UserError(f"{folder}: {NO_ROLLOUTS}")
    everything = (row for path in paths for row in _read(path))
    for number, (_, group) in enumerate(groupby(everything, key=lambda row: row["id"])):
        if number == questions:
            return
        yield from group


def query(folder: Path, sql: str) -> list[dict]:
    """The rows of one SELECT of DuckDB's over a folder's complete shards, the table `rollouts`; of two columns of one
    name the second is called name_2. It sees that table and nothing else: no file, network, extension or setting.

    Raises UserError where there are none, and for SQL that DuckDB rejects.
    """
    import duckdb
    from pyarrow import dataset

    paths = sorted(map(str, folder.glob("*.parquet")))
    if not paths:
        raise UserError(f"{folder}: {NO_ROLLOUTS}")
    with duckdb.connect(config=LOCKED) as memory:
        try:
            memory.register("rollouts", dataset.dataset(paths))  # read by Arrow, so that DuckDB needs no file at all
            memory.execute("set lock_configuration = true")
            sql = sql.encode("utf-8", "replace").decode()  # an argument of the shell may be no text
            if [statement.type.name for statement in duckdb.extract_statements(sql)] != ["SELECT"]:
                raise UserError(f"{folder}: query takes one SELECT statement, and changes nothing")
            result = memory.execute(sql)
            names: list[str] = []
            for name, *_ in result.description:
                alike = (name, *(f"{name}_{number}" for number in range(2, 999)))
                names.append(next(each for each in alike if each not in names))
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise UserError(f"{folder}: {one_line(error, 300)}") from None
