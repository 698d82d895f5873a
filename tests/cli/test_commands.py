"""The command line itself: help that teaches, old names of options, and commands that show what is in files."""

import json
import shlex
import subprocess
import sys

import pytest

from phi_lab import cli
from phi_lab.core.files import read_rows
from phi_lab.distill import shards


def test_a_set_can_be_asked_with_sql(tmp_path, capsys, refused):
    shards.write(tmp_path / "set" / "rollouts" / "000000.parquet", [
        {"level": level, "verdict": verdict, "completion": "x", "tokens": 10 * level}
        for level, verdict in ((1, "right"), (2, "right"), (2, "right"), (2, "wrong"))
    ])
    assert cli.main(["query", str(tmp_path / "set")]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["level", "verdict", "rollouts", "tokens"],
        ["1", "right", "1", "10"], ["2", "right", "2", "20"], ["2", "wrong", "1", "20"],
    ]
    assert cli.main(["query", str(tmp_path / "set"), "select level from rollouts where level > 7"]) == 0
    assert "(no row)" in capsys.readouterr().out
    assert "no finished rollouts" in refused("query", tmp_path)
    assert "nowhere" in refused("query", tmp_path / "set", "select nowhere from rollouts")


def test_cases_may_hold_any_text(tmp_path):
    """Raw line separators and lone surrogates are legal inside a JSON string."""
    cases = tmp_path / "cases.jsonl"
    cases.write_text('{"id": 1, "gold": "5", "response": "a\u2028b\u0085 \\\\boxed{5}"}\n'
                     '{"id": 2, "gold": "5", "response": "\\ud83d \\\\boxed{6}"}\n', encoding="utf-8")
    assert cli.main(["verify", "--cases", str(cases), "--out", str(tmp_path / "out.jsonl")]) == 0
    rows = (tmp_path / "out.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(row)["verdict"] for row in rows] == ["right", "wrong"]


def parsers():
    return next(action.choices for action in cli.build_parser()._actions if action.dest == "command")


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0 and all(name in text for name in parsers())
    assert {"run", "distill", "verify", "eval", "report", "chat", "publish", "ship"} <= set(parsers())


@pytest.mark.parametrize("name", parsers())
def test_help_of_a_command_ends_with_an_example_that_works(capsys, name):
    with pytest.raises(SystemExit) as left:
        cli.main([name, "--help"])
    sentence, example = parsers()[name].description, capsys.readouterr().out.split("example:\n")[1]
    assert left.value.code == 0 and sentence[0].isupper() and sentence.endswith(".")
    command = shlex.split(example.replace("-m phi_lab", "phi-lab"))
    options = cli.build_parser().parse_args(command[command.index("phi-lab") + 1 :])
    assert options.run is parsers()[name].get_default("run")


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("distill --out x", "--longest 9", "--max-answer-tokens 9"),
        ("distill --out x", "--near 0.5", "--near-duplicate-threshold 0.5"),
        ("distill --out x", "--per-domain 7", "--max-per-domain 7"),
        ("distill --out x", "--keep-clear-of math500", "--decontaminate-against math500"),
        ("distill --out x", "--data x", "--local-copies x"),
        ("run --out x", "--sets x", "--local-copies x"),
        ("eval --model x --out x", "--sets x", "--local-copies x"),
        ("experiment ladder --out x", "--first 3", "--first-seed 3"),
    ],
)
def test_options_keep_their_old_names_for_one_release(command, old, new):
    without, *both = (vars(cli.build_parser().parse_args(f"{command} {option}".split())) for option in ("", old, new))
    assert both[0] == both[1] != without


@pytest.mark.parametrize(("words", "seeds"), [("6-8", range(6, 9)), ("6-6", range(6, 7)), ("6", 6)])
def test_seeds_are_named_or_counted(words, seeds):
    assert cli.build_parser().parse_args(["experiment", "ladder", "--out", "x", "--seeds", words]).seeds == seeds


def test_help_shows_defaults_and_no_unset_ones(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    text = capsys.readouterr().out
    assert "(default: cpu)" in text and "None" not in text


def test_python_m_phi_lab():
    shown = subprocess.run([sys.executable, "-m", "phi_lab", "--version"], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and shown.stdout.strip()
    wrong = subprocess.run([sys.executable, "-m", "phi_lab", "walk"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr


@pytest.mark.slow
def test_distill_and_eval_commands(tmp_path, capsys, student):
    assert cli.main(f"distill --teacher script --questions 5 --samples 2 --out {tmp_path}".split()) == 0
    assert "10 rollouts to 5 questions" in capsys.readouterr().out
    rows = list(shards.rows(tmp_path / "rollouts"))
    assert len(rows) == 10 and {(row["verdict"], row["teacher"]) for row in rows} == {("right", "script")}
    arguments = ["eval", "--model", str(student), "--out", str(tmp_path / "evals"), "--problems", "1"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.count("\n") == 2 + 4 + 2  # easy, hard by its four protocols, transfer
    assert len(read_rows(tmp_path / "evals" / "model.hard.jsonl")) == 1 + 8 + 1
