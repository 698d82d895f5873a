"""The same question to two models, side by side: both answers laid out, and the place from which they differ.

    models = {"sft": checkpoints.load(SHIPPED / "sft"), "grpo": checkpoints.load(SHIPPED / "grpo")}
    two_stages.shown(models, tokenizer, "Compute (84-57+36)/3.")
    problem = {"prompt": "Compute (84-57+36)/3.", "answer": "21"}
    two_stages.widget(models, tokenizer, problem, ("sft", "grpo"))  # with a running kernel

Answers are greedy. A question may be any text; a note says where a number lies outside the small world, by the rule of
`phi-lab chat`, and where no sum can be read, so that there is no verdict.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import takewhile
from typing import NamedTuple

import ipywidgets
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab import sampling, verify
from phi_lab.lab import tables
from phi_lab.lab.widgets import SLOW, live_html
from phi_lab.problems import arithmetic, parse_question
from phi_lab.report.html import text
from phi_lab.report.ladder_rows import model_title

MAX_TOKENS = 256
MOST_CHARACTERS = 300  # of a question: the models have seen none as long


class Answer(NamedTuple):
    """A model's greedy answer: its text, and its tokens as text."""

    text: str
    tokens: list[str]


def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, questions: Sequence[str]) -> list[Answer]:
    """A greedy answer to each question, of at most MAX_TOKENS tokens."""
    params = sampling.SamplingParams(n=1, temperature=0.0, max_tokens=MAX_TOKENS, seed=0)
    groups = sampling.sample(model, tokenizer, list(questions), params, quiet=True)
    return [Answer(sample.text, [tokenizer.decode([token]) for token in sample.ids]) for (sample,) in groups]


def first_difference(one: Sequence[str], other: Sequence[str]) -> int | None:
    """The index of the first token in which two answers differ; None where they are the same. Where one ends and the
    other goes on, they differ at the end of the shorter one.
    """
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))
    return None if same == len(one) == len(other) else same


def note(question: str) -> str:
    """What a reader has to know of a question before its answers, or "": a number outside the small world, or no sum
    in it that can be read.
    """
    if (number := outside(question)) is not None:
        world = f"the small world (whole numbers from 1 to {arithmetic.MAX_NUMBER})"
        return f"{number} lies outside {world}: do not count on the answer."
    if parse_question.evaluate_question(question) is None:
        return "No sum can be read in this question, so there is no verdict."
    return ""


def outside(question: str) -> Fraction | None:
    """The first number or result of a question's sum that the small world does not have; None where there is none, or
    no sum.
    """
    found = parse_question.evaluate_question(question)
    return found.outside if found else None


def shown(
    models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerFast, question: str, gold: str | None = None
) -> str:
    """Two models' answers to a question as two columns of HTML, each step a line; ➔ is where they part.

    models: two, by the name of their stage. gold: the right answer; without it there is a verdict only where the
    question's sum can be read.
    """
    question = question.strip()[:MOST_CHARACTERS]
    if not question:
        return "<p>Type a question, such as Compute (84-57+36)/3.</p>"
    both = [answers(model, tokenizer, [question])[0] for model in models.values()]
    place = first_difference(*(one.tokens for one in both))
    if gold is None and (found := parse_question.evaluate_question(question)):
        gold = str(found.answer)
    said, cells = "" if gold and outside(question) is None else note(question), []
    for one in both:
        verdict = f"<p>{tables.badge(verify.verify(one.text, gold).verdict)}</p>" if gold else ""
        at = None if place is None else len("".join(one.tokens[:place]))
        cells.append(verdict + tables.laid_out(one.text, parts_at=at))
    right = f" <b>Answer: {text(gold)}</b>" if gold else ""
    columns = tables.table(parting(both, place), [model_title(name) for name in models], [cells], raw=True)
    return f"<p>{text(question)}{right}</p>{f'<p><small>{text(said)}</small></p>' if said else ''}{columns}"


def parting(both: Sequence[Answer], place: int | None) -> str:
    """In a sentence: after how many equal tokens two answers part, and with which token each goes on."""
    one, other = both
    if place is None:
        return f"Both answers are the same, {len(one.tokens)} tokens."
    nexts = [repr(answer.tokens[place]) if place < len(answer.tokens) else "the end" for answer in (one, other)]
    return f"➔ The first {place} tokens are the same; then {nexts[0]} on the left, {nexts[1]} on the right."


def parting_problem(
    models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerFast, problems: Sequence[dict]
) -> dict:
    """The first problem (prompt, answer) that the second of two models solves and the first does not; where there is
    none, the first that they answer differently, else the first of all.
    """
    one, other = (answers(model, tokenizer, [problem["prompt"] for problem in problems]) for model in models.values())
    different = []
    for problem, *both in zip(problems, one, other, strict=True):
        if both[0].tokens != both[1].tokens:
            different.append(problem)
            verdicts = [verify.verify(answer.text, problem["answer"]).verdict for answer in both]
            if verdicts[0] != verify.RIGHT == verdicts[1]:
                return problem
    return (different or list(problems))[0]


def widget(
    models: Mapping[str, PreTrainedModel], tokenizer: PreTrainedTokenizerFast, problem: dict, stages: tuple[str, str]
) -> ipywidgets.Widget:
    """Choose two of the models, and type a question; the first is that of `problem` (prompt, answer)."""
    options = [(model_title(name), name) for name in models]
    left, right = (ipywidgets.Dropdown(options=options, value=name, description=side)
                   for name, side in zip(stages, ("left", "right"), strict=True))
    asked = ipywidgets.Text(problem["prompt"], description="question", layout=ipywidgets.Layout(width="46em"), **SLOW)

    def render() -> str:
        if left.value == right.value:
            return "<p>Choose two different stages.</p>"
        two = {name: models[name] for name in (left.value, right.value)}
        gold = problem["answer"] if asked.value == problem["prompt"] else None
        return shown(two, tokenizer, asked.value, gold)

    return live_html(render, asked, left, right)
