"""What only large models need: adapters, the fused head, sharding, the longest batch first."""

import math
from dataclasses import replace

import pytest
import torch
import trl
from accelerate import FullyShardedDataParallelPlugin
from stage_helpers import SFT, check_leftovers, loss_on, moved, weights

from phi_lab.config import presets, schema
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.model import checkpoints
from phi_lab.stages import lm_trainer, mid_training, packing, rollout_dpo, sft, training


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_adapters_go_through_all_four_stages(tmp_path, student, stage_of, adapter):
    """Each stage trains a new adapter on the merged model of the one before; what is saved is a plain model."""
    engine = "hf" if adapter == "qlora" else "cpu"
    hardware = schema.HardwareConfig(adapter=adapter, gradient_checkpointing=True, micro_batch_size=4, engine=engine)
    for name in ("mid", "sft", "dpo", "grpo"):
        result = stage_of(name, student, tmp_path / name, hardware)
        check_leftovers(result, tmp_path / name)
        assert (result.model / "adapter" / "adapter_model.safetensors").is_file()
        before, after = weights(student), weights(result.model)
        assert before.keys() == after.keys()
        changed = {weight for weight in before if not torch.equal(before[weight], after[weight])}
        assert changed and all(weight.endswith("_proj.weight") for weight in changed), name
        student = result.model


@pytest.mark.slow
def test_every_shipped_checkpoint_trains_in_the_next_stage(tmp_path, shipped, data):
    """Real checkpoints, real data, the smoke profile's own rates: updates, and a loss that does not blow up."""
    validation, smoke = data / "validation-right.jsonl", presets.SMOKE
    right = data / "train-right.jsonl"
    rows = read_rows(right)
    short = {"steps": 6, "batch_size": 4}
    middle = mid_training.train(shipped("base"), right, validation, tmp_path / "mid",
                                replace(smoke.mid, **short, eval_steps=3), seed=0)
    assert moved(shipped("base"), middle.model) > 0 and loss_on(middle.model, rows) < loss_on(shipped("base"), rows)
    fine = sft.train(shipped("mid"), right, validation, tmp_path / "sft", replace(smoke.sft, **short), seed=0)
    assert moved(shipped("mid"), fine.model) > 0 and loss_on(fine.model, rows) < loss_on(shipped("mid"), rows)
    pairs = replace(smoke.dpo, pairs="teacher", batch_size=8, max_pairs=24, max_student_nll=math.inf)
    preferred = rollout_dpo.train(shipped("sft"), right, data / "wrong.jsonl", tmp_path / "dpo", pairs, seed=0)
    assert moved(shipped("sft"), preferred.model) > 0
    logged = [row for row in preferred.metrics if "loss" in row]
    assert logged[-1]["loss"] < logged[0]["loss"] and logged[-1]["rewards/margins"] > 0


def test_the_fused_head_has_the_same_loss_and_no_logits(tmp_path, stage_of, student, tokenizer, monkeypatch):
    """What `liger` also asks for; the layers' kernels themselves do not run on a CPU."""
    real, forward, heads = lm_trainer.SFTConfig, torch.nn.Linear.forward, []
    monkeypatch.setattr(lm_trainer, "SFTConfig", lambda **words: real(**{**words, "use_liger_kernel": False}))

    def watched(self, *inputs):
        heads.append(self.out_features == len(tokenizer))
        return forward(self, *inputs)

    monkeypatch.setattr(torch.nn.Linear, "forward", watched)
    plain = stage_of("mid", student, tmp_path / "plain", schema.HardwareConfig(micro_batch_size=4))
    assert any(heads)
    heads.clear()
    fused = stage_of("mid", student, tmp_path / "fused", schema.HardwareConfig(micro_batch_size=4, liger=True))
    assert heads and not any(heads)
    for one, other in zip(plain.metrics, fused.metrics, strict=True):
        for name in {"loss", "eval_loss"} & set(one):
            assert one[name] == pytest.approx(other[name], abs=1e-4)
    first, second, begun = (weights(folder) for folder in (plain.model, fused.model, student))
    update = sum(float((first[name] - begun[name]).norm()) for name in first)
    assert 0 < sum(float((first[name] - second[name]).norm()) for name in first) < 0.02 * update


def test_sharded_models_do_not_round_what_they_return(tmp_path):
    """accelerate's own policy would: log-probabilities of a long answer would be 16 nats apart."""
    words = {"bf16": True, "use_cpu": True, "fsdp": True, "fsdp_config": {"version": 2}}
    config = trl.DPOConfig(output_dir=str(tmp_path), **words)
    training.keep_fp32_outputs_under_fsdp(config)
    plugin = FullyShardedDataParallelPlugin(**config.fsdp_plugin_args)
    plugin.set_mixed_precision("bf16")
    policy = plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, None)


@pytest.mark.parametrize("muon", [False, True], ids=["adamw", "muon"])
@pytest.mark.parametrize("name", ["sft", "dpo", "grpo"])
def test_the_longest_batch_comes_first_and_leaves_no_trace(tmp_path, student, data, stage_of, monkeypatch, name, muon):
    """Without the preflight the same weights and metrics come out; with it, the second step meets the longest rows."""
    longest, real = [], training.preflight_longest_batch

    def watched(trainer, model, loss, what):
        assert trainer.state.global_step == 1
        longest.append(what)
        real(trainer, model, loss, what)

    hardware = schema.HardwareConfig(micro_batch_size=4)
    monkeypatch.setattr(training, "preflight_longest_batch", watched)
    with_it = stage_of(name, student, tmp_path / "with", hardware, muon)
    monkeypatch.setattr(training, "preflight_longest_batch", lambda *_: None)
    without = stage_of(name, student, tmp_path / "without", hardware, muon)
    assert checkpoints.fingerprint(with_it.model) == checkpoints.fingerprint(without.model)
    for row in with_it.metrics + without.metrics:
        row.pop("seconds")
    assert with_it.metrics == without.metrics
    (what,) = longest
    if name == "sft":
        rows = sft.choose(read_rows(data / "train-right.jsonl"), SFT.documents, 0)
        tokenizer = checkpoints.load_tokenizer(student)
        lengths = [len(packing.document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows]
        most = max(length for length in lengths if length <= SFT.row_length)  # longer ones are left out
        assert what == f"rows of {most} tokens, 4 at once"
    if name == "grpo":
        assert what.endswith("answers of 1 tokens at once")


def test_a_longest_batch_that_does_not_fit_is_one_line(tmp_path, student, data, stage_of, monkeypatch):
    real, calls = torch.Tensor.backward, []

    def full(self, *arguments, **rest):
        calls.append(1)
        if len(calls) == 3:  # two micro-batches of the first step, then the preflight
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *arguments, **rest)

    monkeypatch.setattr(torch.Tensor, "backward", full)
    with pytest.raises(UserError, match=r"rows of \d+ tokens, 4 at once, does not fit.*phi-lab plan"):
        stage_of("sft", student, tmp_path / "sft", schema.HardwareConfig(micro_batch_size=4))
