"""The chain as a user meets it: what is left behind, that it repeats and resumes, one line for every mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from phi_lab import cli
from phi_lab.config import presets, schema
from phi_lab.config.schema import STAGES
from phi_lab.core import files, paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows, write_rows
from phi_lab.core.run_folder import EvalFolder, RunFolder
from phi_lab.distill import shards
from phi_lab.evaluate import ladder as evaluate
from phi_lab.model import checkpoints, shapes
from phi_lab.pipeline import arms, measure, run, run_data, stage_runner
from phi_lab.problems import benchmarks
from phi_lab.stages import mid_training

LADDER = ["stage", "arm", "benchmark", "protocol", "n", "correct", "accuracy", "ci_low", "ci_high", "temperature", "k",
          "pass_at_k", "parts",
          "seconds", "train_tokens", "forward_tokens", "peak_rss_mb", "seed"]
VERDICTS = {"right", "wrong", "unfinished", "unparsed", "timeout"}
COST = ("seconds", "peak_rss_mb")  # what no seed can repeat
SMOKE = presets.SMOKE


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """Folder of a whole tiny run."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert run.run_chain(RunFolder(out), profile="smoke", seed=5, log=lambda line: None) == out / "report.html"
    return out


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def said(capsys, *arguments):
    """Run a command that must fail; returns its one line."""
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert code == 2 and captured.err.startswith("phi-lab: ") and captured.err.count("\n") == 1, captured.err
    return captured.err


# ------------------------------------------------------------------ what a run leaves behind


@pytest.mark.slow
def test_a_run_folder_is_what_the_contract_says(finished):
    config = read_json(finished / "config.json")
    assert config["seed"] == 5 and config["config"]["scale"] == "cpu" and config["config"]["profile"] == "smoke"
    assert config["config"]["grpo"]["prompts_per_step"] == 3 and "git_commit" in config
    assert set(config["versions"]) >= {"torch", "transformers", "trl", "peft", "datasets"}
    for stage in STAGES[1:]:
        assert (finished / stage / "model" / "model.safetensors").is_file()
        rows = read_rows(finished / stage / "metrics.jsonl", ("step", "tokens", "seconds"))
        assert any("loss" in row for row in rows)
        assert not (finished / stage / "trainer").exists()
        columns = set().union(*rows)
        if stage == "dpo":
            assert columns >= {"rewards/accuracies"}
            assert columns >= {f"{kind}/{side}" for kind in ("rewards", "logps") for side in ("chosen", "rejected")}
        if stage == "grpo":
            assert columns >= {"reward", "zero_variance_share", "mean_length", "entropy", "temperature", "kept_share"}
        if stage in ("mid", "sft"):
            assert columns >= {"eval_loss", "learning_rate"}
    assert "<html" in (finished / "report.html").read_text()
    assert not list(finished.rglob("*.part"))


@pytest.mark.slow
def test_data_and_funnel_of_a_run(finished):
    columns = "id domain level prompt answer completion verdict finish_reason tokens teacher temperature seed".split()
    rollouts = list(shards.rows(finished / "data" / "rollouts"))
    assert set(columns) <= set(rollouts[0])
    assert len(rollouts) == 6 * 4 and len({row["id"] for row in rollouts}) == 6
    funnel = read_json(finished / "data" / "funnel.json")
    assert set(funnel) == {"questions", "rollouts", "steps", "verdicts", "rescued", "domains", "contaminated"}
    assert set(funnel["verdicts"]) == VERDICTS
    assert funnel["rollouts"] == 24 + 2 * 8 == sum(funnel["verdicts"].values())  # those of two shipped questions
    left = funnel["rollouts"]
    for step in funnel["steps"]:
        assert set(step) == {"name", "kept", "removed", "why"}
        assert left == step["kept"] + step["removed"]
        left = step["kept"]
    right = read_rows(finished / "data" / "right.jsonl")
    wrong = read_rows(finished / "data" / "wrong.jsonl")
    assert len(right) == left and 0 < len(wrong) <= funnel["verdicts"]["wrong"]
    assert len({(row["id"], row["completion"]) for row in wrong}) == len(wrong)
    assert {row["verdict"] for row in right} == {"right"} and {row["verdict"] for row in wrong} == {"wrong"}
    assert all(0 < row["pass_rate"] <= 1 for row in right) and all(row["pass_rate"] < 1 for row in wrong)


@pytest.mark.slow
def test_evals_and_ladder_agree(finished):
    ladder = read_json(finished / "ladder.json")
    keys = [(row["stage"], row["arm"], row["benchmark"], row["temperature"], row["k"]) for row in ladder]
    wanted = [(name, 0.0, 1) for name in benchmarks.NAMES]
    wanted += [("easy", 0.6, 1), ("hard", 0.6, 2), ("hard", 0.3, 1), ("hard", 0.6, 4), ("transfer", 0.6, 1)]
    arms = [*((stage, "main") for stage in STAGES), ("dpo", "paper"), *((stage, "shipped") for stage in STAGES[1:-1])]
    assert sorted(keys) == sorted((*arm, *row) for arm in arms for row in wanted)
    for row in ladder:
        assert list(row) == LADDER and row["seed"] == 5
        name = row["stage"] if row["arm"] == "main" else f"{row['stage']}-{row['arm']}"
        path = finished / "evals" / f"{name}.{row['benchmark']}.jsonl"
        samples = read_rows(path, ("id", "sample", "seed", "temperature", "completion", "verdict"))
        assert {sample["verdict"] for sample in samples} <= VERDICTS
        here = [one for one in samples if one["temperature"] == row["temperature"] and one["sample"] < row["k"]]
        if row["k"] == 4:  # pass@4, on the first four problems
            here = [one for one in here if one["id"] in [problem["id"] for problem in benchmarks.load("hard")[:4]]]
            by_problem = {one["id"]: False for one in here}
            for one in here:
                by_problem[one["id"]] |= one["verdict"] == "right"
            assert row["pass_at_k"] == pytest.approx(sum(by_problem.values()) / len(by_problem))
        else:
            assert row["pass_at_k"] is None
        right = sum(one["verdict"] == "right" for one in here)
        assert (row["n"], row["correct"]) == (len(here), right)
        assert row["accuracy"] == pytest.approx(right / len(here))
        assert 0 <= row["ci_low"] <= row["accuracy"] <= row["ci_high"] <= 1
        trained = row["stage"] != "base" and row["arm"] != "shipped"
        assert (row["train_tokens"] > 0) == trained and row["peak_rss_mb"] > 100


@pytest.mark.slow
def test_the_model_that_a_smoke_stage_started_from_is_measured(finished):
    for before, stage in pairwise(STAGES[1:]):
        measured = read_json(finished / "evals" / f"{before}-shipped.json")["model"]
        assert measured == read_json(finished / stage / "student.json")["weights"]
        assert measured == checkpoints.fingerprint(paths.SHIPPED / before)
        assert measured != read_json(finished / "evals" / f"{before}.json")["model"]


@pytest.mark.slow
def test_a_chain_has_no_other_starts(tiny, tmp_path):
    run.run_chain(RunFolder(tmp_path), profile="lab", seed=5, stop="sft", log=lambda line: None)
    arms = {(row["stage"], row["arm"]) for row in read_json(tmp_path / "ladder.json")}
    assert arms == {(stage, "main") for stage in ("base", "mid", "sft")}


@pytest.mark.slow
def test_a_folder_measured_before_there_were_such_rows_gets_them(finished, tmp_path):
    old = shutil.copytree(finished, tmp_path / "old")
    rows = read_json(finished / "ladder.json")
    files.write_json(old / "ladder.json", [row for row in rows if row["arm"] != "shipped"])
    for path in (old / "evals").glob("*-shipped.*"):
        path.unlink()
    run.run_chain(RunFolder(old), profile="smoke", seed=5, log=lambda line: None)
    one, other = ([{name: row[name] for name in row if name not in COST} for row in ladder]
                  for ladder in (rows, read_json(old / "ladder.json")))
    assert one == other
    for name in ("sft/model/model.safetensors", "sft/done.json", "evals/mid-shipped.hard.jsonl"):
        assert (old / name).read_bytes() == (finished / name).read_bytes()


def placed(folder, stage, source, begun=None):
    """A model of a stage as training leaves it in a run folder; begun: the folder of the model it started from."""
    shutil.copytree(source, folder / stage / "model")
    files.write_json(folder / stage / "done.json", {
        "seconds": 1.0, "train_tokens": 1, "forward_tokens": 0, "peak_rss_mb": 1})
    (folder / stage / "metrics.jsonl").touch()
    if begun:
        files.write_json(folder / stage / "student.json", {"weights": checkpoints.fingerprint(begun)})


def test_a_stage_is_apart_where_it_started_from_another_model_than_the_ladder_s(tmp_path, student, shipped):
    own = tmp_path / "mid" / "model"

    def apart(stage, config):
        return stage_runner.starts_from_shipped(stage, RunFolder(tmp_path), config)

    placed(tmp_path, "mid", student, shipped("base"))
    assert not apart("mid", SMOKE)  # everything starts from the shipped base
    assert not apart("base", SMOKE)
    assert apart("sft", SMOKE) and not apart("sft", presets.LAB)  # untrained
    placed(tmp_path, "sft", student, own)
    assert not apart("sft", SMOKE)
    files.write_json(tmp_path / "sft" / "student.json", {"weights": checkpoints.fingerprint(shipped("mid"))})
    assert apart("sft", presets.LAB) and not apart("sft", presets.LORA)
    shutil.rmtree(own)
    shutil.copytree(shipped("mid"), own)  # the run that was shipped, made again
    assert not apart("sft", presets.LAB)


def test_a_run_from_the_middle_measures_its_start_unless_the_ladder_has_it(tmp_path, student, shipped):
    placed(tmp_path, "dpo", student, shipped("sft"))
    assert stage_runner.starts_from_shipped("dpo", RunFolder(tmp_path), presets.LAB)
    assert not stage_runner.starts_from_shipped("grpo", RunFolder(tmp_path), presets.LAB)
    files.write_json(tmp_path / "evals" / "sft.json", {})
    assert not stage_runner.starts_from_shipped("dpo", RunFolder(tmp_path), presets.LAB)


def test_rows_of_a_start_go_when_the_stage_is_trained_from_the_run_s_own(tmp_path, student, shipped, monkeypatch):
    def row(name, stage, arm, *_):
        return [{"stage": stage, "arm": arm, "benchmark": "hard", "temperature": 0.6, "pass_at_k": None,
                 "k": 1, "n": 40, "accuracy": 0.5, "ci_low": 0.4, "ci_high": 0.6, "peak_rss_mb": 1}]

    measured = []
    monkeypatch.setattr(evaluate, "evaluate", lambda model, name, *_, **__: measured.append((name, model)))
    monkeypatch.setattr(evaluate, "ladder_rows", row)
    monkeypatch.setattr(measure, "ten_problems", lambda *_: [])
    placed(tmp_path, "mid", student, shipped("base"))
    placed(tmp_path, "sft", student, shipped("mid"))

    def arms():
        return [(row["stage"], row["arm"]) for row in read_json(tmp_path / "ladder.json")]

    for stage in ("mid", "sft"):
        measure.measure(stage, RunFolder(tmp_path), SMOKE, 0, log=lambda line: None)
    assert arms() == [("mid", "main"), ("mid", "shipped"), ("sft", "main")]
    assert measured[-1] == ("mid-shipped", paths.SHIPPED / "mid")
    files.write_json(tmp_path / "sft" / "student.json", {"weights": checkpoints.fingerprint(student)})
    measure.measure("sft", RunFolder(tmp_path), SMOKE, 0, log=lambda line: None)
    assert arms() == [("mid", "main"), ("sft", "main")]


@pytest.mark.slow
def test_the_same_ten_problems_through_all_stages(finished):
    ten = read_json(finished / "ten.json")
    assert [problem["id"] for problem in ten] == [problem["id"] for problem in benchmarks.load("hard")[:10]]
    for problem in ten:
        assert set(problem) >= {"id", "prompt", "answer"} and list(problem["completions"]) == list(STAGES)
        for stage, answer in problem["completions"].items():
            rows = read_rows(finished / "evals" / f"{stage}.hard.jsonl")
            (greedy,) = [row for row in rows if row["id"] == problem["id"] and row["temperature"] == 0]
            assert answer == {"completion": greedy["completion"], "verdict": greedy["verdict"]}


@pytest.mark.slow
def test_running_again_does_nothing_and_changes_nothing(finished, monkeypatch):
    def never(*arguments, **rest):
        raise AssertionError("worked again on what was finished")

    work = ((mid_training, "train"), (shards.RolloutShard, "save"), (evaluate, "_answers"), (shapes, "build"))
    for module, name in work:
        monkeypatch.setattr(module, name, never)
    before = everything(finished)
    run.run_chain(RunFolder(finished), profile="smoke", seed=5, log=lambda line: None)
    after = everything(finished)
    assert before.keys() == after.keys()
    assert [str(path) for path in before if before[path] != after[path]] == []


@pytest.mark.slow
def test_a_finished_run_of_release_0_1_is_left_as_it_is(finished, tmp_path):
    out, new_to_old = tmp_path / "old", {new: old for old, new in schema.OLD_NAMES.items()}
    del new_to_old["max_pairs"]  # "pairs", which is another setting today

    def with_old_names(saved):
        return {new_to_old.get(name, name): with_old_names(value) if isinstance(value, dict) else value
                for name, value in saved.items()}

    shutil.copytree(finished, out)
    for path in [out / "config.json", *(out / "evals").glob("*.json")]:
        files.write_json(path, with_old_names(read_json(path)))
    before = everything(out)
    assert b'"numbers"' in before[Path("config.json")] and b'"sets"' in before[Path("evals/grpo.json")]
    run.run_chain(RunFolder(out), profile="smoke", seed=5, log=lambda line: None)
    assert everything(out) == before


@pytest.mark.slow
def test_the_same_seed_gives_the_same_ladder(finished, tmp_path):
    run.run_chain(RunFolder(tmp_path / "again"), profile="smoke", seed=5, log=lambda line: None)
    shard = "000000.parquet"
    for name in (f"rollouts/{shard}", f"validation/{shard}", "right.jsonl", "wrong.jsonl", "validation.jsonl"):
        path = Path("data") / name
        assert (finished / path).read_bytes() == (tmp_path / "again" / path).read_bytes(), name
    for path in sorted((finished / "evals").iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / "evals" / path.name).read_bytes(), path.name
    ladders = [read_json(folder / "ladder.json") for folder in (finished, tmp_path / "again")]
    one, other = ([{name: row[name] for name in row if name not in COST} for row in ladder] for ladder in ladders)
    assert one == other
    for stage in STAGES[1:]:
        name = f"{stage}/model/model.safetensors"
        assert (finished / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), stage


@pytest.mark.slow
def test_a_folder_of_another_run_is_left_alone(finished, capsys):
    before = everything(finished)
    assert "seed differs" in said(capsys, "run", "--profile", "smoke", "--seed", 6, "--out", finished)
    assert "config differs" in said(capsys, "run", "--profile", "lab", "--seed", 5, "--out", finished)
    assert everything(finished) == before


@pytest.mark.slow
def test_the_report_of_a_run_can_be_written_again(finished, capsys):
    before = everything(finished)
    assert cli.main(["report", str(finished)]) == 0
    assert capsys.readouterr().out.strip() == str(finished / "report.html")
    assert everything(finished) == before


# ------------------------------------------------------------------ what belongs together


@pytest.mark.slow
def test_a_stage_trained_from_another_model_is_not_taken_for_this_chain_s(tiny, finished, tmp_path, capsys):
    """`--from dpo` starts from the shipped checkpoint; a later `run` in the same folder would build on other models."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "dpo" / "student.json").write_text('{"weights": "0123456789abcdef"}')
    assert cli.main(["run", "--profile", "smoke", "--seed", "5", "--out", str(out)]) == 2
    assert f"delete {out / 'dpo'} to train it again" in capsys.readouterr().err
    (out / "dpo-paper" / "student.json").write_text('{"weights": "0123456789abcdef"}')
    with pytest.raises(UserError, match=f"delete {out / 'dpo-paper'} to train it again"):
        arms.run_paper_dpo(RunFolder(out), tiny, 5)
    (out / "data" / "teacher.json").write_text('{"weights": "0123456789abcdef"}')
    with pytest.raises(UserError, match="to ask this teacher"):
        run_data.training_data(RunFolder(out), tiny, 5)


def test_answers_of_another_model_are_measured_again_in_a_run_and_refused_by_eval(tmp_path, shipped, student, capsys):
    config = schema.EvaluationConfig(problems=2, samples=1, pass_samples=1, max_new_tokens=8)
    evaluate.evaluate(student, "x", EvalFolder(tmp_path), config, 0)
    first = read_rows(tmp_path / "x.hard.jsonl")
    with pytest.raises(UserError, match="x.json: model differs"):
        evaluate.evaluate(shipped("grpo"), "x", EvalFolder(tmp_path), config, 0)
    with pytest.raises(UserError, match="x.json: seed differs"):
        evaluate.evaluate(student, "x", EvalFolder(tmp_path), config, 1)
    assert read_rows(tmp_path / "x.hard.jsonl") == first
    evaluate.evaluate(shipped("grpo"), "x", EvalFolder(tmp_path), config, 0, resample_stale=True)
    assert read_rows(tmp_path / "x.hard.jsonl") != first


@pytest.mark.slow
def test_a_run_trains_on_a_set_that_was_distilled_before(finished, tmp_path, capsys):
    source, out = finished / "data", tmp_path / "run"
    command = ["run", "--profile", "smoke", "--to", "mid", "--seed", 5, "--out", out, "--data"]
    assert cli.main([str(part) for part in (*command, source)]) == 0
    rows = read_rows(source / "right.jsonl")
    held = set(list(dict.fromkeys(row["id"] for row in rows))[::20])
    assert read_rows(out / "data" / "right.jsonl") == [row for row in rows if row["id"] not in held]
    assert read_rows(out / "data" / "validation.jsonl") == [row for row in rows if row["id"] in held]
    assert read_json(out / "mid" / "done.json")["train_tokens"] > 0
    before = everything(out / "data")
    assert cli.main([str(part) for part in (*command, source)]) == 0 and everything(out / "data") == before
    capsys.readouterr()
    few = tmp_path / "few"
    assert "few/right.jsonl is missing" in said(capsys, *command, few)
    write_rows(few / "right.jsonl", rows[:1])
    assert "right rollouts of 1 questions" in said(capsys, *command, few)
    write_rows(few / "right.jsonl", rows[:-1])
    assert "choose another --out" in said(capsys, *command, few)
    assert "rollouts that this run has sampled" in said(capsys, *command[:-2], finished, "--data", source)
    elsewhere = ["run", "--profile", "smoke", "--to", "mid", "--out", tmp_path / "other", "--data", few]
    assert "few/wrong.jsonl is missing: --data takes a whole folder" in said(capsys, *elsewhere)
    assert not (tmp_path / "other" / "data").exists()


def test_shipped_rollouts_never_repeat_a_question_that_was_asked_here(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DISTILLED", tmp_path)
    write_rows(tmp_path / "rollouts.jsonl.gz", [{"id": name, "sample": i} for name in "abcd" for i in (0, 1)])
    assert [row["id"] for row in run_data.shipped_rollouts(2, {"a", "c"})] == ["b", "b", "d", "d"]
    assert [row["id"] for row in run_data.shipped_rollouts(1, {"a"})] == ["b", "b"]


# ------------------------------------------------------------------ from the very beginning


@pytest.mark.slow
def test_base_and_teacher_can_be_trained_too(tiny, tmp_path, monkeypatch, tokenizer):
    """`--from base --to base` needs nothing that is shipped but tokenizer and benchmarks."""
    few = schema.LanguageModelingConfig(learning_rate=1e-3, batch_size=2, row_length=256, steps=2, documents=30)
    monkeypatch.setattr(presets, "BASE", few)
    monkeypatch.setattr(presets, "TEACHER", few)
    few_answers = schema.EvaluationConfig(problems=2, samples=1, pass_samples=1, max_new_tokens=8)
    short = replace(tiny, profile="lab", evaluation=few_answers)
    monkeypatch.setattr(presets, "run_config", lambda *_: short)
    monkeypatch.setattr(paths, "SHIPPED", tmp_path / "nothing")
    out = tmp_path / "run"
    run.run_chain(RunFolder(out), start="base", stop="base", log=lambda line: None)
    for model in ("base", "teacher"):
        assert (out / model / "model" / "model.safetensors").is_file()
    assert {row["stage"] for row in read_json(out / "ladder.json")} == {"base"}
    (out / "teacher" / "done.json").unlink()  # stopped while the teacher trained: the base is not trained again
    weights = checkpoints.fingerprint(out / "base" / "model")
    trained, record = [], stage_runner.train_and_record

    def noted(folder, *rest):
        trained.append(folder.path.name)
        return record(folder, *rest)

    monkeypatch.setattr(stage_runner, "train_and_record", noted)
    stage_runner.run_stage("base", RunFolder(out), short, 0, log=lambda line: None)
    assert (out / "teacher" / "done.json").exists()
    assert trained == ["teacher"] and checkpoints.fingerprint(out / "base" / "model") == weights
    assert stage_runner.start_checkpoint("mid", RunFolder(out), short) == out / "base" / "model"
    short = replace(short, distillation=replace(short.distillation, max_new_tokens=8))
    rollouts = list(shards.rows(run_data.training_data(RunFolder(out), short, 0, log=lambda line: None).rollouts))
    funnel = read_json(out / "data" / "funnel.json")  # a teacher of its own: it answers all, and nothing is added
    assert len(rollouts) == funnel["rollouts"] == (6 + 2) * 4 and funnel["questions"] == 8


def test_a_dataset_without_the_columns(tmp_path, student):
    write_rows(tmp_path / "good.jsonl", [{"prompt": "a", "completion": "b"}])
    write_rows(tmp_path / "bad.jsonl", [{"prompt": "a", "completion": "b"}, {"prompt": "a", "answer": "b"}])
    for files_given in (("bad", "good"), ("good", "bad")):
        data, validation = (tmp_path / f"{name}.jsonl" for name in files_given)
        with pytest.raises(UserError, match="bad.jsonl, line 2: column 'completion' is missing; it has prompt, answer"):
            mid_training.train(student, data, validation, tmp_path / "mid", SMOKE.mid, seed=0)
    assert not (tmp_path / "mid").exists()


# ------------------------------------------------------------------ a process of its own


@pytest.mark.slow
def test_nobody_is_told_of_a_run():
    """TRL's trainers report their use to Hugging Face unless this is set before they are imported."""
    program = ("import phi_lab.pipeline.run; from huggingface_hub import constants; "
               "print(constants.HF_HUB_DISABLE_TELEMETRY)")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no process groups to interrupt")
def test_ctrl_c_while_training_then_the_same_command_finishes(tmp_path, shipped):
    """As in a terminal, the signal goes to the whole process group."""
    for stage in ("base", "mid", "teacher"):
        shipped(stage)
    out = tmp_path / "run"
    command = [sys.executable, "-m", *f"phi_lab run --profile smoke --from mid --to mid --out {out}".split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, start_new_session=True)
    try:
        deadline = time.monotonic() + 600
        while not list(out.glob("mid/trainer/checkpoint-6/trainer_state.json")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "no training after ten minutes"
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    assert [line for line in errors.splitlines() if line.startswith("phi-lab:")] == [errors.strip().splitlines()[-1]]
    assert "stopped; the same command continues" in errors
    rolled = (out / "data" / "rollouts" / "000000.parquet").stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert (out / "report.html").is_file() and (out / "mid" / "model" / "model.safetensors").is_file()
    assert (out / "data" / "rollouts" / "000000.parquet").stat().st_mtime_ns == rolled  # nothing was asked again
    steps = [json.loads(line)["step"] for line in (out / "mid" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
