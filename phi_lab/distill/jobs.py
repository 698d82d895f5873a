"""From a command to a distilled set: which problems, whose rollouts, how strict a funnel.

phi-lab distill --questions 200 --out runs/d                                      # the small world, its teacher
phi-lab distill --problems gsm8k --teacher endpoint --teacher-url URL --teacher-model NAME --out runs/gsm8k
phi-lab distill --problems openr1-math --teacher traces --tokenizer microsoft/Phi-4-mini-instruct --out runs/openr1
"""

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from phi_lab.config.schema import INSTRUCTION, DistillationConfig
from phi_lab.core import paths
from phi_lab.core.endpoint import Endpoint
from phi_lab.core.errors import UserError
from phi_lab.core.files import ensure_same_manifest
from phi_lab.distill import shards, teachers, training_sets
from phi_lab.distill.funnel import Benchmarks, Funnel, Rules
from phi_lab.model import checkpoints
from phi_lab.problems import arithmetic, benchmarks, sources
from phi_lab.problems.problem import Problem
from phi_lab.report import figures
from phi_lab.verify import extract
from phi_lab.verify.judge import Judge, cached, second_opinions

TEACHERS = ("model", "script", "endpoint", "traces")
COUNTED = ("endpoint", "traces")  # those whose tokens are counted here


@dataclass(frozen=True)
class DistillationJob:
    """What to distil. `problems`: "world" or what `sources.read_problems` takes; `data`: a folder with named sets."""

    out: Path
    plan: DistillationConfig
    seed: int = 0
    teacher: str = "model"
    folder: Path | None = None  # of the model
    endpoint: Endpoint | None = None
    instruction: str = INSTRUCTION  # to an endpoint, after every question
    tokenizer: str = ""  # folder or name of the one that counts what others have said: `teachers.counter`
    spending: teachers.Spending = field(default_factory=teachers.Spending)
    problems: str = "world"
    data: Path | None = None
    columns: sources.Columns = sources.Columns()
    judge: Judge | None = None  # asked about what the rules turn down
    rules: Rules = Rules()
    decontaminate_against: Sequence[str] = ()
    command: Sequence[str] = ()


def ask(order: DistillationJob, part: tuple[int, int] = (0, 1)) -> None:
    """Have the questions answered and verified, in shards under `order.out`; `part` as `shards.roll` takes it.

    Raises UserError for an unknown teacher or set, a folder of another order, and as teacher and sources do.
    """
    if order.teacher not in TEACHERS:
        raise UserError(f"unknown teacher {order.teacher!r}: choose one of {', '.join(TEACHERS)}")
    if order.teacher == "script" and order.problems != "world":
        raise UserError("the script solves problems of the small world only: choose another --teacher")
    if order.tokenizer and order.teacher not in COUNTED:
        raise UserError(f"--tokenizer counts what others have said: it goes with --teacher {' or '.join(COUNTED)}")
    tokenizer = teachers.counter(order.tokenizer)
    whose = _whose(order)
    wanted = {"teacher": whose, "problems": order.problems, "seed": order.seed, "tokenizer": order.tokenizer or None}
    if order.teacher == "endpoint":
        wanted["instruction"] = order.instruction
    ensure_same_manifest(order.out / "distill.json", wanted, "choose another --out")
    said: dict[str, list[str]] = {}
    samples = order.plan.samples
    world = order.problems == "world"
    asked = arithmetic.sample_problems(order.plan.questions, order.seed) if world else _asked(order, said)
    many = (lambda problem: min(samples, len(said[problem.id]))) if order.teacher == "traces" else samples
    shards.collect_rollouts(_teacher(order, said, tokenizer), asked, order.out / "rollouts", name=order.teacher, samples=many,
                temperature=order.plan.temperature, seed=order.seed, part=part)


def collect(order: DistillationJob, say: Callable[[str], None] = print, ask: Callable[[DistillationJob], None] = ask) -> dict:
    """Ask, verify, filter, draw; returns the funnel. What a stopped order has answered is found again.

    `ask` is `cluster.ask` where many processes are to do it. Raises UserError as `ask` and sources do.
    """
    held = Benchmarks(_held(order))  # what is wrong with a name should be told before any question is paid for
    ask(order)
    about = f"Teacher: {_whose(order)}. Problems: {order.problems}."
    about += f" Made by `{shlex.join(['phi-lab', *order.command])}`."
    if order.spending.requests:
        about += f" {order.spending.told()}"
        say(order.spending.told())
    if order.tokenizer:
        about += f" Tokens are those of {order.tokenizer}."
    lengths: Counter = Counter()
    rows = _measured(shards.rows(order.out / "rollouts", order.plan.questions), order.rules.max_tokens, lengths)
    if order.judge:
        about += f" Second opinions: {order.judge.model} at {order.judge.base_url}."
        rows = _judged(rows, order.judge, say)
    report = training_sets.training_sets(rows, order.out, Funnel(order.rules, held), f"{about}\n\n![The funnel](funnel.png)")
    figures.funnel(report).savefig(order.out / "funnel.png", dpi=110)
    if order.teacher == "traces" and lengths:
        share, whose = lengths[True] / lengths.total(), order.tokenizer or "the small world's tokenizer"
        say(f"{100 * share:.0f} % of the traces are longer than {order.rules.max_tokens:,} tokens, as {whose} counts")
    return report


def _measured(rows: Iterable[dict], longest: int, lengths: Counter) -> Iterator[dict]:
    """The rows as they are; `lengths` counts those with more than `longest` tokens (True) and the others (False)."""
    for row in rows:
        lengths[row["tokens"] > longest] += 1
        yield row


def _judged(rows: Iterator[dict], whom: Judge, say: Callable[[str], None]) -> Iterator[dict]:
    """The rollouts with the judge's vote (`judge`) on what the rules turned down, a shard's worth in memory."""
    votes, counts = cached(whom.cache), Counter()
    while some := list(islice(rows, 8 * shards.CHUNK)):
        cases = [{"problem": row["prompt"], "gold": row["answer"], "response": row["completion"],
                  "extracted": extract(row["completion"]), "verdict": row["verdict"]} for row in some]
        left = replace(whom, budget=whom.budget - counts["asked"])
        voted, now = second_opinions(cases, left, votes)
        counts.update(now)
        yield from ({**row, "judge": case["judge"]} if "judge" in case else row
                    for row, case in zip(some, voted, strict=True))
    say(f"judge: {dict(counts)}")


def _whose(order: DistillationJob) -> str:
    if order.teacher == "model":
        return checkpoints.fingerprint(order.folder or paths.TEACHER)
    return f"{order.endpoint.model} at {order.endpoint.base_url}" if order.teacher == "endpoint" else order.teacher


def _teacher(order: DistillationJob, said: dict[str, list[str]], tokenizer: PreTrainedTokenizerFast) -> shards.Teacher:
    if order.teacher == "model":
        return teachers.model(order.folder or paths.TEACHER, order.plan, order.seed)
    if order.teacher == "script":
        return teachers.script(order.plan, order.seed)
    if order.teacher == "endpoint":
        return teachers.endpoint(order.endpoint, order.plan, order.seed, order.spending, tokenizer, order.instruction)
    return teachers.traces(said, tokenizer)


def _asked(order: DistillationJob, said: dict[str, list[str]]) -> Iterator[Problem]:
    """A set's problems in turn. `said` is given the traces of each as it comes, and keeps those of two chunks."""
    seen: set[str] = set()
    found = sources.read_problems(order.problems, order.data, order.columns)
    new = ((problem, traces) for problem, traces in found if traces or order.teacher != "traces")
    for problem, traces in islice(new, order.plan.questions):
        if problem.id in seen:  # the same question twice in a set: its rollouts belong to one
            continue
        seen.add(problem.id)
        if order.teacher == "traces":
            if len(said) >= 2 * shards.CHUNK:
                for old in list(islice(said, shards.CHUNK)):
                    del said[old]
            said[problem.id] = traces
        yield problem


def _held(order: DistillationJob) -> Iterator[tuple[str, str]]:
    """(benchmark, question) of everything that the set keeps clear of: the shipped benchmarks, and those named."""
    for name in benchmarks.NAMES:
        yield from ((name, row["prompt"]) for row in benchmarks.load(name))
    for name in order.decontaminate_against:
        yield from ((name, problem.prompt) for problem, _ in sources.read_problems(name, order.data))
