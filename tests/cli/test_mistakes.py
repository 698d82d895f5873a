"""A mistake of a user's ends with one line that names what to do, exit code 2, and nothing written."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phi_lab import cli
from phi_lab.core import files, paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, write_rows
from phi_lab.pipeline import run


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--scale", "gpu"], "unknown scale 'gpu': choose one of cpu, lora, qlora, full"),
        (["--profile", "long"], "unknown profile 'long': choose one of smoke, lab"),
        (["--from", "rl"], "unknown stage 'rl': choose one of base, mid, sft, dpo, grpo"),
        (["--to", "rlhf"], "unknown stage 'rlhf'"),
        (["--from", "grpo", "--to", "sft"], "--from grpo comes after --to sft"),
        (
            ["--scale", "lora"],
            "the scale lora trains on a distilled set: --data SET, made by phi-lab distill --problems openr1-math",
        ),
        (["--profile", "smoke", "--from", "base"], "use --profile lab with --from base"),
        (["--launcher", "srun 'x"], "--launcher srun 'x: No closing quotation"),
    ],
)
def test_unknown_names(tmp_path, refused, arguments, line):
    assert line in refused("run", *arguments, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", ["run --scale x --out y", "run --from x --out y", "plan --scale x", "--help"])
def test_a_mistyped_name_is_reported_before_anything_large_is_imported(arguments):
    program = ("import sys; from phi_lab import cli\ntry: code = cli.main(sys.argv[1:])\n"
               "except SystemExit as left: code = left.code\nprint(code, 'torch' in sys.modules)")
    command = [sys.executable, "-c", program, *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT)
    assert done.stdout.split()[-2:] == ["0" if arguments == "--help" else "2", "False"], done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "run --seed -1 --out x", f"run --seed {2**32} --out x", "distill --samples 0 --out x", "distill --questions x",
        "eval --model x --problems 0 --out x", "verify --cases x --jobs 0 --out x", "chat --temperature -1 hello",
    ],
)
def test_numbers_out_of_range(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments.split())
    assert stopped.value.code == 2 and "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_question_longer_than_the_model_s_positions(capsys, shipped):
    shipped("grpo")
    assert cli.main(["chat", "Compute " + "1+" * 700 + "1."]) == 2
    assert "leaves no room for an answer" in capsys.readouterr().err


def test_a_checkpoint_without_weights(tmp_path, capsys, student):
    shutil.copytree(student, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    assert cli.main(["eval", "--model", str(tmp_path / "model"), "--out", str(tmp_path)]) == 2
    assert "*.safetensors is missing" in capsys.readouterr().err


def test_a_missing_checkpoint(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(paths, "SHIPPED", tmp_path / "nothing")
    for stage, before in (("dpo", "sft"), ("mid", "base")):
        line = refused("run", "--from", stage, "--profile", "smoke", "--out", tmp_path / stage)
        assert f"no checkpoint of {before}" in line or "config.json is missing" in line
    assert "config.json is missing" in refused("eval", "--model", tmp_path / "no", "--out", tmp_path / "evals")
    assert "config.json is missing" in refused("chat", "--model", tmp_path / "no", "Compute 1+2.")
    assert "no" in refused("distill", "--model", tmp_path / "no", "--out", tmp_path / "d", "--questions", "1")
    assert not (tmp_path / "evals").exists() and not (tmp_path / "d").exists()


def test_a_folder_with_other_things_in_it(tmp_path, refused):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "is not empty and has no config.json" in refused("run", "--profile", "smoke", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_where_the_folder_should_be(tmp_path, refused):
    (tmp_path / "run").write_text("a file")
    refused("run", "--profile", "smoke", "--out", tmp_path / "run")
    assert (tmp_path / "run").read_text() == "a file"


def test_broken_files_are_named_with_their_line(tmp_path, refused):
    (tmp_path / "rows.jsonl").write_text('{"id": 1}\n{"id": \n')
    with pytest.raises(UserError, match="rows.jsonl, line 2: not JSON"):
        read_rows(tmp_path / "rows.jsonl")
    (tmp_path / "list.jsonl").write_text("[1, 2]\n")
    with pytest.raises(UserError, match="line 1"):
        read_rows(tmp_path / "list.jsonl", ("id",))
    (tmp_path / "config.json").write_text("{")
    assert "config.json is not JSON" in refused("run", "--profile", "smoke", "--out", tmp_path)
    assert "missing" in refused("report", tmp_path / "nowhere")
    assert "No such file" in refused("verify", "--cases", tmp_path / "no.jsonl", "--out", tmp_path / "out.jsonl")
    assert "missing" in refused("ship", tmp_path / "nowhere")
    assert "unknown teacher" in refused("distill", "--teacher", "gpt", "--out", tmp_path / "d")


def test_no_room_at_the_start(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100 << 30, 100 << 30, 5 << 20))
    assert "MB free" in refused("run", "--profile", "smoke", "--out", tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def full_disk(monkeypatch):
    """From now on, files are written to the half and then there is no room."""
    write_bytes = Path.write_bytes

    def half(path, content):
        write_bytes(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", half)


def test_no_room_in_the_middle_of_a_file(tmp_path, refused, monkeypatch):
    write_rows(tmp_path / "cases.jsonl", [{"id": "a", "gold": "3", "response": r"\boxed{3}"}])
    out = tmp_path / "judged.jsonl"
    before = '{"id": "a", "gold": "3", "response": "", "verdict": "wrong", "rule": "what was there before"}\n'
    out.write_text(before)
    full_disk(monkeypatch)
    line = refused("verify", "--cases", tmp_path / "cases.jsonl", "--jobs", "1", "--out", out)
    assert "No space left" in line and "make room" in line
    assert out.read_text() == before
    with pytest.raises(OSError):
        files.write_json(tmp_path / "new.json", {})
    assert not (tmp_path / "new.json").exists()


@pytest.mark.parametrize("error", ["No space left on device (os error 28)", "[inline_container.cc:672] unexpected pos"])
def test_no_room_for_a_model(tmp_path, refused, monkeypatch, error):
    """safetensors and torch raise errors of their own, without an errno; these are their words on a full disk."""

    def chain(*_, **__):
        raise RuntimeError(error)

    monkeypatch.setattr(run, "run_chain", chain)
    assert "no space left" in refused("run", "--out", tmp_path)
    monkeypatch.setattr(run, "run_chain", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a mistake of ours stays a traceback
        cli.main(["run", "--out", str(tmp_path)])


def test_distillation_of_another_kind_is_refused(tmp_path, capsys):
    command = f"distill --teacher script --samples 2 --out {tmp_path}"
    assert cli.main(f"{command} --questions 5".split()) == 0
    whole = (tmp_path / "right.jsonl").read_bytes()
    assert cli.main(f"{command} --questions 3".split()) == 2 and (tmp_path / "right.jsonl").read_bytes() == whole
    assert "is a set of 5 questions, and --questions 3 would drop the others" in capsys.readouterr().err
    assert cli.main(f"{command} --questions 3 --force".split()) == 0
    assert "6 rollouts to 3 questions" in capsys.readouterr().out, "fewer questions: only those count"
    for rest in ("--questions 3 --seed 1", "--samples 3"):
        assert cli.main(f"{command} {rest}".split()) == 2
    assert "distill.json: " in capsys.readouterr().err
