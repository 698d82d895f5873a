"""A gallery of failures: six ways in which training goes wrong, each produced on purpose in about a minute, with what
the doctor says of it, and how many answers are right before and after.

    failures.collapse(model, tokenizer, problems)       # a learning rate far too high: gibberish of extreme length
    failures.paid_by_length(model, tokenizer, problems) # a reward for length: length, and nothing else
    failures.by_coin(model, tokenizer, problems)        # a reward that is a coin's: nothing to learn, only noise
    failures.cut_short(model, tokenizer, problems)      # too few tokens: no answer is ever finished
    failures.too_hard(model, tokenizer, problems)       # a model that solves none of the questions: no gradient
    failures.both_fall(model, tokenizer, pairs, problems) # DPO at a rate far too high: right answers fall, too

model: a shipped checkpoint; it is copied, not
changed. A failure is a cause that the learner knows beforehand, so that its picture is recognised when nobody knows it.
"""

import copy
import random
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

ASKED, SAMPLES = 12, 4  # questions that are asked before and after training, and answers to each
MAX_TOKENS = 256


@dataclass(frozen=True)
class Failure:
    """What a failed training leaves behind: rows of metrics, one a step; answers afterwards, with their verdicts; what
    the doctor finds in both; and the share of right answers, 0 to 1, to the same questions before and after training.
    The shares allow MAX_TOKENS tokens, whatever training allowed.
    """

    rows: list[dict]
    answers: list[dict]
    findings: list[doctor.Finding]
    right: tuple[float, float]


def collapse(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int = 10
) -> Failure:
    """GRPO at 100 times the rate of its page: after a few steps no answer is one any more."""
    return _grpo(model, tokenizer, problems, steps, learning_rate=3e-2, advantage=group_normalised)


def paid_by_length(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int = 10
) -> Failure:
    """GRPO whose reward is the length of an answer: it rises, and accuracy, which is logged beside it, falls."""
    return _unverified(model, tokenizer, problems, steps, lambda text: len(text) / MAX_TOKENS)


def by_coin(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int = 10
) -> Failure:
    """GRPO whose reward is a coin's, +1 or -1: there is nothing to learn, and each step moves the weights all the same.
    Accuracy, which is logged beside the reward, goes where noise pushes it.
    """
    toss = random.Random(0)
    return _unverified(model, tokenizer, problems, steps, lambda text: toss.choice((-1.0, 1.0)))


def cut_short(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int = 10
) -> Failure:
    """GRPO with 24 tokens an answer: nothing is finished, so nothing is right, and no group has a difference."""
    return _grpo(model, tokenizer, problems, steps, max_new_tokens=24)


def too_hard(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int = 10
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
    return _examined(model, policy, tokenizer, logged, problems, MAX_TOKENS)


def _unverified(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int,
    reward: Callable[[str], float],
) -> Failure:
    """GRPO with a reward that does not ask whether an answer is right; the share that is, 0 to 1, is logged beside."""
    accuracies: list[float] = []

    def rewards(texts: list[str], answers: list[str]) -> list[float]:
        verdicts = verify_many(list(zip(texts, answers, strict=True)))
        accuracies.append(sum(verdict.verdict == "right" for verdict in verdicts) / len(verdicts))
        return [reward(text) for text in texts]

    policy = copy.deepcopy(model)
    rows = _train(policy, tokenizer, problems, steps, MAX_TOKENS, reward=rewards, learning_rate=1e-3,
                  advantage=group_normalised)
    logged = [{**row, "accuracy": accuracy} for row, accuracy in zip(rows, accuracies, strict=True)]
    return _examined(model, policy, tokenizer, logged, problems, MAX_TOKENS)


def _grpo(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int,
    max_new_tokens: int = MAX_TOKENS, **settings,
) -> Failure:
    """GRPO with the verifier's reward, and what the model then answers."""
    policy = copy.deepcopy(model)
    rows = _train(policy, tokenizer, problems, steps, max_new_tokens, **settings)
    return _examined(model, policy, tokenizer, rows, problems, max_new_tokens)


def _train(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], steps: int,
    max_new_tokens: int, reward: Callable = verified, **settings,
) -> list[dict]:
    """GRPO of `policy` in groups of eight answers to five questions a step; a row a step."""
    return minimal_grpo.train(
        policy, tokenizer, problems, steps=steps, prompts_per_step=5, group_size=8, reward=reward,
        max_new_tokens=max_new_tokens, on_step=lambda row: None, **settings,
    )


def _examined(
    model: PreTrainedModel, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: list[dict],
    problems: Sequence[Problem], max_tokens: int,
) -> Failure:
    """The rows of a training from `model` to `policy`, the policy's answers to the first problems, the doctor's
    findings, and how many of those problems both models solve.
    """
    answers = _answers(policy, tokenizer, problems, max_tokens)
    at_length = answers if max_tokens == MAX_TOKENS else _answers(policy, tokenizer, problems, MAX_TOKENS)
    right = _share_right(_answers(model, tokenizer, problems, MAX_TOKENS)), _share_right(at_length)
    return Failure(rows, answers, [*doctor.check_metrics(rows), *doctor.check_rollouts(answers)], right)


def _answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], max_tokens: int
) -> list[dict]:
    """SAMPLES answers to each of the first problems, with their verdicts."""
    asked = list(problems[:ASKED])
    params = sampling.SamplingParams(n=SAMPLES, temperature=0.6, max_tokens=max_tokens, seed=1)
    groups = sampling.sample(model, tokenizer, [problem.prompt for problem in asked], params, quiet=True)
    pairs = [(problem, sample) for problem, group in zip(asked, groups, strict=True) for sample in group]
    verdicts = verify_many([(sample.text, problem.answer) for problem, sample in pairs])
    return [
        {"id": problem.id, "prompt": problem.prompt, "answer": problem.answer, "completion": sample.text,
         "finish_reason": sample.finish_reason, "verdict": verdict.verdict}
        for (problem, sample), verdict in zip(pairs, verdicts, strict=True)
    ]


def _share_right(answers: Sequence[dict]) -> float:
    return sum(row["verdict"] == "right" for row in answers) / len(answers)
