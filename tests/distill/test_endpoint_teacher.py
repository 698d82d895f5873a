"""A served model as a teacher, on good and on bad days."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nbclient
import pytest
import split_thoughts
from served_distillation import distil, good, reply

from phi_lab import cli, sampling
from phi_lab.config.schema import INSTRUCTION
from phi_lab.core import endpoint, lifeline
from phi_lab.core.files import read_json, read_rows, write_json
from phi_lab.core.paths import NOTEBOOKS, TEACHER
from phi_lab.distill import shards
from phi_lab.model import chat, checkpoints
from phi_lab.pipeline import notebooks
from phi_lab.problems import arithmetic

# ------------------------------------------------------------------ on good days


@pytest.fixture
def teacher_server(server):
    """The shipped teacher behind a real server."""
    network, tokenizer, lock = checkpoints.load(TEACHER), checkpoints.load_tokenizer(TEACHER), threading.Lock()

    def behave(handler, body):
        question = body["messages"][0]["content"].removeprefix(f"{INSTRUCTION}\n\n")  # as the student is asked
        with lock:
            params = sampling.SamplingParams(
                n=1, temperature=body["temperature"], max_tokens=body["max_tokens"], seed=body["seed"]
            )
            ((one,),) = sampling.sample(network, tokenizer, [question], params, quiet=True)
        handler.send(200, reply(one.text, len(one.ids), "stop" if one.finish_reason == "stop" else "length"))

    server.behave = behave
    return server


def test_a_cut_answer_is_counted_without_an_end_token(tmp_path, server, tokenizer):
    server.behave = lambda handler, body: handler.send(200, reply("<think>so it is", reason="length"))
    distil(tmp_path, server)
    rows = list(shards.rows(tmp_path / "set" / "rollouts"))
    assert len(rows) == 12
    assert {row["tokens"] for row in rows} == {len(chat.completion_ids(tokenizer, "<think>so it is"))}


def test_a_set_is_distilled_from_a_served_model(tmp_path, teacher_server, capsys):
    """The same funnel as in this process, all requests different."""
    server = teacher_server
    assert distil(tmp_path, server) == 0
    output = capsys.readouterr().out
    rows = list(shards.rows(tmp_path / "set" / "rollouts"))
    assert len(rows) == 12 == len(server.bodies) and len({body["seed"] for body in server.bodies}) == 12
    assert sum(row["verdict"] == "right" for row in rows) >= 6  # the teacher is right on most
    spent = sum(row["tokens"] for row in rows)
    assert f"12 requests, 132 tokens in, {spent:,} out." in output and "12 rollouts to 6 questions" in output
    right = read_rows(tmp_path / "set" / "right.jsonl")
    assert len(right) == read_json(tmp_path / "set" / "funnel.json")["steps"][-1]["kept"] > 0
    card = (tmp_path / "set" / "README.md").read_text()
    assert f"teacher at {server.url}" in card and "![The funnel](funnel.png)" in card
    assert (tmp_path / "set" / "funnel.png").read_bytes().startswith(b"\x89PNG")


def test_a_set_with_the_instruction_behind_the_question_is_not_continued(tmp_path, teacher_server, capsys):
    """Release 0.1 asked so; its manifest does not name the position."""
    assert distil(tmp_path, teacher_server) == 0
    manifest = tmp_path / "set" / "distill.json"
    saved = read_json(manifest)
    assert saved.pop("instruction_position") == "before"
    write_json(manifest, saved)
    assert distil(tmp_path, teacher_server, "--questions", "8") == 2
    assert "instruction_position differs from this command's; choose another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_a_set_is_distilled_from_transformers_serve(tmp_path, capsys):
    """A real product's server, with the shipped teacher, which was never taught an instruction."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["transformers", "serve", str(TEACHER), "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [str(Path(sys.executable).parent / command[0]), *command[1:]], stdout=output, stderr=output,
            preexec_fn=lifeline.in_child(),
        )
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        url, name = f"http://127.0.0.1:{port}/v1", str(TEACHER)
        more = ["--teacher-url", url, "--teacher-model", name, "--instruction", "", "--concurrency", "2"]
        code = cli.main(["distill", "--teacher", "endpoint", "--questions", "4", "--samples", "2", *more,
                         "--out", str(tmp_path / "set")])
        assert code == 0, capsys.readouterr().err + log.read_text()
    finally:
        server.terminate()
        server.wait()
    rows = list(shards.rows(tmp_path / "set" / "rollouts"))
    assert len(rows) == 8 and sum(row["verdict"] == "right" for row in rows) >= 4
    assert "8 requests, " in capsys.readouterr().out


@pytest.mark.slow
def test_notebook_02_trains_on_a_set_from_an_endpoint(tmp_path, teacher_server, monkeypatch):
    assert distil(tmp_path, teacher_server, "--questions", 24, "--samples", 4) == 0
    monkeypatch.setenv("PHI_LAB_DATA", str(tmp_path / "set"))
    monkeypatch.setenv("PHI_LAB_PROFILE", "smoke")
    monkeypatch.setenv("PHI_LAB_RUN", str(tmp_path / "run"))
    page = notebooks.build(notebooks.SOURCES / "02_mid_training.py")
    nbclient.NotebookClient(page, timeout=600, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    kept = read_json(tmp_path / "set" / "funnel.json")["steps"][-1]["kept"]
    right, held = (len(read_rows(tmp_path / "run" / "data" / f"{name}.jsonl")) for name in ("right", "validation"))
    assert right + held == kept and f"{right} right answers" in str(page.cells)
    assert read_json(tmp_path / "run" / "mid" / "done.json")["train_tokens"] > 0


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "<think>a</think>b"}, "<think>a</think>b"),
        ({"content": "b", "reasoning_content": "a"}, "<think>a</think>b"),
        ({"content": "b", "reasoning": "a"}, "<think>a</think>b"),
        ({"content": None, "reasoning_content": "a"}, "<think>a"),  # the teacher never closed it
        ({"content": "a</think>b"}, "<think>a</think>b"),  # the chat template opened it
        ({"content": "b", "thinking": "a"}, "<think>a</think>b"),
        ({"content": "b", "reasoning_content": None}, "b"),
        ({"content": None}, ""),
    ],
)
def test_thoughts_are_found_wherever_a_server_puts_them(tmp_path, server, message, text):
    server.behave = lambda handler, body: handler.send(200, reply(**({"text": ""} | message)) | {
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}]
    })
    assert distil(tmp_path, server) == 0
    assert {row["completion"] for row in shards.rows(tmp_path / "set" / "rollouts")} == {text}


@pytest.mark.slow
def test_thoughts_that_a_reasoning_parser_splits_off_are_whole_again(tmp_path, teacher_server):
    """As vLLM's splits (tests/sampling/test_vllm_engine.py asks the same of vLLM itself)."""
    answer = teacher_server.behave

    def behave(handler, body):
        replies = []
        answer(SimpleNamespace(send=lambda status, content: replies.append(content)), body)
        message = replies[0]["choices"][0]["message"]
        thought, _, rest = message["content"].removeprefix("<think>").partition("</think>")
        message |= {"reasoning": thought, "content": rest or None}
        handler.send(200, replies[0])

    teacher_server.behave = behave
    for tokens in (split_thoughts.LONG, split_thoughts.CUT):
        split_thoughts.require_thoughts_apart(teacher_server.url, tokens)
        split_thoughts.require_greedy_set(teacher_server.url, tmp_path / f"set-{tokens}", tokens, parsed=True)


@pytest.mark.parametrize("message", [
    {"content": "It may be \\boxed{GOLD}"},  # of a template that opened the thought, or a plain teacher's: who knows?
    {"content": None, "reasoning_content": "It may be \\boxed{GOLD}"},
    {"content": "<think>It may be \\boxed{GOLD}"},
])
def test_a_cut_thought_that_names_the_gold_is_not_right(tmp_path, server, message):
    golds = {problem.prompt: problem.answer for problem in arithmetic.sample_problems(6, 0)}

    def behave(handler, body):
        gold = golds[body["messages"][0]["content"].removeprefix(f"{INSTRUCTION}\n\n")]
        said = {name: text and text.replace("GOLD", gold) for name, text in message.items()}
        handler.send(200, {"choices": [{"index": 0, "finish_reason": "length", "message": said}]})

    server.behave = behave
    assert distil(tmp_path, server) == 0
    assert {row["verdict"] for row in shards.rows(tmp_path / "set" / "rollouts")} == {"unfinished"}


def test_requests_are_in_flight_together(tmp_path, server):
    enough = threading.Event()

    def behave(handler, body):
        if server.flight >= 5:
            enough.set()
        if len(server.bodies) > 1:
            enough.wait(3)
        good(handler, body)

    server.behave = behave
    assert distil(tmp_path, server, "--concurrency", 5) == 0
    assert server.most == 5


def test_the_budget_stops_it_and_more_money_goes_on(tmp_path, server, capsys):
    server.behave = good
    price = ("--price", 0, 1_000_000, "--concurrency", 1)
    assert distil(tmp_path, server, *price, "--budget", 35) == 2
    assert len(server.bodies) == 5  # 7 a rollout
    said = "7 rollouts were not answered; budget 35 reached, 35.00 spent on this set; raise --budget"
    assert said in capsys.readouterr().err
    for _ in range(2):  # the money of earlier commands counts
        assert distil(tmp_path, server, *price, "--budget", 35) == 2
        assert len(server.bodies) == 5 and said in capsys.readouterr().err
    assert distil(tmp_path, server, *price, "--budget", 1000) == 0
    assert len(server.bodies) == 12 and "84.00 of 1000." in capsys.readouterr().out
    (tmp_path / "set" / "spent" / "00000.jsonl").write_text("[1]\n")
    assert distil(tmp_path, server, *price, "--budget", 1000) == 2
    assert "00000.jsonl, line 1: no sum of money" in capsys.readouterr().err


def test_a_budget_is_refused_where_nothing_counts_the_money(tmp_path, server, capsys):
    assert distil(tmp_path, server, "--budget", 35) == 2 and not server.bodies
    assert "--price" in capsys.readouterr().err
    server.behave = lambda handler, body: handler.send(200, reply("\\boxed{7}") | {"usage": None})
    assert distil(tmp_path, server, "--price", 1, 1, "--budget", 35) == 2 and len(server.bodies) == 1
    assert "counts no tokens" in capsys.readouterr().err


def test_a_judge_has_the_second_word_on_what_the_rules_turn_down(tmp_path, server, capsys):
    """Answers in words: the rules read none of them, the judge accepts every lucky one."""
    judged = []

    def behave(handler, body):
        if body["messages"][0]["role"] == "system":
            judged.append(body["messages"][1]["content"])
            return "right" if "lucky number" in judged[-1] else "wrong"
        answer = "the lucky number" if body["seed"] % 2 else f"the number {body['seed']}"
        handler.send(200, reply(f"<think>so it is, and so on. </think>\\boxed{{{answer}}}"))

    server.behave = behave
    judge = ("--judge", server.url, "--judge-model", "j", "--judge-extra-body", '{"top_k": 1}')
    assert distil(tmp_path, server, *judge) == 0
    rows = list(shards.rows(tmp_path / "set" / "rollouts"))
    lucky = [row for row in rows if "lucky" in row["completion"]]
    assert 0 < len(lucky) < len(rows) == 12 and {row["verdict"] for row in rows} <= {"wrong", "unparsed"}
    right, wrong = (read_rows(tmp_path / "set" / f"{name}.jsonl") for name in ("right", "wrong"))
    assert {row["id"] for row in right} == {row["id"] for row in lucky}
    assert {row["judge"] for row in right} == {"right"} and not any("lucky" in row["completion"] for row in wrong)
    report = read_json(tmp_path / "set" / "funnel.json")
    assert report["rescued"] == len(lucky) and report["verdicts"]["right"] == 0
    card = (tmp_path / "set" / "README.md").read_text()
    assert f"accepted by the judge | {len(lucky)} |" in card
    assert f"Second opinions: j at {server.url}, asked with {{\"top_k\": 1}}." in card
    assert {body.get("top_k") for body in server.bodies} == {None, 1}  # the teacher's requests, and the judge's
    before, asked = {p.name: p.read_bytes() for p in (tmp_path / "set").glob("*.jsonl")}, len(judged)
    assert "'asked': " in capsys.readouterr().out
    assert distil(tmp_path, server, *judge) == 0 and len(judged) == asked  # votes are kept
    assert {p.name: p.read_bytes() for p in (tmp_path / "set").glob("*.jsonl")} == before


# ------------------------------------------------------------------ on bad days


def test_trouble_on_the_way_loses_nothing(tmp_path, server, monkeypatch):
    """429, 500, 503 and a cut line: the same bytes as from a good server."""

    def behave(handler, body):
        turn = len(server.bodies)
        if turn == 3:
            return handler.connection.close()
        return {2: (429, "slow down"), 5: (500, "out of memory"), 7: (503, "busy")}.get(turn) or good(handler, body)

    server.behave = behave
    assert distil(tmp_path, server) == 0
    assert len(list(shards.rows(tmp_path / "set" / "rollouts"))) == 12 < len(server.bodies)
    server.behave = good
    assert distil(tmp_path / "good", server) == 0
    one, two = (sorted((tmp_path / where / "set" / "rollouts").glob("*.parquet")) for where in ("", "good"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


@pytest.mark.parametrize("kind", ["garbage", "drip", "no choices", "odd content"])
def test_an_answer_that_never_is_one_is_asked_again(tmp_path, server, capsys, kind):
    """One rollout of twelve stays without an answer; everything else is kept and not asked again."""
    bad = []

    def behave(handler, body):
        bad[:] = bad or [body["seed"]] * (len(server.bodies) == 4)
        if body["seed"] not in bad:
            return good(handler, body)
        if kind == "no choices":
            return handler.send(200, {"choices": []})
        if kind == "odd content":
            return handler.send(200, reply(["not", "text"]))
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.end_headers()
        for _ in range(1 if kind == "garbage" else 40):
            handler.wfile.write(b'{"choices": [{"ind' if kind == "garbage" else b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    server.behave = behave
    assert distil(tmp_path, server, "--timeout", 0.8, "--concurrency", 2) == 2
    error = capsys.readouterr().err
    assert "1 rollouts were not answered" in error and error.count("phi-lab:") == 1
    server.behave, before = good, len(server.bodies)
    assert distil(tmp_path, server, "--timeout", 0.8) == 0
    assert len(server.bodies) == before + 1


def test_a_dead_server_ends_it_in_one_line(tmp_path, server, capsys, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    server.behave = lambda handler, body: good(handler, body) if len(server.bodies) < 5 else (500, "gone\nfor good")
    assert distil(tmp_path, server, "--questions", 40, "--concurrency", 2) == 2
    error = capsys.readouterr().err
    assert f"teacher {server.url}: turns the question down" in error and "gone for good" in error
    assert "the same command continues" in error and len(server.bodies) < 40
    server.behave, before = good, len(server.bodies)
    assert distil(tmp_path, server, "--questions", 40) == 0
    assert len(server.bodies) - before == 80 - 4


def test_refused_connections_and_missing_addresses(tmp_path, server, capsys, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    dead = type("Dead", (), {"url": "http://127.0.0.1:9/v1"})
    assert distil(tmp_path, dead) == 2 and "cannot be reached" in capsys.readouterr().err
    assert cli.main(["distill", "--teacher", "endpoint", "--out", str(tmp_path)]) == 2
    assert "--teacher-url" in capsys.readouterr().err
