"""Stage 0, distillation: questions -> teacher's rollouts -> verdicts -> filters -> training sets, and the funnel.

The paper (section 3, data) samples about eight rollouts a question, verifies final answers, trains on right ones and
keeps wrong ones for Rollout DPO. Here likewise: `rollouts.jsonl` holds everything that was sampled with its verdict,
`right.jsonl` what stages 1 and 2 learn from, `wrong.jsonl` what stage 3 learns against, `funnel.json` what each
filter removed and why.

    phi-lab distill --questions 1500 --out runs/my-run/data
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from phi_lab import chat
from phi_lab.domains import arithmetic
from phi_lab.domains.problem import Problem
from phi_lab.files import read_rows, write_json, write_rows
from phi_lab.teachers import Teacher
from phi_lab.verify import verify_many

LEVELS = (1, 2, 3, 4)
LEVEL_SHARE = (30, 20, 25, 25)
CHUNK = 250  # questions asked at once; a stopped run continues after the last whole chunk
VERDICTS = ("right", "wrong", "unfinished", "unparsed", "timeout")


def questions(count: int, seed: int, split: str = "train", levels: tuple[int, ...] = LEVELS) -> list[Problem]:
    """`count` different arithmetic problems of one split: no two share operands and operators."""
    shares = [LEVEL_SHARE[level - 1] for level in levels]
    rng, seen, chosen = random.Random(f"{split}-{seed}"), set(), []
    while len(chosen) < count:
        level = rng.choices(levels, shares)[0]
        problem = arithmetic.sample_split(rng, level, split, arithmetic.MORE_FRACTIONS)
        if problem.key not in seen:
            seen.add(problem.key)
            chosen.append(problem)
    return chosen


def roll(teacher: Teacher, name: str, asked: list[Problem], out: Path, temperature: float, seed: int) -> list[dict]:
    """Sample and verify rollouts for every question, chunk by chunk; whole chunks found in `out` are not sampled
    again.
    """
    rows = read_rows(out, ("id", "level", "prompt", "completion", "verdict", "tokens")) if out.exists() else []
    done = {row["id"] for row in rows}
    for first in range(0, len(asked), CHUNK):
        chunk = asked[first : first + CHUNK]
        if done.issuperset(problem.id for problem in chunk):
            continue
        answers = teacher(chunk, seed * 1_000_003 + first)
        flat = [(problem, *answer) for problem, group in zip(chunk, answers, strict=True) for answer in group]
        verdicts = verify_many([(text, problem.answer) for problem, text, _, _ in flat])
        new = [
            {
                **problem.row(), "completion": text, "verdict": verdict.verdict,
                "finish_reason": reason, "tokens": tokens, "teacher": name, "temperature": temperature, "seed": seed,
            }
            for (problem, text, reason, tokens), verdict in zip(flat, verdicts, strict=True)
        ]  # fmt: skip
        asked_again = {problem.id for problem in chunk}
        rows = [row for row in rows if row["id"] not in asked_again] + new
        write_rows(out, rows)  # whole or not at all: a stopped run never leaves half a chunk
    wanted = {problem.id for problem in asked}
    return [row for row in rows if row["id"] in wanted]


# ------------------------------------------------------------------ filters: keep(row) and why a row may fail


def _works(row: dict) -> bool:
    return f"{chat.THINK}" in row["completion"] and len(row["completion"].partition(chat.THINK_END)[0]) > 8


def _no_loop(row: dict) -> bool:
    """No step is written three times: the repetition pattern that the paper's attributes mark."""
    steps = [step for step in row["completion"].split(".") if len(step) > 4]
    return not steps or Counter(steps).most_common(1)[0][1] < 3


FILTERS: tuple[tuple[str, str, Callable[[dict], bool]], ...] = (
    ("right", "the verifier does not accept the final answer", lambda row: row["verdict"] == "right"),
    ("worked", "an answer without written work", _works),
    ("no repetition", "the same step written three times or more", _no_loop),
    ("fits", "an answer of more than 250 tokens", lambda row: row["tokens"] <= 250),
)


def filter_rows(rows: list[dict]) -> tuple[list[dict], dict]:
    """Apply the filters in order, then drop repeated answers to one question. Returns what is left and the funnel."""
    verdicts = Counter(row["verdict"] for row in rows)
    kept, steps = rows, []

    def note(name: str, left: list[dict], why: str) -> list[dict]:
        steps.append({"name": name, "kept": len(left), "removed": len(kept) - len(left), "why": why})
        return left

    for name, why, keep in FILTERS:
        kept = note(name, [row for row in kept if keep(row)], why)
    kept = note("distinct", distinct(kept), "word for word the same answer to the same question")
    funnel = {
        "questions": len({row["id"] for row in rows}), "rollouts": len(rows), "steps": steps,
        "verdicts": {verdict: verdicts[verdict] for verdict in VERDICTS},
    }  # fmt: skip
    return kept, funnel


def distinct(rows: list[dict]) -> list[dict]:
    """The rows without those whose answer to the same question came before, word for word."""
    return list({(row["id"], row["completion"]): row for row in reversed(rows)}.values())[::-1]


def training_sets(rows: list[dict], out: Path) -> dict:
    """Write right.jsonl, wrong.jsonl and funnel.json from verified rollouts; returns the funnel."""
    passes = defaultdict(list)
    for row in rows:
        passes[row["id"]].append(row["verdict"] == "right")
    kept, funnel = filter_rows(rows)
    for row in rows:
        row["pass_rate"] = sum(passes[row["id"]]) / len(passes[row["id"]])
    write_rows(out / "right.jsonl", kept)
    write_rows(out / "wrong.jsonl", distinct([row for row in rows if row["verdict"] == "wrong"]))
    write_json(out / "funnel.json", funnel)
    return funnel
