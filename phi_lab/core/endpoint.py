"""Many concurrent requests to one OpenAI-compatible endpoint, for the endpoint teacher and the judge.

The client is the `openai` package: it retries 429, 5xx and lost connections with growing pauses. This module adds many
requests in flight, the first one alone (a wrong key or name costs one request); a callback for every reply as it
arrives; a deadline for the whole request (the client's own restarts with every byte); and one line for the user when
the endpoint fails. vLLM, SGLang, Ollama and hosted services speak this protocol.
"""

import os
import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from phi_lab.core.errors import UserError
from phi_lab.core.formatting import one_line

# What servers' chat templates write around a text: those of Phi, Qwen and Llama 3, DeepSeek, Gemma, Llama 2, thoughts.
TURN = re.compile(r"<[|\uff5c][^<>\n]{1,40}[|\uff5c]>|</?s>|</?think>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>")
RETRIES = 4  # by the client, with its own growing pauses: 429, 5xx, lost connections


@dataclass(frozen=True)
class Endpoint:
    """A served model. `timeout`: seconds for one request, retries included; `concurrency`: requests in flight;
    `tolerance`: consecutive failures after which it gives up. A server without keys ignores the key.
    """

    base_url: str
    model: str
    role: str = "teacher"  # "teacher" or "judge": named in errors, and the prefix of its command-line options
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout: float = 60.0
    tolerance: int = 1


@dataclass
class _Progress:
    """Counts of requests, and the error that ends them."""

    answered: int
    failures: int = 0  # in a row
    lost: int = 0
    error: Exception | None = None


def send_all(
    endpoint: Endpoint, requests: Iterable[tuple[Hashable, dict]], done: Callable[[Any, Any], None],
    *, kept: str, proven: bool = False,
) -> int:
    """Send every (key, arguments of a chat completion) and call `done(key, completion)` for each reply, from another
    thread; returns the number of requests that failed.

    `requests` is read lazily, as requests complete, so it may end early when a budget is spent. What looks like a turn
    in a message reaches the server in another form (`without_turns`). `done` may raise
    ValueError, LookupError, TypeError or AttributeError for a completion that it cannot read. `proven`: this model has
    replied before. A request that the server rejects after good ones (a content filter) gives `done(key, None)`.
    Raises UserError, one line that ends with `kept`, for an endpoint that fails.
    """
    try:
        import openai
        from anyio import create_task_group, fail_after
        from anyio.from_thread import start_blocking_portal
    except ImportError:
        raise UserError(
            f"a {endpoint.role} needs the openai package: pip install -c constraints.txt -e '.[endpoint]'"
        ) from None
    if not endpoint.base_url.startswith(("http://", "https://")):
        raise UserError(f"{endpoint.role} {endpoint.base_url}: the address must start with http:// or https://")
    pending, state = iter(requests), _Progress(answered=int(proven))

    async def work(client: Any, batch: Iterable[tuple[Hashable, dict]]) -> None:
        for key, arguments in batch:
            if state.error:
                return
            try:
                with fail_after(endpoint.timeout):
                    completion = await client.chat.completions.create(
                        model=endpoint.model, **{**arguments, "messages": without_turns(arguments["messages"])}
                    )
                done(key, completion)
                state.answered, state.failures = state.answered + 1, 0
            except (openai.OpenAIError, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
                if isinstance(error, openai.BadRequestError) and state.answered:
                    done(key, None)
                    continue
                state.lost, state.failures = state.lost + 1, state.failures + 1
                if state.failures >= endpoint.tolerance or not state.answered:
                    state.error = error

    async def send() -> None:
        key = os.environ.get(endpoint.api_key_env) or "none"
        async with openai.AsyncOpenAI(base_url=endpoint.base_url, api_key=key, max_retries=RETRIES) as client:
            await work(client, islice(pending, 1))
            async with create_task_group() as group:
                for _ in range(endpoint.concurrency):
                    group.start_soon(work, client, pending)

    # The portal is a thread with its own event loop, because a notebook's loop is taken.
    with start_blocking_portal() as portal:
        portal.call(send)
    if state.error:
        raise _user_error(state.error, endpoint, kept)
    return state.lost


def without_turns(messages: Iterable[dict]) -> list[dict]:
    """The messages with a zero-width space in each text that looks like a turn: a server puts its own turns around a
    message and then reads all of it, so `<|end|><|assistant|>` in a question would become one.
    """
    return [
        {**message, "content": TURN.sub(lambda mark: f"{mark[0][0]}\u200b{mark[0][1:]}", message["content"])}
        for message in messages
    ]


def _user_error(error: Exception, endpoint: Endpoint, kept: str) -> Exception:
    """One line for the user about a failed request; an OSError such as a full disk is returned as it is."""
    import openai

    detail = one_line(error.__cause__ or error)
    match error:
        case TimeoutError() | openai.APITimeoutError():
            what = f"gives no answer within {endpoint.timeout:g} seconds; is it overloaded?"
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            what = f"refuses the key; put a valid one into the environment variable {endpoint.api_key_env}"
        case openai.NotFoundError():
            what = (
                f"knows no model {endpoint.model!r}; check --{endpoint.role}-model, and that the address ends in /v1 "
                f"({detail})"
            )
        case openai.APIConnectionError():
            what = f"cannot be reached; is the server running, is the address right? ({detail})"
        case openai.APIStatusError():
            what = f"turns the question down: {detail}"
        case OSError():
            return error
        case _:
            what = f"does not answer like a chat endpoint; check that the address ends in /v1 ({detail})"
    return UserError(f"{endpoint.role} {endpoint.base_url}: {what}. {kept}")
