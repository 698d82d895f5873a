"""What the tests share: one thread, no network, models that are small or shipped."""

import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import threading
from dataclasses import replace

import pytest
import served
import torch
from hypothesis import settings

from phi_lab import cli
from phi_lab.config import presets, schema
from phi_lab.config.schema import STAGES
from phi_lab.core import paths
from phi_lab.core.files import read_rows, write_rows
from phi_lab.core.paths import SHIPPED, TEACHER  # as they are, whatever a test puts in their place
from phi_lab.distill import shards, teachers, training_sets
from phi_lab.model import checkpoints, shapes
from phi_lab.problems import arithmetic

torch.set_num_threads(1)
# The same examples every time: a stranger's `make test` passes or fails as ours does.
settings.register_profile("course", deadline=None, derandomize=True)
settings.load_profile("course")


@pytest.fixture(scope="session")
def tokenizer():
    return checkpoints.load_tokenizer()


@pytest.fixture(scope="session")
def student(tmp_path_factory, tokenizer):
    """Folder of a phi-nano with random weights."""
    folder = tmp_path_factory.mktemp("student")
    checkpoints.save(shapes.build("phi-nano", len(tokenizer), 0), tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def shipped():
    """shipped(stage) -> folder of a checkpoint that the course ships."""

    def folder(stage):
        path = TEACHER if stage == "teacher" else SHIPPED / stage
        assert (path / "model.safetensors").is_file(), f"{path} is part of the course and missing: phi-lab ship"
        return path

    return folder


@pytest.fixture
def long_roped(tmp_path, tokenizer):
    """A phi-nano whose rotary embedding changes beyond 32 tokens, as Phi-4-mini's does beyond 4,096."""
    model = shapes.build("phi-nano", len(tokenizer), 5)
    model.config.rope_parameters = {
        "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, "factor": 32.0,
        "short_factor": [1.0] * 12, "long_factor": [1.0 + k for k in range(12)], "original_max_position_embeddings": 32,
    }
    model.config.original_max_position_embeddings = 32
    checkpoints.save(model, tokenizer, tmp_path / "long")
    return tmp_path / "long"


SMOKE = presets.SMOKE
TINY = replace(
    SMOKE,
    distillation=schema.DistillationConfig(
        6, validation_questions=3, shipped_questions=2, samples=4, max_new_tokens=160),
    mid=replace(SMOKE.mid, steps=4, eval_steps=2, batch_size=2),
    sft=replace(SMOKE.sft, steps=3, documents=12, batch_size=4),
    dpo=replace(SMOKE.dpo, max_pairs=8, batch_size=4, max_student_nll=1e9, questions=14),
    grpo=replace(SMOKE.grpo, steps=2, prompts_per_step=3, group_size=6, candidate_prompts=8, probe_rollouts=4,
                 max_new_tokens=160),
    evaluation=schema.EvaluationConfig(problems=10, samples=2, pass_problems=4, pass_samples=4, max_new_tokens=160),
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, shipped):
    """The smoke profile, smaller still: the chain's own code and the shipped checkpoints, few problems and steps."""
    for stage in (*STAGES, "teacher"):
        shipped(stage)
    few = tmp_path_factory.mktemp("distilled")
    shipped_rows = paths.DISTILLED / "rollouts.jsonl.gz"
    assert shipped_rows.is_file(), f"{shipped_rows} is part of the course and missing: phi-lab ship"
    write_rows(few / "rollouts.jsonl.gz", read_rows(shipped_rows)[:200])
    with pytest.MonkeyPatch.context() as patched:
        real = presets.run_config

        def config(name, profile):
            found = real(name, profile)
            return replace(TINY, profile=profile) if found.scale == "cpu" else found

        patched.setattr(presets, "run_config", config)
        patched.setattr(paths, "DISTILLED", few)
        yield TINY


@pytest.fixture
def refused(capsys):
    """refused(*arguments) -> the one line with which a command that must fail ends."""

    def line(*arguments):
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        errors = capsys.readouterr().err
        assert code == 2 and errors.startswith("phi-lab: ") and errors.count("\n") == 1, errors
        return errors

    return line


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "good")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made = served.Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """right, wrong and validation rollouts, distilled from the script; wrong answers are spoilt right ones."""
    folder = tmp_path_factory.mktemp("data")
    plan = schema.DistillationConfig(questions=24, validation_questions=6, samples=4)
    for split, count in (("train", 24), ("validation", 6)):
        asked = arithmetic.sample_problems(count, 1, split)
        whose = {"name": "script", "samples": 4, "temperature": 1.0, "seed": 1}
        shards.collect_rollouts(teachers.script_teacher(plan, 1), asked, folder / split, **whose)
        training_sets.write_training_sets(shards.rows(folder / split), folder)
        (folder / "right.jsonl").rename(folder / f"{split}-right.jsonl")
    rows = read_rows(folder / "train-right.jsonl")
    for row in rows:
        row["completion"] = row["completion"].replace("boxed{", "boxed{9")
    write_rows(folder / "wrong.jsonl", rows)
    return folder
