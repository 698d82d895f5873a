"""What the tests share: one thread, no network, models that are small or shipped."""

import os

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import pytest
import torch
from hypothesis import settings

from phi_lab import models, run

torch.set_num_threads(1)
# The same examples every time: a stranger's `make test` passes or fails as ours does.
settings.register_profile("course", deadline=None, derandomize=True)
settings.load_profile("course")


@pytest.fixture(scope="session")
def tokenizer():
    return models.load_tokenizer()


@pytest.fixture(scope="session")
def student(tmp_path_factory, tokenizer):
    """Folder of a phi-nano with random weights."""
    folder = tmp_path_factory.mktemp("student")
    models.save(models.build("phi-nano", len(tokenizer), 0), tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def shipped():
    """shipped(stage) -> folder of a checkpoint that the course ships."""

    def folder(stage):
        path = run.TEACHER if stage == "teacher" else run.SHIPPED / stage
        assert (path / "model.safetensors").is_file(), f"{path} is part of the course and missing: phi-lab ship"
        return path

    return folder
