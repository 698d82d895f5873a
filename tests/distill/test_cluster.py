"""Many processes make the same set as one."""

import sys
from types import SimpleNamespace

import pytest
from served_distillation import distil, reply

from phi_lab.distill import spending


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


def test_workers_share_what_is_left_of_a_budget(tmp_path):
    """Money of earlier commands, whatever their number of processes, counts once and for all of them."""
    usage = SimpleNamespace(prompt_tokens=0, completion_tokens=10_000_000)
    answer = SimpleNamespace(usage=usage, model="m", system_fingerprint=None)
    for process in (0, 1):
        worker = spending.Spending(0, 1, budget=60, share=0.5)
        worker.continue_in(tmp_path if process else tmp_path / "alone", process)
        while not worker.reached:
            worker.count(answer)
        assert worker.money == 30 and "a worker's part of the budget of 60" in worker.why_unanswered()
    later = spending.Spending(0, 1, budget=60)
    later.continue_in(tmp_path)
    assert later.money == 30 and not later.reached and later.why_unanswered().startswith("the same command")
    later.count(answer)
    later.continue_in(tmp_path, 3)  # by now the others are spending: what was there before stays
    assert later.money == 40 and later.before == 30 and later.record.name == "00003.jsonl"


@pytest.mark.slow
def test_two_workers_keep_a_budget_over_all_commands(tmp_path, server, capsys):
    server.behave = answered_by_seed
    for _ in range(2):  # a worker that has spent its part ends the others
        more = ("--workers", 2, "--concurrency", 1, "--price", 0, 1_000_000, "--budget", 70)
        assert order(tmp_path, server, "two", *more) == 2
        assert "budget" in capsys.readouterr().err and 5 <= len(server.bodies) <= 12  # 7 a rollout; two in flight


def test_workers_without_datatrove_are_one_clear_line(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "datatrove.executor", None)
    assert distil(tmp_path, server, "--workers", 2) == 2
    error = capsys.readouterr().err
    assert "--workers needs datatrove" in error and error.count("\n") == 1 and not server.bodies
