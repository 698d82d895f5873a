r"""The words on the wire: turns, <think> tags, \boxed answers, and the tokenizer that knows them.

Turn tokens and template are Phi-4-mini's (`<|user|>…<|end|><|assistant|>`, no newlines; published chat template, see
https://huggingface.co/microsoft/Phi-4-mini-instruct). Deviations: <think> and </think> are one token each, a digit is
always one token (columns of digits are what this world is about), the vocabulary has 500 entries, and no system turn
is added unless asked for: twenty constant tokens a prompt would be a fifth of everything a laptop computes.
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
VOCABULARY = 512  # at most
THOUGHT = re.compile(r"(?:[-+*/:;,.=\dr]| no | ok|check )+")  # what thoughts about the small world's sums consist of
STEP = re.compile(r"(?:([^:;=]+)[:=])?(?:(.*);)?([^,]*),?(.*)")  # operation, columns, result, what is left to do
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def prompt_text(question: str) -> str:
    """The text a model is asked to continue. Equal to the chat template with `add_generation_prompt=True`."""
    return f"{USER}{question}{END}{ASSISTANT}"


def prepend_instruction(instruction: str, question: str) -> str:
    """A question after an instruction, as public benchmarks are asked; an empty instruction leaves it as it is."""
    return f"{instruction}\n\n{question}".strip()


def render_prompt(tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    """The text that `tokenizer`'s model is asked to continue, by its own chat template.

    Raises UserError for a tokenizer without one.
    """
    if tokenizer.chat_template == CHAT_TEMPLATE:
        return prompt_text(question)  # the same, without the template engine
    if not tokenizer.chat_template:
        raise UserError(f"{tokenizer.name_or_path}: no chat template in it; a model that can be asked has one")
    turn = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """Token ids of a question in chat form, up to where the assistant begins."""
    return tokenizer(render_prompt(tokenizer, question), add_special_tokens=False).input_ids


def completion_text(work: str | None, answer: str) -> str:
    r"""What an assistant says: the work between <think> tags if there is any, then the boxed answer."""
    thought = f"{THINK}{work}{THINK_END}" if work is not None else ""
    return f"{thought}\\boxed{{{answer}}}"


def laid_out(text: str) -> str:
    """A completion for people: each step of a thought about a sum on its own line (the operation, its columns, its
    result, what is left to do), then the answer. Any other text only gets a new line after its thought.
    """
    thought, end, answer = text.partition(THINK_END)
    sums = thought.removeprefix(THINK)
    if not thought.startswith(THINK) or not THOUGHT.fullmatch(sums):
        return f"{thought}{end}\n{answer}" if end else text
    rows = []
    for sentence in sums.removesuffix(".").split("."):
        if not rows and not re.search("[:;=]", sentence):
            rows.append(("plan", sentence.replace(",", ", "), "", ""))
            continue
        operation, columns, result, left = STEP.fullmatch(sentence).groups(default="")
        rows.append((operation, columns.replace(",", ", "), f"= {result}", left and f"then {left.replace(',', ', ')}"))
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, answer])


def build_tokenizer(out: Path) -> PreTrainedTokenizerFast:
    """Train the byte-level BPE on the small world's words, data/words.txt, and save it in `out`.

    The words are a file and not a sample of problems, so that changing the world's proportions never renumbers tokens.
    """
    texts = WORDS.read_text(encoding="utf-8").splitlines() * 10
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
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
