"""The profile of lessons: each stage from the shipped checkpoint before it, of notebooks only."""

import shutil

import pytest

from phi_lab.config import presets, schema
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import write_json
from phi_lab.lab import Lab
from phi_lab.pipeline import arms, controls, measure, notebooks, reward_hacking, stage_runner


@pytest.fixture
def lesson(tmp_path, monkeypatch, student):
    """A lesson whose mid-training is finished."""
    for name, value in (("RUN", tmp_path / "run"), ("PROFILE", "lesson"), ("SEED", 0)):
        monkeypatch.setenv(f"PHI_LAB_{name}", str(value))
    monkeypatch.delenv("PHI_LAB_SCALE", raising=False)
    lab = Lab()
    folder = lab.run.stage("mid")
    shutil.copytree(student, folder.model)
    write_json(folder.done, dict.fromkeys(stage_runner.COST, 20.0))
    return lab


def test_every_way_of_training_and_measuring_starts_from_what_is_shipped(lesson, monkeypatch):
    given = []
    monkeypatch.setattr(stage_runner, "run_stage", lambda stage, run, config, *_, **__: given.append(config))
    for module, name in ((measure, "measure"), (controls, "control")):
        monkeypatch.setattr(module, name, lambda stage, run, config, *_: given.append(config))
    monkeypatch.setattr(arms, "run_paper_dpo", lambda run, config, *_, **__: given.append(config))
    lesson.stage("sft")
    lesson.measure("mid")
    lesson.control("sft-control")
    lesson.paper_dpo()
    assert len(given) == 4
    for config in given:
        assert stage_runner.start_checkpoint("sft", lesson.run, config) == paths.SHIPPED / "mid"
        assert config.mid.steps == presets.LESSON.mid.steps, "with the settings of a lesson"


def test_the_page_says_so(lesson, capsys, monkeypatch):
    assert lesson.start("sft") == "mid-shipped"
    page = lesson._repr_html_()
    assert "Profile lesson" in page and "the stages do not form one chain" in page and "the profile lab" in page
    monkeypatch.setattr(stage_runner, "run_stage", lambda *_, **__: None)
    lesson.stage("sft")
    assert "sft starts from data/checkpoints/mid (mid)" in capsys.readouterr().out


def test_a_lesson_is_shorter_than_a_lab_and_longer_than_smoke():
    lab, lesson, smoke = presets.LAB, presets.LESSON, presets.SMOKE
    for size in (lambda one: one.mid.steps, lambda one: one.sft.documents * one.sft.epochs,
                 lambda one: one.dpo.max_pairs, lambda one: one.grpo.steps, lambda one: one.evaluation.problems):
        assert size(smoke) < size(lesson) < size(lab)


def test_a_lesson_is_no_run():
    with pytest.raises(UserError, match="unknown profile 'lesson': choose one of smoke, lab"):
        presets.run_config("cpu", "lesson")
    assert presets.course_config("cpu", "lesson") is presets.LESSON
    assert presets.course_config("qlora", "lesson") == presets.QLORA, "a GPU scale has no shipped stages"
    with pytest.raises(UserError, match="unknown profile 'fast'"):
        presets.course_config("cpu", "fast")


def test_every_page_says_how_long_each_profile_takes():
    for source in notebooks.SOURCES.glob("*.py"):
        times = notebooks.TIME.search(source.read_text()).groupdict()
        assert set(times) == {*schema.PROFILES, "lesson"} == set(reward_hacking.CONFIGS) and all(times.values()), source
