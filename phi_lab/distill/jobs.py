"""A whole distillation, from the options of `phi-lab distill` to training sets.

phi-lab distill --questions 200 --out runs/d                                      # the small world, its teacher
phi-lab distill --problems gsm8k --teacher endpoint --teacher-url URL --teacher-model NAME --out runs/gsm8k
phi-lab distill --problems openr1-math --teacher traces --tokenizer microsoft/Phi-4-mini-instruct --out runs/openr1
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

from phi_lab.config.schema import INSTRUCTION, DistillationConfig
from phi_lab.core import redaction
from phi_lab.core.endpoint import Endpoint
from phi_lab.core.errors import UserError
from phi_lab.core.files import ensure_same_manifest, read_json, write_json
from phi_lab.core.formatting import one_line
from phi_lab.core.locks import locked
from phi_lab.core.paths import TEACHER
from phi_lab.core.records import Rollout
from phi_lab.distill import shards, teachers
from phi_lab.distill.decontamination import BenchmarkIndex
from phi_lab.distill.funnel import Funnel, Rules
from phi_lab.distill.spending import Spending
from phi_lab.distill.training_sets import write_training_sets
from phi_lab.problems import Problem, arithmetic, benchmarks, sources
from phi_lab.report import figures
from phi_lab.verify import extract
from phi_lab.verify.judge import Judge, babble_line, cached, second_opinions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TEACHERS = ("model", "script", "endpoint", "traces")
WRITTEN = ("rollouts", "right.jsonl", "wrong.jsonl", "funnel.json", "sets.json", "funnel.png", "README.md")
WITH_TOKENIZER = ("endpoint", "traces")  # teachers whose answers come as text, without a count of tokens


@dataclass(frozen=True)
class DistillationJob:
    """What to distil, from which teacher, and how strictly to filter."""

    out: Path
    config: DistillationConfig
    seed: int = 0
    teacher: str = "model"  # one of TEACHERS
    model: Path | None = None  # of the teacher "model"; None: the shipped one
    engine: str | None = None  # that samples it; None: the one that its architecture needs
    endpoint: Endpoint | None = None
    instruction: str = INSTRUCTION  # stands before every question to an endpoint
    tokenizer: str = ""  # counts the answers' tokens: `teachers.load_tokenizer`
    spending: Spending = field(default_factory=Spending)
    problems: str = "world"  # the small world, or what `sources.read_problems` takes
    local_copies: Path | None = None  # folder with published sets
    columns: sources.Columns = sources.Columns()
    judge: Judge | None = None  # second opinion on what the verifier rejects
    rules: Rules = Rules()
    decontaminate_against: Sequence[str] = ()  # published sets, besides the lab's own benchmarks
    command: Sequence[str] = ()  # for the dataset card
    force: bool = False  # let fewer questions shrink a finished set


def run_job(
    job: DistillationJob, say: Callable[[str], None] = print,
    sample: Callable[[DistillationJob], None] | None = None,
) -> dict:
    """Sample, verify, filter, write training sets; returns the funnel's report. A stopped job continues.

    `sample`: `cluster.sample_rollouts` for many processes. Raises UserError as `sample_rollouts` and sources do, and
    where another process works in the folder.
    """
    _check_out(job)
    index = BenchmarkIndex(_benchmark_questions(job))  # first: an unknown name should cost no request
    with locked(job.out):
        if job.teacher == "endpoint" and job.endpoint:
            say(_sent(job, job.endpoint))
            job.spending.continue_in(job.out)
        (sample or partial(sample_rollouts, say=say))(job)
        return _write_sets(job, index, say)


def _write_sets(job: DistillationJob, index: BenchmarkIndex, say: Callable[[str], None]) -> dict:
    """Filter what was sampled, and write training sets and card."""
    about = f"Teacher: {_teacher_name(job)}. Problems: {job.problems}."
    about += f" Made by `{shlex.join(['phi-lab', *redaction.public_command(job.command)])}`."
    if job.teacher == "endpoint" and job.endpoint:
        served = _note_served(job, job.endpoint.redact)
        about = job.endpoint.redact(f"{about} {_sent(job, job.endpoint)} {served}").strip()
    if job.spending.requests:
        about += f" {job.spending.summary()}"
        say(job.spending.summary())
    if job.tokenizer:
        about += f" Tokens are those of {job.tokenizer}."
    lengths: Counter[bool] = Counter()
    rows = _count_too_long(shards.rows(job.out / "rollouts", job.config.questions), job.rules.max_tokens, lengths)
    if job.judge:
        about += f" Second opinions: {job.judge.model} at {job.judge.address}"
        about += f", asked with {json.dumps(dict(job.judge.extra_body))}." if job.judge.extra_body else "."
        rows = _with_second_opinions(rows, job.judge, say)
    about += "\n\n![The funnel](funnel.png)"
    funnel = Funnel(job.rules, index)
    report = write_training_sets(rows, job.out, funnel, about)
    for count, fate in ((funnel.state.untagged, "kept; --require-reasoning leaves them out"),
                        (funnel.state.dropped_untagged, "left out; --no-require-reasoning keeps them")):
        if count:
            say(f"{count:,} right answers have their work in plain text and no <think> tags: {fate}")
    figures.funnel(report).savefig(job.out / "funnel.png", dpi=110)
    if job.teacher == "traces" and lengths:
        share, tokenizer = lengths[True] / lengths.total(), job.tokenizer or "the small world's tokenizer"
        say(f"{100 * share:.0f} % of the traces are longer than {job.rules.max_tokens:,} tokens, as {tokenizer} counts")
    return report


def sample_rollouts(
    job: DistillationJob, part: tuple[int, int] = (0, 1), say: Callable[[str], None] = print
) -> None:
    """Sample and verify the rollouts of a job, in shards under `job.out`; `part` as in `shards.collect_rollouts`.

    Raises UserError for an unknown teacher or set, a folder of another job, and as teacher and sources do.
    """
    _check(job)
    tokenizer = teachers.load_tokenizer(job.tokenizer)
    manifest = {"teacher": _teacher_name(job), "problems": job.problems, "seed": job.seed,
                "tokenizer": job.tokenizer or None}
    if job.teacher == "endpoint":
        job.spending.continue_in(job.out, part[0])
        manifest["instruction"] = job.instruction
        if job.endpoint:
            manifest["sampling"] = teachers.sampling_fields(job.endpoint, job.config)
        if job.instruction:
            manifest["instruction_position"] = "before"  # release 0.1 put it behind: such a set is not continued
    answers = [f"rollouts/{pattern}" for pattern in shards.ANSWERS]
    ensure_same_manifest(job.out / "distill.json", manifest, "choose another --out", of=answers)
    traces: dict[str, list[str]] = {}
    most = job.config.samples
    problems = (arithmetic.sample_problems(job.config.questions, job.seed) if job.problems == "world"
                else _read_problems(job, traces, say))
    shards.collect_rollouts(
        _build_teacher(job, traces, tokenizer), problems, job.out / "rollouts", name=job.teacher,
        samples=(lambda problem: min(most, len(traces[problem.id]))) if job.teacher == "traces" else most,
        temperature=job.config.temperature, seed=job.seed, part=part, why=job.spending.why_unanswered,
    )


def _check(job: DistillationJob) -> None:
    if job.teacher not in TEACHERS:
        raise UserError(f"unknown teacher {job.teacher!r}: choose one of {', '.join(TEACHERS)}")
    for endpoint in (job.endpoint if job.teacher == "endpoint" else None, job.judge):
        if endpoint:
            endpoint.require_usable()
    if job.problems != "world":
        sources.require_known(job.problems, job.local_copies)
    if job.teacher == "script" and job.problems != "world":
        raise UserError("the script solves problems of the small world only: choose another --teacher")
    if job.tokenizer and job.teacher not in WITH_TOKENIZER:
        raise UserError(f"--tokenizer counts the tokens of texts: it goes with --teacher {' or '.join(WITH_TOKENIZER)}")


def _check_out(job: DistillationJob) -> None:
    """Raises UserError where the job would write over what is not its own, or drop questions of a finished set."""
    if not (job.out / "distill.json").exists():
        for name in WRITTEN:
            if (job.out / name).exists():
                raise UserError(f"{job.out} has a {name} and no distill.json, so it is no set of phi-lab distill: "
                                "choose another --out")
    funnel = job.out / "funnel.json"
    redo = "delete it, and the same command makes it again"
    questions = read_json(funnel, ("questions",), redo)["questions"] if funnel.exists() else 0
    if questions > job.config.questions and not job.force:
        raise UserError(f"{job.out} is a set of {questions:,} questions, and --questions {job.config.questions} would "
                        "drop the others: choose another --out, or --force")


def _teacher_name(job: DistillationJob) -> str:
    """The teacher in manifest and card; a model's name contains the hash of its weights."""
    if job.teacher == "model":
        from phi_lab.model import checkpoints

        return checkpoints.fingerprint(job.model or TEACHER)
    if job.teacher == "endpoint" and job.endpoint:
        return f"{job.endpoint.model} at {job.endpoint.address}"
    return job.teacher


def _sent(job: DistillationJob, endpoint: Endpoint) -> str:
    """A sentence on what every request says of sampling, and on what it does not say."""
    fields = teachers.sampling_fields(endpoint, job.config)
    said = ", ".join(f"{name} {value}" for name, value in fields.items())
    if "top_k" in fields and "min_p" in fields:
        return f"Sent with each question: {said}."
    return (f"Sent with each question: {said}; the server's own top_k, min_p and repetition penalty apply unless "
            '--extra-body \'{"top_k": 0, "min_p": 0}\' says otherwise, which vLLM and llama.cpp read.')


def _note_served(job: DistillationJob, redact: Callable[[str], str]) -> str:
    """Add what the server called itself to the manifest; returns it as a sentence, empty where it said nothing."""
    path = job.out / "distill.json"
    manifest = read_json(path)
    said = [one_line(redact(name)) for name in job.spending.served]
    served = list(dict.fromkeys([*manifest.get("served", []), *said]))
    if not served:
        return ""
    write_json(path, {**manifest, "served": served})
    return f"Served as {', '.join(served)}."


def _build_teacher(
    job: DistillationJob, traces: dict[str, list[str]], tokenizer: PreTrainedTokenizerFast
) -> shards.Teacher:
    if job.teacher == "model":
        return teachers.model_teacher(job.model or TEACHER, job.config, job.seed, job.engine)
    if job.teacher == "script":
        return teachers.script_teacher(job.config, job.seed)
    if job.teacher == "traces":
        return teachers.trace_teacher(traces, tokenizer)
    if job.endpoint is None:
        raise UserError("--teacher endpoint needs --teacher-url, such as http://localhost:8000/v1")
    return teachers.endpoint_teacher(job.endpoint, job.config, job.seed, job.spending, tokenizer, job.instruction)


def _read_problems(
    job: DistillationJob, traces: dict[str, list[str]], say: Callable[[str], None]
) -> Iterator[Problem]:
    """The different problems of a published set, the first `config.questions`. `traces` receives those of each problem
    as it is read, and holds the problems of at most two shards. Rows that stand together and ask the same are one
    problem with all their traces, as in sets with a row a trace. Rows that ask it again further on would need the whole
    set in memory: their traces are left out, and counted.
    """
    seen: set[str] = set()
    repeated = 0
    pairs = sources.read_problems(job.problems, job.local_copies, job.columns)
    usable = (pair for pair in pairs if pair[1] or job.teacher != "traces")
    for _, group in groupby(usable, key=lambda pair: pair[0].id):
        rows = list(group)
        problem, texts = rows[0][0], [text for _, traces_of_row in rows for text in traces_of_row]
        if problem.id in seen:
            repeated += len(texts)
            continue
        if len(seen) == job.config.questions:
            break
        seen.add(problem.id)
        if job.teacher == "traces":
            if len(traces) >= 2 * shards.PROBLEMS_PER_SHARD:
                for old in list(islice(traces, shards.PROBLEMS_PER_SHARD)):
                    del traces[old]
            traces[problem.id] = texts
        yield problem
    if not seen:
        raise UserError(f"{job.problems}: no row has a trace; name their column with --trace-column, or have the "
                        "questions answered by --teacher model or endpoint")
    if repeated:
        say(f"{repeated:,} traces answer a question that stands further up, with others between: left out; in a file "
            "sorted by question they are kept")


def _benchmark_questions(job: DistillationJob) -> Iterator[tuple[str, str]]:
    """(benchmark, question) of everything to decontaminate against: the shipped benchmarks and those of the job."""
    for name in benchmarks.NAMES:
        yield from ((name, row["prompt"]) for row in benchmarks.load(name))
    for name in job.decontaminate_against:
        yield from ((name, problem.prompt) for problem, _ in sources.read_problems(name, job.local_copies))


def _count_too_long(rows: Iterable[Rollout], limit: int, lengths: Counter[bool]) -> Iterator[Rollout]:
    """The rows unchanged; `lengths` counts those with more than `limit` tokens (True) and the others (False)."""
    for row in rows:
        lengths[row["tokens"] > limit] += 1
        yield row


def _with_second_opinions(rows: Iterator[Rollout], judge: Judge, say: Callable[[str], None]) -> Iterator[Rollout]:
    """The rows with the judge's vote (`judge`) on what the verifier rejected; a shard's worth in memory."""
    votes, counts = cached(judge.cache), Counter[str]()
    while batch := list(islice(rows, 8 * shards.PROBLEMS_PER_SHARD)):
        cases = [{"problem": row["prompt"], "gold": row["answer"], "response": row["completion"],
                  "extracted": extract(row["completion"]), "verdict": row["verdict"]} for row in batch]
        judged, new_counts = second_opinions(cases, replace(judge, budget=judge.budget - counts["asked"]), votes)
        counts.update(new_counts)
        for row, case in zip(batch, judged, strict=True):
            yield {**row, "judge": case["judge"]} if "judge" in case else row
    say(f"judge: {dict(counts)}")
    if babble := babble_line(counts):
        say(babble)
