"""Every file that a run or a set leaves behind, damaged in every way: a command that reads it says so in one line with
exit code 2, or makes it again; no other file changes. Here each file is damaged in two of the ways, in turn; `make
soak` tries all of them on every file.
"""

import json
import os
import shutil

import pytest

from phi_lab import cli
from phi_lab.core.locks import belongs_to_a_process

pytestmark = pytest.mark.slow
TIMES = {"seconds", "peak_rss_mb", "joules", "files"}


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_json(path):
    path.write_text('{"rows": [1, {"a": null}]}\n')


def a_list(path):
    path.write_text("[]\n")


def other_bytes(path):
    path.write_bytes(bytes(range(255, -1, -1)) * (path.stat().st_size // 256 + 1))


def a_folder(path):
    path.unlink()
    path.mkdir()


def no_permission(path):
    path.chmod(0)


DAMAGES = [remove, empty, cut_short, other_json, a_list, other_bytes, a_folder]
if hasattr(os, "geteuid") and os.geteuid():  # root reads everything
    DAMAGES.append(no_permission)


def damages_of(name, files):
    """Two ways for each file, others for the next one; with PHI_LAB_LOAD all of them."""
    if "PHI_LAB_LOAD" in os.environ:
        return DAMAGES
    first = files.index(name)
    return [DAMAGES[first % len(DAMAGES)], DAMAGES[(first + 3) % len(DAMAGES)]]


RUN = ["run", "--profile", "smoke", "--seed", "5"]
SET = ["distill", "--teacher", "script", "--questions", "60", "--samples", "2"]
RUN_FILES = [
    "config.json", "ladder.json", "ten.json", "sft/done.json", "sft/metrics.jsonl", "sft/student.json",
    "sft/model/model.safetensors", "sft/model/config.json", "sft/model/tokenizer.json", "dpo-paper/done.json",
    "dpo-paper/student.json", "dpo-paper/model/model.safetensors", "evals/sft.json", "evals/sft.hard.jsonl",
    "evals/dpo-paper.json", "evals/dpo-paper.transfer.jsonl",
]
DATA_FILES = [f"data/{name}.{ending}" for name, ending in (
    ("right", "jsonl"), ("wrong", "jsonl"), ("validation", "jsonl"), ("sets", "json"), ("funnel", "json"),
    ("teacher", "json"), ("rollouts/manifest", "json"), ("rollouts/000000", "parquet"), ("README", "md"))]
SET_FILES = ["distill.json", "right.jsonl", "wrong.jsonl", "sets.json", "funnel.json", "funnel.png", "README.md",
             "rollouts/manifest.json", "rollouts/000000.parquet"]


@pytest.fixture(scope="module")
def whole_run(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    assert cli.main([*RUN, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def whole_set(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "set"
    assert cli.main([*SET, "--out", str(out)]) == 0
    return out


def content(folder):
    """Every file with what a seed repeats of it, and every folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if belongs_to_a_process(path.name):
            continue
        found[name] = None if path.is_dir() else os.access(path, os.R_OK) and path.read_bytes()
        if path.is_file() and path.name in ("ladder.json", "done.json", "metrics.jsonl"):
            found[name] = _without_times(path)
    return found


def _without_times(path):
    try:
        text = path.read_text()
        rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        rows = rows if isinstance(rows, list) else [rows]
        return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    except (ValueError, OSError, AttributeError):
        return path.read_bytes() if os.access(path, os.R_OK) else False


def outcome(capsys, *words):
    """What a command did: (exit code, errors)."""
    capsys.readouterr()
    try:
        code = cli.main([str(word) for word in words])
    except Exception as error:  # what the user would see as a traceback
        return 1, repr(error)
    return code, capsys.readouterr().err


def complaints(capsys, whole, folder, name, damage, commands, written, unread=(), stopped=None):
    """What is not as promised after `damage` of the file `name` in a copy of `whole`: [] where all is well. The first
    of `commands` is the one that made the folder; `written`: what it writes anew in any case; `unread`: what it may
    leave as it is; `stopped`: a folder without which the copy is given, and which it has to make again.
    """
    shutil.copytree(whole, folder)
    before = content(folder)
    if stopped:
        shutil.rmtree(folder / stopped)
    damage(folder / name)
    damaged = content(folder)
    wrong = []
    for words in reversed(commands):  # the last ones only read
        code, errors = outcome(capsys, *words)
        title = f"{words[0]}, {damage.__name__}"
        if code not in (0, 2):
            wrong.append(f"{title}: {errors}")
        _, _, line = errors.partition("phi-lab: ")  # a stage's bars and a library's warnings may stand before it
        if code == 2 and (line.count("\n") != 1 or "phi-lab: " in line or "Traceback" in errors):
            wrong.append(f"{title}: not one line: {errors}")
        elif code == 2 and name.partition("/")[0] not in line:
            wrong.append(f"{title}: does not name the file: {line}")
        made_again = code == 0 and words == commands[0]
        after = content(folder)
        for file in sorted({*before, *after, *damaged}):
            allowed = [before.get(file)] if made_again else [damaged.get(file)]
            if file == name in unread:
                allowed += [before.get(file), damaged.get(file)]
            if stopped and file.startswith((stopped, "evals", "ladder.json", "ten.json")):
                continue  # as far as it came
            if file not in written and after.get(file) not in allowed:
                wrong.append(f"{title}: {file} {'is not as it was' if file in after else 'is gone'}")
    shutil.rmtree(folder)
    return wrong


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_damaged_file_of_a_run(whole_run, tmp_path, capsys, name):
    out = tmp_path / "run"
    commands = [[*RUN, "--out", out], ["doctor", out]]
    if "sft/model" in name:
        commands += [["export", out, "--stage", "sft", "--out", tmp_path / "export"]]
    wrong = [line for damage in damages_of(name, RUN_FILES)
             for line in complaints(capsys, whole_run, out, name, damage, commands, {"report.html"})]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", DATA_FILES)
def test_a_damaged_file_of_a_run_s_data(whole_run, tmp_path, capsys, name):
    """Of a run that has not come to GRPO, which trains on them."""
    out = tmp_path / "run"
    unread = {"data/README.md", "data/rollouts/manifest.json", "data/rollouts/000000.parquet",
              "data/sets.json"}  # which release 0.1 did not write
    wrong = [line for damage in damages_of(name, DATA_FILES) for line in complaints(
        capsys, whole_run, out, name, damage, [[*RUN, "--out", out]], {"report.html"}, unread, "grpo")]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", SET_FILES)
def test_a_damaged_file_of_a_set(whole_set, tmp_path, capsys, name):
    out = tmp_path / "set"
    commands = [[*SET, "--out", out], ["query", out, "select count(*) from rollouts"], ["doctor", out]]
    wrong = [line for damage in damages_of(name, SET_FILES)
             for line in complaints(capsys, whole_set, out, name, damage, commands, {"README.md"})]
    assert not wrong, "\n".join(wrong)
