"""Chains with their controls: rows, compute, a stop anywhere, many side by side."""

import itertools
import json
import os
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from phi_lab import cli
from phi_lab.config import presets
from phi_lab.config.schema import STAGES
from phi_lab.core import files
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows
from phi_lab.core.run_folder import StageFolder, arm_name
from phi_lab.model import checkpoints
from phi_lab.pipeline import controls, experiment, queue, stage_runner
from phi_lab.report import chain_rows
from phi_lab.report.ladder_rows import read_ladder
from phi_lab.stages import rejection, sft

SHIPPED = {f"{stage}-shipped" for stage in STAGES[1:-1]}  # what the stages of a smoke run started from
CHANGES = ("seconds", "peak_rss_mb", "joules", "time")  # from one run to the next


@pytest.fixture(scope="module")
def small(tiny):
    """Fewer answers still: controls here are of a step or two."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rejection, "ASKED_AT_ONCE", 6)
        patched.setattr(controls, "ROUNDS", 2)
        yield tiny


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """Folder of one chain with all its controls, in this process."""
    out = tmp_path_factory.mktemp("whole")
    assert cli.main(["experiment", "chain", "--profile", "smoke", "--seeds", "3-3", "--out", str(out)]) == 0
    return out


def rows_of(out, seed=3):
    return {row["name"]: row for row in read_rows(out / f"seed-{seed}" / "rungs.jsonl")}


def lasting(content):
    """What a seed repeats of a row."""
    if isinstance(content, dict):
        return {key: lasting(value) for key, value in content.items() if key not in CHANGES}
    return [lasting(value) for value in content] if isinstance(content, list) else content


@pytest.mark.slow
def test_every_rung_and_every_control_is_one_row_that_says_where_it_comes_from(whole):
    rows, run = rows_of(whole), whole / "seed-3"
    assert set(rows) == {*STAGES, *controls.ARMS} | SHIPPED
    ladder = read_ladder(run / "ladder.json")
    config = experiment.chain_config("smoke")
    for name, row in rows.items():
        assert row["measurements"] == [one for one in ladder if arm_name(one["stage"], one["arm"]) == name]
        assert row["seed"] == 3 and row["config"] == config.digest() and row["versions"]["torch"]
        assert row["device"]["cpu"] and row["device"]["threads"] == 1 and row["time"].endswith("+00:00")
        assert set(chain_rows.COLUMNS) <= set(row) and len(row["code"]) == 16
        assert len(row["commit"] or "0" * 40) == 40 and row["dirty"] in (True, False, None)
        if name not in SHIPPED | {"base"}:
            assert row["seconds"] > 0 and row["compute"] > 0, name
            assert row["model"] == checkpoints.fingerprint(run / name / "model")
            assert row["start"] == read_json(run / name / "student.json")["weights"]
    how = {name: {one["protocol"] for one in row["measurements"]} for name, row in rows.items()}
    full = {*STAGES, *controls.AS_A_RUNG} | SHIPPED
    assert all(how[name] == {"sampled", "greedy", *(("cool", "pass") if name in full else ())} for name in rows)
    problems = {name: {one["n"] for one in row["measurements"] if one["benchmark"] == "easy"} for name, row in
                rows.items()}
    assert all(counts == problems["base"] for counts in problems.values())


@pytest.mark.slow
def test_controls_start_where_their_stage_started_and_take_its_compute(whole):
    rows = rows_of(whole)
    for name in controls.ARMS:
        stage = rows[name]["stage"]
        start = "mid" if name in controls.WITHOUT_MID_TRAINING else stage
        assert rows[name]["start"] == rows[start]["start"], name
        control = stage_runner.finished_result(StageFolder(whole / "seed-3" / name))
        wanted = rows[stage]["compute"] * (controls.LONGER if name == "sft-limo-best" else 1)
        if name in ("grpo-coin", "dpo-paper"):
            continue  # these are the stage itself with another reward, or other pairs
        steps = control.metrics[-1]["step"] if control.metrics else 0  # 0: a lot held no answer
        a_step = control.train_tokens / steps if steps else 0
        a_lot = 6 * rejection.SAMPLES * 300 / 3 if name in ("grpo-rft", "grpo-sft") else 0
        rounding = steps  # tokens are counted in whole numbers
        assert abs(control.compute - wanted) <= 2 * a_step + a_lot + rounding, name
    made = {name: rows[name]["model"] for name in controls.ARMS}
    assert len(set(made.values())) == len(made)  # each was trained to something of its own


@pytest.mark.slow
def test_what_is_finished_is_not_done_again(whole, monkeypatch):
    monkeypatch.setattr(experiment, "_climb", lambda *_: pytest.fail("worked again on what was finished"))
    path = whole / "seed-3" / "rungs.jsonl"
    before = path.read_bytes()
    experiment.chain(whole, 3, profile="smoke")
    assert path.read_bytes() == before
    monkeypatch.setattr(queue, "Worker", lambda *_: pytest.fail("started a finished chain"))
    collected = experiment.ladder(whole, [3], profile="smoke", log=lambda line: None)
    assert collected == whole / "chains.jsonl"
    assert [row["name"] for row in read_rows(collected) if row["name"] not in SHIPPED] == experiment.rungs(
        tuple(controls.ARMS))


@pytest.mark.slow
def test_killed_in_training_and_before_a_row_it_ends_with_the_same_rows(whole, small, tmp_path, monkeypatch):
    arms, real, appended = ("mid-control", "sft-control"), sft.train, files.append_rows
    trained = []

    class Kill(BaseException):
        pass

    def train(*given, **rest):
        trained.append(given[3].name)
        if trained == ["sft", "sft-control"]:
            raise Kill
        return real(*given, **rest)

    def append(path, rows):
        if "sft" in [row["name"] for row in rows] and not lost:
            path.open("a").write('{"seed": 3, "na')  # half a row
            lost.append(rows)
            raise Kill
        appended(path, rows)

    lost = []
    monkeypatch.setattr(sft, "train", train)
    monkeypatch.setattr(experiment, "append_rows", append)
    monkeypatch.setattr(experiment, "STAGES", STAGES[:3])
    for _ in range(2):
        with pytest.raises(Kill):
            experiment.chain(tmp_path, 3, profile="smoke", arms=arms, log=lambda line: None)
    experiment.chain(tmp_path, 3, profile="smoke", arms=arms, log=lambda line: None)
    assert lost and trained == ["sft", "sft-control", "sft-control"]  # SFT itself was not trained again
    expected, got = rows_of(whole), rows_of(tmp_path)
    assert set(got) == {"base", "mid", "mid-control", "sft", "sft-control", "mid-shipped"}
    assert {name: lasting(row) for name, row in got.items()} == {name: lasting(expected[name]) for name in got}


@pytest.mark.slow
def test_a_chain_in_a_process_of_its_own_gives_the_same_rows(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "COMMAND", (sys.executable, str(Path(__file__).with_name("tiny_chain.py"))))
    monkeypatch.setattr(experiment, "STAGES", STAGES[:2])
    path = experiment.ladder(tmp_path, [3], profile="smoke", arms=(), log=lambda line: None)
    got, expected = {row["name"]: row for row in read_rows(path)}, rows_of(whole)
    assert set(got) == {"base", "mid"}
    assert {name: lasting(row) for name, row in got.items()} == {name: lasting(expected[name]) for name in got}


# ------------------------------------------------------------------ the queue, with chains that only pretend

PRETENDER = textwrap.dedent("""
    import json, os, sys, time
    from pathlib import Path
    from phi_lab import cli
    options = cli.build_parser().parse_args(sys.argv[1:])
    (seed,), out = options.seeds, options.out
    assert options.which == "chain" and os.environ["OMP_NUM_THREADS"] == "1" and os.environ["PHI_LAB_QUIET"]
    path = out / f"seed-{seed}" / "rungs.jsonl"
    path.parent.mkdir(exist_ok=True)
    done = [json.loads(line)["name"] for line in path.read_text().splitlines()] if path.exists() else []
    names = ["base", "mid", *([] if options.without_controls else options.arms.split(",")), "sft", "dpo", "grpo"]
    with (out / "order").open("a") as order:
        print("start", seed, *done, file=order, flush=True)
        patience = time.monotonic() + 60
        while seed == 7 and "start 8" not in (out / "order").read_text() and time.monotonic() < patience:
            time.sleep(0.05)  # it ends only beside another one
        for name in names:
            if name in done:
                continue
            if seed == 8 and name == "sft" and not (out / "mended").exists():
                print("end", seed, file=order, flush=True)
                sys.exit("phi-lab: seed-8/sft: no space left for a model")
            time.sleep(0.05)
            with path.open("a") as file:
                print(json.dumps({"seed": seed, "name": name, "seconds": 2.0}), file=file, flush=True)
        print("end", seed, file=order, flush=True)
""")


@pytest.fixture
def pretending(monkeypatch):
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(queue, "COMMAND", (sys.executable, "-c", PRETENDER))
    monkeypatch.setattr(queue, "EVERY", 0.05)


def test_chains_run_side_by_side_and_one_that_fails_does_not_stop_the_others(tmp_path, pretending):
    said = []
    with pytest.raises(UserError, match="^seed 8: seed-8/sft: no space left for a model$"):
        experiment.ladder(tmp_path, range(7, 11), profile="smoke", jobs=2, arms=("mid-control",), log=said.append)
    rows = read_rows(tmp_path / "chains.jsonl")
    names = experiment.rungs(("mid-control",))
    assert [(row["seed"], row["name"]) for row in rows] == [
        (seed, name) for seed in range(7, 11) for name in (names[:3] if seed == 8 else names)]
    events = [line.split()[0] for line in (tmp_path / "order").read_text().splitlines()]
    side_by_side = list(itertools.accumulate(1 if event == "start" else -1 for event in events))
    assert max(side_by_side) == 2 and side_by_side[-1] == 0 and events.count("start") == 4
    assert any(line.startswith("seed 9: grpo, 6 of 6 after 00:") and line.endswith("about 00:00 left") for line in said)
    (tmp_path / "mended").touch()  # given again, only what is missing is done
    (tmp_path / "order").unlink()
    experiment.ladder(tmp_path, range(7, 11), profile="smoke", jobs=2, arms=("mid-control",), log=said.append)
    assert (tmp_path / "order").read_text().split() == ["start", "8", *names[:3], "end", "8"]
    assert len(read_rows(tmp_path / "chains.jsonl")) == 4 * len(names)


def test_no_chain_outlives_the_queue(tmp_path, pretending, monkeypatch):
    monkeypatch.setattr(queue, "COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    started = []
    real = queue.Worker

    def chain(*given):
        started.append(real(*given))
        return started[-1]

    monkeypatch.setattr(queue, "Worker", chain)
    monkeypatch.setattr(time, "sleep", lambda seconds: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        experiment.ladder(tmp_path, [1, 2], profile="smoke", jobs=2, log=lambda line: None)
    assert [one.process.poll() is None for one in started] == [False, False]


def test_what_remains_is_told_by_what_the_same_rungs_took():
    rows = [{"name": name, "seconds": seconds} for name, seconds in (("mid", 100), ("mid", 200), ("sft", 30))]
    assert queue.remaining(rows, ["mid", "sft"]) == 180
    assert queue.remaining(rows, ["mid", "grpo"]) == 150 + 110


def test_a_stage_is_followed_by_what_rivals_it():
    assert experiment.rungs(("grpo-rft", "sft-limo", "sft-all")) == [
        "base", "mid", "sft", "sft-limo", "sft-all", "dpo", "grpo", "grpo-rft"]
    with pytest.raises(UserError, match="unknown control 'sft-again': choose one of mid-control"):
        experiment.rungs(("sft-again",))


def test_chains_of_another_configuration_are_another_ladder(tmp_path):
    files.write_json(tmp_path / "config.json", {"config": presets.run_config("cpu", "lab").row()})
    for start in (experiment.ladder, lambda out, seeds, **rest: experiment.chain(out, seeds[0], **rest)):
        with pytest.raises(UserError, match="config.json: config differs.*chains of another configuration"):
            start(tmp_path, [1], profile="smoke")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_damaged_row_is_named(tmp_path):
    path = tmp_path / "seed-1" / "rungs.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps({"name": "base"}) + "\nnonsense\n")
    with pytest.raises(UserError, match=r"rungs.jsonl has a line that is not JSON: delete that line"):
        experiment.collect(tmp_path)


def test_the_digest_is_of_what_training_depends_on():
    config = presets.LAB
    changed = replace(config, grpo=replace(config.grpo, steps=25))
    measured = replace(config, evaluation=replace(config.evaluation, problems=7))
    assert changed.digest() != config.digest() == measured.digest()
