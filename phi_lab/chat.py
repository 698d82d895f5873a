r"""The words on the wire: turns, <think> tags, \boxed answers, and the tokenizer that knows them.

Turn tokens and template are Phi-4-mini's (`<|user|>…<|end|><|assistant|>`, no newlines; published chat template, see
https://huggingface.co/microsoft/Phi-4-mini-instruct). Deviations: <think> and </think> are one token each, a digit is
always one token (columns of digits are what this world is about), the vocabulary has 512 entries, and no system turn
is added unless asked for: twenty constant tokens a prompt would be a fifth of everything a laptop computes.
"""

import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from phi_lab.domains import arithmetic, logic

SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
END, ENDOFTEXT = "<|end|>", "<|endoftext|>"
THINK, THINK_END = "<think>", "</think>"
VOCABULARY = 512
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def prompt_text(question: str) -> str:
    """The text a model is asked to continue. Equal to the chat template with `add_generation_prompt=True`."""
    return f"{USER}{question}{END}{ASSISTANT}"


def completion_text(work: str | None, answer: str) -> str:
    r"""What an assistant says: the work between <think> tags if there is any, then the boxed answer."""
    thought = f"{THINK}{work}{THINK_END}" if work is not None else ""
    return f"{thought}\\boxed{{{answer}}}"


def build_tokenizer(out: Path, seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the 512-entry byte-level BPE on the small world's own words and save it in `out`."""
    rng = random.Random(seed)
    texts = []
    for _ in range(4000):
        problem = arithmetic.sample(rng, rng.randint(1, 4))
        texts += [problem.prompt, arithmetic.solution(problem, rng.choice(arithmetic.STYLES), rng)[0]]
        texts.append(logic.sample(rng, rng.randint(1, 4)).prompt)
    texts.append("\\boxed{")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(r"[^\w\s]", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
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
    )  # fmt: skip
    fast.add_tokens([THINK, THINK_END])
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(out)
    return fast
