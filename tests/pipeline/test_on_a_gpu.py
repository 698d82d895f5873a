"""What only a GPU can show; skipped where there is none. Figures are in docs/performance.md, "On a GPU".

python -m pytest tests/pipeline/test_on_a_gpu.py
"""

import pytest
import torch
from transformers import masking_utils

from phi_lab.config.schema import HardwareConfig
from phi_lab.core import paths
from phi_lab.model import checkpoints, shapes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

PACKINGS = [(100, 156), (30, 200, 26), (60, 60, 60, 76), (10, 246), (1, 255)]


def packed(lengths: tuple[int, ...], seed: int) -> dict[str, torch.Tensor]:
    """Two rows of 256 made-up tokens in documents of these lengths."""
    chance = torch.Generator().manual_seed(seed)
    positions = torch.cat([torch.arange(length) for length in lengths])
    return {
        "input_ids": torch.randint(2, 492, (2, 256), generator=chance).cuda(),
        "position_ids": positions[None].repeat(2, 1).cuda(),
    }


def test_flex_attention_sees_what_torchs_own_attention_sees():
    """In packed rows, forward and backward; and no document sees its neighbour."""
    flex, own = (checkpoints.load(paths.SHIPPED / "sft", HardwareConfig(attention=name))
                 for name in ("flex_attention", "sdpa"))
    for seed, lengths in enumerate(PACKINGS):
        batch = packed(lengths, seed)
        with torch.no_grad():
            found, wanted = (one.eval()(**batch, use_cache=False).logits for one in (flex, own))
            other = {**batch, "input_ids": batch["input_ids"].clone()}
            other["input_ids"][:, : lengths[0]] = 7
            beside = flex(**other, use_cache=False).logits
        assert (found - wanted).abs().max() < 1e-3
        assert torch.equal(beside[:, lengths[0] :], found[:, lengths[0] :])
        for one in (flex, own):
            one.train().zero_grad()
            one(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
        for mine, theirs in zip(flex.parameters(), own.parameters(), strict=True):
            assert (mine.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm()


def test_mask_of_a_long_row_is_made_in_seconds():
    """torch before 2.13 compiled a sort for it, for minutes."""
    config = shapes.phi_config("phi-4-mini")
    config._attn_implementation = "flex_attention"
    mask = masking_utils.create_sliding_window_causal_mask(
        config=config, inputs_embeds=torch.zeros(1, 16384, 4, device="cuda"), attention_mask=None,
        past_key_values=None, position_ids=torch.arange(16384, device="cuda")[None],
    )
    assert mask.sparsity() == pytest.approx(50, abs=1)
