"""Teachers of every kind: a served model in good and bad days, published traces, sets of problems by many names."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbclient
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from phi_lab import cli, sampling
from phi_lab.core import endpoint, paths
from phi_lab.core.files import read_json, read_rows, write_rows
from phi_lab.distill import shards
from phi_lab.model import chat, checkpoints
from phi_lab.pipeline import notebooks
from phi_lab.problems import sources


def distil(tmp_path, server, *more):
    """Run the command against the server; returns the exit code."""
    command = ["distill", "--teacher", "endpoint", "--teacher-url", server.url, "--questions", "6", "--samples", "2"]
    return cli.main([*command, "--out", str(tmp_path / "set"), *map(str, more)])


def reply(text, tokens=7, reason="stop", **extra):
    """A chat completion as servers send it."""
    return {
        "choices": [{"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text, **extra}}],
        "usage": {"prompt_tokens": 11, "completion_tokens": tokens, "total_tokens": 11 + tokens},
    }


def good(handler, body):
    handler.send(200, reply("<think>so it is. </think>\\boxed{7}"))


# ------------------------------------------------------------------ an endpoint on good days


@pytest.fixture
def teacher_server(server):
    """The shipped teacher behind a real server."""
    network, tokenizer, lock = checkpoints.load(paths.TEACHER), checkpoints.load_tokenizer(paths.TEACHER), threading.Lock()

    def behave(handler, body):
        question = body["messages"][0]["content"].partition("\n\n")[0]
        with lock:
            params = sampling.SamplingParams(
                n=1, temperature=body["temperature"], max_tokens=body["max_tokens"], seed=body["seed"]
            )
            ((one,),) = sampling.sample(network, tokenizer, [question], params, quiet=True)
        handler.send(200, reply(one.text, len(one.ids), "stop" if one.finish_reason == "stop" else "length"))

    server.behave = behave
    return server


def test_a_set_is_distilled_from_a_served_model(tmp_path, teacher_server, capsys):
    """The same funnel as in this process, all requests different."""
    server = teacher_server
    assert distil(tmp_path, server) == 0
    told = capsys.readouterr().out
    rows = list(shards.rows(tmp_path / "set" / "rollouts"))
    assert len(rows) == 12 == len(server.bodies) and len({body["seed"] for body in server.bodies}) == 12
    assert sum(row["verdict"] == "right" for row in rows) >= 6  # the teacher is right on most
    spent = sum(row["tokens"] for row in rows)
    assert f"12 requests, 132 tokens in, {spent:,} out." in told and "12 rollouts to 6 questions" in told
    right = read_rows(tmp_path / "set" / "right.jsonl")
    assert len(right) == read_json(tmp_path / "set" / "funnel.json")["steps"][-1]["kept"] > 0
    card = (tmp_path / "set" / "README.md").read_text()
    assert f"teacher at {server.url}" in card and "![The funnel](funnel.png)" in card
    assert (tmp_path / "set" / "funnel.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_set_is_distilled_from_transformers_serve(tmp_path, capsys):
    """A real product's server, with the shipped teacher, which was never taught an instruction."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["transformers", "serve", str(paths.TEACHER), "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path / "server.log"
    with log.open("w") as said:
        server = subprocess.Popen(
            [str(Path(sys.executable).parent / command[0]), *command[1:]], stdout=said, stderr=said
        )
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        url, name = f"http://127.0.0.1:{port}/v1", str(paths.TEACHER)
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
    nbclient.NotebookClient(page, timeout=600, resources={"metadata": {"path": str(paths.NOTEBOOKS)}}).execute()
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
        ({"content": None, "reasoning_content": "a"}, "<think>a</think>"),
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
    assert "7 rollouts were not answered; the same command asks for them again" in capsys.readouterr().err
    assert distil(tmp_path, server, *price, "--budget", 1000) == 0
    assert len(server.bodies) == 12


def test_a_judge_has_the_second_word_on_what_the_rules_turn_down(tmp_path, server, capsys):
    """Answers in words: the rules read none of them, the judge accepts every lucky one."""
    judged = []

    def behave(handler, body):
        if body["messages"][0]["role"] == "system":
            judged.append(body["messages"][1]["content"])
            return "right" if "lucky number" in judged[-1] else "wrong"
        said = "the lucky number" if body["seed"] % 2 else f"the number {body['seed']}"
        handler.send(200, reply(f"<think>so it is, and so on. </think>\\boxed{{{said}}}"))

    server.behave = behave
    judge = ("--judge", server.url, "--judge-model", "j")
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
    assert f"accepted by the judge | {len(lucky)} |" in card and f"Second opinions: j at {server.url}" in card
    before, asked = {p.name: p.read_bytes() for p in (tmp_path / "set").glob("*.jsonl")}, len(judged)
    assert "'asked': " in capsys.readouterr().out
    assert distil(tmp_path, server, *judge) == 0 and len(judged) == asked  # votes are kept
    assert {p.name: p.read_bytes() for p in (tmp_path / "set").glob("*.jsonl")} == before


# ------------------------------------------------------------------ and on bad ones


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
    told = capsys.readouterr().err
    assert "1 rollouts were not answered" in told and told.count("phi-lab:") == 1
    server.behave, before = good, len(server.bodies)
    assert distil(tmp_path, server, "--timeout", 0.8) == 0
    assert len(server.bodies) == before + 1


def test_a_dead_server_ends_it_in_one_line(tmp_path, server, capsys, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    server.behave = lambda handler, body: good(handler, body) if len(server.bodies) < 5 else (500, "gone\nfor good")
    assert distil(tmp_path, server, "--questions", 40, "--concurrency", 2) == 2
    told = capsys.readouterr().err
    assert f"teacher {server.url}: turns the question down" in told and "gone for good" in told
    assert "the same command continues" in told and len(server.bodies) < 40
    server.behave, before = good, len(server.bodies)
    assert distil(tmp_path, server, "--questions", 40) == 0
    assert len(server.bodies) - before == 80 - 4


def test_refused_connections_and_missing_addresses(tmp_path, server, capsys, monkeypatch):
    monkeypatch.setattr(endpoint, "RETRIES", 0)
    dead = type("Dead", (), {"url": "http://127.0.0.1:9/v1"})
    assert distil(tmp_path, dead) == 2 and "cannot be reached" in capsys.readouterr().err
    assert cli.main(["distill", "--teacher", "endpoint", "--out", str(tmp_path)]) == 2
    assert "--teacher-url" in capsys.readouterr().err


# ------------------------------------------------------------------ problems and traces


LIKE = {  # a row of each set, in the columns that the set has on the hub
    "openr1-math": {"problem": "What is 3+4?", "solution": "It is 7.", "answer": "7", "source": "olympiads",
                    "generations": ["<think>3+4=7</think>\\boxed{7}", "<think>3+4=8</think>\\boxed{8}"]},
    "openthoughts": {"problem": "What is 3+4?", "deepseek_reasoning": "3+4=7", "deepseek_solution": "\\boxed{7}",
                     "ground_truth_solution": "So \\boxed{7}.", "domain": "math"},
    "bespoke-stratos": {"system": "Think.", "conversations": [
        {"from": "user", "value": "What is 3+4?"},
        {"from": "assistant", "value": "<|begin_of_thought|>3+4=7<|end_of_thought|>\n<|begin_of_solution|>\\boxed{7}"
                                       "<|end_of_solution|>"}]},
    "limo": {"question": "What is 3+4?", "solution": "3+4=7, so \\boxed{7}", "answer": "7"},
    "s1k": {"question": "What is 3+4?", "solution": "7", "deepseek_thinking_trajectory": "3+4=7",
            "deepseek_attempt": "\\boxed{7}"},
}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", LIKE)
def test_published_traces_are_rollouts(tmp_path, capsys, name, ending):
    if ending == "jsonl":
        write_rows(tmp_path / f"{name}.jsonl", [LIKE[name]])
    else:
        pq.write_table(pa.Table.from_pylist([LIKE[name]]), tmp_path / f"{name}.parquet")
    command = f"distill --teacher traces --problems {name} --data {tmp_path} --out {tmp_path / 'set'} --samples 4"
    assert cli.main(command.split()) == 0
    rows = list(shards.rows(tmp_path / "set" / "rollouts"))
    assert {(row["prompt"], row["answer"]) for row in rows} == {("What is 3+4?", "7")}
    assert [row["verdict"] for row in rows] == ["right", "wrong"][: len(rows)]
    assert all(chat.THINK not in row["completion"] or "3+4" in row["completion"] for row in rows)
    assert len(read_rows(tmp_path / "set" / "right.jsonl")) == (0 if name == "limo" else 1)  # LIMO marks no thoughts


@pytest.fixture
def words_only(tmp_path):
    """Folder of a second tokenizer: a token for every word, whatever its length."""
    vocabulary = {"[UNK]": 0}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(tmp_path / "words")
    return tmp_path / "words"


def test_traces_are_counted_by_the_tokenizer_of_the_model_that_is_to_learn(tmp_path, words_only, capsys):
    rows = [
        {
            "problem": f"What is {k} and 4?",
            "answer": "7",
            "generations": [f"<think>{'123456 ' * k}</think>\\boxed{{7}}"],
        }
        for k in (2, 3, 4, 40)
    ]
    write_rows(tmp_path / "openr1-math.jsonl", rows)

    def distilled(name, *more):
        command = f"distill --teacher traces --problems openr1-math --data {tmp_path} --longest 20".split()
        return cli.main([*command, "--out", str(tmp_path / name), *map(str, more)])

    assert distilled("small") == 0
    told = capsys.readouterr().out.splitlines()
    assert told.count("100 % of the traces are longer than 20 tokens, as the small world's tokenizer counts") == 1
    assert not read_rows(tmp_path / "small" / "right.jsonl")
    assert distilled("words", "--tokenizer", words_only) == 0
    assert f"25 % of the traces are longer than 20 tokens, as {words_only} counts" in capsys.readouterr().out
    right = read_rows(tmp_path / "words" / "right.jsonl")
    assert [row["tokens"] for row in right] == [4, 5, 6]  # the words, what follows them, and the end
    assert f"Tokens are those of {words_only}." in (tmp_path / "words" / "README.md").read_text()
    assert distilled("words") == 2 and "tokenizer differs" in capsys.readouterr().err


def test_an_endpoint_s_answers_are_counted_by_it_too(tmp_path, server, words_only, capsys):
    server.behave = lambda handler, body: handler.send(200, reply("<think>123456 123456</think> so it is 5"))
    assert distil(tmp_path, server, "--tokenizer", words_only) == 0
    assert {row["tokens"] for row in shards.rows(tmp_path / "set" / "rollouts")} == {7}


def test_a_tokenizer_that_is_none_is_told_before_anything_is_asked(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, words in (("nobody/nothing", "no such folder, and no tokenizer on the hub"),
                        (tmp_path, "tokenizer.json is missing")):
        assert distil(tmp_path, server, "--tokenizer", name) == 2
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1, told
    assert cli.main(["distill", "--tokenizer", str(tmp_path), "--out", str(tmp_path / "set")]) == 2
    assert "it goes with --teacher endpoint or traces" in capsys.readouterr().err
    assert not server.bodies and not (tmp_path / "set").exists()


NATURAL = {
    "gsm8k": ({"question": "Q?", "answer": "First 3.\n#### 1,234"}, "1,234"),
    "math500": ({"problem": "Q?", "solution": "So \\boxed{2}.", "answer": "\\frac{1}{2}", "level": 3}, "\\frac{1}{2}"),
    "aqua-rat": ({"question": "Q?", "options": ["A)1", "B)2"], "rationale": "", "correct": "B"}, "B"),
    "aime24": ({"problem": "Q?", "answer": 204}, "204"),
}


@pytest.mark.parametrize("name", NATURAL)
def test_known_sets_have_questions_and_final_answers(tmp_path, name):
    row, gold = NATURAL[name]
    write_rows(tmp_path / name / "test.jsonl", [row, {**row, **dict.fromkeys({"answer", "correct"} & set(row))}])
    (problem, _), *rest = sources.read_problems(name, tmp_path)
    assert (problem.answer, problem.domain) == (gold, name) and problem.prompt.startswith("Q?")
    assert ("B)2" in problem.prompt) == (name == "aqua-rat") and not rest
    assert problem.level == (3 if name == "math500" else 0)


def test_a_file_of_ones_own_with_other_columns(tmp_path, capsys):
    write_rows(tmp_path / "mine.jsonl", [{"q": "What is 3+4?", "a": "7", "t": "<think>3+4=7</think>\\boxed{7}"}])
    command = [
        "distill",
        "--teacher",
        "traces",
        "--problems",
        str(tmp_path / "mine.jsonl"),
        "--out",
        str(tmp_path / "o"),
    ]
    assert cli.main(command) == 2
    assert "none of the columns problem, question, prompt; it has q, a, t" in capsys.readouterr().err
    columns = "--prompt-column q --answer-column a --trace-column t".split()
    assert cli.main([*command, *columns]) == 0
    assert "1 rollouts to 1 questions" in capsys.readouterr().out
    assert cli.main([*command, *columns[:-1], "no"]) == 2 and "no column 'no'" in capsys.readouterr().err


def test_benchmarks_named_are_kept_out_and_shown(tmp_path, capsys):
    words = "A train leaves the old station at nine and travels at sixty miles an hour due north, when is it there?"
    write_rows(tmp_path / "math500.jsonl", [{"problem": words, "answer": "7"}])
    write_rows(
        tmp_path / "openr1-math.jsonl", [{**LIKE["openr1-math"], "problem": f"Hello. {words}"}, LIKE["openr1-math"]]
    )
    command = f"distill --teacher traces --problems openr1-math --data {tmp_path} --out {tmp_path / 'set'}"
    assert cli.main([*command.split(), "--keep-clear-of", "math500"]) == 0
    assert "shares 'math500: a train leaves" in capsys.readouterr().out
    funnel = read_json(tmp_path / "set" / "funnel.json")
    assert funnel["steps"][0]["removed"] == 2 and len(read_rows(tmp_path / "set" / "right.jsonl")) == 1
    assert "math500: a train leaves" in (tmp_path / "set" / "README.md").read_text()


def test_what_cannot_be_found_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for number, (arguments, words) in enumerate((
        (["--problems", str(tmp_path / "none.jsonl")], "none.jsonl is missing"),
        (["--problems", "gsm8k", "--data", str(tmp_path)], "no gsm8k.jsonl, gsm8k.parquet or folder gsm8k"),
        (["--problems", "nobody/nothing"], "nobody/nothing on the hub: cannot be read"),
        (["--teacher", "oracle"], "unknown teacher 'oracle'"),
        (["--teacher", "script", "--problems", "gsm8k"], "small world only"),
    )):
        assert cli.main(["distill", "--out", str(tmp_path / str(number)), *arguments]) == 2
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1, told


def test_a_served_model_s_rollouts_and_the_model_s_own_do_not_mix(tmp_path, server, capsys):
    server.behave = good
    assert distil(tmp_path, server) == 0
    assert distil(tmp_path, server, "--teacher-model", "other") == 2
    assert "teacher differs" in capsys.readouterr().err


# ------------------------------------------------------------------ many processes


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
    assert order(tmp_path, server, "one") == 0
    alone = capsys.readouterr().out
    asked = {body["seed"] for body in server.bodies}
    assert len(asked) == len(server.bodies) == 300
    first = sorted(body["seed"] for body in server.bodies[:250])

    def failing(handler, body):
        return (500, "out of memory") if body["seed"] in first[200:] else answered_by_seed(handler, body)

    server.behave = failing
    assert order(tmp_path, server, "two", "--workers", 2) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and told[0].startswith(f"phi-lab: teacher {server.url}: turns the question down")
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
