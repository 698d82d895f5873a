"""Fixtures that several stages' tests share."""

import math
from dataclasses import replace

import pytest
import torch
from stage_helpers import DPO, GRPO, MID, SFT, both, everything, odd_text

from phi_lab.model import chat, checkpoints, shapes
from phi_lab.problems import arithmetic
from phi_lab.stages import grpo, mid_training, rollout_dpo, sft


@pytest.fixture(scope="module")
def stage_of(data):
    """Train one stage by name: (student, out, hardware, muon) -> TrainingResult. GRPO's rewards are random."""

    def stage(name, student, out, hardware, muon=False):
        if name == "mid":
            return mid_training.train(student, *both(data), out, replace(MID, hardware=hardware, muon=muon), seed=0)
        if name == "sft":
            return sft.train(student, *both(data), out, replace(SFT, hardware=hardware, muon=muon), seed=0)
        if name == "dpo":
            pair = data / "train-right.jsonl", data / "wrong.jsonl"
            return rollout_dpo.train(student, *pair, out, replace(DPO, hardware=hardware, muon=muon), seed=0)
        config = replace(GRPO, steps=2, hardware=hardware, muon=muon)
        problems = arithmetic.sample_problems(4, 1)
        return grpo.train(student, problems, out, config, seed=0, reward=odd_text, select=everything)

    return stage


@pytest.fixture(scope="module")
def seven(tmp_path_factory, tokenizer):
    """A random model that begins an answer with "7" now and then."""
    folder, problems = tmp_path_factory.mktemp("seven"), arithmetic.sample_problems(4, 1)
    model = shapes.build("phi-nano", len(tokenizer), 0).eval()
    (token,) = tokenizer("7").input_ids
    with torch.no_grad():
        asked = [torch.tensor([chat.prompt_ids(tokenizer, problem.prompt)]) for problem in problems]
        hidden = torch.stack([model.model(ids).last_hidden_state[0, -1] for ids in asked]).mean(0)
        model.lm_head.weight[token] = hidden * math.log(0.3 * len(tokenizer)) / hidden.square().sum()
    checkpoints.save(model, tokenizer, folder)
    return folder, problems, token
