"""The architecture: Phi-4-mini's shape and the course's tiny ones, one class `Phi3ForCausalLM`, from under a million
parameters to 3.8 billion.

phi-4-mini is the published shape (arXiv 2503.01743 and its config.json: 3,836,021,760 parameters). The tiny ones keep
what makes it Phi: grouped-query attention, tied embeddings, rotary position embedding on 75 % of each head, SwiGLU
without biases.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, Phi3Config, PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from phi_lab.core.errors import UserError
from phi_lab.core.formatting import one_line

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
SHAPES = {
    "phi-nano": dict(zip(_SIZES, (128, 4, 4, 2, 384), strict=True)),
    "phi-micro": dict(zip(_SIZES, (192, 5, 6, 2, 576), strict=True)),
    "phi-4-mini": dict(zip(_SIZES, (3072, 32, 24, 8, 8192), strict=True)),
}
LONG_FACTORS = [
    1, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649, 2.446418898,
    2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533, 5.984965424,
    6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651, 14.64173252,
    16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03, 32.1, 32.13, 32.23, 32.6,
    32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77,
]


def phi_config(name: str, vocab_size: int = 492) -> Phi3Config:
    """The transformers configuration of a model in `SHAPES`.

    vocab_size: of a tiny model, the length of its tokenizer; Phi-4-mini has always 200,064. Raises UserError for an
    unknown name.
    """
    if name not in SHAPES:
        raise UserError(f"unknown model {name!r}: choose one of {', '.join(SHAPES)}")
    if name == "phi-4-mini":
        rope = {
            "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
            "short_factor": [1.0] * 48, "long_factor": [float(factor) for factor in LONG_FACTORS],
            "original_max_position_embeddings": 4096, "factor": 131072 / 4096,
        }
        rest = dict(
            vocab_size=200064, max_position_embeddings=131072, sliding_window=262144, bos_token_id=199999,
            eos_token_id=[199999, 200020], pad_token_id=199999, original_max_position_embeddings=4096,
        )
    else:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
        rest = dict(vocab_size=vocab_size, max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, pad_token_id=0)
    return Phi3Config(**SHAPES[name], **rest, rope_parameters=rope, rms_norm_eps=1e-5, tie_word_embeddings=True)


def build(name: str, vocab_size: int, seed: int) -> transformers.PreTrainedModel:
    """A model with random weights; residual projections start smaller by 1/sqrt(2 layers), as in GPT-2."""
    torch.manual_seed(seed)
    config = phi_config(name, vocab_size)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", trust_remote_code=False)
    with torch.no_grad():
        for layer in model.model.layers:
            for residual in (layer.self_attn.o_proj, layer.mlp.down_proj):
                residual.weight.mul_(1 / math.sqrt(2 * model.config.num_hidden_layers))
    return model


def longrope(model: transformers.PreTrainedModel) -> dict | None:
    """The LongRoPE parameters of a model that has them, as Phi-4-mini does (arXiv 2402.13753)."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    return rope if rope.get("rope_type") == "longrope" else None


def use_long_factors(model: transformers.PreTrainedModel) -> None:
    """Use LongRoPE's long factors for short sequences too, in every stage and every measurement of a run, as vLLM does
    once its max_model_len exceeds the original context.

    transformers chooses anew for each batch, by its longest document, so the rotation of a packed short document would
    depend on its neighbour's length.
    """
    if rope := longrope(model):
        rotary = model.get_decoder().rotary_emb
        rotary.original_inv_freq, _ = ROPE_INIT_FUNCTIONS["longrope"](
            model.config, rotary.inv_freq.device, seq_len=rope["original_max_position_embeddings"] + 1
        )


def min_vllm_context(model: transformers.PreTrainedModel) -> int:
    """The smallest max_model_len at which vLLM rotates as `use_long_factors` does; 0 for a model without LongRoPE."""
    rope = longrope(model)
    return rope["original_max_position_embeddings"] + 1 if rope else 0


def load_config(folder: Path | str) -> PretrainedConfig:
    """The configuration of the model in `folder`. Code that the folder brings is never run, here as wherever a model or
    a tokenizer is loaded. Raises UserError for a model that cannot do without, and for a broken file.
    """
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}/config.json: no model that transformers knows; code of its own is not run ({one_line(error)})"
        ) from None


def count_parameters(folder: Path) -> int:
    """The number of parameters of the model in `folder`, from its configuration alone."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(load_config(folder), trust_remote_code=False)
    return sum(weight.numel() for weight in model.parameters())
