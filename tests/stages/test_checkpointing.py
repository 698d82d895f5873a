"""A stage that was killed at any point goes on from its last whole checkpoint, and ends at the same weights."""

import shutil
from dataclasses import replace

import pytest
from stage_helpers import GRPO, MID, SFT, Stop, both, everything, odd_text
from transformers import TrainingArguments

from phi_lab.core import files
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows
from phi_lab.core.run_folder import StageFolder
from phi_lab.model import checkpoints
from phi_lab.pipeline import stage_runner
from phi_lab.problems import arithmetic
from phi_lab.stages import checkpointing, grpo, mid_training, sft, training

SHORT = replace(MID, steps=4, batch_size=2)


def stopped(monkeypatch, run, module, name, at):
    """Run until `module.name` has been called `at` times; the last call does not return."""
    real, calls = getattr(module, name), []

    def patched(*arguments, **rest):
        calls.append(1)
        if len(calls) == at:
            raise Stop
        return real(*arguments, **rest)

    with monkeypatch.context() as during:
        during.setattr(module, name, patched)
        with pytest.raises(Stop):
            run()


def counted(monkeypatch, run):
    """The result of a run and the steps it took."""
    steps, real = [], training.MetricsRecorder.on_step_end

    def on_step_end(self, args, state, *rest, **more):
        steps.append(state.global_step)
        return real(self, args, state, *rest, **more)

    with monkeypatch.context() as during:
        during.setattr(training.MetricsRecorder, "on_step_end", on_step_end)
        return run(), steps


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def middle(student, data):
    return lambda out: mid_training.train(student, *both(data), out, SHORT, seed=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, middle):
    return middle(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def half(tmp_path_factory, middle):
    """Killed while the second of two checkpoints was saved: all of its own files are there, its mark is not."""
    out = tmp_path_factory.mktemp("half")
    with pytest.MonkeyPatch.context() as monkeypatch:
        stopped(monkeypatch, lambda: middle(out), checkpointing, "write_mark", at=2)
    assert {path.name for path in (out / "trainer").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    return out


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""), "cut": cut, "missing": lambda path: path.unlink(),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}
DAMAGED = [("trainer_state.json", "empty"), ("optimizer.pt", "cut"), ("model.safetensors", "missing")]
FURTHER = [("trainer_state.json", "zeros"), ("optimizer.pt", "zeros"), ("scheduler.pt", "empty"),
           ("rng_state.pth", "cut"), ("model.safetensors", "zeros"), ("model.safetensors", "cut")]


@pytest.mark.parametrize(("name", "how"), DAMAGED)
def test_resume_takes_the_last_whole_checkpoint(half, whole, middle, tmp_path, monkeypatch, capsys, name, how):
    out = shutil.copytree(half, tmp_path / "out")
    DAMAGE[how](out / "trainer" / "checkpoint-4" / name)
    result, steps = counted(monkeypatch, lambda: middle(out))
    assert steps == [3, 4] and checkpoints.fingerprint(result.model) == checkpoints.fingerprint(whole.model)
    assert without_seconds(result.metrics) == without_seconds(whole.metrics)
    said = capsys.readouterr().out
    assert f"{out}/trainer/checkpoint-4: not whole, {name}" in said and "skipped" in said


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(("name", "how"), DAMAGED + FURTHER)
def test_every_damage_is_seen(half, tmp_path, capsys, name, how, marked):
    """In a checkpoint that has its mark, and in one that was killed before it or that release 0.1 saved."""
    arguments = TrainingArguments(str(tmp_path / "trainer"))
    shutil.copytree(half / "trainer" / "checkpoint-4", folder := tmp_path / "trainer" / "checkpoint-4")
    if marked:
        checkpointing.write_mark(folder)
    assert checkpointing.resume_point(arguments) == str(folder)
    DAMAGE[how](folder / name)
    assert checkpointing.resume_point(arguments) is None and not folder.exists()
    assert f"not whole, {name}" in capsys.readouterr().out


def test_a_checkpoint_whose_best_one_is_damaged_is_not_whole(half, tmp_path, capsys):
    """Its best weights would be the stage's."""
    arguments = TrainingArguments(
        str(tmp_path / "trainer"), load_best_model_at_end=True, eval_strategy="steps", save_strategy="steps")
    shutil.copytree(half / "trainer", tmp_path / "trainer")
    state = read_json(tmp_path / "trainer" / "checkpoint-4" / "trainer_state.json")
    files.write_json(tmp_path / "trainer" / "checkpoint-4" / "trainer_state.json", {**state, "best_global_step": 2})
    cut(tmp_path / "trainer" / "checkpoint-2" / "model.safetensors")
    assert checkpointing.resume_point(arguments) is None
    assert "not whole, because the best one before it, checkpoint-2, is not: model.safetensors has" in (
        capsys.readouterr().out)


def test_a_stage_killed_after_its_last_step_trains_no_more(half, whole, middle, tmp_path, monkeypatch):
    """Its last checkpoint, which is whole but for the mark, in a folder that was moved since."""
    result, steps = counted(monkeypatch, lambda: middle(shutil.copytree(half, tmp_path / "out")))
    assert steps == [] and checkpoints.fingerprint(result.model) == checkpoints.fingerprint(whole.model)
    assert without_seconds(result.metrics) == without_seconds(whole.metrics)
    assert result.train_tokens == whole.train_tokens


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_other_stages_train_no_more_either(tmp_path, student, data, monkeypatch, stage):
    def run(out):
        if stage == "sft":
            return sft.train(student, *both(data), out, replace(SFT, steps=7), seed=0)
        problems = arithmetic.sample_problems(8, 1)
        return grpo.train(student, problems, out, GRPO, seed=0, reward=odd_text, select=everything)

    unbroken = run(tmp_path / "unbroken")
    stopped(monkeypatch, lambda: run(tmp_path / "out"), training, "save_and_summarise", at=1)
    result, steps = counted(monkeypatch, lambda: run(tmp_path / "out"))
    assert steps == [] and checkpoints.fingerprint(result.model) == checkpoints.fingerprint(unbroken.model)
    assert (result.train_tokens, result.forward_tokens) == (unbroken.train_tokens, unbroken.forward_tokens)


@pytest.mark.parametrize("at", range(1, 5))
def test_a_stage_killed_while_it_ends_keeps_its_model(half, whole, middle, tmp_path, monkeypatch, at):
    """At each of the renamings that end a stage, of model, mark and checkpoints, and in the removal of these."""
    folder = StageFolder(shutil.copytree(half, tmp_path / "mid"))
    record = lambda: stage_runner.train_and_record(folder, lambda: middle(folder.path), lambda line: None)  # noqa: E731
    if at < 4:
        real, before = files.os.replace, []

        def replace_and_stop(source, target):
            if str(target).endswith(("/model", "done.json", ".removed-trainer")):
                before.append(target)
                if len(before) == at:
                    raise Stop
            real(source, target)

        monkeypatch.setattr(files.os, "replace", replace_and_stop)
    else:
        def half_removed(path, ignore_errors):
            if path.name == ".removed-trainer" and path.exists():
                next(path.rglob("optimizer.pt")).unlink()
                raise Stop

        monkeypatch.setattr(files.shutil, "rmtree", half_removed)
    with pytest.raises(Stop):
        record()
    monkeypatch.undo()
    assert folder.finished == (at > 2)
    _, steps = counted(monkeypatch, lambda: stage_runner.finished_result(folder) or record())
    assert steps == [] and checkpoints.fingerprint(folder.model) == checkpoints.fingerprint(whole.model)
    assert without_seconds(read_rows(folder.metrics)) == without_seconds(whole.metrics)


def test_a_finished_stage_knows_its_files(whole, tmp_path):
    for name, how in (("model/model.safetensors", "zeros"), ("model/config.json", "missing"), ("metrics.jsonl", "cut")):
        folder = StageFolder(shutil.copytree(whole.model.parent, tmp_path / how))
        assert stage_runner.finished_result(folder).train_tokens == whole.train_tokens
        DAMAGE[how](folder.path / name)
        with pytest.raises(UserError, match=f"{folder.path}/{name} .*; delete {folder.path} to train it again"):
            stage_runner.finished_result(folder)
