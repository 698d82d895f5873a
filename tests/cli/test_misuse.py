"""Misuses of the command line: each ends with code 2, a message that says what is wrong, no traceback, within two
seconds, and every file that was there is as it was.
"""

import gzip
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save

from phi_lab import cli
from phi_lab.core.paths import ROOT
from phi_lab.distill import shards

DIGITS, BRACKETS = "9" * 5000, "[" * 100_000
CASE = '{"id": "a", "gold": "3", "response": "3"}\n'
ROW = ('{"id": "q", "domain": "d", "level": 0, "pass_rate": 0.5, "tokens": 3, "prompt": "1+1?", "answer": "2", '
       '"completion": "\\\\boxed{2}"}\n')
LADDER = ('[{"stage": "mid", "arm": "main", "benchmark": "hard", "temperature": 0.6, "k": 4, "n": 400, "pass_at_k": '
          'null, "accuracy": 0.5, "ci_low": 0.1, "ci_high": 0.9}]')
FULL = '{"scale": "cpu", "profile": "lab", "seed": 0, "config": {}}'
SECONDS = 2.0  # of this process's own time: another program on the same machine is not the command's fault

WEIGHTS = save({"weight": torch.zeros(1)})

# What lies in the folder of each misuse: D a set of two questions, and files that are hostile, damaged or the user's.
FILES = {
    "cases.jsonl": CASE, "empty.jsonl": "", "blank.jsonl": "\n\n", "thesis.txt": "mine\nand no end of line",
    "digits.jsonl": f'{{"id": 1, "gold": {DIGITS}, "response": "3"}}\n', "brackets.jsonl": f"{BRACKETS}\n",
    "latin.jsonl": b'{"id": "a", "gold": "\xe9", "response": "3"}\n', "list.jsonl": "[1, 2]\n",
    "nogold.jsonl": '{"id": "a", "response": "3"}\n', "number.jsonl": '{"id": "a", "gold": 3, "response": "3"}\n',
    "noanswer.jsonl": '{"problem": "1+1?"}\n', "noproblem.jsonl": '{"x": 1}\n', "notjson.jsonl": "{\n",
    "F/README.md": "# My own\n", "F/right.jsonl": "mine\n", "G/right.jsonl": "mine\n", "H/rollouts": "mine\n",
    "report.html": "<p>mine", "run/config.json": "{", "other/config.json": '{"a": 1}\n',
    "label.jsonl": CASE.replace("}", ', "correct": "true"}'), "one.jsonl": CASE.replace("}", ', "expected": 1}'),
    "hand/anna/02.ipynb": '{"cells": []}', "kept.jsonl": CASE.replace("}", ', "verdict": "right", "rule": "r"}'),
    "set/right.jsonl": ROW + ROW.replace('"q"', '"r"') + ROW.replace('"\\\\boxed{2}"', "null"),
    "set/wrong.jsonl": ROW, "set/funnel.json": "{}", "set/rollouts/0": "", "evals/own.json": '{"a": 1}',
    "idlist/right.jsonl": ROW + ROW.replace('"q"', "[1]"), "prompt5/right.jsonl": ROW + ROW.replace('"1+1?"', "5"),
    "tokens/right.jsonl": ROW + ROW.replace('"tokens": 3', '"tokens": "x"'),
    "cut.jsonl.gz": gzip.compress(ROW.encode() * 50)[:60], "d.jsonl/x": "",
    "pair.jsonl": '{"prompt": 1, "chosen": 2, "rejected": 3}\n', "half.jsonl": '{"prompt": "1", "chosen": "2"}\n',
    "huge.jsonl": f'{{"step": 1, "loss": 1{"0" * 400}}}\n', "full/config.json": FULL, "full/mid/done.json": "{}",
    "full/ladder.json": LADDER.replace('"accuracy": 0.5', '"accuracy": -5'),
    "text/ladder.json": LADDER.replace(": 4,", ': "x",'),
    "list/ladder.json": LADDER.replace('"mid"', "[1]"), "text/config.json": FULL, "list/config.json": FULL,
    "odd/ladder.json": LADDER, "odd/config.json": FULL, "odd/mid/done.json": "{}",
    "model/config.json": '{"model_type": "own"}', "model/model.safetensors": WEIGHTS, "model/tokenizer.json": "{}",
}
TABLE = """
query D ''                                                  | one SELECT
query D ';'                                                 | one SELECT
query D 'select 1; select 2'                                | one SELECT
query D 'drop view rollouts'                                | one SELECT
query D 'create table x as select 1'                        | one SELECT
query D "copy rollouts to 'stolen.csv'"                     | one SELECT
query D "export database 'stolen'"                          | one SELECT
query D "attach 'stolen.db'"                                | one SELECT
query D 'install httpfs'                                    | one SELECT
query D 'load httpfs'                                       | one SELECT
query D 'set enable_external_access = true'                 | one SELECT
query D 'pragma database_list'                              | one SELECT
query D "select * from read_text('thesis.txt')"             | file system operations are disabled
query D "select * from read_csv('thesis.txt')"              | file system operations are disabled
query D "select * from 'other.parquet'"                     | file system operations are disabled
query D "select * from glob('*')"                           | file system operations are disabled
query D "select * from read_csv('http://127.0.0.1:1/x')"    | phi-lab: D/rollouts
query D "select * from query('drop view rollouts')"         | phi-lab: D/rollouts
query D 'select * from options'                             | options does not exist
query D 'selec 1'                                           | syntax error
query D 'select nowhere from rollouts'                      | nowhere
query D '{brackets}'                                        | phi-lab: D/rollouts
query nowhere                                               | no finished rollouts
query thesis.txt                                            | no finished rollouts
verify                                                      | verify takes --cases FILE --out FILE
verify --cases cases.jsonl                                  | verify takes --cases FILE --out FILE
verify --explain 3                                          | takes --gold
verify --cases cases.jsonl --out cases.jsonl                | is one of the --cases
verify --cases cases.jsonl --out cases.jsonl --force        | is one of the --cases
verify --cases cases.jsonl --out thesis.txt                 | holds something else than verdicts
verify --cases cases.jsonl --out report.jsonl               | report.html is there already
verify --cases cases.jsonl --out report.html                | the page gets this name by itself
verify --cases cases.jsonl --out D                          | is no file that can be written
verify --cases cases.jsonl --out /dev/null                  | is no file that can be written
verify --cases cases.jsonl --out thesis.txt/out.jsonl       | thesis.txt
verify --cases nowhere.jsonl --out out.jsonl                | nowhere.jsonl
verify --cases digits.jsonl --out out.jsonl                 | line 1: not JSON
verify --cases brackets.jsonl --out out.jsonl               | line 1: not JSON
verify --cases latin.jsonl --out out.jsonl                  | cannot be read as UTF-8
verify --cases list.jsonl --out out.jsonl                   | line 1: a case must be an object
verify --cases notjson.jsonl --out out.jsonl                | line 1: not JSON
verify --cases nogold.jsonl --out out.jsonl                 | 'gold' is missing
verify --cases number.jsonl --out out.jsonl                 | 'gold' must be a string
verify --cases label.jsonl --out out.jsonl                  | line 1: field 'correct' must be true or false
verify --cases one.jsonl --out out.jsonl                    | line 1: field 'expected' must be true or false
verify --cases empty.jsonl --out kept.jsonl                 | empty.jsonl: no case in it
verify --cases blank.jsonl --out kept.jsonl                 | blank.jsonl: no case in it
progress hand --csv hand/anna/02.ipynb                      | choose another --csv
progress hand --html hand/anna/02.ipynb                     | choose another --html
progress hand --html report.html                            | choose another --html
progress hand --csv p.csv --html p.csv                      | name two
progress hand --csv hand                                    | is no file that can be written
run --profile smoke --out new --data set                    | set/right.jsonl, line 3: 'completion' must be text
run --profile smoke --out new --data idlist                 | idlist/right.jsonl, line 2: 'id' must be text
run --profile smoke --out new --data prompt5                | prompt5/right.jsonl, line 2: 'prompt' must be text
run --profile smoke --out new --data tokens                 | 'tokens' must be a whole number
eval --model model --out new --name ../x                    | it takes letters
eval --model model --out new --name ''                      | it takes letters
eval --model model --out new --name a/b                     | it takes letters
eval --model model --out run --name config                  | choose another --name
eval --model model --out new --name ladder                  | choose another --name
eval --model model --out evals --name own                   | evals/own.json is a file of something else
eval --model model --out new --benchmarks ,                 | names none
eval --model model --out new --benchmarks math500 --name 'a|b' | a line without
export full --out new                                       | full/ladder.json, row 1: 'accuracy' must be
export text --out new                                       | text/ladder.json, row 1: 'k' must be a whole number
export list --out new                                       | list/ladder.json, row 1: 'stage' must be text
export odd --out new --push 'bad name'                      | --push bad name: no name of the hub
export model --out new --push a/b/c                         | --push a/b/c: no name of the hub
distill --out new --teacher traces --problems cut.jsonl.gz  | cut.jsonl.gz: cannot be read
distill --out new --teacher traces --problems d.jsonl       | d.jsonl is a folder
distill --out new --teacher script --questions 1000000000000 | not between 1 and 100000000
experiment ladder --seeds 1000000000000 --out new           | not between 1 and 10000
experiment ladder --seeds 0-1000000000 --out new            | more than 10,000 seeds
experiment ladder --seeds 1- --out new                      | a range has a seed on both sides
run --profile smoke --out /proc/x                           | /proc/x
run --profile smoke --out new --launcher nosuchprogram      | no program nosuchprogram
doctor pair.jsonl                                           | pair.jsonl, line 1: 'prompt' must be text
doctor half.jsonl                                           | half.jsonl, line 1: 'rejected' is missing
course --profile x --out new                                | choose one of smoke, lab, lesson
plan --price inf                                            | inf is not between
distill --out new --teacher script --engine foo             | --engine goes with --teacher model
distill --out new --teacher script --local-copies nowhere   | --local-copies goes with a published set
distill --out new --teacher model --price 1 1               | --price goes with --teacher endpoint
distill --out new --teacher script --timeout 5              | --timeout goes with --teacher endpoint or --judge
distill --out new --teacher script --trace-column x         | --trace-column goes with a published set
distill --out new --teacher script --judge-budget 5         | --judge-budget goes with --judge URL
distill --out new --teacher endpoint --teacher-url http://h --budget 1 | --budget counts money
eval --model model --out new --samples 3                    | --samples goes with --benchmarks
eval --model model --out new --local-copies nowhere         | --local-copies goes with --benchmarks
verify --cases cases.jsonl --out out.jsonl --gold 3         | --gold goes with --explain
verify --cases cases.jsonl --out out.jsonl --judge-cache v  | --judge-cache goes with --judge URL
verify --explain 3 --gold 3 --out out.jsonl                 | --out goes with --cases
doctor pair.jsonl --machine --rules                         | DIR, --rules goes with no --machine
doctor pair.jsonl --rules                                   | DIR goes with no --rules
run --profile smoke --out new --leave-out-gated             | --leave-out-gated goes with a GPU scale
run --profile smoke --out new --launcher sh --processes 2   | --processes goes with no --launcher
notebooks --reset 02 --copies                               | --copies goes with no --reset
bench --json thesis.txt                                     | thesis.txt holds something else
bench --json report.html                                    | report.html holds something else
bench --json model                                          | is no file that can be written
verify --cases cases.jsonl --out out.jsonl --jobs 0         | 0 is less than 1|0 is not between 1 and 1024
verify --cases cases.jsonl --out o.jsonl --judge http://127.0.0.1:1 --judge-cache thesis.txt | not a vote
verify --cases cases.jsonl --out o.jsonl --judge localhost:8000 --judge-cache v.jsonl | must start with http
distill --out F --teacher script --questions 2              | F has a right.jsonl and no distill.json|README
distill --out G --teacher script --questions 2              | G has a right.jsonl and no distill.json
distill --out H --teacher script --questions 2              | H has a rollouts and no distill.json
distill --out thesis.txt --teacher script --questions 2     | thesis.txt
distill --out D --teacher script --samples 2 --questions 1  | --questions 1 would drop the others
distill --out D --teacher script --samples 2 --questions 2 --seed 1 | seed differs
distill --out D --teacher model --samples 2 --questions 2   | teacher differs
distill --out new --teacher gpt                             | unknown teacher 'gpt'
distill --out new --teacher endpoint                        | needs --teacher-url
distill --out new --teacher endpoint --teacher-url ftp://h  | must start with http
distill --out new --teacher endpoint --teacher-url 'http://a b' | must start with http
distill --out new --teacher script --problems gsm9k         | did you mean gsm8k?
distill --out new --teacher traces --problems 'math 500'    | did you mean math500?
distill --out new --teacher traces --problems ''            | no set ''
distill --out new --teacher traces --problems nowhere.jsonl | nowhere.jsonl is missing
distill --out new --teacher traces --problems empty.jsonl   | empty.jsonl
distill --out new --teacher traces --problems blank.jsonl   | blank.jsonl
distill --out new --teacher traces --problems notjson.jsonl | notjson.jsonl
distill --out new --teacher traces --problems latin.jsonl   | latin.jsonl
distill --out new --teacher traces --problems brackets.jsonl | brackets.jsonl
distill --out new --teacher traces --problems noproblem.jsonl | none of the columns problem
distill --out new --teacher traces --problems noanswer.jsonl | none of the columns answer
distill --out new --teacher traces --problems cases.jsonl --prompt-column nothing | no column 'nothing'
distill --out new --teacher script --problems gsm8k         | the small world only
distill --out new --decontaminate-against gsm9k             | did you mean gsm8k?
distill --out new --tokenizer model                         | --tokenizer counts the tokens of texts
distill --out new --teacher endpoint --teacher-url http://127.0.0.1:1 --tokenizer model | tokenizer
distill --out new --model nowhere                           | no model in nowhere
distill --out new --model model                             | code of its own is not run
distill --out new --temperature 9                           | 9 is not between 0.0 and 2.0
distill --out new --temperature -1                          | -1 is not between 0.0 and 2.0
distill --out new --temperature nan                         | nan is not between 0.0 and 2.0
distill --out new --questions {digits}                      | is no number
distill --out new --questions 1e3                           | '1e3' is no number
distill --out new --questions 9999999999999                 | not between 1 and
distill --out new --samples 0                               | 0 is less than 1
distill --out new --pass-rate 0.9 0.1                       | --pass-rate 0.9 0.1: LOW comes first
distill --out new --pass-rate 0 7                           | 7 is not between 0.0 and 1.0
distill --out new --levels 4 1                              | --levels 4 1: LOW comes first
distill --out new --near 3                                  | 3 is not between 0.0 and 1.0
distill --out new --concurrency 100000                      | 100000 is not between 1 and 4096
distill --out new --timeout 0                               | 0 is not between 0.1 and 86400.0
distill --out new --budget nan                              | nan is
distill --out new --seed -1                                 | -1 is not between 0 and 2147483647
chat --temperature 3 1+1                                    | 3 is not between 0.0 and 2.0
chat --model nowhere 1+1                                    | no model in nowhere
chat --model model 1+1                                      | code of its own is not run
chat '{long}'                                               | leaves no room for an answer
eval --model nowhere --out new                              | no model in nowhere
eval --model model --out new --problems 0                   | 0 is less than 1
eval --model model --out new --benchmarks math501           | math501|model
run --out run                                               | run/config.json is not JSON
run --out F                                                 | is not empty and has no config.json
run --out new --scale gpu                                   | unknown scale 'gpu'
run --out new --profile long                                | unknown profile 'long'
run --out new --from grpo --to sft                          | comes after --to sft
run --out new --processes 0                                 | 0 is less than 1
run --out new --seed {digits}                               | is no number
report nowhere                                              | missing
report F                                                    | missing
export nowhere --out new                                    | missing
publish nowhere                                             | missing
plan --scale cpu --gpus 0                                   | 0 is less than 1
plan --scale huge                                           | unknown scale 'huge'
plan --gpu toaster                                          | toaster
stage mid --out nowhere                                     | missing
experiment ladder --profile long --out new                  | unknown profile 'long'
experiment ladder --seeds 0 --out new                       | 0 is not between 1 and 10000
experiment ladder --seeds 9-6 --out new                     | 9-6: the smaller seed comes first
experiment ladder --seeds 6-b --out new                     | 'b' is no number
experiment ladder --arms sft-again --out new                | unknown control 'sft-again': choose one of mid-control,
experiment ladder --arms sft-all --without-controls --out new | --without-controls and --arms: choose one
experiment reward-hacking --jobs 2 --out new                | --jobs goes with ladder and experiments
experiment reward-hacking --arms sft-all --out new          | --arms and --without-controls go with ladder and chain
experiment publish --seeds 2 --out new                      | leave out --seeds
course --profile long --out new                             | long
walk                                                        | invalid choice
"""
BINDS_NOTHING = (".lock", "distill.json", "manifest.json")  # without an answer beside it
ROWS = [tuple(part.strip() for part in line.split(" | ")) for line in TABLE.strip().splitlines()]


@pytest.fixture(scope="module")
def two_questions(tmp_path_factory):
    """A finished set of two questions."""
    folder = tmp_path_factory.mktemp("sets") / "D"
    assert cli.main(f"distill --teacher script --samples 2 --questions 2 --out {folder}".split()) == 0
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch, two_questions):
    """The working folder with FILES and D in it."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    shutil.copytree(two_questions, tmp_path / "D")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    return tmp_path


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_there_are_at_least_eighty():
    assert len({command for command, _ in ROWS}) >= 80


@pytest.mark.parametrize(("command", "message"), ROWS, ids=[row[0][:60] for row in ROWS])
def test_a_misuse_ends_in_one_line(place, capsys, command, message):
    hostile = {"{digits}": DIGITS, "{brackets}": "(" * 100_000, "{long}": "1+" * 2000 + "1"}
    arguments = shlex.split(command)
    for name, text in hostile.items():
        arguments = [text if argument == name else argument for argument in arguments]
    before = everything(place)
    started = time.process_time()
    try:
        code = cli.main(arguments)
    except SystemExit as stopped:  # argparse
        code = stopped.code
    seconds, error = time.process_time() - started, capsys.readouterr().err
    assert code == 2, error
    assert any(part in error for part in message.split("|")), error
    last = error.splitlines()[-1]
    assert "Traceback" not in error and last.startswith("phi-lab") and len(last) < 700
    assert seconds < SECONDS
    left = {path: content for path, content in everything(place).items()
            if path in before or path.name not in BINDS_NOTHING}
    assert left == before, {path for path in left if path not in before}
    assert not (place / "stolen.csv").exists() and not (place / "stolen.db").exists()


def program(*arguments):
    """A command as a process of its own."""
    return subprocess.Popen(
        [sys.executable.encode(), b"-m", b"phi_lab", *map(os.fsencode, arguments)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_output_that_lacks_characters_shows_their_escapes(place, encoding):
    arguments = [sys.executable, "-m", "phi_lab", "verify", "--explain", "\u2713", "--gold", "\u03c0"]
    done = subprocess.run(arguments, capture_output=True, env={
        **os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding})
    assert done.returncode == 0 and b"\\u2713" in done.stdout and not done.stderr, done


@pytest.mark.parametrize("command", ["query D >&-", "query D >&- 2>&-", "chat <&-"])
def test_a_closed_stream_is_no_fault(place, command):
    done = subprocess.run(["sh", "-c", f"{shlex.quote(sys.executable)} -m phi_lab {command}"], capture_output=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done


def test_a_folder_that_is_a_link_to_itself(place, capsys):
    (place / "loop").symlink_to("loop")
    for command in ("run --profile smoke --out loop", "distill --teacher script --out loop"):
        assert cli.main(command.split()) == 2
        assert capsys.readouterr().err.startswith("phi-lab: loop: ")


@pytest.mark.parametrize(("command", "continues"), [("chat", False), ("run --profile smoke --out new", True)])
def test_only_a_command_that_continues_says_so_when_it_is_stopped(place, capsys, monkeypatch, command, continues):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("phi_lab.cli.chat.check_model", stopped)
    monkeypatch.setattr("phi_lab.cli.run.check_model", stopped)
    assert cli.main(command.split()) == 2
    assert ("continues" in capsys.readouterr().err) == continues


def test_a_number_that_no_float_holds_is_none_of_a_log(place, capsys):
    assert cli.main(["doctor", "huge.jsonl"]) == 0


def test_a_set_of_which_nothing_is_left_is_told(place, capsys):
    assert cli.main("distill --teacher script --samples 2 --questions 2 --levels 50 60 --out none".split()) == 2
    assert "nothing is left to train on: the step difficulty" in capsys.readouterr().err


def test_head_may_stop_reading(place):
    """What `phi-lab query | head -1` does: nobody reads the rest."""
    many = place / "many" / "rollouts" / "000000.parquet"
    shards.write(many, [{"level": level, "verdict": "right", "completion": "x" * 100} for level in range(5000)])
    child = program("query", many.parent, "select * from rollouts")
    assert child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == b"" and child.wait() == 141
    child.stderr.close()


def test_arguments_that_are_no_text(place):
    """Bytes that are no UTF-8 arrive as lone surrogates."""
    raw = b"\xff\x1b[2J"
    for arguments in ((b"verify", b"--explain", raw, b"--gold", raw), (b"query", b"D", raw), (b"report", raw),
                      (b"distill", b"--out", b"new", b"--problems", raw)):
        child = program(*arguments)
        output, error = child.communicate()
        assert b"Traceback" not in error and b"\x1b" not in output + error, error
        assert child.returncode == (0 if arguments[0] == b"verify" else 2)


def test_escapes_in_rollouts_and_answers_are_shown(place, capsys):
    shards.write(place / "odd" / "000000.parquet", [
        {"level": 1, "verdict": "right", "completion": "a\x1b[2Jb\nc\u202ed", "tokens": 1}])
    assert cli.main(["query", str(place / "odd"), "select completion as \"x\x1b\" from rollouts"]) == 0
    assert capsys.readouterr().out == "x\\x1b\na\\x1b[2Jb\\nc\\u202ed\n"


def test_a_name_like_a_known_set_is_refused_without_the_network(place, capsys, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    assert cli.main("distill --teacher traces --problems gsm9k --out new".split()) == 2
    assert "did you mean gsm8k?" in capsys.readouterr().err and not (place / "new").exists()
