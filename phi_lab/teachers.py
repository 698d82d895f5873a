"""Who writes rollouts: a script that always ends right, and a model that does not.

The script is the bootstrap: it trained the teacher model and stays as a second teacher for comparison. The teacher
model samples, as DeepSeek-R1 does in the paper; some of its answers are wrong, and those feed Rollout DPO.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from phi_lab import chat, models, rollouts
from phi_lab.domains import arithmetic
from phi_lab.domains.problem import Problem
from phi_lab.scale import Distillation

# ask(problems, seed) -> one list of completions a problem; a completion is (text, finish_reason, tokens)
Answers = list[list[tuple[str, str, int]]]
Teacher = Callable[[Sequence[Problem], int], Answers]


def script(numbers: Distillation) -> Teacher:
    """Worked solutions in a random style; every one is right."""
    tokenizer = models.load_tokenizer()

    def ask(problems: Sequence[Problem], seed: int) -> Answers:
        rng, answers = random.Random(seed), []
        for problem in problems:
            texts = []
            for _ in range(numbers.samples):
                work, answer = arithmetic.solution(problem, rng.choice(arithmetic.STYLES), rng)
                texts.append(chat.completion_text(work, answer))
            answers.append([(text, "stop", len(tokenizer(text).input_ids) + 1) for text in texts])
        return answers

    return ask


def model(folder: Path, numbers: Distillation) -> Teacher:
    """Samples of the model in `folder`."""
    network, tokenizer = models.load(folder), models.load_tokenizer(folder)

    def ask(problems: Sequence[Problem], seed: int) -> Answers:
        groups = rollouts.sample(
            network, tokenizer, [problem.prompt for problem in problems], samples=numbers.samples,
            temperature=numbers.temperature, max_new_tokens=numbers.max_new_tokens, seed=seed,
            title="asking the teacher",
        )  # fmt: skip
        return [[(one.text, one.finish_reason, len(one.ids)) for one in group] for group in groups]

    return ask
