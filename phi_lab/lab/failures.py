"""A gallery of failures: five ways in which training goes wrong, each produced on purpose in under a minute, with what
the doctor says of it.

    failures.collapse(model, tokenizer, problems)       # a learning rate far too high: gibberish of extreme length
    failures.paid_by_length(model, tokenizer, problems) # a reward for length: length, and nothing else
    failures.cut_short(model, tokenizer, problems)      # too few tokens: no answer is ever finished
    failures.too_hard(model, tokenizer, problems)       # a model that solves none of the questions: no gradient
    failures.both_fall(model, tokenizer, pairs, problems) # DPO at a rate far too high: right answers fall, too

The first is the paper's own (section 3.4: gibberish and extreme length). model: a shipped checkpoint; it is copied, not
changed. A failure is a cause that the learner knows beforehand, so that its picture is recognised when nobody knows it.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab import sampling
from phi_lab.core.records import PreferencePair
from phi_lab.problems.problem import Problem
from phi_lab.report import doctor
from phi_lab.stages import minimal_dpo, minimal_grpo
from phi_lab.stages.grpo import group_normalised, verified
from phi_lab.verify import verify_many

SAMPLES = 4  # answers to each of the questions that are asked after training
MAX_TOKENS = 256


@dataclass(frozen=True)
class Failure:
    """What a failed training leaves behind: rows of metrics, one a step; answers afterwards, with their verdicts; and
    what the doctor finds in both.
    """

    rows: list[dict]
    answers: list[dict]
    findings: list[doctor.Finding]


def collapse(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int = 9
) -> Failure:
    """GRPO at 100 times the rate of its page: after a few steps no answer is one any more."""
    return _grpo(model, tokenizer, problems, steps, learning_rate=3e-2, advantage=group_normalised)


def paid_by_length(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int = 9
) -> Failure:
    """GRPO whose reward is the length of an answer: it rises, and accuracy, which is logged beside it, falls."""
    accuracies: list[float] = []

    def reward(texts: list[str], answers: list[str]) -> list[float]:
        verdicts = verify_many(list(zip(texts, answers, strict=True)))
        accuracies.append(sum(verdict.verdict == "right" for verdict in verdicts) / len(verdicts))
        return [len(text) / MAX_TOKENS for text in texts]

    policy = copy.deepcopy(model)
    rows = _train(policy, tokenizer, problems, steps, MAX_TOKENS, reward=reward, learning_rate=1e-3,
                  advantage=group_normalised)
    logged = [{**row, "accuracy": accuracy} for row, accuracy in zip(rows, accuracies, strict=True)]
    return _examined(policy, tokenizer, logged, problems, MAX_TOKENS)


def cut_short(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int = 9
) -> Failure:
    """GRPO with 24 tokens an answer: nothing is finished, so nothing is right, and no group has a difference."""
    return _grpo(model, tokenizer, problems, steps, max_new_tokens=24)


def too_hard(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int = 9
) -> Failure:
    """GRPO of a model that solves none of the questions, such as the base: no group has a difference."""
    return _grpo(model, tokenizer, problems, steps, max_new_tokens=64)


def both_fall(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[PreferencePair],
    problems: Sequence[Problem], steps: int = 12,
) -> Failure:
    """DPO at a rate far too high: the loss falls and the margin grows, since right answers fall more slowly than wrong
    ones; soon few are sampled any more.
    """
    policy = copy.deepcopy(model)
    rows = minimal_dpo.train(policy, tokenizer, pairs, steps=steps, learning_rate=5e-3, on_step=lambda row: None)
    logged = [
        {"step": row["step"], "loss": row["loss"], "rewards/chosen": 0.1 * row["chosen"],
         "rewards/rejected": 0.1 * row["rejected"], "rewards/margins": 0.1 * (row["chosen"] - row["rejected"])}
        for row in rows
    ]
    return _examined(policy, tokenizer, logged, problems, MAX_TOKENS)


def _grpo(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int,
    max_new_tokens: int = MAX_TOKENS, **settings,
) -> Failure:
    """GRPO with the verifier's reward, and what the model then answers."""
    policy = copy.deepcopy(model)
    rows = _train(policy, tokenizer, problems, steps, max_new_tokens, **settings)
    return _examined(policy, tokenizer, rows, problems, max_new_tokens)


def _train(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int,
    max_new_tokens: int, reward: Callable = verified, **settings,
) -> list[dict]:
    """GRPO of `policy` in groups of eight answers to six questions a step; a row a step."""
    return minimal_grpo.train(
        policy, tokenizer, problems, steps=steps, prompts_per_step=6, group_size=8, reward=reward,
        max_new_tokens=max_new_tokens, on_step=lambda row: None, **settings,
    )


def _examined(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: list[dict], problems: Sequence[Problem],
    max_tokens: int,
) -> Failure:
    """The rows of a training, the model's answers to the first problems afterwards, and the doctor's findings."""
    asked = list(problems[:12])
    params = sampling.SamplingParams(n=SAMPLES, temperature=0.6, max_tokens=max_tokens, seed=1)
    groups = sampling.sample(policy, tokenizer, [problem.prompt for problem in asked], params, quiet=True)
    pairs = [(problem, sample) for problem, group in zip(asked, groups, strict=True) for sample in group]
    verdicts = verify_many([(sample.text, problem.answer) for problem, sample in pairs])
    answers = [
        {"id": problem.id, "prompt": problem.prompt, "answer": problem.answer, "completion": sample.text,
         "finish_reason": sample.finish_reason, "verdict": verdict.verdict}
        for (problem, sample), verdict in zip(pairs, verdicts, strict=True)
    ]
    return Failure(rows, answers, [*doctor.check_metrics(rows), *doctor.check_rollouts(answers)])
