"""What a run gives to data/: which parts, whose cards say what, and what stays as it was."""

import hashlib
import math
import shutil

import pytest
from safetensors import safe_open

from phi_lab.config import presets
from phi_lab.config.schema import STAGES
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, write_json
from phi_lab.core.run_folder import RunFolder
from phi_lab.distill import shards
from phi_lab.pipeline import publish
from phi_lab.report import chain_rows

CONFIG = {
    "profile": "lab", "seed": 5, "versions": {"torch": "1", "trl": "2"}, "config": presets.run_config("cpu").row(),
}
ROLLOUT = {"id": "a", "sample": 0, "level": 3, "verdict": "right", "temperature": 0.8, "completion": "x"}


@pytest.fixture
def finished(tmp_path, shipped, monkeypatch):
    """A run whose stages hold one model, and a data/ that is empty but for a base."""
    out, data = tmp_path / "run", tmp_path / "data"
    for name, place in (("DATA", "."), ("SHIPPED", "checkpoints"), ("TEACHER", "teacher"), ("DISTILLED", "distilled")):
        monkeypatch.setattr(paths, name, data / place)
        (data / place).mkdir(exist_ok=True, parents=True)
    monkeypatch.setattr(chain_rows, "PUBLISHED", data / "chains.jsonl")
    shutil.copytree(shipped("base"), data / "checkpoints" / "base")
    for stage in STAGES[1:]:
        shutil.copytree(shipped("sft"), out / stage / "model")
    rung = {"stage": "grpo", "arm": "main", "pass_at_k": None, "benchmark": "hard", "temperature": 0.6, "k": 1,
            "n": 40}
    write_json(out / "ladder.json", [rung | {"accuracy": 0.875, "ci_low": 0.5, "ci_high": 0.9}])
    write_json(out / "config.json", CONFIG)
    write_json(out / "data" / "funnel.json", {"rollouts": 1, "questions": 1, "steps": []})
    for name in ("rollouts", "validation"):
        shards.write(out / "data" / name / "000000.parquet", [ROLLOUT])
    return out, data


def test_a_run_from_the_shipped_base_leaves_base_and_teacher_alone(finished, shipped):
    out, data = finished
    before = {path.name: path.read_bytes() for path in (data / "checkpoints" / "base").iterdir()}
    publish.publish(RunFolder(out))
    assert {path.name: path.read_bytes() for path in (data / "checkpoints" / "base").iterdir()} == before
    assert not any((data / "teacher").iterdir())
    card = (data / "checkpoints" / "grpo" / "README.md").read_text()
    weights = (data / "checkpoints" / "grpo" / "model.safetensors").read_bytes()
    assert weights == (shipped("sft") / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in card and "87.5 %" in card
    assert "`phi-lab run --seed 5 --out RUN`" in card
    (row,) = read_rows(data / "distilled" / "rollouts.jsonl.gz")
    assert row["id"] == "a" and "seed 5" in (data / "distilled" / "README.md").read_text()


def test_a_run_from_the_beginning_ships_its_base_and_teacher(finished, shipped):
    out, data = finished
    shutil.copytree(shipped("mid"), out / "base" / "model")
    with pytest.raises(UserError, match="teacher.model has no model.safetensors: finish `phi-lab run --from base"):
        publish.publish(RunFolder(out))
    shutil.copytree(shipped("mid"), out / "teacher" / "model")
    publish.publish(RunFolder(out))
    for target in (data / "checkpoints" / "base", data / "teacher"):
        assert (target / "model.safetensors").read_bytes() == (shipped("mid") / "model.safetensors").read_bytes()
        assert "`phi-lab run --from base --seed 5 --out RUN`" in (target / "README.md").read_text()


def test_an_unfinished_run_changes_nothing(finished):
    out, data = finished
    (out / "grpo" / "model" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="grpo.model has no model.safetensors"):
        publish.publish(RunFolder(out))
    assert [path.name for path in (data / "checkpoints").iterdir()] == ["base"]


@pytest.mark.parametrize("folder", [*sorted((paths.DATA / "checkpoints").glob("*/")), paths.DATA / "teacher"],
                         ids=lambda folder: folder.name)
def test_each_shipped_card_is_of_the_weights_beside_it(folder):
    weights, card = folder / "model.safetensors", (folder / "README.md").read_text()
    with safe_open(weights, "pt") as tensors:
        count = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())
    assert f"`{hashlib.sha256(weights.read_bytes()).hexdigest()}`" in card and f"with {count:,} parameters" in card
