"""The planner: sizes against the real modules, memory and speed against what was measured, and what will not fit."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from phi_lab.cli import main
from phi_lab.config import presets, schema
from phi_lab.config.schema import HardwareConfig
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.lab import widgets
from phi_lab.model import checkpoints, shapes
from phi_lab.pipeline import gpu_costs, plan
from phi_lab.stages import training


def test_a_gpu_that_is_too_small_is_one_line():
    phi = shapes.phi_config("phi-4-mini")
    plan.require_memory(presets.LORA, phi, 1, 85e9)
    plan.require_memory(presets.QLORA, phi, 1, 25.7e9)
    with pytest.raises(UserError, match=r"^mid at the scale full takes about \d+ GB on each of 2 GPUs, and there"):
        plan.require_memory(presets.FULL, phi, 2, 25.7e9)
    plan.require_memory(presets.FULL, phi, 8, 85e9)
    other = SimpleNamespace(name_or_path="other", **{name: 64 for name in gpu_costs.FIELDS if name != "vocab_size"})
    with pytest.raises(UserError, match=r"other/config\.json: no vocab_size"):
        plan.require_memory(presets.LORA, other, 1, 85e9)


@pytest.mark.parametrize("name", ["phi-nano", "phi-4-mini"])
def test_sizes_are_those_of_the_real_modules(name):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shapes.phi_config(name))
        adapted = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    sizes = [
        sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad is one) for one in (True, False)
    ]
    assert (gpu_costs.Shape(name).adapter, gpu_costs.Shape(name).weights) == tuple(sizes)
    assert gpu_costs.Shape("phi-4-mini").cache == 128 * 1024  # bytes a token: shared with the paper's facts


@pytest.mark.parametrize(("checkpointing", "tokens", "measured"), [(True, 8192, 88.99), (False, 4096, 93.54)])
def test_memory_is_within_five_percent_of_what_an_h200_used(checkpointing, tokens, measured):
    """Both cases of docs/performance.md held all logits: the fused head was meant to be on and was not."""
    shape, hardware = gpu_costs.Shape("phi-4-mini"), HardwareConfig(gradient_checkpointing=checkpointing)
    planned = sum(gpu_costs.training_memory(shape, hardware, 1, tokens).values()) / 1e9
    assert planned == pytest.approx(measured, rel=0.05)
    fused = sum(gpu_costs.training_memory(shape, replace(hardware, liger=True), 1, tokens).values()) / 1e9
    logits = 8 * tokens * 200064 / 1e9  # what it saves, but for a copy of the head
    assert fused == pytest.approx(planned - logits + 2 * 3072 * 200064 / 1e9) and fused < measured


@pytest.mark.parametrize("adapter", [None, "lora", "qlora"])
def test_precisions_are_those_of_the_real_modules(adapter):
    """What peft's preparation casts to float32 is counted so: QLoRA's embedding, norms, and all that flows between."""
    hardware = HardwareConfig(adapter=adapter, dtype="bfloat16" if adapter else "float32", gradient_checkpointing=True)
    model, widths = checkpoints.load(paths.SHIPPED / "base", hardware), {}
    shape = gpu_costs.Shape(model.config)
    for name, module in model.named_modules():
        if name.endswith(("layers.1", "layers.1.self_attn.qkv_proj")):
            key = name.rpartition(".")[2]
            module.register_forward_hook(lambda _, __, out, key=key: widths.update({key: out.element_size()}))
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        model(torch.arange(9)[None])
    planned = gpu_costs.training_memory(shape, hardware, 1, 1)
    matrices = widths["qkv_proj"] * (2 * shape.hidden + 2 * shape.qkv + 4 * shape.mlp)
    assert planned["activations"] == shape.layers * widths["1"] * shape.hidden + 8 * shape.hidden + matrices
    sizes = {True: 0, False: 0}  # bytes of weights, in four bits or not
    for weight in model.parameters():
        sizes[weight.dtype == torch.uint8] += weight.numel() * weight.element_size()
    assert sizes[True] == (shape.in_layers / 2 if adapter == "qlora" else 0)
    assert planned["weights"] == pytest.approx(sizes[False] + 0.53 * 2 * sizes[True])  # and the constants of NF4


# docs/performance.md, "On a GPU": adapter, tokens a row, rows a pass, activations kept, tokens a second, peak GB.
ON_AN_H200 = [
    (None, 2048, 4, False, 14_397, None),
    (None, 16384, 1, False, 10_463, None),
    ("lora", 2048, 4, False, 14_847, 11.41),
    ("lora", 16384, 1, False, 10_373, 14.70),
    ("lora", 16384, 1, True, None, 64.79),
    ("qlora", 2048, 4, False, 11_510, 9.82),
    ("qlora", 16384, 1, False, 8_710, 15.33),
]


@pytest.mark.parametrize(("adapter", "row", "rows", "kept", "speed", "memory"), ON_AN_H200)
def test_plan_is_within_fifteen_percent_of_what_an_h200_did(adapter, row, rows, kept, speed, memory):
    one = {None: presets.FULL, "lora": presets.LORA, "qlora": presets.QLORA}[adapter].mid.hardware
    hardware = replace(one, gradient_checkpointing=not kept)
    shape, card = gpu_costs.Shape("phi-4-mini"), gpu_costs.CARDS["h200"]
    if speed:
        assert gpu_costs.training_speed(shape, hardware, card, row) == pytest.approx(speed, rel=0.15)
    if memory:
        planned = sum(gpu_costs.training_memory(shape, hardware, 1, rows * row).values()) / 1e9
        assert planned == pytest.approx(memory, rel=0.15)


def test_the_papers_run_takes_about_the_papers_time():
    """128 x H100 for two days, by its model card."""
    rows = plan.plan(presets.FULL, "h100", 128)
    assert 24 < sum(row["hours"] for row in rows) < 72
    assert all(row["fits"] for row in rows)
    assert rows[0]["tokens"] == pytest.approx(150e9, rel=0.01)
    for row in rows:
        assert row["batch"] == row["rows_a_pass"] * row["passes"] * 128


def test_more_gpus_need_less_memory_each_and_less_time():
    few, many = (plan.plan(presets.FULL, "h200", gpus)[0] for gpus in (2, 16))
    assert many["hours"] < few["hours"] / 7
    for part in ("weights", "gradients", "optimizer"):
        assert many["memory"][part] == pytest.approx(few["memory"][part] / 8, abs=0.02)


def test_what_will_not_fit_is_said_with_what_would(capsys):
    assert main(["plan", "--scale", "full", "--gpu", "h100"]) == 0
    said = capsys.readouterr().out
    assert "NO" in said and "cannot run on 1 x h100, for the reasons above; 2 would do" in said
    assert main(["plan", "--scale", "qlora", "--gpu", "rtx4090", "--json", "--price", "1"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["fits"] for row in rows)
    assert all(row["price"] == pytest.approx(row["hours"], abs=0.02) for row in rows)


def test_the_sum_has_a_unit_and_a_minute_is_not_nothing(capsys):
    assert main(["plan", "--scale", "lora", "--gpu", "h100", "--gpus", "16"]) == 0
    said = capsys.readouterr().out
    rows = plan.plan(presets.LORA, "h100", 16)
    hours, price = (sum(row[name] for row in rows) for name in ("hours", "price"))
    assert f"all stages: {hours:,.1f} hours, {price:,.0f} US$" in said
    assert 0 < min(row["hours"] for row in rows) < 0.05 and "< 0.1" in said and " 0.0 " not in said


def test_a_batch_that_gpus_cannot_share_is_said_with_a_number_that_can(capsys):
    """In days, when its stage comes, it would be refused."""
    assert main(["plan", "--scale", "full", "--gpus", "96"]) == 0
    said = capsys.readouterr().out
    assert "mid: a batch of 128 rows cannot be divided among 96 GPUs: 64 divide it evenly" in said
    assert "dpo: a batch of 128 pairs cannot" in said and "grpo: a batch of 128 prompts cannot" in said
    assert "cannot run on 96 x h100, for the reasons above; 64 or 128 would do" in said
    assert main(["plan", "--scale", "lora", "--gpus", "32", "--json"]) == 0
    *others, rl = json.loads(capsys.readouterr().out)
    assert all(row["fits"] and not row["reason"] for row in others)
    assert not rl["fits"] and rl["reason"] == (
        "a batch of 16 prompts cannot be divided among 32 GPUs: 16 divide it evenly"
    )
    assert "128 rows cannot be divided among 256 GPUs: 128 divide" in widgets.plan_text("full", "h100", 256)


def test_a_card_without_bfloat16_trains_adapters_alone(capsys):
    assert main(["plan", "--scale", "qlora", "--gpu", "t4"]) == 0
    said = capsys.readouterr().out
    assert "NO" not in said and "t4 trains in float16 with loss scaling" in said
    assert main(["plan", "--scale", "full", "--gpu", "t4", "--gpus", "128"]) == 0
    assert "training all weights needs a GPU with bfloat16" in capsys.readouterr().out
    assert main(["plan", "--scale", "qlora", "--gpu", "l4"]) == 0
    assert "float16" not in capsys.readouterr().out


def test_the_help_names_every_card(capsys):
    with pytest.raises(SystemExit):
        main(["plan", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(name in said for name in gpu_costs.CARDS)
    assert {"t4", "l4", "a10g", "rtx3090", "rtx4080", "a6000", "b200"} <= gpu_costs.CARDS.keys()


@pytest.mark.parametrize("scale_name", ["lora", "qlora", "full"])
def test_what_the_plan_divides_the_stages_divide(scale_name, monkeypatch):
    config = presets.run_config(scale_name)
    for gpus in (1, 2, 3, 6, 16, 24, 32, 48, 96, 128, 256):
        monkeypatch.setenv("WORLD_SIZE", str(gpus))
        for row in plan.plan(config, "h200", gpus):
            if "cannot be divided" in row["reason"]:
                with pytest.raises(UserError, match="cannot be divided"):
                    training.per_process_batch(schema.global_batch_size(config, row["stage"]))
            else:
                batch = schema.global_batch_size(config, row["stage"])
                assert training.per_process_batch(batch) * gpus == batch


def test_the_plan_has_the_passes_that_the_stages_have():
    """A pass is `Hardware.rows`, however much memory there is: rows, pairs of two, rollouts."""
    shape, full = gpu_costs.Shape("phi-4-mini"), presets.run_config("full")
    hardware = replace(full.mid.hardware, micro_batch_size=3)
    many = {stage: replace(getattr(full, stage), hardware=hardware) for stage in plan.UNITS}
    many["dpo"] = replace(many["dpo"], max_tokens=5000)
    for config, passes in (
        (full, {"mid": (1, 16), "sft": (1, 16), "dpo": (2, 16), "grpo": (1, 128)}),
        # a last pass of one row, but DPO's are equal: one pair
        (replace(full, **many), {"mid": (3, 6), "sft": (3, 6), "dpo": (2, 16), "grpo": (3, 43)}),
    ):
        for row in plan.plan(config, "h200", 8):
            assert (row["rows_a_pass"], row["passes"]) == passes[row["stage"]]
            needed = gpu_costs.training_memory(shape, full.mid.hardware, 8, row["rows_a_pass"] * row["row"])
            assert row["memory"] == {name: round(value / 1e9, 2) for name, value in needed.items()}
        few = replace(config, sft=replace(config.sft, batch_size=8))  # a row each
        assert plan.plan(few, "h200", 8)[1]["rows_a_pass"] == 1


def test_the_longest_pair_of_dpo_is_planned():
    config = presets.run_config("full")
    for longest, row in ((16384, 16384), (4096, 4096), (0, config.mid.row_length)):  # 0: as mid-training has them
        changed = replace(config, dpo=replace(config.dpo, max_tokens=longest))
        assert plan.plan(changed, "h100", 8)[2]["row"] == row
    plan.require_memory(config, shapes.phi_config("phi-4-mini"), 2, 85e9)
    longer = replace(config, dpo=replace(config.dpo, max_tokens=40_000))
    with pytest.raises(UserError, match=r"^dpo at the scale full takes about"):
        plan.require_memory(longer, shapes.phi_config("phi-4-mini"), 2, 85e9)


def test_vllm_beside_a_trainer_samples_in_its_share():
    """An H100: 0.3 x 85 GB less 7.67 of weights hold ten answers of 12,800 tokens of 128 KiB, not 42."""
    shape, card, answer = gpu_costs.Shape("phi-4-mini"), gpu_costs.CARDS["h100"], 12_800 * 131_072
    speed = gpu_costs.sampling_speed(shape, presets.FULL.grpo.hardware, card, 25_600)
    assert speed == pytest.approx(10 / ((2 * 3_836_021_760 + 10 * answer) / (0.5 * 3.35e12)), rel=1e-6)
    (row,) = [row for row in plan.plan(presets.FULL, "h100", 8) if row["stage"] == "grpo"]
    assert row["hours"] > row["sampled_tokens"] / speed / 8 / 3600
    with pytest.raises(UserError, match=r"no answer of 4,096 tokens fits into 0\.0 GB beside the weights"):
        gpu_costs.sampling_speed(shape, presets.LORA.grpo.hardware, gpu_costs.CARDS["rtx4090"], 4096)
    row = plan.plan(presets.LORA, "rtx4090", 1)[3]
    assert not row["fits"] and "no answer of 4,096 tokens fits" in row["reason"]


def test_generate_samples_in_half_of_what_is_free():
    """As `rollouts` has it: the longest answers in float32, and half of the time is waiting for the last one."""
    shape, card = gpu_costs.Shape("phi-4-mini"), gpu_costs.CARDS["rtx4090"]
    weights = gpu_costs.training_memory(shape, presets.QLORA.grpo.hardware, 1, 1)["weights"]
    rows = int((0.92 * card.memory - weights) / 2 / (4096 * 262_144))
    seconds = (weights + rows * 4096 * 262_144 / 2) / (0.5 * card.bandwidth)
    assert gpu_costs.sampling_speed(shape, presets.QLORA.grpo.hardware, card, 4096) == pytest.approx(rows / 2 / seconds)


@pytest.mark.parametrize(("arguments", "line"), [
    (["--gpu", "tpu"], "unknown GPU 'tpu': choose one of h100"),
    (["--scale", "cpu"], "the scale cpu needs no GPU"),
    (["--scale", "big"], "unknown scale 'big'"),
])
def test_a_bad_plan_is_one_line(capsys, arguments, line):
    assert main(["plan", *arguments]) == 2
    assert line in capsys.readouterr().err


def test_an_answer_that_fits_nowhere_is_told():
    with pytest.raises(UserError, match="no answer of 9,000,000 tokens fits"):
        gpu_costs.sampling_speed(gpu_costs.Shape("phi-4-mini"), HardwareConfig(), gpu_costs.CARDS["h100"], 9_000_000)


@pytest.mark.parametrize("scale_name", ["lora", "qlora", "full"])
def test_a_run_refuses_what_its_plan_says_will_not_fit(scale_name):
    """vLLM's share of a card counts in both: beside the trainer, and as room for the weights and one answer."""
    as_set, verdicts = presets.run_config(scale_name), set()
    for name, card in gpu_costs.CARDS.items():
        other = not card.bfloat16 and scale_name != "full"
        config = presets.without_bfloat16(as_set) if other else as_set  # as a run does
        for gpus in (1, 4, 16):
            fits = all(row["fits"] for row in plan.plan(config, name, gpus))
            verdicts.add(fits)
            if fits:
                plan.require_memory(config, shapes.phi_config("phi-4-mini"), gpus, card.memory)
            else:
                with pytest.raises(UserError, match="GB on each of"):
                    plan.require_memory(config, shapes.phi_config("phi-4-mini"), gpus, card.memory)
    assert verdicts == ({True} if scale_name == "qlora" else {True, False})


def test_beside_vllm_a_trainer_has_what_is_left():
    config, shape = presets.run_config("lora"), gpu_costs.Shape("phi-4-mini")
    assert plan._free_memory(config, "sft", shape, 100e9) == pytest.approx(92e9)
    assert plan._free_memory(config, "grpo", shape, 100e9) == pytest.approx(62e9)
    assert plan._free_memory(config, "grpo", shape, 26e9) == 0  # 7.8 GB hold the weights and no answer of 4,096 tokens
