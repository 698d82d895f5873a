r"""Chat format and tokenizer: how a question becomes a prompt, and what a completion consists of.

    <|user|>Compute 12+13.<|end|><|assistant|><think>12+13:2+3=5,1+1=2;25.</think>\boxed{25}<|end|>

Turns are those of Phi-4-mini's published chat template, without newlines between them
(https://huggingface.co/microsoft/Phi-4-mini-instruct). What differs from Phi-4-mini:
- <think> and </think> are one token each.
- A digit is always one token, because the small world is about columns of digits; Phi-4-mini joins up to three.
- The vocabulary has about 500 entries instead of 200,064.
- No system turn is added unless a conversation has one: twenty constant tokens would be a fifth of a prompt.
"""

import re
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from phi_lab.core.errors import UserError
from phi_lab.core.paths import WORDS

SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
END, ENDOFTEXT = "<|end|>", "<|endoftext|>"
THINK, THINK_END = "<think>", "</think>"
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


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """Token ids of a question in chat format, up to and including the assistant's turn token."""
    return tokenizer(render_prompt(tokenizer, question), add_special_tokens=False).input_ids


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
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=ENDOFTEXT, bos_token=ENDOFTEXT,
        extra_special_tokens=[SYSTEM, USER, ASSISTANT], clean_up_tokenization_spaces=False,
    )
    fast.add_tokens([THINK, THINK_END])
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(out)
    return fast
