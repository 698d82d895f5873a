"""The planner: sizes against the real modules, memory and speed against what was measured, and what will not fit."""

import json
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from phi_lab import models, plan, scale
from phi_lab.cli import main
from phi_lab.errors import UserError
from phi_lab.scale import Hardware


def test_a_gpu_that_is_too_small_is_one_line():
    phi = models.config("phi-4-mini")
    plan.require(scale.LORA, phi, 1, 85e9)
    plan.require(scale.QLORA, phi, 1, 25.7e9)
    with pytest.raises(UserError, match=r"^mid at the scale full takes about \d+ GB on each of 2 GPUs, and there"):
        plan.require(scale.FULL, phi, 2, 25.7e9)
    plan.require(scale.FULL, phi, 8, 85e9)
    other = SimpleNamespace(name_or_path="other", **{name: 64 for name in plan.FIELDS if name != "vocab_size"})
    with pytest.raises(UserError, match=r"other/config\.json: no vocab_size"):
        plan.require(scale.LORA, other, 1, 85e9)


@pytest.mark.parametrize("name", ["phi-nano", "phi-4-mini"])
def test_sizes_are_those_of_the_real_modules(name):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(models.config(name))
        adapted = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    sizes = [
        sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad is one) for one in (True, False)
    ]
    assert (plan.Shape(name).adapter, plan.Shape(name).weights) == tuple(sizes)
    assert plan.Shape("phi-4-mini").cache == 128 * 1024  # bytes a token: shared with the paper's facts


@pytest.mark.parametrize(("checkpointing", "tokens", "measured"), [(True, 8192, 88.99), (False, 4096, 93.54)])
def test_memory_is_within_fifteen_percent_of_what_an_h200_used(checkpointing, tokens, measured):
    hardware = Hardware(liger=True, checkpointing=checkpointing)
    planned = sum(plan.memory(plan.Shape("phi-4-mini"), hardware, 1, tokens).values()) / 1e9
    assert planned == pytest.approx(measured, rel=0.15)


def test_speed_is_within_fifteen_percent_of_what_an_h200_did():
    shape = plan.Shape("phi-4-mini")
    assert plan.MFU * plan.CARDS["h200"].flops / plan.flops(shape, Hardware(), 2048) == pytest.approx(14_397, rel=0.15)


def test_the_papers_run_takes_about_the_papers_time():
    """128 x H100 for two days, by its model card."""
    rows = plan.plan(scale.FULL, "h100", 128)
    assert 24 < sum(row["hours"] for row in rows) < 72
    assert all(row["fits"] for row in rows)
    assert rows[0]["tokens"] == pytest.approx(150e9, rel=0.01)
    for row in rows:  # the batch is reached, and not by much more
        assert 0 <= row["passes"] * row["rows_a_pass"] * 128 - row["batch"] < row["rows_a_pass"] * 128


def test_more_gpus_need_less_memory_each_and_less_time():
    few, many = (plan.plan(scale.FULL, "h200", gpus)[0] for gpus in (2, 16))
    assert many["hours"] < few["hours"] / 7
    for part in ("weights", "gradients", "optimizer"):
        assert many["memory"][part] == pytest.approx(few["memory"][part] / 8, abs=0.02)


def test_what_will_not_fit_is_said_with_what_would(capsys):
    assert main(["plan", "--scale", "full", "--gpu", "h100"]) == 0
    said = capsys.readouterr().out
    assert "NO" in said and "does not fit on 1 x h100; 2 would do" in said
    assert main(["plan", "--scale", "qlora", "--gpu", "rtx4090", "--json", "--price", "1"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["fits"] for row in rows)
    assert all(row["price"] == pytest.approx(row["hours"], abs=0.02) for row in rows)


@pytest.mark.parametrize(("arguments", "line"), [
    (["--gpu", "tpu"], "unknown GPU 'tpu': choose one of h100"),
    (["--scale", "cpu"], "the scale cpu needs no GPU"),
    (["--scale", "big"], "unknown scale 'big'"),
])  # fmt: skip
def test_a_bad_plan_is_one_line(capsys, arguments, line):
    assert main(["plan", *arguments]) == 2
    assert line in capsys.readouterr().err


def test_an_answer_that_fits_nowhere_is_told():
    with pytest.raises(UserError, match="no answer of 9,000,000 tokens fits"):
        plan.sampling(plan.Shape("phi-4-mini"), Hardware(), plan.CARDS["h100"], 9_000_000)


@pytest.mark.parametrize("scale_name", ["lora", "qlora", "full"])
def test_a_run_refuses_what_its_plan_says_will_not_fit(scale_name):
    """vLLM's share of a card counts in both: beside the trainer, and as room for the weights and one answer."""
    numbers, verdicts = scale.numbers(scale_name), set()
    for name, card in plan.CARDS.items():
        for gpus in (1, 4, 16):
            fits = all(row["fits"] for row in plan.plan(numbers, name, gpus))
            verdicts.add(fits)
            if fits:
                plan.require(numbers, models.config("phi-4-mini"), gpus, card.memory)
            else:
                with pytest.raises(UserError, match="GB on each of"):
                    plan.require(numbers, models.config("phi-4-mini"), gpus, card.memory)
    assert verdicts == ({True} if scale_name == "qlora" else {True, False})


def test_beside_vllm_a_trainer_has_what_is_left():
    numbers, shape = scale.numbers("lora"), plan.Shape("phi-4-mini")
    assert plan._room(numbers, "sft", shape, 100e9) == pytest.approx(92e9)
    assert plan._room(numbers, "grpo", shape, 100e9) == pytest.approx(62e9)
    assert plan._room(numbers, "grpo", shape, 26e9) == 0  # 7.8 GB hold the weights and no answer of 4,096 tokens
