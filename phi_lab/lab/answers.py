"""Answers that a notebook samples itself: any model on the ten problems, verdicts beside answers, styles of writing."""

from phi_lab import sampling
from phi_lab.config.presets import LAB
from phi_lab.config.schema import EvaluationConfig
from phi_lab.problems import benchmarks, worked_solutions
from phi_lab.verify import verify_many


def load_ten_problems(config: EvaluationConfig) -> list[dict]:
    """The first ten problems of the set that stands in for `hard`; fewer where an evaluation measures fewer."""
    return benchmarks.load(config.benchmarks[1])[: min(10, config.problems)]


def answer_ten_problems(
    model, tokenizer, temperature: float = 0.0, seed: int = 0, config: EvaluationConfig = LAB.evaluation
) -> list[dict]:
    """One answer of a model to each of the ten problems: rows with prompt, answer, completion, verdict and tokens.

    The problems are those of the small world unless `config` names other benchmarks.
    """
    problems = load_ten_problems(config)
    prompts = [benchmarks.build_prompt(config.benchmarks[1], problem["prompt"]) for problem in problems]
    params = sampling.SamplingParams(n=1, temperature=temperature, max_tokens=config.max_new_tokens, seed=seed)
    groups = sampling.sample(model, tokenizer, prompts, params, quiet=True, engine=config.engine)
    sampling.release_engine()
    return with_verdicts(problems, [group[0] for group in groups])


def answer_problems(model, tokenizer, problems: list[dict], temperature: float = 0.0, seed: int = 0) -> list[dict]:
    """One answer of a tiny model to each of these problems of the small world: rows as `answer_ten_problems` gives."""
    params = sampling.SamplingParams(
        n=1, temperature=temperature, max_tokens=LAB.evaluation.max_new_tokens, seed=seed)
    groups = sampling.sample(model, tokenizer, [problem["prompt"] for problem in problems], params, quiet=True)
    return with_verdicts(problems, [group[0] for group in groups])


def answer(model, tokenizer, question: str, max_tokens: int = LAB.evaluation.max_new_tokens) -> str:
    """A model's greedy answer to one question of the small world."""
    params = sampling.SamplingParams(n=1, temperature=0.0, max_tokens=max_tokens, seed=0)
    return sampling.sample(model, tokenizer, [question], params, quiet=True)[0][0].text


def with_verdicts(problems: list[dict], samples: list[sampling.Sample]) -> list[dict]:
    """The problems (prompt and gold answer), each with the completion of its sample, its tokens and its verdict."""
    pairs = [(sample.text, problem["answer"]) for problem, sample in zip(problems, samples, strict=True)]
    return [
        {**problem, "completion": sample.text, "tokens": len(sample.ids), "verdict": verdict.verdict}
        for problem, sample, verdict in zip(problems, samples, verify_many(pairs), strict=True)
    ]


def answer_style(completion: str) -> str:
    """How an answer is written: terse (results only), plain (columns of digits), checking, or backtracking."""
    if " no " in completion or "check " in completion:
        return "backtracking" if " no " in completion else "checking"
    return "plain" if worked_solutions.shows_columns(completion) else "terse"
