"""The ladder's measurements: the same problems for every stage, and a 95 % interval for every accuracy (not pass@k).

Primary metric: mean accuracy at temperature 0.6, over four samples a problem on `hard`, one elsewhere. Also: greedy
accuracy, and pass@8 on the first 200 `hard` problems. Every sample is saved as a row. The interval of an accuracy
(`ci_low`, `ci_high` of `ladder_row`) is Wilson's; samples of one problem are not independent, so it is computed with an
effective sample size between the number of problems and the number of samples: `core.stats.clustered_wilson`.

    phi-lab eval --model runs/my-run/grpo/model --out runs/my-run/evals --name grpo
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from phi_lab import sampling
from phi_lab.config.schema import EvaluationConfig, read_config
from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import ensure_same_manifest, read_json, read_rows, write_rows
from phi_lab.core.locks import locked
from phi_lab.core.records import LadderRow
from phi_lab.core.run_folder import EvalFolder
from phi_lab.model import checkpoints
from phi_lab.problems import benchmarks
from phi_lab.verify import verify_many

OTHER_NAME = "choose another --name or --out"
MEASURE_AGAIN = "delete it to have it measured again"


def evaluate(
    model: Path, name: str, folder: EvalFolder, config: EvaluationConfig, seed: int,
    benchmark_names: Sequence[str] = benchmarks.NAMES, resample_stale: bool = False,
) -> None:
    """Sample and verify completions for each of `benchmark_names` that `folder` has none for yet; one row per sample.

    `name`'s manifest records the weights, settings and seed of its completions. Saved completions of other weights
    raise UserError, or with `resample_stale` are deleted and sampled anew, once the model is loaded; those of the same
    weights but other settings or another seed always raise it. So does a benchmark that cannot be read, before the
    model is loaded, and another process that measures in this folder.
    """
    path = folder.manifest(name)
    manifest = {"model": checkpoints.fingerprint(model), "seed": seed, "config": asdict(config)}
    with locked(folder.path):
        answers = [*folder.path.glob(f"{name}.*.jsonl")]
        saved = read_json(path, ("model",), MEASURE_AGAIN) if path.exists() else None
        if answers and not saved and not resample_stale:
            raise UserError(f"{path} is missing, and nothing else says whose {answers[0]} is: {OTHER_NAME}")
        stale = resample_stale and (answers if saved is None else saved["model"] != manifest["model"])
        if saved and not stale:
            ensure_same_manifest(path, manifest, OTHER_NAME, read_config)
        sets = _sets(config)
        missing = [one for one in benchmark_names
                   if one in sets and (stale or not folder.answers(name, one).exists())]
        if not missing:
            return
        problems = {benchmark: benchmarks.load(sets[benchmark])[: config.problems] for benchmark in missing}
        network, tokenizer = checkpoints.load_to_sample(model, config.engine), checkpoints.load_tokenizer(model)
        if stale:
            for old in [*answers, path]:
                old.unlink(missing_ok=True)
        ensure_same_manifest(path, manifest, OTHER_NAME, read_config)
        for benchmark in missing:
            rows = []
            for title, subset, samples, temperature, round_seed, first in _rounds(
                benchmark, problems[benchmark], config, seed
            ):
                prompts = [benchmarks.build_prompt(sets[benchmark], problem["prompt"]) for problem in subset]
                answers = _answers(network, tokenizer, subset, prompts, samples, temperature, config, round_seed,
                                   f"{name} {benchmark}, {title}")
                rows += [{**row, "sample": row["sample"] + first} for row in answers]
            write_rows(folder.answers(name, benchmark), rows)
        sampling.release_engine()


def _sets(config: EvaluationConfig) -> dict[str, str]:
    """The sets that stand for the ladder's benchmarks, without those that are left out."""
    return {name: chosen for name, chosen in zip(benchmarks.NAMES, config.benchmarks, strict=True) if chosen}


def _rounds(benchmark: str, problems: list[dict], config: EvaluationConfig, seed: int) -> list[tuple]:
    """(title, problems, samples per problem, temperature, seed, index of the first sample) of each sampling round.
    On `hard` a third round adds the samples that pass@k needs beyond those of the primary measure.
    """
    samples = config.samples if benchmark == "hard" else 1
    rounds = [("greedy", problems, 1, 0.0, seed, 0), ("sampled", problems, samples, config.temperature, seed, 0)]
    if benchmark == "hard" and config.pass_samples > samples:
        rounds.append((f"pass@{config.pass_samples}", problems[: config.pass_problems], config.pass_samples - samples,
                       config.temperature, seed + 1, samples))
    return rounds


def _answers(network, tokenizer, problems, prompts, samples, temperature, config, seed, title) -> list[dict]:
    """Sample and verify completions; one row per completion."""
    params = sampling.SamplingParams(n=samples, temperature=temperature, max_tokens=config.max_new_tokens, seed=seed)
    groups = sampling.sample(network, tokenizer, prompts, params, title=title, engine=config.engine)
    flat = [
        (problem, number, sample)
        for problem, group in zip(problems, groups, strict=True)
        for number, sample in enumerate(group)
    ]
    verdicts = verify_many([(sample.text, problem["answer"]) for problem, _, sample in flat])
    return [
        {
            "id": problem["id"], "sample": number, "seed": seed, "temperature": temperature,
            "completion": sample.text, "verdict": verdict.verdict,
        }
        for (problem, number, sample), verdict in zip(flat, verdicts, strict=True)
    ]


def ladder_rows(
    name: str, stage: str, arm: str, folder: EvalFolder, config: EvaluationConfig, seed: int, cost: dict
) -> list[LadderRow]:
    """The rows of ladder.json for one stage and arm, from its saved completions. cost: the columns on training."""
    rows = []
    for benchmark in _sets(config):
        by_temperature: dict[float, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        for row in _all_answers(folder.answers(name, benchmark), benchmark, config, seed):
            by_temperature[row["temperature"]][row["id"]].append(row["verdict"] == "right")
        samples = config.samples if benchmark == "hard" else 1
        for temperature, k in ((0.0, 1), (config.temperature, samples)):
            right = [of_problem[:k] for of_problem in by_temperature[temperature].values()]
            rows.append(ladder_row(stage, arm, benchmark, right, temperature, k, None, seed, cost))
        if benchmark == "hard" and config.pass_samples > samples:
            k = config.pass_samples
            right = [of_problem for of_problem in by_temperature[config.temperature].values() if len(of_problem) == k]
            pass_at_k = sum(stats.pass_at_k(k, sum(of_problem), k) for of_problem in right) / len(right)
            rows.append(ladder_row(stage, arm, benchmark, right, config.temperature, k, pass_at_k, seed, cost))
    return rows


def _all_answers(path: Path, benchmark: str, config: EvaluationConfig, seed: int) -> list[dict]:
    """The saved answers to one benchmark. Raises UserError for a damaged file, and for one that lacks some."""
    rows = read_rows(path, ("id", "temperature", "verdict"), fix=MEASURE_AGAIN)
    problems = benchmarks.load(_sets(config)[benchmark])[: config.problems]
    wanted = sum(len(subset) * samples for _, subset, samples, *_ in _rounds(benchmark, problems, config, seed))
    if len(rows) != wanted:
        raise UserError(f"{path} holds {len(rows):,} of {wanted:,} answers; {MEASURE_AGAIN}")
    return rows


def ladder_row(
    stage: str, arm: str, benchmark: str, right: list[list[bool]], temperature: float, k: int,
    pass_at_k: float | None, seed: int, cost: dict,
) -> LadderRow:
    """One row: accuracy with its 95 % interval. right: for each problem, whether each of its k samples is right."""
    correct, n = sum(map(sum, right)), sum(map(len, right))
    low, high = stats.clustered_wilson([sum(of_problem) for of_problem in right], k)
    return {
        "stage": stage, "arm": arm, "benchmark": benchmark, "n": n, "correct": correct, "accuracy": correct / n,
        "ci_low": low, "ci_high": high, "temperature": temperature, "k": k, "pass_at_k": pass_at_k,
        **cost, "seed": seed,
    }
