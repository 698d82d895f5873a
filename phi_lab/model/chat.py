r"""Chat format and tokenizer: how a question becomes a prompt, and what a completion consists of.

    <|user|>Compute 12+13.<|end|><|assistant|><think>12+13:2+3=5,1+1=2;25.</think>\boxed{25}<|end|>

Turns are those of Phi-4-mini's published chat template, without newlines between them
(https://huggingface.co/microsoft/Phi-4-mini-instruct). What differs from Phi-4-mini:
- <think> and </think> are one token each.
- A digit is always one token, because the small world is about columns of digits; Phi-4-mini joins up to three.
- The vocabulary has about 500 entries instead of 200,064.
- No system turn is added unless a conversation has one: twenty constant tokens would be a fifth of a prompt.

Questions, answers and traces are text, whoever wrote them: what looks like a turn in them, <|end|><|assistant|>, is
read as its letters (`text_ids`). Only the chat template's own turns become turn tokens, and only a completion's own
thought gets the tokens <think> and </think>.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from phi_lab.core.errors import UserError
from phi_lab.core.formatting import one_line
from phi_lab.core.paths import WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
END, ENDOFTEXT = "<|end|>", "<|endoftext|>"
THINK, THINK_END = "<think>", "</think>"
PLACE = "questionplace"  # stands for a question while a template is taken apart
MAX_VOCABULARY = 512  # without <think> and </think>
ARITHMETIC = re.compile(r"(?:[-+*/:;,.=\dr]| no | ok|check )+")  # a thought about sums, nothing else
STEP = re.compile(r"(?:([^:;=]+)[:=])?(?:(.*);)?([^,]*),?(.*)")  # operation, columns, result, operations that remain
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def prompt_text(question: str) -> str:
    """The prompt for a question in this course's format: CHAT_TEMPLATE with `add_generation_prompt=True`."""
    return f"{USER}{question}{END}{ASSISTANT}"


def prepend_instruction(instruction: str, question: str) -> str:
    """An instruction, an empty line and a question, as in public benchmarks; without an instruction the question."""
    return f"{instruction}\n\n{question}".strip()


def render_prompt(tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    """The prompt for a question by the tokenizer's own chat template; raises UserError for a tokenizer without one."""
    if tokenizer.chat_template == CHAT_TEMPLATE:
        return prompt_text(question)  # the same text, without the template engine's time
    if not tokenizer.chat_template:
        raise UserError(f"{tokenizer.name_or_path}: no chat template in it; choose a model that has one")
    turn = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)


def opens_thought(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template itself writes <think> at the end of a prompt, as those of R1's distillations do."""
    return bool(tokenizer.chat_template and _turns(tokenizer, tokenizer.chat_template)[-1].rstrip().endswith(THINK))


def with_opening_tag(completion: str) -> str:
    """A completion with the <think> that its chat template wrote, which a closing tag alone shows."""
    thought, end, _ = completion.partition(THINK_END)
    return THINK + completion if end and THINK not in thought else completion


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """Token ids of a question in chat format, up to and including the assistant's turn token."""
    readers = _readers(tokenizer)
    turns = [readers.ids(text) for text in _turns(tokenizer, tokenizer.chat_template)]
    ids = readers.ids(render_prompt(tokenizer, question))
    if readers.marks_in(ids) == readers.marks_in(sum(turns, [])):
        return ids
    if len(turns) != 2:
        raise UserError(f"{tokenizer.name_or_path}: its chat template changes the question, and this "
                        f"one looks like a turn of a conversation: {one_line(question, 80)}")
    return [*turns[0], *text_ids(tokenizer, question), *turns[1]]


def completion_ids(tokenizer: PreTrainedTokenizerFast, completion: str) -> list[int]:
    """Token ids of a completion without its end token. The tokens <think> and </think> are those of the thought that it
    begins with; where the chat template writes the first, only the second is the completion's.
    """
    opened = opens_thought(tokenizer)
    if opened:
        completion = completion.removeprefix(THINK)
    think = THINK if completion.startswith(THINK) else ""
    thought, end, answer = completion.removeprefix(think), "", ""
    if think or opened:
        thought, end, answer = thought.partition(THINK_END)
    readers = _readers(tokenizer)
    ids = readers.ids(completion)
    if readers.marks_in(ids) == readers.marks_in([*readers.ids(think), *readers.ids(end)]):
        return ids
    return [*readers.ids(think), *text_ids(tokenizer, thought), *readers.ids(end), *text_ids(tokenizer, answer)]


def text_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Token ids of a text in which nothing is a mark: <|end|>, <think> or </s> are read as their letters."""
    readers = _readers(tokenizer)
    read = readers.plain.encode(_utf8(text), add_special_tokens=False)
    if not readers.marks_in(read.ids):
        return read.ids
    ids = []  # a vocabulary that has the mark's letters as one of its words
    for token, (start, end) in zip(read.ids, read.offsets, strict=True):
        ids += sum(map(readers.letters, text[start:end]), []) if token in readers.marks else [token]
    return ids


@dataclass(frozen=True)
class _Readers:
    """A tokenizer twice: as it is, and one that sees no marks. marks: ids of tokens that stand for no text of their
    own: turns, ends, <think>, also those that the tokenizer does not call special.
    """

    marked: Tokenizer
    plain: Tokenizer
    marks: frozenset[int]

    def ids(self, text: str) -> list[int]:
        return self.marked.encode(_utf8(text), add_special_tokens=False).ids

    def letters(self, text: str) -> list[int]:
        return self.plain.encode(text, add_special_tokens=False).ids

    def marks_in(self, ids: Sequence[int]) -> list[int]:
        return [token for token in ids if token in self.marks]


@lru_cache(maxsize=4)
def _readers(tokenizer: PreTrainedTokenizerFast) -> _Readers:
    """Raises UserError for a tokenizer that is not one of the tokenizers library."""
    if not tokenizer.is_fast:
        raise UserError(f"{tokenizer.name_or_path}: it has no tokenizer.json; choose a model that has one")
    marks = {
        number: token.content for number, token in tokenizer.added_tokens_decoder.items()
        if token.content.strip(" \t\n▁") and number != tokenizer.unk_token_id  # a run of spaces is text
    }
    marked, plain = (Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()) for _ in range(2))
    for copy in (marked, plain):
        copy.no_truncation()
        copy.no_padding()
    plain.add_special_tokens([AddedToken(content, special=True, normalized=False) for content in marks.values()])
    plain.encode_special_tokens = True  # in the library's words: as text
    return _Readers(marked, plain, frozenset(marks))


@lru_cache(maxsize=4)
def _turns(tokenizer: PreTrainedTokenizerFast, template: str | None) -> list[str]:
    """What a chat template writes before and after a question; one text where it changes the question."""
    return render_prompt(tokenizer, PLACE).split(PLACE)


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()  # lone surrogates have no bytes


def completion_text(work: str | None, answer: str) -> str:
    r"""A completion: the work between <think> tags if there is any, then the answer in \boxed{}."""
    thought = f"{THINK}{work}{THINK_END}" if work is not None else ""
    return f"{thought}\\boxed{{{answer}}}"


def format_completion(text: str) -> str:
    """A completion as people read it: each step of a thought about a sum on a line with four columns (operation, digit
    columns, result, operations that remain), then the answer. Any other text only gets a new line after its thought.
    """
    thought, end, answer = text.partition(THINK_END)
    steps = thought.removeprefix(THINK)
    if not thought.startswith(THINK) or not ARITHMETIC.fullmatch(steps):
        return f"{thought}{end}\n{answer}" if end else text
    rows: list[tuple[str, str, str, str]] = []
    for step in steps.removesuffix(".").split("."):
        if not rows and not re.search("[:;=]", step):
            rows.append(("plan", step.replace(",", ", "), "", ""))
            continue
        operation, columns, result, rest = STEP.fullmatch(step).groups(default="")
        rows.append((operation, columns.replace(",", ", "), f"= {result}", rest and f"then {rest.replace(',', ', ')}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, answer])


def build_tokenizer(out: Path) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE tokenizer on the small world's vocabulary, data/words.txt, and save it in `out`.

    It is trained on a file and not on a sample of problems, so that no change of the world's proportions renumbers
    tokens.
    """
    texts = WORDS.read_text(encoding="utf-8").splitlines() * 10
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY,
        special_tokens=[ENDOFTEXT, END, SYSTEM, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=ENDOFTEXT, bos_token=ENDOFTEXT,
        extra_special_tokens=[SYSTEM, USER, ASSISTANT], clean_up_tokenization_spaces=False,
    )
    fast.add_tokens([THINK, THINK_END])
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(out)
    return fast
