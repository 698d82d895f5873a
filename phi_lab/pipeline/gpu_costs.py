"""What one training step and one sampled answer cost on a GPU: bytes by part, FLOPs, tokens a second.

Memory is added up by part: weights, gradients, Adam's two moments, a working copy in bfloat16, activations, the loss,
and while sampling the key-value cache. Speeds are shares of a card's peak: `MFU` was measured (docs/performance.md:
Phi-4-mini on an H200), `DECODING` is an assumption. Sharding over GPUs is FSDP2's: weights, gradients and moments are
divided, and one layer at a time is gathered whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from phi_lab.config.schema import VLLM_SHARE, HardwareConfig
from phi_lab.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Share of the card's peak in training with activation checkpointing, by adapter: measured at rows of 2,048 and 16,384.
MFU = {None: 0.35, "lora": 0.255, "qlora": 0.205}
DECODING = 0.5  # share of the card's bandwidth used while sampling; assumed, not measured
RESERVED = 0.08  # share of the memory that training cannot use: context, fragments
MEAN_LENGTH = 0.5  # of an answer, as a share of the longest allowed; the paper's own range is 12K to 20K of 25K

FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size",
)


@dataclass(frozen=True)
class Card:
    """A GPU by its data sheet: dense FLOPs a second with sums in float32, in bfloat16 or, where it has none, float16;
    bytes, bytes a second; the price an hour, in US dollars, is a guess.
    """

    flops: float
    memory: float
    bandwidth: float
    price: float
    bfloat16: bool = True


CARDS = {
    "h100": Card(989e12, 85.0e9, 3.35e12, 2.5),
    "h200": Card(989e12, 151.0e9, 4.8e12, 3.5),
    "b200": Card(2250e12, 192.0e9, 8.0e12, 5.0),
    "a100": Card(312e12, 85.0e9, 2.04e12, 1.6),
    "l40s": Card(362e12, 51.5e9, 0.86e12, 1.0),
    "a6000": Card(155e12, 51.0e9, 0.77e12, 0.6),
    "rtx4090": Card(165e12, 25.7e9, 1.01e12, 0.4),
    "rtx4080": Card(97.5e12, 17.0e9, 0.72e12, 0.3),
    "rtx3090": Card(71e12, 25.4e9, 0.94e12, 0.25),
    "a10g": Card(70e12, 23.7e9, 0.60e12, 1.0),  # AWS's own; an A10 has 125e12
    "l4": Card(121e12, 23.7e9, 0.30e12, 0.7),
    "t4": Card(65e12, 15.8e9, 0.32e12, 0.35, bfloat16=False),  # Colab's and Kaggle's free one
}


class Shape:
    """Sizes of a model, counted from its configuration, or from that of a name in `shapes.SHAPES`.

    Raises UserError naming a field that the configuration lacks.
    """

    def __init__(self, model: str | PreTrainedConfig):
        from phi_lab.model import shapes  # loads torch

        config = shapes.phi_config(model) if isinstance(model, str) else model
        for name in FIELDS:
            if getattr(config, name, None) is None:
                raise UserError(f"{config.name_or_path}/config.json: no {name}, so its memory cannot be planned")
        head = config.hidden_size // config.num_attention_heads
        self.hidden, self.layers, self.mlp = config.hidden_size, config.num_hidden_layers, config.intermediate_size
        self.vocabulary = config.vocab_size
        self.qkv = (config.num_attention_heads + 2 * config.num_key_value_heads) * head
        self.matrices = self.hidden * (self.qkv + self.hidden + 3 * self.mlp)  # of one layer
        self.weights = self.layers * (self.matrices + 2 * self.hidden) + self.hidden * (self.vocabulary + 1)
        self.in_layers = self.layers * self.matrices  # what QLoRA has in four bits; embedding and norms are the rest
        self.adapter = 16 * self.layers * (5 * self.hidden + self.qkv + 3 * self.mlp)  # rank 16 beside all matrices
        self.cache = 4 * self.layers * config.num_key_value_heads * head  # bytes a token, keys and values in bfloat16


def _weight_bytes(shape: Shape, hardware: HardwareConfig) -> float:
    """Bytes of the weights as training holds them."""
    if hardware.adapter == "qlora":  # half a byte and its constants; peft's preparation makes the others float32
        return 0.53 * shape.in_layers + 4 * (shape.weights - shape.in_layers) + 4 * shape.adapter
    width = 4 if hardware.dtype == "float32" else 2
    return width * shape.weights + (4 * shape.adapter if hardware.adapter else 0)


def training_memory(shape: Shape, hardware: HardwareConfig, gpus: int, tokens: int) -> dict[str, float]:
    """Bytes on each GPU in a training step with `tokens` in one forward and backward pass, by part."""
    full = hardware.adapter is None
    trained = shape.weights if full else shape.adapter
    parts = {
        "weights": _weight_bytes(shape, hardware) / gpus,
        "gradients": 4 * trained / gpus,
        "optimizer": (2 if "8bit" in hardware.optimizer else 8) * trained / gpus,
    }
    embedding = shape.hidden * shape.vocabulary
    if full:  # autocast's copies in bfloat16: of everything on one GPU, of the gathered layer on several
        parts["working copy"] = 2 * (shape.weights if gpus == 1 else 2 * shape.matrices + embedding)
    # The residual stream has the embedding's precision, and a matrix's output is bfloat16; QLoRA's matrices return the
    # precision of their input.
    stream = tokens * shape.hidden * (2 if hardware.adapter == "lora" else 4)
    width = 4 if hardware.adapter == "qlora" else 2
    layer = tokens * (2 * shape.hidden * 4 + width * (2 * shape.hidden + 2 * shape.qkv + 4 * shape.mlp))
    parts["activations"] = shape.layers * stream + layer if hardware.gradient_checkpointing else shape.layers * layer
    gradients = 8 * embedding if full else 0  # of embedding and head, one matrix, before they are added
    # all logits of a pass with their gradient, or by a fused head a few rows of them and a copy of the head
    parts["loss"] = gradients + (2 * embedding if hardware.liger else 8 * tokens * shape.vocabulary)
    return parts


def flops(shape: Shape, hardware: HardwareConfig, row: int) -> float:
    """FLOPs a token of training: 6 a weight, 4 where only an adapter trains, and attention over half of a row
    (arXiv 2204.02311, appendix B). The forward pass that checkpointing repeats is part of the measured `MFU`.
    """
    return (6 if hardware.adapter is None else 4) * shape.weights + 6 * shape.layers * shape.hidden * row


def training_speed(shape: Shape, hardware: HardwareConfig, card: Card, row: int) -> float:
    """Tokens a second of one GPU in training on rows of `row` tokens."""
    return MFU[hardware.adapter] * card.flops / flops(shape, hardware, row)


def sampling_speed(shape: Shape, hardware: HardwareConfig, card: Card, max_tokens: int) -> float:
    """Tokens a second of one GPU in sampling answers of up to `max_tokens`. vLLM, which runs beside a trainer, has its
    share of the memory (`VLLM_SHARE`), another engine the whole card.

    Raises UserError when not even one answer fits.
    """
    weights = _weight_bytes(shape, hardware) if hardware.adapter == "qlora" else 2 * shape.weights
    if hardware.engine == "vllm":
        free, answer, busy = VLLM_SHARE * card.memory - weights, shape.cache * max_tokens * MEAN_LENGTH, 1.0
    else:  # half of what is free, for the longest answer in float32; all wait until the last has ended
        free, answer = ((1 - RESERVED) * card.memory - weights) / 2, 2 * shape.cache * max_tokens
        busy = MEAN_LENGTH
    batch = int(min(512, free / answer))
    if batch < 1:
        raise UserError(
            f"sampling: no answer of {max_tokens:,} tokens fits into {max(0.0, free) / 1e9:.1f} GB beside the weights: "
            "choose a larger card"
        )
    step = (weights + batch * answer * busy) / (card.bandwidth * DECODING)  # seconds for one token of each answer
    return busy * batch / step
