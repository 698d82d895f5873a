r"""Measuring on the benchmarks that everybody uses, by the protocol that the paper's authors published later.

Temperature 0.6, top-p 0.95, up to 32,768 tokens, pass@1 as the mean over 64 samples on AIME (30 problems) and 8
elsewhere, "step by step … \boxed{}" before the problem (microsoft/ArchScale, eval_reason, and the card of
Phi-4-mini-flash-reasoning). Judged by our verifier. Every sample is kept, a stopped measurement goes on with the same
command, and an interval counts problems, not samples. GPQA comes from the hub with your own access only.

    phi-lab eval --model microsoft/Phi-4-mini-reasoning --benchmarks math500,aime24,gpqa-diamond --out runs/exam
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from phi_lab import sampling
from phi_lab.config.schema import BenchmarkProtocol
from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import ensure_same_manifest, write_json
from phi_lab.distill import shards
from phi_lab.distill.shards import Answer, Chunk, SampleKey
from phi_lab.model import chat, checkpoints
from phi_lab.problems import sources
from phi_lab.problems.problem import Problem

NAMES = ("math500", "aime24", "aime25", "amc23", "gsm8k", "gpqa-diamond", "olympiadbench")
AT_ONCE = 512  # samples between two writes to disk, so at most these are lost
PUBLISHED = {  # percent. The paper's table, and the same lab's re-run by this protocol (card of the flash model)
    "Phi-4-mini-instruct (paper)": {"math500": 71.8, "aime24": 10.0, "gpqa-diamond": 36.9},
    "Phi-4-mini-reasoning (paper)": {"math500": 94.6, "aime24": 57.5, "gpqa-diamond": 52.0},
    "Phi-4-mini-reasoning (re-run)": {"math500": 91.2, "aime24": 48.1, "aime25": 31.8, "gpqa-diamond": 44.5},
    "R1-Distill-Qwen-7B (re-run)": {"math500": 93.0, "aime24": 53.7, "aime25": 35.9, "gpqa-diamond": 47.9},
}


def measure(
    model: Path, names: Sequence[str], out: Path, protocol: BenchmarkProtocol, seed: int, engine: str, say=print
) -> list[dict]:
    """Sample and judge the benchmarks `names`, in shards under `out`; returns a row each and writes scores.json.

    A row: benchmark, problems, samples (each), accuracy, ci_low, ci_high, tokens (mean), cut (share that met the
    limit), unparsed (share without an answer). Raises UserError for an unknown name or engine, a set that cannot be
    read, and a folder of another model or protocol.
    """
    for name in names:
        if name not in NAMES:
            raise UserError(f"unknown benchmark {name!r}: choose from {', '.join(NAMES)}")
    if engine not in sampling.ENGINES:
        raise UserError(f"unknown engine {engine!r}: choose one of {', '.join(sampling.ENGINES)}")
    copies = os.environ.get("PHI_LAB_SETS")
    asked = {}
    for name in names:
        found = sources.read_problems(name, Path(copies) if copies else None, evaluation=True)
        asked[name] = list({problem.id: problem for problem, _ in found}.values())  # what is there twice counts once
    whose = {"model": checkpoints.fingerprint(model), "seed": seed, "protocol": asdict(protocol)}
    ensure_same_manifest(out / "protocol.json", whose, "choose another --out")
    network, tokenizer = checkpoints.load_to_sample(model, engine), checkpoints.load_tokenizer(model)
    rows = []
    for name in names:
        samples = protocol.aime_samples if name.startswith("aime") else protocol.samples
        problems = asked[name][: protocol.problems or None]
        teacher = _student(network, tokenizer, name, protocol, seed, engine)
        shards.collect_rollouts(teacher, problems, out / name, name=whose["model"], samples=samples,
                    temperature=protocol.temperature, seed=seed, strict=False)
        rows.append(_score(name, list(shards.rows(out / name, len(problems))), samples))
        say(told(rows[-1]))
    sampling.release_engine()
    write_json(out / "scores.json", rows)
    return rows


def _student(network, tokenizer, name: str, protocol: BenchmarkProtocol, seed: int, engine: str) -> shards.Teacher:
    """Answers in portions, so that a long measurement loses little when it is stopped."""

    def question(problem: Problem) -> str:
        return chat.prepend_instruction(protocol.instruction, problem.prompt)

    def teacher(chunks: Iterable[Chunk], done: Callable[[Chunk, SampleKey, Answer], None]) -> None:
        for chunk in chunks:
            missing = list(chunk.missing)
            for first in range(0, len(missing), AT_ONCE):
                some = missing[first : first + AT_ONCE]
                prompts = [question(chunk.problems[place]) for place, _ in some]
                longest = max(len(chat.prompt_ids(tokenizer, prompt)) for prompt in prompts)
                room = network.config.max_position_embeddings - longest
                if room < 1:
                    raise UserError(f"{name}: a question of {longest} tokens does not fit into this model's context")
                params = sampling.SamplingParams(
                    n=1, temperature=protocol.temperature, top_p=protocol.top_p,
                    max_tokens=min(protocol.max_new_tokens, room), seed=_seed(seed, name, chunk.first, some[0]),
                )
                groups = sampling.sample(network, tokenizer, prompts, params, engine=engine, tick=chunk.tick)
                for place, (one,) in zip(some, groups, strict=True):
                    done(chunk, place, (one.text, one.finish_reason, len(one.ids)))

    return teacher


def _seed(*what) -> int:
    """Every portion has its own."""
    return int(hashlib.sha256(repr(what).encode()).hexdigest()[:8], 16) % 2**31


def _score(name: str, rows: list[dict], samples: int) -> dict:
    right: dict[str, int] = defaultdict(int)
    for row in rows:
        right[row["id"]] += row["verdict"] == "right"
    low, high = stats.clustered_wilson(list(right.values()), samples)
    count = len(rows)
    return {
        "benchmark": name, "problems": len(right), "samples": samples, "accuracy": sum(right.values()) / count,
        "ci_low": low, "ci_high": high, "tokens": sum(row["tokens"] for row in rows) / count,
        "cut": sum(row["finish_reason"] == "length" for row in rows) / count,
        "unparsed": sum(row["verdict"] == "unparsed" for row in rows) / count,
    }


def told(row: dict) -> str:
    """One line about a score."""
    return (
        f"{row['benchmark']}: {100 * row['accuracy']:.1f} % [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}], "
        f"{row['problems']} problems x {row['samples']}; {row['tokens']:,.0f} tokens an answer, "
        f"{100 * row['cut']:.0f} % cut at the limit, {100 * row['unparsed']:.0f} % without an answer"
    )


def table(rows: list[dict], name: str) -> str:
    """The scores beside the published ones, in Markdown; an empty cell was not published."""
    names = [row["benchmark"] for row in rows]
    mine = [f"{100 * row['accuracy']:.1f} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]" for row in rows]
    lines = [["percent right", *names], ["---", *["---:"] * len(names)], [f"**{name}**", *mine]]
    for model, known in PUBLISHED.items():
        lines.append([model, *(f"{known[one]:.1f}" if one in known else "" for one in names)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def usual(protocol: BenchmarkProtocol, samples: int | None, problems: int | None, max_new_tokens: int | None) -> BenchmarkProtocol:
    """The protocol with what a command line changes of it."""
    changes = {"samples": samples, "aime_samples": samples, "problems": problems, "max_new_tokens": max_new_tokens}
    return replace(protocol, **{name: value for name, value in changes.items() if value})


def engine() -> str:
    """vLLM where there is a GPU, else `model.generate`."""
    return "vllm" if torch.cuda.is_available() else "hf"
