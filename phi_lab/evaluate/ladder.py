"""The ladder's measurements: the same problems for every stage, and a 95 % interval for every accuracy (not pass@k).

Primary metric: mean accuracy at temperature 0.6, over four samples a problem on `hard`, one elsewhere. Also: greedy
accuracy, and on `hard` accuracy at temperature 0.3 with one sample a problem, and pass@8 on the first 200 problems. A
gain that a cooler sampler gives as well is not one of knowledge, so these stand beside the primary metric in every
table. Every sample is saved as a row. The interval of an accuracy (`ci_low`, `ci_high` of `ladder_row`) is Wilson's;
samples of one problem are not independent, so it is computed with an effective sample size between the number of
problems and the number of samples: `core.stats.clustered_wilson`.

    phi-lab eval --model runs/my-run/grpo/model --out runs/my-run/evals --name grpo
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from phi_lab import sampling
from phi_lab.config.presets import LAB
from phi_lab.config.schema import EvaluationConfig, read_config
from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import ensure_same_manifest, read_json, read_rows, require_kinds, write_rows
from phi_lab.core.locks import locked
from phi_lab.core.records import LadderRow, ProblemRow, Protocol
from phi_lab.core.run_folder import EvalFolder
from phi_lab.model import checkpoints
from phi_lab.problems import benchmarks
from phi_lab.verify import verify_many

OTHER_NAME = "choose another --name or --out"
ANSWER_KINDS = {"id": str, "temperature": float, "sample": int, "completion": str, "verdict": str}
MEASURE_AGAIN = "delete it to have it measured again"


class Round(NamedTuple):
    """One round of sampling, which makes one row of ladder.json: each of `problems` gets `samples` completions. They
    are numbered from `first` on; the row is about them and those before.
    """

    protocol: Protocol
    problems: list[ProblemRow]
    samples: int
    temperature: float
    seed: int
    first: int = 0

    @property
    def k(self) -> int:
        return self.first + self.samples


def evaluate(
    model: Path, name: str, folder: EvalFolder, config: EvaluationConfig, seed: int, resample_stale: bool = False
) -> None:
    """Sample and verify completions for each benchmark that `folder` has none for yet; one row per sample.

    `name`'s manifest records the weights, settings and seed of its completions. Saved completions of other weights
    raise UserError, or with `resample_stale` are replaced once there are new ones; those of the same weights but other
    settings or another seed always raise it. So does a benchmark that cannot be read, before the model is loaded, and
    another process that measures in this folder.
    """
    path = folder.manifest(name)
    manifest = {"model": checkpoints.fingerprint(model), "seed": seed, "config": asdict(config)}
    with locked(folder.path):
        answers = [each for one in benchmarks.NAMES if (each := folder.answers(name, one)).exists()]
        saved = read_json(path, ("model",), MEASURE_AGAIN) if answers and path.exists() else None
        if answers and not saved and not resample_stale:
            raise UserError(f"{path} is missing, and nothing else says whose {answers[0]} is: {OTHER_NAME}")
        stale = resample_stale and (answers if saved is None else saved["model"] != manifest["model"])
        if saved and not stale:
            ensure_same_manifest(path, manifest, OTHER_NAME, read_config)
        sets = _sets(config)
        missing = [one for one in sets if stale or not folder.answers(name, one).exists()]
        if not missing:
            return
        problems = {benchmark: _problems(benchmark, config) for benchmark in missing}
        network, tokenizer = checkpoints.load_to_sample(model, config.engine), checkpoints.load_tokenizer(model)
        for benchmark in missing:
            rows = []
            for one in _rounds(benchmark, problems[benchmark], config, seed):
                prompts = [benchmarks.build_prompt(sets[benchmark], problem["prompt"]) for problem in one.problems]
                title = f"{name} {benchmark}, {one.protocol}"
                rows += _answers(network, tokenizer, one, prompts, config, title)
            if stale or not saved:  # only now: an engine that fails leaves what was there, and no manifest of nothing
                for old in [*answers, path]:
                    old.unlink(missing_ok=True)
                ensure_same_manifest(path, manifest, OTHER_NAME, read_config)
                answers, stale, saved = [], False, manifest
            write_rows(folder.answers(name, benchmark), rows)
        sampling.release_engine()


def _sets(config: EvaluationConfig) -> dict[str, str]:
    """The sets that stand for the ladder's benchmarks, without those that are left out."""
    return {name: chosen for name, chosen in zip(benchmarks.NAMES, config.benchmarks, strict=True) if chosen}


def _rounds(benchmark: str, problems: list[ProblemRow], config: EvaluationConfig, seed: int) -> list[Round]:
    """What is sampled of one benchmark. Pass@k adds to the samples of the primary metric those that it needs beyond."""
    samples = config.samples if benchmark == "hard" else 1
    rounds = [Round("greedy", problems, 1, 0.0, seed), Round("sampled", problems, samples, config.temperature, seed)]
    if benchmark == "hard" and config.cool_temperature:
        rounds.append(Round("cool", problems, 1, config.cool_temperature, seed + 2))
    if benchmark == "hard" and config.pass_problems and config.pass_samples > samples:
        few, further = problems[: config.pass_problems], config.pass_samples - samples
        rounds.append(Round("pass", few, further, config.temperature, seed + 1, first=samples))
    return rounds


def _answers(
    network, tokenizer, one: Round, prompts: list[str], config: EvaluationConfig, title: str
) -> list[dict]:
    """Sample and verify the completions of one round; one row per completion."""
    params = sampling.SamplingParams(
        n=one.samples, temperature=one.temperature, max_tokens=config.max_new_tokens, seed=one.seed
    )
    groups = sampling.sample(network, tokenizer, prompts, params, title=title, engine=config.engine)
    flat = [
        (problem, number, sample)
        for problem, group in zip(one.problems, groups, strict=True)
        for number, sample in enumerate(group, one.first)
    ]
    verdicts = verify_many([(sample.text, problem["answer"]) for problem, _, sample in flat])
    return [
        {
            "id": problem["id"], "sample": number, "seed": one.seed, "temperature": one.temperature,
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
        rounds = _rounds(benchmark, _problems(benchmark, config), config, seed)
        answers = _all_answers(folder.answers(name, benchmark), rounds)
        for one in rounds:
            right = {
                problem["id"]: [answers[problem["id"], one.temperature, number] for number in range(one.k)]
                for problem in one.problems
            }
            rows.append(ladder_row(stage, arm, benchmark, one, right, seed, cost))
    return rows


def _problems(benchmark: str, config: EvaluationConfig) -> list[ProblemRow]:
    return benchmarks.load(_sets(config)[benchmark])[: config.problems]


def _all_answers(path: Path, rounds: Sequence[Round]) -> dict[tuple[str, float, int], bool]:
    """Whether each saved answer to one benchmark is right, by problem, temperature and number.

    Raises UserError for a damaged file, and for one that holds other answers than `rounds` asks for.
    """
    rows = read_rows(path, ("id", "temperature", "sample", "verdict"), fix=MEASURE_AGAIN)
    require_kinds(path, rows, ANSWER_KINDS, MEASURE_AGAIN)
    answers = {(row["id"], row["temperature"], row["sample"]): row["verdict"] == "right" for row in rows}
    wanted = {
        (problem["id"], one.temperature, number)
        for one in rounds for problem in one.problems for number in range(one.first, one.k)
    }
    if set(answers) != wanted:
        raise UserError(f"{path} holds {len(wanted & set(answers)):,} of {len(wanted):,} answers; {MEASURE_AGAIN}")
    return answers


def ladder_row(
    stage: str, arm: str, benchmark: str, one: Round, right: Mapping[str, list[bool]], seed: int, cost: dict
) -> LadderRow:
    """One row: accuracy with its 95 % interval. right: by id of a problem, whether each of its k samples is right."""
    counts = [sum(of_problem) for of_problem in right.values()]
    correct, n = sum(counts), one.k * len(counts)
    low, high = stats.clustered_wilson(counts, one.k)
    pass_at_k = None
    if one.protocol == "pass":
        pass_at_k = sum(stats.pass_at_k(one.k, count, one.k) for count in counts) / len(counts)
    parts = {part: [sum(sum(right[each]) for each in ids), one.k * len(ids)]
             for part, ids in _parts(one.problems).items()}
    return {
        "stage": stage, "arm": arm, "benchmark": benchmark, "protocol": one.protocol, "n": n, "correct": correct,
        "accuracy": correct / n, "ci_low": low, "ci_high": high, "temperature": one.temperature, "k": one.k,
        "pass_at_k": pass_at_k, "parts": parts, **cost, "seed": seed,
    }


def _parts(problems: Sequence[ProblemRow]) -> dict[str, list[str]]:
    """Ids of the problems of each part of a benchmark: its levels, its fractions, and, of a longer one, the problems
    that a course is measured on. Public sets have no levels and so no parts.
    """
    parts: dict[str, list[str]] = {}
    for level in sorted({problem["level"] for problem in problems if problem["level"]}):
        parts[f"level {level}"] = [problem["id"] for problem in problems if problem["level"] == level]
    if parts and (fractions := [problem["id"] for problem in problems if "fraction" in problem["prompt"]]):
        parts["fractions"] = fractions
    if parts and len(problems) > LAB.evaluation.problems:
        parts["first half"] = [problem["id"] for problem in problems[: LAB.evaluation.problems]]
    return parts
