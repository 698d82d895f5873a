"""An endpoint on this computer's bad days: a full disk stops the paying at once, and no secret is shown or kept."""

import base64
import errno
import os
import resource
from contextlib import contextmanager

import pytest
from served_distillation import distil, good, reply

from phi_lab import cli
from phi_lab.core import endpoint, files, redaction
from phi_lab.core.errors import UserError
from phi_lab.core.files import append_text, read_journal, write_rows
from phi_lab.distill import shards

KEY = "sk-0123456789abcdef"
PASSWORD = "hunter2/hunter2"


@contextmanager
def no_file_larger_than(size):
    """What a full disk or a quota does to a file, by the system itself."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_stops_the_requests_and_the_same_command_continues(tmp_path, server, capsys):
    server.behave = lambda handler, body: handler.send(200, reply(f"<think>{'so it is. ' * 20}</think>\\boxed{{7}}"))
    with no_file_larger_than(1500):
        assert distil(tmp_path, server, "--questions", 40, "--concurrency", 2) == 2
    error = capsys.readouterr().err
    assert "000000.jsonl: File too large; make room" in error and "teacher" not in error
    sent, kept = len(server.bodies), len(read_journal(tmp_path / "set" / "rollouts" / "000000.jsonl"))
    assert kept >= 3 and sent <= kept + 2  # what was on its way when the disk was full
    assert distil(tmp_path, server, "--questions", 40) == 2  # what repeats itself is left out, and nothing is left
    assert "the step no repetition" in capsys.readouterr().err
    assert len(server.bodies) == sent + 80 - kept and len(list(shards.rows(tmp_path / "set" / "rollouts"))) == 80


def test_a_shard_that_cannot_be_written_stops_them_too(tmp_path, server, capsys, monkeypatch):
    """Its answers were verified beside the requests for the next shard."""
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    server.behave = good
    monkeypatch.setattr(shards, "PROBLEMS_PER_SHARD", 2)
    monkeypatch.setattr(shards, "write", full)
    assert distil(tmp_path, server, "--questions", 60, "--concurrency", 1) == 2
    error = capsys.readouterr().err
    assert "No space left on device" in error and error.count("\n") == 1 and len(server.bodies) < 60


def test_votes_that_cannot_be_kept_are_not_paid_for(tmp_path, server, capsys):
    write_rows(tmp_path / "cases.jsonl", [
        {"id": str(number), "gold": "5", "response": f"\\boxed{{{number}}}", "problem": "x"}
        for number in range(6, 46)
    ])
    command = ["verify", "--cases", tmp_path / "cases.jsonl", "--out", tmp_path / "out.jsonl", "--judge", server.url,
               "--judge-cache", tmp_path / "votes.jsonl", "--jobs", "1"]
    (tmp_path / "votes.jsonl").write_text("")
    append = files.append_text
    with pytest.MonkeyPatch.context() as patched:
        def full(path, text):
            if path.name == "votes.jsonl" and path.stat().st_size > 500:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            append(path, text)

        patched.setattr(files, "append_text", full)
        assert cli.main([str(part) for part in command]) == 2
    assert "votes.jsonl: No space left" in capsys.readouterr().err and len(server.bodies) < 20
    votes = len(read_journal(tmp_path / "votes.jsonl"))
    assert cli.main([str(part) for part in command]) == 0 and votes > 0
    assert len(read_journal(tmp_path / "votes.jsonl")) == 40


def test_half_a_line_is_taken_away_again(tmp_path):
    append_text(tmp_path / "journal", "first\n")
    with no_file_larger_than(20), pytest.raises(OSError):
        append_text(tmp_path / "journal", "x" * 100 + "\n")
    append_text(tmp_path / "journal", "second\n")
    assert (tmp_path / "journal").read_text() == "first\nsecond\n"


# ------------------------------------------------------------------ secrets


def written(folder):
    """Everything that a command left in a folder, names and contents."""
    return b"".join(str(path).encode() + (path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))


def with_password(url):
    return url.replace("http://", f"http://ann:{PASSWORD.replace('/', '%2F')}@") + "?token=abcdef123456"


@pytest.mark.parametrize("workers", [[], pytest.param(["--workers", "2"], marks=pytest.mark.slow)])
def test_a_password_in_the_address_stays_out_of_all_files(tmp_path, server, capsys, monkeypatch, workers):
    server.behave = good
    hidden = type("Hidden", (), {"url": with_password(server.url)})
    monkeypatch.setattr("sys.argv", ["phi-lab", "distill", "--teacher-url", hidden.url, f"--judge={hidden.url}"])
    assert distil(tmp_path, hidden, "--judge", hidden.url, *workers) == 0
    output, kept = capsys.readouterr(), written(tmp_path)
    for secret in (PASSWORD, "hunter2", "abcdef123456"):
        assert secret.encode() not in kept and secret not in output.out + output.err
    card = (tmp_path / "set" / "README.md").read_text()
    assert f"teacher at {server.url}" in card and f"--judge={server.url}" in card


@pytest.mark.parametrize("status", [400, 404, 418, 500])
def test_a_server_that_repeats_what_it_was_sent(tmp_path, server, capsys, monkeypatch, status):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    server.behave = lambda handler, body: (status, f"no {handler.headers['authorization']}, {KEY}, hunter2/hunter2")
    hidden = type("Hidden", (), {"url": with_password(server.url)})
    assert distil(tmp_path, hidden) == 2
    error = capsys.readouterr().err
    basic = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    assert KEY not in error and "hunter2" not in error and basic not in error and "***" in error


def test_a_key_in_an_answer_is_not_kept(tmp_path, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.behave = lambda handler, body: handler.send(200, {
        **reply(f"{handler.headers['authorization']} \\boxed{{7}}"), "model": f"m of {KEY}"})
    assert distil(tmp_path, server) == 0
    assert KEY.encode() not in written(tmp_path)  # manifest and card have the server's name for its model
    assert {row["completion"] for row in shards.rows(tmp_path / "set" / "rollouts")} == {"Bearer *** \\boxed{7}"}


def test_a_key_with_a_line_break(tmp_path, server, monkeypatch, capsys):
    """At its end, as files have it, it is taken away; within, nothing is sent and nothing shown."""
    seen = []

    def behave(handler, body):
        seen.append(handler.headers["authorization"])
        return good(handler, body)

    server.behave = behave
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    assert distil(tmp_path, server) == 0 and set(seen) == {f"Bearer {KEY}"}
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\r\nX-Other: 1")
    sent, _ = len(seen), capsys.readouterr()
    assert distil(tmp_path / "other", server) == 2 and len(seen) == sent
    error = capsys.readouterr().err
    assert "OPENAI_API_KEY holds a line break" in error and KEY not in error


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://a:b@host:80/v1?key=x#y", "http://host:80/v1"), ("http://a:b/c@host/v1", "http://host/v1"),
        ("a:b@host/v1", "host/v1"), ("http://host/v1", "http://host/v1"), ("http://a:b?c@host", "http://host"),
    ],
)
def test_what_is_shown_of_an_address(url, shown):
    assert redaction.public_url(url) == shown
    assert redaction.public_command([f"--judge={url}", "of a:b"]) == [
        f"--judge={shown if '://' in url else url}", "of a:b"]


@pytest.mark.parametrize("url", ["http://", "http://a:b/c@host/v1", "http://[", "http://a b/v1", "ftp://host", "http://h:0"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url):
    with pytest.raises(UserError, match="must start with http"):
        endpoint.send_all(endpoint.Endpoint(url, "m"), [(1, {"messages": []})], lambda *_: None, kept="")
