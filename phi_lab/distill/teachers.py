"""Who writes rollouts: a script that always ends right, a model in this process, any endpoint, or a published dataset.

The script is the bootstrap: it trained the teacher model and stays as a second teacher for comparison. The teacher
model samples, as DeepSeek-R1 does in the paper; some of its answers are wrong, and those feed Rollout DPO. Behind an
OpenAI-compatible endpoint stands whatever somebody serves: vLLM, SGLang, Ollama, a hosted API. And traces that others
have sampled are rollouts, too: they are verified like any other.

What others have said is counted in tokens here (`counter`), by the tokenizer of the model that is to learn from it.

All have one form (`shards.Teacher`): a function that takes chunks of questions and hands on answers as they come.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from phi_lab import sampling
from phi_lab.config.schema import INSTRUCTION, DistillationConfig
from phi_lab.core import endpoint as service
from phi_lab.core.errors import UserError
from phi_lab.core.paths import TOKENIZER
from phi_lab.distill.shards import Answer, Chunk, SampleKey, Teacher
from phi_lab.model import chat, checkpoints
from phi_lab.problems import worked_solutions


def counter(name: str = "") -> PreTrainedTokenizerFast:
    """The tokenizer of a folder or of a name on the hub, which runs no code of either; none: the small world's, which
    takes a token for every digit and most letters, several times as many as a large model's.

    Raises UserError where there is none.
    """
    if not name or Path(name).is_dir():
        return checkpoints.load_tokenizer(name or TOKENIZER)
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:  # HTTP errors, a missing cache, a name that is none, code of its own
        words = " ".join(str(error).split())[:160]
        raise UserError(f"{name}: no such folder, and no tokenizer on the hub ({words}): --tokenizer DIR") from None


def script(config: DistillationConfig, seed: int) -> Teacher:
    """Worked solutions in a random style; every one is right."""
    tokenizer = checkpoints.load_tokenizer()

    def answers(chunk: Chunk) -> Iterator[Answer]:
        rng = random.Random(seed * 1_000_003 + chunk.first)
        for problem in chunk.problems:
            for _ in range(config.samples):
                chunk.tick(1)
                text = chat.completion_text(*worked_solutions.write_solution(problem, rng.choice(worked_solutions.STYLES), rng))
                yield text, "stop", len(tokenizer(text).input_ids) + 1

    return _whole_chunks(answers, config.samples)


def model(folder: Path, config: DistillationConfig, seed: int) -> Teacher:
    """Samples of the model in `folder`."""
    network, tokenizer = checkpoints.load(folder), checkpoints.load_tokenizer(folder)

    def answers(chunk: Chunk) -> Iterator[Answer]:
        params = sampling.SamplingParams(
            n=config.samples, temperature=config.temperature, max_tokens=config.max_new_tokens,
            seed=seed * 1_000_003 + chunk.first,
        )
        prompts = [problem.prompt for problem in chunk.problems]
        groups = sampling.sample(network, tokenizer, prompts, params, tick=chunk.tick)
        return ((one.text, one.finish_reason, len(one.ids)) for group in groups for one in group)

    return _whole_chunks(answers, config.samples)


def _whole_chunks(answers: Callable[[Chunk], Iterable[Answer]], samples: int) -> Teacher:
    """A teacher that answers a chunk at once. A chunk that was answered in part is answered again, which gives the
    same answers, and only those that are missing are handed on.
    """

    def teacher(chunks: Iterable[Chunk], done: Callable[[Chunk, SampleKey, Answer], None]) -> None:
        for chunk in chunks:
            missing = set(chunk.missing)
            for number, answer in enumerate(answers(chunk)):
                if divmod(number, samples) in missing:
                    done(chunk, divmod(number, samples), answer)

    return teacher


@dataclass
class Spending:
    """What an endpoint has cost so far, and where to stop. Prices: money for a million tokens; 0: not counted."""

    price_in: float = 0.0
    price_out: float = 0.0
    budget: float = float("inf")  # money
    tokens_in: int = 0
    tokens_out: int = 0
    requests: int = 0

    @property
    def money(self) -> float:
        return (self.tokens_in * self.price_in + self.tokens_out * self.price_out) / 1e6

    def told(self) -> str:
        """One line about it."""
        money = f", {self.money:.2f} of {self.budget:g}" if self.price_in or self.price_out else ""
        return f"{self.requests:,} requests, {self.tokens_in:,} tokens in, {self.tokens_out:,} out{money}."


def endpoint(
    whom: service.Endpoint, config: DistillationConfig, seed: int, spending: Spending, tokenizer: PreTrainedTokenizerFast,
    instruction: str = INSTRUCTION,
) -> Teacher:
    """One request a rollout; `spending` counts what the server says they took and stops asking when it is spent.

    `tokenizer` counts the answers' own tokens. `instruction` follows the question after an empty line; models that know
    their task by themselves need none.
    """

    def teacher(chunks: Iterable[Chunk], done: Callable[[Chunk, SampleKey, Answer], None]) -> None:
        def requests() -> Iterator[tuple[tuple, dict]]:
            for chunk in chunks:
                for place in list(chunk.missing):
                    if spending.money >= spending.budget:
                        return
                    problem = chunk.problems[place[0]]
                    yield (chunk, place), {
                        "messages": [{"role": "user", "content": f"{problem.prompt}\n\n{instruction}".strip()}],
                        "temperature": config.temperature, "max_tokens": config.max_new_tokens,
                        "seed": _seed(seed, problem.id, place[1]),
                    }

        def arrived(key: tuple, completion) -> None:
            spending.requests += 1
            key[0].tick(1)
            if completion is None:  # refused: an answer that is none, so that it is not asked for ever
                return done(*key, ("", "refused", 0))
            choice, usage = completion.choices[0], completion.usage
            text = reply_text(choice.message)
            spending.tokens_in += usage.prompt_tokens if usage else 0
            spending.tokens_out += usage.completion_tokens if usage else 0
            reason = "length" if choice.finish_reason == "length" else "stop"
            done(*key, (text, reason, len(tokenizer(text).input_ids) + 1))

        service.send_all(whom, requests(), arrived, kept="What was answered is kept; the same command continues")

    return teacher


def reply_text(message) -> str:
    """What a served model said, with its thoughts between <think> tags wherever the server puts them.

    vLLM, SGLang and DeepSeek hand them on apart as `reasoning_content`, newer vLLM as `reasoning`; others leave them in
    the text.
    """
    said, extra = message.content or "", message.model_extra or {}
    thoughts = extra.get("reasoning_content") or extra.get("reasoning")
    if not isinstance(said, str) or not isinstance(thoughts, str | None):
        raise ValueError("a message that is no text")
    return f"{chat.THINK}{thoughts}{chat.THINK_END}{said}" if thoughts else said


def traces(answers: Mapping[str, Sequence[str]], tokenizer: PreTrainedTokenizerFast) -> Teacher:
    """Published traces as rollouts: by the id of a problem, what others have sampled for it, counted by `tokenizer`."""

    def teacher(chunks: Iterable[Chunk], done: Callable[[Chunk, SampleKey, Answer], None]) -> None:
        for chunk in chunks:
            for place in list(chunk.missing):
                text = answers[chunk.problems[place[0]].id][place[1]]
                chunk.tick(1)
                done(chunk, place, (text, "stop", len(tokenizer(text).input_ids) + 1))

    return teacher


def _seed(seed: int, problem: str, sample: int) -> int:
    """Another one for every rollout, the same one when it is asked again."""
    return int(hashlib.sha256(f"{seed}/{problem}/{sample}".encode()).hexdigest()[:7], 16)
