"""Rollouts on disk: the same bytes however often it was stopped, none lost, none twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from phi_lab.config import schema
from phi_lab.core.errors import UserError
from phi_lab.distill import shards, teachers
from phi_lab.problems import arithmetic

PLAN = schema.DistillationConfig(questions=30, validation_questions=0, samples=3)
ASKED = arithmetic.sample_problems(30, 1)
WHOSE = {"name": "script", "samples": 3, "temperature": 1.0, "seed": 1}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(shards, "PROBLEMS_PER_SHARD", 8)


def everything(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run's files."""
    out = tmp_path_factory.mktemp("shards") / "whole"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shards, "PROBLEMS_PER_SHARD", 8)
        shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, out, **WHOSE)
    return everything(out)


def test_every_question_is_answered_in_order_and_verified(whole, tmp_path):
    shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, tmp_path, **WHOSE)
    assert everything(tmp_path) == whole and set(whole) == {"manifest.json", *(f"{n:06d}.parquet" for n in range(4))}
    rows = list(shards.rows(tmp_path))
    assert [(row["id"], row["sample"]) for row in rows] == [(p.id, k) for p in ASKED for k in range(3)]
    assert {row["verdict"] for row in rows} == {"right"} and {row["split"] for row in rows} == {"train"}
    found = shards.query(tmp_path, "select verdict, count(*) as n from rollouts group by 1")
    assert found == [{"verdict": "right", "n": 90}]
    alike = shards.query(tmp_path, "select 1 as n, 2 as n, 3 as n_2, 4 as n from rollouts limit 1")
    assert alike == [{"n": 1, "n_2": 2, "n_2_2": 3, "n_3": 4}]
    with pytest.raises(UserError, match="no_such_column"):
        shards.query(tmp_path, "select no_such_column from rollouts")


class Killed(BaseException):
    """What a kill leaves behind, without a process: nothing after this line runs."""


def one_by_one(after=None, given=None):
    """The script's answers in a random order, each handed on as an endpoint's would be and noted in `given`; killed
    after so many.
    """
    script, given = teachers.script_teacher(PLAN, 1), [] if given is None else given

    def teacher(pending_shards, done):
        first = len(given)
        for shard in pending_shards:
            answers = []
            script([shard], lambda *answer, to=answers: to.append(answer))
            random.Random(shard.first).shuffle(answers)
            for answer in answers:
                if after is not None and len(given) - first == after:
                    raise Killed
                given.append(answer[1])
                done(*answer)

    return teacher


@pytest.mark.parametrize("seed", range(20))
def test_killed_anywhere_and_run_again_gives_the_same_bytes(whole, tmp_path, seed):
    """Between any two answers, with the last line cut short: nothing is lost, nothing asked twice."""
    rng, given, torn = random.Random(seed), [], 0
    for _ in range(3):
        with suppress(Killed):
            shards.collect_rollouts(one_by_one(rng.randrange(1, 30), given), ASKED, tmp_path, **WHOSE)
        for journal in tmp_path.glob("*.jsonl"):
            if rng.random() < 0.5 and journal.stat().st_size:  # torn: the last answer is asked again
                os.truncate(journal, journal.stat().st_size - rng.randrange(1, 9))
                torn += 1
    shards.collect_rollouts(one_by_one(None, given), ASKED, tmp_path, **WHOSE)
    assert everything(tmp_path) == whole
    assert len(given) == 90 + torn


def test_killed_between_the_last_answer_and_the_shard(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(shards.RolloutShard, "save", lambda *_: None)
        shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, tmp_path, **WHOSE)
    assert len(list(tmp_path.glob("*.jsonl"))) == 4 and not list(tmp_path.glob("*.parquet"))

    def never(pending_shards, done):
        assert list(pending_shards) == []

    shards.collect_rollouts(never, ASKED, tmp_path, **WHOSE)
    assert everything(tmp_path) == whole


def test_killed_between_the_shard_and_the_end_of_its_journal(whole, tmp_path, monkeypatch):
    def killed(*_):
        raise Killed

    with monkeypatch.context() as patched, suppress(Killed):
        patched.setattr(shards, "_rewrite", killed)
        shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, tmp_path, **WHOSE)
    assert [path for path in tmp_path.glob("*.parquet") if path.with_suffix(".jsonl").exists()]
    shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, tmp_path, **WHOSE)
    assert everything(tmp_path) == whole


def test_more_questions_keep_what_was_answered(whole, tmp_path):
    shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED[:12], tmp_path, **WHOSE)
    before = [row["completion"] for row in shards.rows(tmp_path)]
    shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, tmp_path, **WHOSE)
    assert [row["completion"] for row in shards.rows(tmp_path)][: len(before)] == before
    assert [row["id"] for row in shards.rows(tmp_path)] == [p.id for p in ASKED for _ in range(3)]


def test_fewer_questions_of_a_stopped_set_keep_the_other_answers(whole, tmp_path):
    """What was answered beyond them was paid for: the journal holds it until as much is asked again."""
    given = []
    with suppress(Killed):
        shards.collect_rollouts(one_by_one(20, given), ASKED[:8], tmp_path, **WHOSE)
    shards.collect_rollouts(one_by_one(None, given), ASKED[:3], tmp_path, **WHOSE)
    assert {row["id"] for row in shards.rows(tmp_path)} == {problem.id for problem in ASKED[:3]}
    shards.collect_rollouts(one_by_one(None, given), ASKED, tmp_path, **WHOSE)
    assert everything(tmp_path) == whole
    assert len(given) == len(ASKED) * 3


def test_fewer_samples_and_questions_keep_the_others_for_later(tmp_path):
    """Of a finished set, too, and once: the next call finds nothing to do."""
    def collect(questions, samples, given):
        shards.collect_rollouts(one_by_one(None, given), ASKED[:questions], tmp_path, name="t", temperature=0.0, seed=1,
                                samples=lambda _: samples)
        return [(row["id"], row["sample"]) for row in shards.rows(tmp_path)], (tmp_path / "000000.parquet").stat()

    given = []
    whole, _ = collect(4, 3, given)
    few, written = collect(2, 2, given)
    assert few == [key for key in whole if key[1] < 2 and key[0] in {problem.id for problem in ASKED[:2]}]
    again, untouched = collect(2, 2, given)
    assert again == few and untouched.st_mtime_ns == written.st_mtime_ns
    assert collect(4, 3, given)[0] == whole and len(given) == len(whole) == 12


def test_what_was_not_answered_is_told_and_asked_again(whole, tmp_path):
    def forgetful(pending_shards, done):
        def some(shard, key, answer):
            if key != (3, 1):
                done(shard, key, answer)

        teachers.script_teacher(PLAN, 1)(pending_shards, some)

    with pytest.raises(UserError, match="4 rollouts were not answered; the same command"):
        shards.collect_rollouts(forgetful, ASKED, tmp_path, **WHOSE)
    shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, tmp_path, **WHOSE)
    assert everything(tmp_path) == whole


def test_another_teacher_is_refused_and_a_broken_journal_named(tmp_path):
    shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED[:4], tmp_path, **WHOSE)
    with pytest.raises(UserError, match="temperature differs"):
        shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, tmp_path, **WHOSE | {"temperature": 0.5})
    (tmp_path / "000001.jsonl").write_text('[0, 0, "x", "stop", 1]\nnonsense\n')
    with pytest.raises(UserError, match=r"000001\.jsonl, line 2: .*delete that line"):
        shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, tmp_path, **WHOSE)


def test_a_command_that_got_no_answer_binds_nothing(whole, tmp_path):
    """The corrected one may differ in all: no answer is there that would be mixed with others."""
    def unable(pending_shards, done):
        raise UserError("no such model")

    with pytest.raises(UserError, match="no such model"):
        shards.collect_rollouts(unable, ASKED, tmp_path, **{**WHOSE, "name": "another", "seed": 9})
    shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, tmp_path, **WHOSE)
    assert everything(tmp_path) == whole


def test_a_full_disk_ends_it_and_loses_nothing(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(shards, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError):
            shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, tmp_path, **WHOSE)
    shards.collect_rollouts(teachers.script_teacher(PLAN, 1), ASKED, tmp_path, **WHOSE)
    assert everything(tmp_path) == whole


def test_lone_surrogates_and_huge_answers_are_kept(tmp_path):
    def odd(pending_shards, done):
        for shard in pending_shards:
            for key in list(shard.pending):
                done(shard, key, ("\ud800" + "x" * 100_000, "length", 1))

    shards.collect_rollouts(odd, ASKED[:2], tmp_path, **WHOSE)
    assert {row["completion"][:2] for row in shards.rows(tmp_path)} == {"?x"}


PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_shards
from phi_lab.distill import shards, teachers
shards.PROBLEMS_PER_SHARD = 8
def slow(pending_shards, done):
    def one(*answer):
        time.sleep(0.004)
        done(*answer)
    test_shards.one_by_one()(pending_shards, one)
shards.collect_rollouts(slow, test_shards.ASKED, Path(sys.argv[1]), **test_shards.WHOSE)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("seed", range(3))
def test_kill_9_of_a_real_process(whole, tmp_path, seed):
    out, rng = tmp_path / "out", random.Random(seed)
    command = [sys.executable, "-c", PROGRAM, str(out), os.path.dirname(__file__)]
    for _ in range(2):
        process = subprocess.Popen(command)
        while not list(out.glob("*.jsonl")) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    assert everything(out) == whole
    assert json.loads((out / "manifest.json").read_text())["teacher"] == "script"
