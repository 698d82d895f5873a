"""The base and the teacher really learn."""

import math

import pytest
from stage_helpers import check_leftovers, loss_on, moved

from phi_lab.config import schema
from phi_lab.model import checkpoints, shapes
from phi_lab.problems import arithmetic
from phi_lab.stages import base


@pytest.mark.slow
def test_base_and_teacher_learn(tmp_path, tokenizer):
    config = schema.LanguageModelingConfig(
        learning_rate=8e-3, batch_size=4, row_length=320, steps=10, documents=300, warmup_ratio=0.1
    )
    result = base.train_base(tmp_path / "base", config, seed=0)
    check_leftovers(result, tmp_path / "base")
    asked = arithmetic.sample_problems(20, 1)
    rows = [{"prompt": problem.prompt, "completion": f"\\boxed{{{problem.answer}}}"} for problem in asked]
    checkpoints.save(shapes.build("phi-nano", len(tokenizer), 0), tokenizer, tmp_path / "start")
    assert moved(tmp_path / "start", result.model) > 0.01
    assert loss_on(result.model, rows) < loss_on(tmp_path / "start", rows) - 0.5
    taught = base.train_teacher(tmp_path / "teacher", config, seed=0)
    check_leftovers(taught, tmp_path / "teacher")
    assert min(row["eval_loss"] for row in taught.metrics if "eval_loss" in row) < math.log(len(tokenizer)) - 0.5
    sizes = [sum(weight.numel() for weight in checkpoints.load(model).parameters())
             for model in (result.model, taught.model)]
    assert sizes[1] > 2 * sizes[0]  # a wider model than its student
