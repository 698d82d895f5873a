"""Many questions to one OpenAI-compatible endpoint: the judge's and the endpoint teacher's way out.

The client is the `openai` package: it retries 429, 5xx and lost connections with growing pauses. What is ours is around
it: many requests in flight, the first one alone (a wrong key or name costs one request), every answer handed on when it
arrives, a deadline for a whole request (the client's own starts anew with every byte), and one line for the user when
the endpoint fails. vLLM, SGLang, Ollama and hosted services speak this protocol.
"""

import os
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import islice

from phi_lab.core.errors import UserError

RETRIES = 4  # by the client, with its own growing pauses: 429, 5xx, lost connections


@dataclass(frozen=True)
class Endpoint:
    """Whom to ask. `timeout`: seconds for one request, retries included; `concurrency`: requests at once; `tolerance`:
    so many failures in a row end it. A server without keys ignores the key.
    """

    base_url: str
    model: str
    who: str = "teacher"  # its part in the play, and the name of its options
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout: float = 60.0
    tolerance: int = 1


def ask(
    endpoint: Endpoint, requests: Iterable[tuple[Hashable, dict]], done: Callable[[Hashable, object], None],
    *, kept: str, proven: bool = False,
) -> int:
    """Send every (key, arguments of a chat completion) and call `done(key, completion)` as answers come, from another
    thread; returns how many were not answered.

    `requests` is read as places become free, so it may stop early, when a budget is spent. `done` may raise ValueError
    and its like for a completion that it cannot read. `proven`: this model has answered before. A request that the
    server turns down after good ones (a content filter) gives `done(key, None)`.
    Raises UserError, one line that ends with `kept`, for an endpoint that fails.
    """
    try:
        import openai
        from anyio import create_task_group, fail_after
        from anyio.from_thread import start_blocking_portal
    except ImportError:
        raise UserError(
            f"a {endpoint.who} needs the openai package: pip install -c constraints.txt -e '.[endpoint]'"
        ) from None
    if not endpoint.base_url.startswith(("http://", "https://")):
        raise UserError(f"{endpoint.who} {endpoint.base_url}: the address must start with http:// or https://")
    waiting, state = iter(requests), {"answered": int(proven), "failures": 0, "lost": 0, "error": None}

    async def work(client, some) -> None:
        for key, arguments in some:
            if state["error"]:
                return
            try:
                with fail_after(endpoint.timeout):
                    completion = await client.chat.completions.create(model=endpoint.model, **arguments)
                done(key, completion)
                state["answered"], state["failures"] = state["answered"] + 1, 0
            except (openai.OpenAIError, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
                if isinstance(error, openai.BadRequestError) and state["answered"]:
                    done(key, None)
                    continue
                state["lost"], state["failures"] = state["lost"] + 1, state["failures"] + 1
                if state["failures"] >= endpoint.tolerance or not state["answered"]:
                    state["error"] = error

    async def everyone() -> None:
        key = os.environ.get(endpoint.api_key_env) or "none"
        async with openai.AsyncOpenAI(base_url=endpoint.base_url, api_key=key, max_retries=RETRIES) as client:
            await work(client, islice(waiting, 1))
            async with create_task_group() as group:
                for _ in range(endpoint.concurrency):
                    group.start_soon(work, client, waiting)

    # The portal is a thread with its own event loop, because a notebook's loop is taken.
    with start_blocking_portal() as portal:
        portal.call(everyone)
    if state["error"]:
        raise _told(state["error"], endpoint, kept)
    return state["lost"]


def _told(error: Exception, endpoint: Endpoint, kept: str) -> Exception:
    """The user's line for what the endpoint did; a full disk stays what it is."""
    import openai

    words = " ".join(str(error.__cause__ or error).split())[:200]
    match error:
        case TimeoutError() | openai.APITimeoutError():
            what = f"gives no answer within {endpoint.timeout:g} seconds; is it overloaded?"
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            what = f"refuses the key; put a valid one into the environment variable {endpoint.api_key_env}"
        case openai.NotFoundError():
            what = (
                f"knows no model {endpoint.model!r}; check --{endpoint.who}-model, and that the address ends in /v1 "
                f"({words})"
            )
        case openai.APIConnectionError():
            what = f"cannot be reached; is the server running, is the address right? ({words})"
        case openai.APIStatusError():
            what = f"turns the question down: {words}"
        case OSError():
            return error
        case _:
            what = f"does not answer like a chat endpoint; check that the address ends in /v1 ({words})"
    return UserError(f"{endpoint.who} {endpoint.base_url}: {what}. {kept}")
