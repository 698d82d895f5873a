"""Many concurrent requests to one OpenAI-compatible endpoint, for the endpoint teacher and the judge.

The client is the `openai` package: it retries 429, 5xx and lost connections with growing pauses. This module adds many
requests in flight, the first one alone (a wrong key or name costs one request); a callback for every reply as it
arrives; a deadline for the whole request (the client's own restarts with every byte); and one line for the user when
the endpoint fails. vLLM, SGLang, Ollama and hosted services speak this protocol.
"""

import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from phi_lab.core import redaction
from phi_lab.core.errors import UserError
from phi_lab.core.formatting import one_line

# What servers' chat templates write around a text: those of Phi, Qwen and Llama 3, DeepSeek, Gemma, Llama 2, thoughts.
TURN = re.compile(r"<[|\uff5c][^<>\n]{1,40}[|\uff5c]>|</?s>|</?think>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>")
UNREADABLE = (AttributeError, LookupError, TypeError, ValueError)  # what a completion of another form raises
RETRIES = 4  # by the client, with its own growing pauses: 429, 5xx, lost connections


@dataclass(frozen=True)
class Endpoint:
    """A served model. `timeout`: seconds for one request, retries included; `concurrency`: requests in flight;
    `tolerance`: consecutive failures after which it gives up; `extra_body`: fields of every request beside ours, or in
    their place. A server without keys ignores the key.
    """

    base_url: str
    model: str
    role: str = "teacher"  # "teacher" or "judge": named in errors, and the prefix of its command-line options
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout: float = 60.0
    tolerance: int = 1
    extra_body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The URL as it may be shown and written down: without a user, a password or a query, in one spelling."""
        return redaction.canonical_url(self.base_url)

    def key(self) -> str:
        """The key, without white space around it. Raises UserError, which does not show it, for one that is none."""
        key = os.environ.get(self.api_key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"the environment variable {self.api_key_env} holds a line break or another character that "
                            "no key has; set it again")
        return key

    def require_usable(self) -> None:
        """Raises UserError for an address or a key that cannot be one, before anything is sent."""
        if not redaction.is_web_address(self.base_url):
            raise UserError(
                f"{self.role} {self.address}: the address must start with http:// or https:// and name a server"
            )
        self.key()

    def fields(self, **ours: Any) -> dict[str, Any]:
        """The fields of a request beside model and messages: ours and `extra_body`'s, whose null leaves one out."""
        return {name: value for name, value in {**ours, **self.extra_body}.items() if value is not None}

    def redact(self, text: str) -> str:
        """A text of the server's without the key and the password that it may repeat."""
        return redaction.redact(text, [self.key(), *redaction.url_secrets(self.base_url)])


@dataclass
class _Conversation:
    """The requests to one endpoint: how they go, and the error that ends them."""

    endpoint: Endpoint
    pending: Iterator[tuple[Hashable, dict]]
    done: Callable[[Any, Any], None]
    answered: int
    failures: int = 0  # in a row
    lost: int = 0
    error: Exception | None = None  # the server's
    ours: Exception | None = None  # such as a full disk

    async def hold(self) -> None:
        """Send all requests, the first one alone."""
        import openai
        from anyio import create_task_group

        url, key = self.endpoint.base_url, self.endpoint.key() or "none"
        try:
            client = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=RETRIES)
        except (ImportError, ValueError):  # what they say may hold the proxy's password
            raise UserError(
                f"{self.endpoint.role} {self.endpoint.address}: the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY "
                "names cannot be used; a SOCKS proxy needs `pip install socksio`, and NO_PROXY=HOST goes without"
            ) from None
        async with client:
            async with create_task_group() as group:
                await self.work(client, islice(self.pending, 1), group.cancel_scope.cancel)
                for _ in range(self.endpoint.concurrency):
                    group.start_soon(self.work, client, self.pending, group.cancel_scope.cancel)

    async def work(self, client: Any, requests: Iterator[tuple[Hashable, dict]], stop: Callable[[], None]) -> None:
        """One request after another. After an error of ours nothing more is asked, and `stop` ends the other workers:
        what the server answers can no longer be kept.
        """
        try:
            for key, arguments in requests:
                if self.error:
                    return
                await self.ask(client, key, arguments)
        except Exception as error:
            self.ours = error
            stop()

    async def ask(self, client: Any, key: Hashable, arguments: dict) -> None:
        """Send one request and hand on what comes back."""
        import openai
        from anyio import fail_after

        messages, fields = without_turns(arguments["messages"]), dict(arguments)
        del fields["messages"]
        fields = self.endpoint.fields(**fields)
        try:
            with fail_after(self.endpoint.timeout):
                completion = await client.chat.completions.create(
                    model=self.endpoint.model, messages=messages, extra_body=fields
                )
            require_answer(completion)
        except (openai.OpenAIError, OSError, *UNREADABLE) as error:
            if isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError) and self.answered:
                return self.done(key, None)
            return self.failed(error)
        try:
            self.done(key, completion)
        except UNREADABLE as error:
            return self.failed(error)
        self.answered, self.failures = self.answered + 1, 0

    def failed(self, error: Exception) -> None:
        """Count a request without an answer, and give up where there are too many in a row."""
        self.lost, self.failures = self.lost + 1, self.failures + 1
        if self.failures >= self.endpoint.tolerance or not self.answered:
            self.error = error


def send_all(
    endpoint: Endpoint, requests: Iterable[tuple[Hashable, dict]], done: Callable[[Any, Any], None],
    *, kept: str, proven: bool = False,
) -> int:
    """Send every (key, arguments of a chat completion) and call `done(key, completion)` for each reply, from another
    thread; returns the number of requests that failed.

    `requests` is read lazily, as requests complete, so it may end early when a budget is spent. What looks like a turn
    in a message reaches the server in another form (`without_turns`). `done` may raise ValueError, LookupError,
    TypeError or AttributeError for a completion that it cannot read; any other error of its own, such as a full disk,
    ends everything at once. `proven`: this model has replied before. A request that the server rejects after good ones
    (a content filter) gives `done(key, None)`. Raises UserError, one line that ends with `kept`, for an endpoint that
    fails.
    """
    try:
        import openai  # noqa: F401
        from anyio.from_thread import start_blocking_portal
    except ImportError:
        raise UserError(
            f"a {endpoint.role} needs the openai package: pip install -c constraints.txt -e '.[endpoint]'"
        ) from None
    endpoint.require_usable()
    conversation = _Conversation(endpoint, iter(requests), done, answered=int(proven))
    # The portal is a thread with its own event loop, because a notebook's loop is taken.
    with start_blocking_portal() as portal:
        portal.call(conversation.hold)
    if conversation.ours:
        raise conversation.ours
    if conversation.error:
        raise _user_error(conversation.error, endpoint, kept)
    return conversation.lost


def without_turns(messages: Iterable[dict]) -> list[dict]:
    """The messages with a zero-width space in each text that looks like a turn: a server puts its own turns around a
    message and then reads all of it, so `<|end|><|assistant|>` in a question would become one.
    """
    return [
        {**message, "content": TURN.sub(lambda mark: f"{mark[0][0]}\u200b{mark[0][1:]}", message["content"])}
        for message in messages
    ]


class SaidInstead(ValueError):
    """What a server says under the status 200 in place of an answer."""


def require_answer(completion: Any) -> None:
    """Raises SaidInstead for a completion that is an error in truth, as some routers send one."""
    choices = getattr(completion, "choices", None) or [None]
    for place in (completion, choices[0]):
        error = (getattr(place, "model_extra", None) or {}).get("error")
        if error:
            raise SaidInstead(words(error))


def words(body: Any) -> str:
    """What the body of an error says in words: OpenAI's `message`, FastAPI's `detail`, or all of it."""
    if not isinstance(body, dict):
        return str(body)
    said = body.get("message") or body.get("detail") or body.get("error") or body
    if isinstance(said, list) and all(isinstance(part, dict) and "msg" in part for part in said):
        return "; ".join(f"{'.'.join(map(str, part.get('loc', [])))}: {part['msg']}" for part in said)
    return str(said)


def _user_error(error: Exception, endpoint: Endpoint, kept: str) -> Exception:
    """One line for the user about a failed request."""
    import openai

    body = getattr(error, "body", None)
    detail = one_line(endpoint.redact(words(body) if body else str(error.__cause__ or error)))
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
        case openai.BadRequestError() | openai.UnprocessableEntityError():
            option = "--extra-body" if endpoint.role == "teacher" else f"--{endpoint.role}-extra-body"
            what = f"turns the question down: {detail}"
            what += f"; {option} '{{\"NAME\": null}}' leaves out a field that it does not know"
        case openai.APIStatusError() | SaidInstead():
            what = f"turns the question down: {detail}"
        case _:
            what = f"does not answer like a chat endpoint; check that the address ends in /v1 ({detail})"
    return UserError(f"{endpoint.role} {endpoint.address}: {what}. {kept}")
