"""The compiled attention of the engine `cpu` against torch's own, and what only it does: idle rows cost nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from phi_lab import sampling
from phi_lab.model import checkpoints, shapes
from phi_lab.sampling import cpu, decode
from phi_lab.sampling.decode import Phi
from phi_lab.sampling.params import MAX_ROWS

WIDE = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 64}


@given(st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=60))
def test_softmax_terms_are_those_of_numpy(values):
    x, bits = np.array([*values, 7.0], np.float32), np.empty(len(values), np.int32)
    total = decode.softmax_inplace(x, len(values), bits, bits.view(np.float32))
    wanted = np.exp(np.array(values, np.float64) - np.array(values, np.float32).max())
    assert np.allclose(x[:-1], wanted, rtol=2e-5, atol=1e-37)  # a difference of 200 is itself rounded to 1.5e-5
    assert x[-1] == 7.0 and total == pytest.approx(wanted.sum(), rel=1e-5)


def test_exponentials_of_small_differences_are_exact_to_rounding():
    x = np.linspace(-8, 0, 1001, dtype=np.float32)
    wanted, bits = np.exp(x.astype(np.float64)), np.empty(len(x), np.int32)
    decode.softmax_inplace(x, len(x), bits, bits.view(np.float32))
    assert np.abs(x / wanted - 1).max() < 1e-6


@pytest.fixture(params=[{}, WIDE], ids=["two heads a group", "three heads a group"])
def phi(request, tokenizer):
    """Random weights, but large, as in test_sampler; a part of each head is not rotated."""
    config = shapes.phi_config("phi-nano", len(tokenizer))
    for name, value in request.param.items():
        setattr(config, name, value)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_((20 if "embed" in name else 6) if weight.dim() > 1 else torch.rand_like(weight) + 0.5)
    return Phi(model)


def filled(phi, prompts):
    cache = phi.empty_cache(len(prompts), 40)
    return cache, phi.prefill(prompts, cache, torch.arange(len(prompts)))


def test_compiled_attention_is_torch_s(phi):
    assert phi.compiled and 0 < phi.rotated < phi.width
    prompts = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3, 9, 11], [12], [5, 6, 7]]
    with torch.inference_mode():
        runs = []
        for phi.compiled in (True, False):
            cache, _ = filled(phi, prompts)
            length, steps = torch.tensor([len(prompt) for prompt in prompts]), []
            for token in range(20, 26):
                steps.append(phi.step(torch.full((4,), token), length, cache))
                length += 1
            runs.append((torch.stack(steps), cache))
    (compiled, compiled_cache), (plain, plain_cache) = runs
    assert torch.allclose(compiled.log_softmax(-1), plain.log_softmax(-1), atol=1e-4)
    assert compiled.log_softmax(-1).min() < -15  # far from uniform, so that nothing is forgiven
    for layers in zip(compiled_cache, plain_cache, strict=True):
        for tensor, expected in zip(*layers, strict=True):
            assert torch.allclose(tensor, expected, atol=1e-4)


@pytest.mark.parametrize("compiled", [True, False])
def test_an_idle_row_changes_nothing_for_the_others(phi, compiled):
    phi.compiled = compiled
    prompts = [[5, 6, 7], [9, 8, 7, 6], [12, 13]]
    with torch.inference_mode():
        cache, _ = filled(phi, prompts)
        all_rows = phi.step(torch.tensor([20, 21, 22]), torch.tensor([3, 4, 2]), cache)
        cache, _ = filled(phi, prompts)
        without = phi.step(torch.tensor([20, 21, 22]), torch.tensor([3, -1, 2]), cache)
    assert torch.allclose(all_rows[[0, 2]], without[[0, 2]], atol=1e-4)
    assert without.isfinite().all()
    assert compiled == torch.equal(cache[0][0][1], filled(phi, prompts)[0][0][0][1])  # an idle row is not even read


def test_where_nothing_is_compiled_the_rollouts_are_the_same(shipped, monkeypatch):
    """As on a GPU, through refills and filled gaps."""
    model, tokenizer = checkpoints.load(shipped("grpo")), checkpoints.load_tokenizer(shipped("grpo"))
    monkeypatch.setitem(MAX_ROWS, "cpu", 20)  # refilled when three are free
    prompts = [f"Compute {number}+{3 * number}-7." for number in range(12)]
    runs, active = [], []
    for compiled in (True, False):

        class Either(Phi):
            def __init__(self, model, compiled=compiled):
                super().__init__(model)
                self.compiled = compiled

            def step(self, token, length, cache):
                active.append(int((length >= 0).sum()))
                return super().step(token, length, cache)

        monkeypatch.setattr(cpu, "Phi", Either)
        params = sampling.SamplingParams(n=2, temperature=0, max_tokens=120)
        runs.append(sampling.sample(model, tokenizer, prompts, params, quiet=True))
    compiled_ids, plain_ids = ([answer.ids for group in groups for answer in group] for groups in runs)
    assert compiled_ids == plain_ids and len(set(map(len, plain_ids))) > 3
    assert sum(active) == sum(len(ids) - 1 for ids in compiled_ids + plain_ids)  # no idle row is decoded
