"""Phi-3's forward pass over a fixed cache of keys and values, for the engine `cpu`.

Decoding a tiny model is bound by everything but its matrix products. torch's attention over a cache treats all rows as
long as the longest, needs a mask, and multiplies two vectors of 32 numbers for every row; with the course's models this
took half of the time. `decode_attention` is the same sum written as loops, which numba compiles for the processor at
hand (once: the machine code is cached beside this file): a row reads its keys and values and nothing else. On other
devices torch does it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Shapes: `groups` are the heads of keys and values (grouped-query attention), `width` is the size of a head, and
# `positions` are the places of a row in the cache.
Cache = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values of each layer, (rows, groups, positions, width)
Attention = Callable[[int, torch.Tensor], torch.Tensor]  # (layer, queries, keys and values) -> attended values
LOG2_E = np.float32(1.4426950408889634)
LN2 = tuple(np.float32(0.6931471805599453**n / f) for n, f in ((6, 720), (5, 120), (4, 24), (3, 6), (2, 2), (1, 1)))


@njit(nogil=True, fastmath=True, cache=True)
def softmax_inplace(x: np.ndarray, n: int, bits: np.ndarray, powers: np.ndarray) -> np.float32:
    """Replace x[:n] by exp(x - max x), in place, and return their sum.

    exp is 2 to the exponent's whole part, made of its bits, times a series for the fraction, with a relative error of
    at most 3e-7: loops that compile to vector instructions, which calls of a library's exp do not. bits, powers:
    scratch memory for n numbers, the same one as int32 and as float32.
    """
    largest = x[0]
    for i in range(n):
        largest = max(largest, x[i])
    for i in range(n):
        exponent = max((x[i] - largest) * LOG2_E, np.float32(-126))
        whole = np.floor(exponent + np.float32(0.5))
        bits[i] = (np.int32(whole) + 127) << 23
        fraction = exponent - whole
        series = LN2[0]
        for factor in LN2[1:]:
            series = series * fraction + factor
        x[i] = series * fraction + np.float32(1)
    total = np.float32(0)
    for i in range(n):
        x[i] *= powers[i]
        total += x[i]
    return total


@njit(nogil=True, fastmath=True, cache=True)
def apply_rotary(x: np.ndarray, cosine: np.ndarray, sine: np.ndarray, out: np.ndarray) -> None:
    """Write the rotary position embedding of one head (width,) into `out`; dimensions beyond the rotated ones stay."""
    half = len(cosine) // 2
    for i in range(half):
        out[i] = x[i] * cosine[i] - x[i + half] * sine[i]
        out[i + half] = x[i + half] * cosine[i + half] + x[i] * sine[i + half]
    for i in range(2 * half, len(x)):
        out[i] = x[i]


@njit(nogil=True, fastmath=True, cache=True)
def decode_attention(
    projected: np.ndarray, cosine: np.ndarray, sine: np.ndarray, length: np.ndarray, keys: np.ndarray,
    values: np.ndarray, out: np.ndarray,
) -> None:
    """Causal attention of one new token in each row: rotate it, write it into the cache, attend over the row.

    projected: queries, keys and values as `qkv_proj` gives them, (rows, heads + 2 x groups, width). cosine, sine:
    (positions, rotated dimensions). length: (rows,), a row's tokens in the cache, and so the new token's position;
    below zero the row is skipped. keys, values: the layer's cache. out: the result, (rows, heads, width).
    """
    groups, positions, width = keys.shape[1:]
    heads = out.shape[1]
    query, scale = np.empty(width, np.float32), np.float32(1 / np.sqrt(width))
    weights, bits = np.empty(positions, np.float32), np.empty(positions, np.int32)
    powers = bits.view(np.float32)
    for row in range(len(length)):
        last = length[row]
        if last < 0:
            continue
        for group in range(groups):
            row_keys, row_values = keys[row, group], values[row, group]
            apply_rotary(projected[row, heads + group], cosine[last], sine[last], row_keys[last])
            row_values[last] = projected[row, heads + groups + group]
            for head in range(group * heads // groups, (group + 1) * heads // groups):
                apply_rotary(projected[row, head], cosine[last], sine[last], query)
                for position in range(last + 1):
                    key, product = row_keys[position], np.float32(0)
                    for i in range(width):
                        product += query[i] * key[i]
                    weights[position] = product * scale
                total = softmax_inplace(weights, last + 1, bits, powers)
                attended = out[row, head]
                attended[:] = 0
                for position in range(last + 1):
                    value, weight = row_values[position], weights[position] / total
                    for i in range(width):
                        attended[i] += weight * value[i]


class Phi:
    """Phi-3's forward pass over a fixed cache, in as few operations as possible, on the model's device.

    Its log-probabilities equal those of transformers' forward pass to 1e-4 (tests/sampling/test_sampler.py).
    """

    def __init__(self, model: PreTrainedModel):
        config, body = model.config, model.model
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.width = config.hidden_size // self.heads
        self.epsilon = config.rms_norm_eps
        self.embedding, self.norm, self.head = body.embed_tokens.weight, body.norm.weight, model.lm_head.weight
        self.layers = [
            (
                layer.input_layernorm.weight, layer.self_attn.qkv_proj.weight, layer.self_attn.o_proj.weight,
                layer.post_attention_layernorm.weight, layer.mlp.gate_up_proj.weight, layer.mlp.down_proj.weight,
            )
            for layer in body.layers
        ]
        positions = torch.arange(config.max_position_embeddings)[None]
        cosine, sine = body.rotary_emb(self.embedding[None, :1], positions)
        self.cosine, self.sine = cosine[0], sine[0]
        self.rotated = self.cosine.shape[-1]  # 75 % of a head's width
        self.compiled = self.embedding.device.type == "cpu" and self.embedding.dtype == torch.float32

    def empty_cache(self, rows: int, positions: int) -> Cache:
        shape = (rows, self.groups, positions, self.width)
        return [(torch.zeros(shape), torch.zeros(shape)) for _ in self.layers]

    def _forward(self, x: torch.Tensor, attend: Attention) -> torch.Tensor:
        """All layers on hidden states (..., hidden). `attend` maps a layer's projections (..., heads + 2 x groups,
        width) to (..., heads x width).
        """
        for index, (norm, qkv, out, norm_mlp, gate_up, down) in enumerate(self.layers):
            projected = F.linear(F.rms_norm(x, norm.shape, norm, self.epsilon), qkv)
            x = x + F.linear(attend(index, projected.unflatten(-1, (-1, self.width))), out)
            gate, up = F.linear(F.rms_norm(x, norm_mlp.shape, norm_mlp, self.epsilon), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        return x

    def _rotation(self, position: torch.Tensor) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
        """A function that splits projections at these positions into queries, keys and values (..., heads or groups,
        width) and rotates queries and keys.
        """
        cosine, sine = self.cosine[position][..., None, :], self.sine[position][..., None, :]

        def rotate(projected: torch.Tensor) -> tuple[torch.Tensor, ...]:
            queries_keys, values = projected.split((self.heads + self.groups, self.groups), -2)
            rotated, unrotated = queries_keys[..., : self.rotated], queries_keys[..., self.rotated :]
            a, b = rotated.chunk(2, -1)
            queries_keys = torch.cat((rotated * cosine + torch.cat((-b, a), -1) * sine, unrotated), -1)
            return *queries_keys.split((self.heads, self.groups), -2), values

        return rotate

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.rms_norm(x, self.norm.shape, self.norm, self.epsilon), self.head)

    def prefill(self, prompts: list[list[int]], cache: Cache, rows: torch.Tensor) -> torch.Tensor:
        """Run each distinct prompt once and copy its keys and values into its `rows` of the cache. Returns the logits
        after the last token of each prompt, (prompts, vocabulary).
        """
        distinct = sorted(set(map(tuple, prompts)))
        index_of = {prompt: i for i, prompt in enumerate(distinct)}
        which = torch.tensor([index_of[tuple(prompt)] for prompt in prompts])
        width = max(map(len, distinct))
        ids = torch.tensor([list(prompt) + [0] * (width - len(prompt)) for prompt in distinct])
        rotate = self._rotation(torch.arange(width))

        def attend(layer: int, projected: torch.Tensor) -> torch.Tensor:
            q, k, v = (part.transpose(1, 2) for part in rotate(projected))
            keys, values = cache[layer]
            keys[rows, :, :width], values[rows, :, :width] = k[which], v[which]
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            return attended.transpose(1, 2).flatten(2)

        x = self._forward(F.embedding(ids, self.embedding), attend)
        last = torch.tensor([len(prompt) - 1 for prompt in distinct])
        return self._logits(x[torch.arange(len(distinct)), last])[which]

    def step(self, token: torch.Tensor, length: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Append one token to every row, at position `length`; returns the logits after it, (rows, vocabulary). A row
        with a length below zero is idle, and its logits mean nothing.
        """
        attend = self._compiled_attention(length, cache) if self.compiled else self._torch_attention(length, cache)
        return self._logits(self._forward(F.embedding(token, self.embedding), attend))

    def _compiled_attention(self, length: torch.Tensor, cache: Cache) -> Attention:
        out = torch.zeros(len(length), self.heads, self.width)
        fixed = (self.cosine.numpy(), self.sine.numpy(), length.numpy())

        def attend(layer: int, projected: torch.Tensor) -> torch.Tensor:
            keys, values = cache[layer]
            decode_attention(projected.numpy(), *fixed, keys.numpy(), values.numpy(), out.numpy())
            return out.flatten(1)

        return attend

    def _torch_attention(self, length: torch.Tensor, cache: Cache) -> Attention:
        length = length.clamp(min=0)
        rows, reach = torch.arange(len(length)), int(length.max()) + 1
        mask, rotate = (torch.arange(reach) <= length[:, None])[:, None, None], self._rotation(length)

        def attend(layer: int, projected: torch.Tensor) -> torch.Tensor:
            q, k, v = rotate(projected)
            keys, values = cache[layer]
            keys[rows, :, length], values[rows, :, length] = k, v
            # The queries of a group stand where those of successive tokens would, so keys and values are not copied.
            q = q.unflatten(1, (self.groups, -1))
            return F.scaled_dot_product_attention(q, keys[:, :, :reach], values[:, :, :reach], mask).flatten(1)

        return attend
