"""Who writes rollouts: a script, a model in this process, a model behind an endpoint, or a published dataset.

The script writes worked solutions that are always right: it trained the teacher model and stays as a second teacher for
comparison. The teacher model samples, as DeepSeek-R1 does in the paper; some of its answers are wrong, and those feed
Rollout DPO. An OpenAI-compatible endpoint may be vLLM, SGLang, Ollama or a hosted API. Published traces are rollouts
too, and are verified like any other. The tokens of an endpoint's answers and of traces are counted here, by the
tokenizer of the model that will be trained on them (`load_tokenizer`).

All have one form (`shards.Teacher`): a function that takes shards and delivers answers as they come.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from phi_lab.config.schema import INSTRUCTION, DistillationConfig
from phi_lab.core.endpoint import Endpoint, send_all
from phi_lab.core.errors import UserError
from phi_lab.core.formatting import one_line
from phi_lab.core.paths import TOKENIZER
from phi_lab.core.seeds import derive_seed
from phi_lab.distill.shards import Answer, Deliver, RolloutShard, SampleKey, Teacher
from phi_lab.distill.spending import Spending
from phi_lab.model import chat
from phi_lab.problems import rows, worked_solutions

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion, ChatCompletionMessage
    from transformers import PreTrainedTokenizerFast


def load_tokenizer(name: str = "") -> PreTrainedTokenizerFast:
    """The tokenizer in a folder or under a name on the hub, without running code of either. By default the small
    world's, which takes a token for every digit and most letters, several times as many as a large model's.

    Raises UserError where there is none.
    """
    from transformers import AutoTokenizer

    from phi_lab.model import checkpoints

    if not name or Path(name).is_dir():
        return checkpoints.load_tokenizer(name or TOKENIZER)
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:  # HTTP errors, a missing cache, an impossible name, code of its own
        raise UserError(
            f"{name}: no such folder, and no tokenizer on the hub ({one_line(error, 160)}): --tokenizer DIR"
        ) from None


def script_teacher(config: DistillationConfig, seed: int) -> Teacher:
    """Worked solutions in a random style; every one is right."""
    tokenizer = load_tokenizer()

    def answer(shard: RolloutShard) -> Iterator[Answer]:
        rng = random.Random(derive_seed(seed, shard.first))
        for problem in shard.problems:
            for _ in range(config.samples):
                shard.tick(1)
                style = rng.choice(worked_solutions.STYLES)
                text = chat.completion_text(*worked_solutions.write_solution(problem, style, rng))
                yield _stopped(text, tokenizer)

    return _whole_shards(answer, config.samples)


def model_teacher(folder: Path, config: DistillationConfig, seed: int, engine: str | None = None) -> Teacher:
    """Samples of the model in `folder`, by `engine` or by the one that its architecture needs."""
    from phi_lab import sampling
    from phi_lab.model import checkpoints

    network = checkpoints.load_to_sample(folder, engine or "cpu")
    tokenizer = checkpoints.load_tokenizer(folder)
    chosen = engine or sampling.engine_for(network)

    def answer(shard: RolloutShard) -> Iterator[Answer]:
        params = sampling.SamplingParams(
            n=config.samples, temperature=config.temperature, max_tokens=config.max_new_tokens,
            seed=derive_seed(seed, shard.first),
        )
        prompts = [problem.prompt for problem in shard.problems]
        groups = sampling.sample(network, tokenizer, prompts, params, engine=chosen, tick=shard.tick)
        return (Answer(sample.text, sample.finish_reason, len(sample.ids)) for group in groups for sample in group)

    return _whole_shards(answer, config.samples)


def _whole_shards(answer: Callable[[RolloutShard], Iterable[Answer]], samples: int) -> Teacher:
    """A teacher that answers a whole shard at once: a stop loses what was sampled of the open one, up to 250 questions.
    A shard that was answered in part is answered again, which gives the same answers, and only the pending ones are
    delivered.
    """

    def teacher(shards: Iterable[RolloutShard], deliver: Deliver) -> None:
        for shard in shards:
            pending = set(shard.pending)
            for number, text in enumerate(answer(shard)):
                if divmod(number, samples) in pending:
                    deliver(shard, divmod(number, samples), text)

    return teacher


def _stopped(text: str, tokenizer: PreTrainedTokenizerFast) -> Answer:
    """A complete answer with its number of tokens, the end token included."""
    return Answer(text, "stop", len(chat.completion_ids(tokenizer, text)) + 1)


def sampling_fields(endpoint: Endpoint, config: DistillationConfig) -> dict:
    """What every request says of sampling: the model's own distribution, in every field that the API has for it.

    A server fills in what is left unsaid, llama.cpp with top_k 40, top_p 0.95 and min_p 0.05, vLLM with what the
    model's generation_config.json recommends; and a teacher's mistakes are what that cuts away. The API has no field
    for top_k and min_p: `Endpoint.extra_body`.
    """
    return endpoint.fields(
        temperature=config.temperature, top_p=1.0, presence_penalty=0.0, frequency_penalty=0.0,
        max_tokens=config.max_new_tokens,
    )


def endpoint_teacher(
    endpoint: Endpoint, config: DistillationConfig, seed: int, spending: Spending, tokenizer: PreTrainedTokenizerFast,
    instruction: str = INSTRUCTION,
) -> Teacher:
    """One request a rollout, until the budget of `spending` is spent; what the server counts is added to it.

    `tokenizer` counts the answers' tokens. `instruction` stands before the question, as in training; models that know
    their task need none.
    """

    def teacher(shards: Iterable[RolloutShard], deliver: Deliver) -> None:
        def requests() -> Iterator[tuple[tuple[RolloutShard, SampleKey], dict]]:
            for shard in shards:
                for key in list(shard.pending):
                    if spending.reached:
                        return
                    problem = shard.problems[key[0]]
                    content = chat.prepend_instruction(instruction, problem.prompt)
                    yield (shard, key), {
                        "messages": [{"role": "user", "content": content}], **sampling_fields(endpoint, config),
                        "seed": _request_seed(seed, problem.id, key[1]),
                    }

        def receive(request: tuple[RolloutShard, SampleKey], completion: ChatCompletion | None) -> None:
            shard, key = request
            spending.requests += 1
            shard.tick(1)
            if completion is None:  # refused: saved as an empty answer, so that it is not asked for again
                return deliver(shard, key, Answer("", "refused", 0))
            spending.count(completion)  # first: an answer that cannot be read was paid for, too
            choice = completion.choices[0]
            answer = _stopped(endpoint.redact(reply_text(choice.message)), tokenizer)
            if choice.finish_reason == "length":
                answer = answer._replace(finish_reason="length", tokens=answer.tokens - 1)  # it has no end token
            deliver(shard, key, answer)
            spending.require_counted(completion)

        send_all(endpoint, requests(), receive, kept="The answers so far are saved; the same command continues")

    return teacher


def reply_text(message: ChatCompletionMessage) -> str:
    """The text of a served model's message, with its thoughts between <think> tags wherever the server puts them.

    vLLM, SGLang and DeepSeek send them separately as `reasoning_content`, newer vLLM as `reasoning`, Ollama as
    `thinking`; others leave them in the text, without the opening tag where the chat template wrote it. Thoughts that
    nothing follows were cut, and stay open. Raises ValueError for a message that is no text.
    """
    text, extra = message.content or "", message.model_extra or {}
    thoughts = extra.get("reasoning_content") or extra.get("reasoning") or extra.get("thinking") or ""
    if not isinstance(text, str) or not isinstance(thoughts, str):
        raise ValueError("a message that is no text")
    return rows.with_thoughts(thoughts, text) if thoughts else chat.with_opening_tag(text)


def trace_teacher(traces: Mapping[str, Sequence[str]], tokenizer: PreTrainedTokenizerFast) -> Teacher:
    """Published traces as rollouts: `traces` by problem id, their tokens counted by `tokenizer`."""

    def teacher(shards: Iterable[RolloutShard], deliver: Deliver) -> None:
        for shard in shards:
            for index, sample in list(shard.pending):
                shard.tick(1)
                deliver(shard, (index, sample), _stopped(traces[shard.problems[index].id][sample], tokenizer))

    return teacher


def _request_seed(seed: int, problem: str, sample: int) -> int:
    """A different seed for every rollout; the same one when it is requested again."""
    return int(hashlib.sha256(f"{seed}/{problem}/{sample}".encode()).hexdigest()[:7], 16)
