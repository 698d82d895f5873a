"""Servers with habits of their own, one after another: what they send is read, or told in one line."""

import pytest
from served_distillation import distil, good, reply

from phi_lab.core import endpoint, redaction
from phi_lab.distill import shards

SAID = "<think>so it is. </think>\\boxed{7}"


def completion(**message):
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}]}


READ = {  # habit: what is sent
    "no usage": completion(content=SAID),
    "usage null": {**completion(content=SAID), "usage": None},
    "usage of nulls": {**completion(content=SAID), "usage": {"prompt_tokens": None, "completion_tokens": None}},
    "no role": {"choices": [{"message": {"content": SAID}}]},
    "model and build null": {**completion(content=SAID), "model": None, "system_fingerprint": None},
    "thoughts as reasoning_content": completion(content="\\boxed{7}", reasoning_content="so it is. "),
    "thoughts as reasoning": completion(content="\\boxed{7}", reasoning="so it is. "),
    "thoughts as thinking": completion(content="\\boxed{7}", thinking="so it is. "),
    "thoughts null": completion(content=SAID, reasoning_content=None, reasoning=None),
    "the opening tag in the prompt": completion(content="so it is. </think>\\boxed{7}"),
    "an error that is null": {**completion(content=SAID), "error": None},
    "fields of its own": {**completion(content=SAID, refusal=None), "timings": {"predicted_n": 3}},
}


@pytest.mark.parametrize("habit", READ)
def test_what_is_sent_is_read(tmp_path, server, habit):
    server.behave = lambda handler, body: handler.send(200, READ[habit])
    assert distil(tmp_path, server) == 0
    assert {row["completion"] for row in shards.rows(tmp_path / "set" / "rollouts")} == {SAID}


TOLD = {  # habit: status, what is sent, what the user reads
    "an error inside a 200": (200, {"error": {"message": "no credits left", "code": 402}}, "question down: no credits"),
    "an error inside a choice": (200, {"choices": [{"error": {"message": "upstream is gone"}}]}, "upstream is gone"),
    "FastAPI's 422": (422, {"detail": [{"loc": ["body", "top_k"], "msg": "extra fields not permitted"}]},
                      "question down: body.top_k: extra fields not permitted; --extra-body '{\"NAME\": null}'"),
    "OpenAI's 400": (400, {"error": {"message": "Unsupported parameter: 'max_tokens'", "param": "max_tokens"}},
                     "turns the question down: Unsupported parameter: 'max_tokens'; --extra-body"),
    "a bare detail": (400, {"detail": "no such field"}, "turns the question down: no such field"),
    "no choices": (200, {"object": "chat.completion"}, "does not answer like a chat endpoint"),
}


@pytest.mark.parametrize("habit", TOLD)
def test_what_a_server_says_is_told_in_one_line(tmp_path, server, capsys, monkeypatch, habit):
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    status, content, told = TOLD[habit]
    server.behave = lambda handler, body: handler.send(status, content)
    assert distil(tmp_path, server) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1, error


def test_one_question_that_is_turned_down_with_a_422_does_not_end_it(tmp_path, server):
    server.behave = lambda handler, body: (422, "too long") if len(server.bodies) == 4 else good(handler, body)
    assert distil(tmp_path, server, "--concurrency", 1) == 0
    reasons = [row["finish_reason"] for row in shards.rows(tmp_path / "set" / "rollouts")]
    assert sorted(reasons) == ["refused", *["stop"] * 11]


def test_a_proxy_that_cannot_be_used_is_told_without_its_password(tmp_path, server, capsys, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks9://ann:hunter2hunter2@127.0.0.1:1080")
    monkeypatch.delenv("NO_PROXY")
    assert distil(tmp_path, server) == 2
    error = capsys.readouterr().err
    assert "a SOCKS proxy needs" in error and error.count("\n") == 1 and "hunter2" not in error


@pytest.mark.parametrize("url", ["http://Host/v1/", "HTTP://host:80/v1", "http://ann:b@host/v1?x=1", "http://host/v1//"])
def test_a_url_is_known_in_every_spelling(url):
    assert redaction.canonical_url(url) == "http://host/v1"


def test_a_url_keeps_what_tells_servers_apart():
    for url in ("http://host:8000/v1", "https://host:80/v1", "http://host/V1", "http://host"):
        assert redaction.canonical_url(url) == url


def test_another_spelling_of_the_address_continues_the_set(tmp_path, server):
    server.behave = good
    assert distil(tmp_path, server) == 0
    again = type("Again", (), {"url": f"{server.url}/".replace("http", "HTTP")})
    assert distil(tmp_path, again) == 0 and len(server.bodies) == 12


def test_nothing_is_sent_to_be_repeated(tmp_path, server):
    """A reply of a server that repeats the request's fields in its own model name stays one line of the manifest."""
    server.behave = lambda handler, body: handler.send(200, {**reply(SAID), "model": "a\nb" * 200})
    assert distil(tmp_path, server) == 0
    assert "\nb" not in (tmp_path / "set" / "README.md").read_text()
