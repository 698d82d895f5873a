"""Measuring: every stage answers the same problems, every sample is kept as a row, every accuracy has an interval.

Primary measure: temperature 0.6, the mean over samples (four on `hard`). Beside it greedy, and pass@8 on the first
200 hard problems. Samples of one problem are not independent, so intervals use an effective sample size
(`stats.clustered_wilson`).

    phi-lab eval --model runs/my-run/grpo/model --out runs/my-run/evals --name grpo
"""

import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from phi_lab import sampling
from phi_lab.config.schema import EvaluationConfig
from phi_lab.core import stats
from phi_lab.core.files import ensure_same_manifest, read_json, read_rows, write_rows
from phi_lab.model import checkpoints
from phi_lab.problems import benchmarks
from phi_lab.verify import verify_many


def evaluate(
    model: Path, name: str, out: Path, config: EvaluationConfig, seed: int, which=benchmarks.NAMES, again: bool = False
) -> None:
    """Write `out/<name>.<benchmark>.jsonl` for each benchmark; files that are there already are kept.

    `out/<name>.json` says which weights, numbers and seed they belong to. Other weights than now raise UserError, or
    with `again` the files are made anew; other numbers or another seed always raise it, and so does a set that cannot
    be read, before the model is loaded.
    """
    known, about = out / f"{name}.json", {"model": checkpoints.fingerprint(model), "seed": seed, "numbers": asdict(config)}
    if again and known.exists() and read_json(known)["model"] != about["model"]:
        for path in [*out.glob(f"{name}.*.jsonl"), known]:
            path.unlink()
    ensure_same_manifest(known, about, "choose another --name or --out")
    sets = dict(zip(benchmarks.NAMES, config.benchmarks, strict=True))
    missing = {
        benchmark: benchmarks.load(sets[benchmark])[: config.problems]
        for benchmark in which
        if not (out / f"{name}.{benchmark}.jsonl").exists()
    }
    if not missing:
        return
    network, tokenizer = checkpoints.load_to_sample(model, config.engine), checkpoints.load_tokenizer(model)
    for benchmark, problems in missing.items():
        samples = config.samples if benchmark == "hard" else 1
        rounds = [("greedy", problems, 1, 0.0, seed, 0), ("sampled", problems, samples, config.temperature, seed, 0)]
        if benchmark == "hard" and config.pass_samples > samples:
            some, more = problems[: config.pass_problems], config.pass_samples - samples
            rounds.append((f"pass@{config.pass_samples}", some, more, config.temperature, seed + 1, samples))
        rows = []
        for kind, some, count, temperature, own, first in rounds:
            title = f"{name} {benchmark}, {kind}"
            asked = [benchmarks.build_prompt(sets[benchmark], problem["prompt"]) for problem in some]
            found = _answers(network, tokenizer, some, asked, count, temperature, config, own, title)
            rows += [{**row, "sample": row["sample"] + first} for row in found]
        write_rows(out / f"{name}.{benchmark}.jsonl", rows)
    sampling.release_engine()


def _answers(network, tokenizer, problems, asked, samples, temperature, config, seed, title) -> list[dict]:
    params = sampling.SamplingParams(n=samples, temperature=temperature, max_tokens=config.max_new_tokens, seed=seed)
    groups = sampling.sample(network, tokenizer, asked, params, title=title, engine=config.engine)
    flat = [
        (problem, number, one)
        for problem, group in zip(problems, groups, strict=True)
        for number, one in enumerate(group)
    ]
    verdicts = verify_many([(one.text, problem["answer"]) for problem, _, one in flat])
    return [
        {
            "id": problem["id"], "sample": number, "seed": seed, "temperature": temperature, "completion": one.text,
            "verdict": verdict.verdict,
        }
        for (problem, number, one), verdict in zip(flat, verdicts, strict=True)
    ]


def ladder_rows(name: str, stage: str, arm: str, out: Path, config: EvaluationConfig, seed: int, cost: dict) -> list[dict]:
    """The rows of ladder.json for one stage and arm, computed from its rows a sample."""
    rows = []
    for benchmark in benchmarks.NAMES:
        by_problem: dict[float, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        for row in read_rows(out / f"{name}.{benchmark}.jsonl", ("id", "temperature", "verdict")):
            by_problem[row["temperature"]][row["id"]].append(row["verdict"] == "right")
        samples = config.samples if benchmark == "hard" else 1
        for temperature, k in ((0.0, 1), (config.temperature, samples)):
            answers = [hits[:k] for hits in by_problem[temperature].values()]
            rows.append(_row(stage, arm, benchmark, answers, temperature, k, None, seed, cost))
        if benchmark == "hard" and config.pass_samples > samples:
            k = config.pass_samples
            answers = [hits for hits in by_problem[config.temperature].values() if len(hits) == k]
            pass_at_k = sum(stats.pass_at_k(k, sum(hits), k) for hits in answers) / len(answers)
            rows.append(_row(stage, arm, benchmark, answers, config.temperature, k, pass_at_k, seed, cost))
    return rows


def _row(stage, arm, benchmark, answers: list[list[bool]], temperature, k, pass_at_k, seed, cost) -> dict:
    correct, n = sum(map(sum, answers)), sum(map(len, answers))
    low, high = stats.clustered_wilson([sum(hits) for hits in answers], k)
    return {
        "stage": stage, "arm": arm, "benchmark": benchmark, "n": n, "correct": correct, "accuracy": correct / n,
        "ci_low": low, "ci_high": high, "temperature": temperature, "k": k, "pass_at_k": pass_at_k,
        **cost, "seed": seed,
    }


def peak_rss_mb() -> int:
    """The most memory this process has held, in MiB."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset >> 20
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most >> 20 if sys.platform == "darwin" else most >> 10  # bytes there, KiB here
