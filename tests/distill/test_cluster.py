"""Many processes make the same set as one."""

import sys

import pytest
from served_distillation import distil, reply


def answered_by_seed(handler, body):
    """The same answer to the same request, whoever asks."""
    handler.send(200, reply(f"<think>{'so ' * (body['seed'] % 9)}</think>\\boxed{{{body['seed'] % 50}}}"))


def order(tmp_path, server, name, *more):
    """Two chunks of questions, one sample each."""
    more = ("--questions", 300, "--samples", 1, "--out", tmp_path / name, *more)
    return distil(tmp_path, server, *more)


def rollouts_of(folder):
    return {path.name: path.read_bytes() for path in (folder / "rollouts").glob("*.parquet")}


@pytest.mark.slow
def test_two_workers_make_the_same_set_as_one(tmp_path, server, capsys):
    """Also when the server fails for one of them on the way, and the command is given again."""
    server.behave = answered_by_seed
    # One request at a time: of many in flight, a few of the second shard's arrive among the first shard's last.
    assert order(tmp_path, server, "one", "--concurrency", 1) == 0
    alone = capsys.readouterr().out
    asked = {body["seed"] for body in server.bodies}
    assert len(asked) == len(server.bodies) == 300
    first = sorted(body["seed"] for body in server.bodies[:250])

    def failing(handler, body):
        return (500, "out of memory") if body["seed"] in first[200:] else answered_by_seed(handler, body)

    server.behave = failing
    assert order(tmp_path, server, "two", "--workers", 2) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith(f"phi-lab: teacher {server.url}: turns the question down")
    server.behave, before = answered_by_seed, len(server.bodies)
    assert order(tmp_path, server, "two", "--workers", 2) == 0
    assert {body["seed"] for body in server.bodies[300:]} == asked
    assert len(server.bodies) - before < 250  # what had been answered was kept
    assert rollouts_of(tmp_path / "one") == rollouts_of(tmp_path / "two") and len(rollouts_of(tmp_path / "one")) == 2
    for name in ("right.jsonl", "wrong.jsonl", "funnel.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "300 requests, 3,300 tokens in" in alone  # and the second time those that had been missing
    assert f"{len(server.bodies) - before} requests, " in capsys.readouterr().out


def test_workers_without_datatrove_are_one_clear_line(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "datatrove.executor", None)
    assert distil(tmp_path, server, "--workers", 2) == 2
    error = capsys.readouterr().err
    assert "--workers needs datatrove" in error and error.count("\n") == 1 and not server.bodies
