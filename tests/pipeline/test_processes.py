"""Two processes train as one does: the same losses, the same update, in every stage; also where FSDP2 shards the model
between them.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from phi_lab.core.files import read_rows
from phi_lab.model import checkpoints

ROOT = Path(__file__).resolve().parents[2]


def trained(stage, count, student, data, out, *words):
    """Run tests/two_processes.py in `count` processes; returns (losses, weights)."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count),
               "tests/two_processes.py", stage, student, data, out, *words]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=500,
                          env=dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)))
    if "killed" in words:
        assert done.returncode and not (out / "model").exists()
        return None
    assert done.returncode == 0, done.stderr[-3000:]
    rows = read_rows(out / "metrics.jsonl")
    weights = torch.cat([weight.flatten() for weight in checkpoints.load(out / "model").parameters()])
    return rows, weights


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("sharded",)], ids=["copies", "sharded"])
@pytest.mark.parametrize("stage", ["mid", "sft", "dpo", "grpo"])
def test_two_processes_equal_one(student, data, tmp_path, stage, words):
    start = torch.cat([weight.flatten() for weight in checkpoints.load(student).parameters()])
    one, alone = trained(stage, 1, student, data, tmp_path / "one")
    two, together = trained(stage, 2, student, data, tmp_path / "two", *words)
    assert len(one) == len(two) > 0
    for first, second in zip(one, two, strict=True):
        for name in ("loss", "reward", "kept_share", "rewards/margins"):
            if name in first:
                assert second[name] == pytest.approx(first[name], abs=1e-3), (name, first["step"])
        if "eval_loss" in first:  # a mean over batches, and two processes have other batches
            assert second["eval_loss"] == pytest.approx(first["eval_loss"], abs=5e-3)
    update = (alone - start).norm()
    assert update > 0
    assert (alone - together).norm() < 0.02 * update


@pytest.mark.slow
def test_a_sharded_reference_turns_as_the_model_does(student, data, tmp_path):
    """Batches are shorter than LongRoPE's original context here, where another loader would take the short factors."""
    model, tokenizer = checkpoints.load(student), checkpoints.load_tokenizer(student)
    model.config.rope_parameters = {
        "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, "factor": 2.0,
        "short_factor": [1.0] * 12, "long_factor": [1.0 + k for k in range(12)],
        "original_max_position_embeddings": 512,
    }
    model.config.original_max_position_embeddings = 512
    checkpoints.save(model, tokenizer, tmp_path / "long")
    rows, _ = trained("dpo", 2, tmp_path / "long", data, tmp_path / "out", "sharded")
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)  # nothing has moved yet: both are one model


@pytest.mark.slow
def test_sharded_training_that_was_killed_ends_at_the_same_weights(student, data, tmp_path):
    """The checkpoint of step 2 lies in two shards; what comes out is one safetensors folder."""
    _, whole = trained("mid", 2, student, data, tmp_path / "whole", "sharded")
    trained("mid", 2, student, data, tmp_path / "again", "sharded", "killed")
    shards = list((tmp_path / "again" / "trainer" / "checkpoint-2").rglob("*.distcp"))
    assert len([path for path in shards if "model" in str(path.parent)]) == 2
    rows, again = trained("mid", 2, student, data, tmp_path / "again", "sharded")
    assert torch.equal(again, whole) and rows[0]["step"] == 2 and rows[-1]["step"] == 4
    assert len(list((tmp_path / "again" / "model").glob("*.safetensors"))) == 1
