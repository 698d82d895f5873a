r"""Accuracy on public benchmarks (MATH-500, AIME, GPQA, ...), by the protocol that the paper's authors published later.

Temperature 0.6, top-p 0.95, up to 32,768 tokens, pass@1 as the mean over 64 samples on AIME (30 problems) and 8
elsewhere, "step by step … \boxed{}" before the problem (microsoft/ArchScale, eval_reason, and the card of
Phi-4-mini-flash-reasoning). Answers are verified by `phi_lab.verify`. Every sample is saved, a stopped measurement
continues with the same command, and the interval of an accuracy uses an effective sample size between the number of
problems and that of samples (`core.stats.clustered_wilson`). GPQA comes from the hub, with your own access only.

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
from phi_lab.core.formatting import markdown_table, percent_interval
from phi_lab.core.locks import locked
from phi_lab.distill import shards
from phi_lab.distill.shards import Answer, Deliver, RolloutShard
from phi_lab.model import chat, checkpoints
from phi_lab.problems import sources

NAMES = ("math500", "aime24", "aime25", "amc23", "gsm8k", "gpqa-diamond", "olympiadbench")
SAMPLES_PER_WRITE = 512  # so a measurement that is stopped loses at most these
PUBLISHED = {  # percent. The paper's table, and the same lab's re-run by this protocol (card of the flash model)
    "Phi-4-mini-instruct (paper)": {"math500": 71.8, "aime24": 10.0, "gpqa-diamond": 36.9},
    "Phi-4-mini-reasoning (paper)": {"math500": 94.6, "aime24": 57.5, "gpqa-diamond": 52.0},
    "Phi-4-mini-reasoning (re-run)": {"math500": 91.2, "aime24": 48.1, "aime25": 31.8, "gpqa-diamond": 44.5},
    "R1-Distill-Qwen-7B (re-run)": {"math500": 93.0, "aime24": 53.7, "aime25": 35.9, "gpqa-diamond": 47.9},
}


def evaluate_public(
    model: Path, names: Sequence[str], out: Path, protocol: BenchmarkProtocol, seed: int, engine: str,
    log: Callable[[str], None] = print,
) -> list[dict]:
    """Sample and verify the benchmarks `names`, in shards under `out`; returns a row each and writes scores.json.

    A row: benchmark, problems, samples (each), accuracy, ci_low, ci_high, tokens (mean), cut (share that reached the
    token limit), unparsed (share without an answer). Raises UserError for an unknown name or engine, a set that cannot
    be read, and a folder of another model or protocol.
    """
    for name in names:
        if name not in NAMES:
            raise UserError(f"unknown benchmark {name!r}: choose from {', '.join(NAMES)}")
    if engine not in sampling.ENGINES:
        raise UserError(f"unknown engine {engine!r}: choose one of {', '.join(sampling.ENGINES)}")
    copies = os.environ.get("PHI_LAB_SETS")
    problems = {}
    for name in names:
        rows = sources.read_problems(name, Path(copies) if copies else None, evaluation=True)
        unique = {problem.id: problem for problem, _ in rows}  # a duplicate counts once
        problems[name] = list(unique.values())[: protocol.problems or None]
    manifest = {"model": checkpoints.fingerprint(model), "seed": seed, "protocol": asdict(protocol)}
    with locked(out):
        answers = [f"*/{pattern}" for pattern in shards.ANSWERS]
        ensure_same_manifest(out / "protocol.json", manifest, "choose another --out", of=answers)
        network, tokenizer = checkpoints.load_to_sample(model, engine), checkpoints.load_tokenizer(model)
        scores = []
        for name in names:
            samples = protocol.aime_samples if name.startswith("aime") else protocol.samples
            shards.collect_rollouts(
                _student(network, tokenizer, name, protocol, seed, engine), problems[name], out / name,
                name=manifest["model"], samples=samples, temperature=protocol.temperature, seed=seed, strict=False,
            )
            scores.append(_score(name, list(shards.rows(out / name, len(problems[name]))), samples))
            log(score_line(scores[-1]))
        sampling.release_engine()
        write_json(out / "scores.json", scores)
        return scores


def _student(network, tokenizer, name: str, protocol: BenchmarkProtocol, seed: int, engine: str) -> shards.Teacher:
    """The model as `collect_rollouts` calls a teacher. It answers in small batches, so that little is lost when a long
    measurement is stopped.
    """

    def answer(shards: Iterable[RolloutShard], deliver: Deliver) -> None:
        for shard in shards:
            pending = list(shard.pending)
            for first in range(0, len(pending), SAMPLES_PER_WRITE):
                keys = pending[first : first + SAMPLES_PER_WRITE]
                prompts = [
                    chat.prepend_instruction(protocol.instruction, shard.problems[index].prompt) for index, _ in keys
                ]
                longest = max(len(chat.prompt_ids(tokenizer, prompt)) for prompt in prompts)
                room = network.config.max_position_embeddings - longest
                if room < 1:
                    raise UserError(f"{name}: a question of {longest} tokens does not fit into this model's context")
                params = sampling.SamplingParams(
                    n=1, temperature=protocol.temperature, top_p=protocol.top_p,
                    max_tokens=min(protocol.max_new_tokens, room), seed=_batch_seed(seed, name, shard.first, keys[0]),
                )
                groups = sampling.sample(network, tokenizer, prompts, params, engine=engine, tick=shard.tick)
                for key, (sample,) in zip(keys, groups, strict=True):
                    deliver(shard, key, Answer(sample.text, sample.finish_reason, len(sample.ids)))

    return answer


def _batch_seed(*parts) -> int:
    """Each batch has a seed of its own, so that a continued measurement samples what an unbroken one would."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16) % 2**31


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


def score_line(row: dict) -> str:
    """One line about a score."""
    accuracy = percent_interval(row["accuracy"], row["ci_low"], row["ci_high"])
    return (
        f"{row['benchmark']}: {accuracy}, {row['problems']} problems x {row['samples']}; "
        f"{row['tokens']:,.0f} tokens an answer, {100 * row['cut']:.0f} % cut at the limit, "
        f"{100 * row['unparsed']:.0f} % without an answer"
    )


def comparison_table(rows: list[dict], name: str) -> str:
    """The scores of the model `name` beside the published ones, in Markdown; an empty cell was not published."""
    names = [row["benchmark"] for row in rows]
    measured = [f"{100 * row['accuracy']:.1f} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]" for row in rows]
    published = [
        [model, *(f"{scores[name]:.1f}" if name in scores else "" for name in names)]
        for model, scores in PUBLISHED.items()
    ]
    return "\n".join(markdown_table([["percent right", *names], [f"**{name}**", *measured], *published]))


def with_overrides(
    protocol: BenchmarkProtocol, samples: int | None, problems: int | None, max_new_tokens: int | None
) -> BenchmarkProtocol:
    """The protocol with the values that a command line sets."""
    values = {"samples": samples, "aime_samples": samples, "problems": problems, "max_new_tokens": max_new_tokens}
    return replace(protocol, **{name: value for name, value in values.items() if value})


def default_engine() -> str:
    """vLLM where there is a GPU, else `model.generate`."""
    return "vllm" if torch.cuda.is_available() else "hf"
