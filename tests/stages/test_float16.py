"""A GPU without bfloat16, such as a T4: QLoRA in float16 with a loss scaler, on a CPU as far as it goes."""

from dataclasses import replace

import accelerate
import pytest
import torch
from stage_helpers import check_leftovers, moved

from phi_lab.config import presets, schema
from phi_lab.core.errors import UserError
from phi_lab.model import checkpoints
from phi_lab.pipeline import run
from phi_lab.stages import checkpointing, training

HARDWARE = schema.HardwareConfig(adapter="qlora", micro_batch_size=4, engine="hf")


@pytest.fixture
def t4(monkeypatch):
    """torch sees a GPU that computes in float16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)


def test_a_gpu_without_bfloat16_gets_float16_and_a_scaler(t4, monkeypatch, shipped):
    arguments = training.hardware_arguments(presets.QLORA.mid.hardware)
    assert (arguments["fp16"], arguments["bf16"]) == (True, False)
    asked = []
    monkeypatch.setattr(checkpoints, "load", lambda folder, hardware: asked.append(hardware.dtype))
    checkpoints.load_to_sample(shipped("base"), "hf")
    assert asked == ["float16"]
    config = run.resolve_and_check(presets.QLORA, str(shipped("base")), True, None)
    for stage in schema.STAGES[1:]:
        hardware = getattr(config, stage).hardware
        assert (hardware.dtype, hardware.attention, hardware.adapter) == ("float16", "sdpa", "qlora")
    assert config.evaluation.engine == "hf" == presets.without_bfloat16(presets.LORA).grpo.hardware.engine
    with pytest.raises(UserError, match="training all weights needs a GPU with bfloat16: --scale qlora"):
        run.resolve_and_check(presets.FULL, str(shipped("base")), True, None)


def test_a_gpu_with_bfloat16_and_a_processor_have_no_scaler(t4, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    arguments = training.hardware_arguments(presets.QLORA.mid.hardware)
    assert (arguments["fp16"], arguments["bf16"]) == (False, True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = training.hardware_arguments(presets.QLORA.mid.hardware)
    assert (arguments["fp16"], arguments["bf16"]) == (False, False)


@pytest.fixture
def scalers(monkeypatch):
    """Stages train as on such a GPU: in float16, with the loss scaler that accelerate leaves out on a CPU. Returns the
    scalers, and the types of what each trainer trains.
    """
    found: dict = {"scalers": [], "types": set()}
    real, begin = training.hardware_arguments, accelerate.Accelerator.__init__
    train = checkpointing.ResumableTrainer.train

    def with_scaler(self, *arguments, **rest):
        begin(self, *arguments, **rest)
        if self.mixed_precision == "fp16":
            self.native_amp, self.scaler = True, torch.amp.GradScaler("cpu", init_scale=2.0**16)
            found["scalers"].append(self.scaler)

    def watched(self, **rest):
        found["types"] |= {weight.dtype for weight in self.model.parameters() if weight.requires_grad}
        return train(self, **rest)

    monkeypatch.setattr(training, "hardware_arguments", lambda hardware: {**real(hardware), "fp16": True})
    monkeypatch.setattr(accelerate.Accelerator, "__init__", with_scaler)
    monkeypatch.setattr(checkpointing.ResumableTrainer, "train", watched)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mid", "sft", "dpo", "grpo"])
def test_a_stage_trains_in_float16_as_in_float32(tmp_path, student, stage_of, scalers, monkeypatch, name):
    half = stage_of(name, student, tmp_path / "half", replace(HARDWARE, dtype="float16"))
    check_leftovers(half, tmp_path / "half")
    assert scalers["types"] == {torch.float32}, "TRL's bfloat16 is taken back"
    (scaler,) = scalers["scalers"]
    assert scaler._growth_tracker.item() > 0 and scaler.get_scale() >= 1024  # steps were taken, and hardly one skipped
    monkeypatch.undo()
    whole = stage_of(name, student, tmp_path / "whole", HARDWARE)
    assert moved(student, half.model) == pytest.approx(moved(student, whole.model), rel=0.1)
    if name != "grpo":  # whose rollouts are others
        for one, other in zip(half.metrics, whole.metrics, strict=True):
            for value in {"loss", "eval_loss"} & set(one):
                near = {"abs": 0.01} if name == "dpo" else {"rel": 0.01}  # DPO's begins at ln 2, whatever the model
                assert one[value] == pytest.approx(other[value], **near), value
