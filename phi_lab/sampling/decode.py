"""Phi-3's forward pass over a fixed cache: what the engine `cpu` decodes with.

Decoding a tiny model is bound by everything but its matrix products. torch's attention over a cache needs all rows as
long as the longest, a mask, and a product of two by 32 numbers for every row; for the lab's models that took half of
the time. `attend_next` is the same sum written out as loops, which numba compiles for the processor at hand (once: the
code is kept beside this file): a row reads its own keys and values and nothing else. On other devices torch does it.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from transformers import PreTrainedModel

Cache = list[tuple[torch.Tensor, torch.Tensor]]  # keys and values of each layer, (rows, groups, room, width)
LOG2_E = np.float32(1.4426950408889634)
LN2 = tuple(np.float32(0.6931471805599453**n / f) for n, f in ((6, 720), (5, 120), (4, 24), (3, 6), (2, 2), (1, 1)))


@njit(nogil=True, fastmath=True, cache=True)
def softmax_inplace(x, n, bits, powers):
    """x[:n] becomes exp(x - max x); returns their sum. By 2 to the exponent's whole part, made of its bits, times a
    series for the rest, at most 3e-7 off: loops that compile to vectors, which calls of a library's exp do not.

    bits, powers: room for n numbers, one and the same as int32 and as float32.
    """
    top = x[0]
    for i in range(n):
        top = max(top, x[i])
    for i in range(n):
        exponent = max((x[i] - top) * LOG2_E, np.float32(-126))
        whole = np.floor(exponent + np.float32(0.5))
        bits[i] = (np.int32(whole) + 127) << 23
        rest = exponent - whole
        series = LN2[0]
        for factor in LN2[1:]:
            series = series * rest + factor
        x[i] = series * rest + np.float32(1)
    total = np.float32(0)
    for i in range(n):
        x[i] *= powers[i]
        total += x[i]
    return total


@njit(nogil=True, fastmath=True, cache=True)
def apply_rotary(x, cosine, sine, found):
    """Rotary embedding of one head, (width,), into `found`; the part of it that is not rotated stays."""
    half = len(cosine) // 2
    for i in range(half):
        found[i] = x[i] * cosine[i] - x[i + half] * sine[i]
        found[i + half] = x[i + half] * cosine[i + half] + x[i] * sine[i + half]
    for i in range(2 * half, len(x)):
        found[i] = x[i]


@njit(nogil=True, fastmath=True, cache=True)
def decode_attention(projected, cosine, sine, length, keys, values, seen):
    """Rotate, write into the cache and attend, for one more token of each row.

    projected: queries, keys and values as `qkv_proj` gives them, (rows, heads + 2 x groups, width). cosine, sine:
    (positions, rotated). length: (rows,), tokens of a row in the cache, where the new one goes; below zero the row is
    left out. keys, values: (rows, groups, room, width). seen: result, (rows, heads, width).
    """
    groups, room, width = keys.shape[1:]
    heads = seen.shape[1]
    asked, scale = np.empty(width, np.float32), np.float32(1 / np.sqrt(width))
    weights, bits = np.empty(room, np.float32), np.empty(room, np.int32)
    powers = bits.view(np.float32)
    for row in range(len(length)):
        last = length[row]
        if last < 0:
            continue
        for group in range(groups):
            key, value = keys[row, group], values[row, group]
            apply_rotary(projected[row, heads + group], cosine[last], sine[last], key[last])
            value[last] = projected[row, heads + groups + group]
            for head in range(group * heads // groups, (group + 1) * heads // groups):
                apply_rotary(projected[row, head], cosine[last], sine[last], asked)
                for place in range(last + 1):
                    one, product = key[place], np.float32(0)
                    for i in range(width):
                        product += asked[i] * one[i]
                    weights[place] = product * scale
                total = softmax_inplace(weights, last + 1, bits, powers)
                found = seen[row, head]
                found[:] = 0
                for place in range(last + 1):
                    one, weight = value[place], weights[place] / total
                    for i in range(width):
                        found[i] += weight * one[i]


class Phi:
    """Phi-3's forward pass over a fixed cache, in as few operations as it takes; where the model lives.

    Equal to transformers' own forward to 1e-4 in log-probabilities (tests/sampling/test_sampler.py).
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

    def empty_cache(self, rows: int, room: int) -> Cache:
        shape = (rows, self.groups, room, self.width)
        return [(torch.zeros(shape), torch.zeros(shape)) for _ in self.layers]

    def _forward(self, x: torch.Tensor, attend: Callable[[int, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """x: hidden states (..., hidden). attend(layer, queries, keys and values (..., heads + 2 x groups, width)) ->
        (..., heads x width).
        """
        for index, (norm, qkv, out, norm_mlp, gate_up, down) in enumerate(self.layers):
            flat = F.linear(F.rms_norm(x, norm.shape, norm, self.epsilon), qkv)
            x = x + F.linear(attend(index, flat.unflatten(-1, (-1, self.width))), out)
            gate, up = F.linear(F.rms_norm(x, norm_mlp.shape, norm_mlp, self.epsilon), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
        return x

    def _turning(self, position: torch.Tensor) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
        """From what `qkv_proj` gives at these positions to queries, keys and values (..., heads or groups, width), the
        first two rotated.
        """
        cosine, sine = self.cosine[position][..., None, :], self.sine[position][..., None, :]

        def turned(projected):
            turning, v = projected.split((self.heads + self.groups, self.groups), -2)
            turning, still = turning[..., : self.rotated], turning[..., self.rotated :]
            a, b = turning.chunk(2, -1)
            found = torch.cat((turning * cosine + torch.cat((-b, a), -1) * sine, still), -1)
            return *found.split((self.heads, self.groups), -2), v

        return turned

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.rms_norm(x, self.norm.shape, self.norm, self.epsilon), self.head)

    def prefill(self, jobs: list[list[int]], cache: Cache, rows: torch.Tensor) -> torch.Tensor:
        """Run each distinct prompt once, copy its keys and values into `rows`; returns the logits of its last token."""
        distinct = sorted(set(map(tuple, jobs)))
        place = {prompt: i for i, prompt in enumerate(distinct)}
        which = torch.tensor([place[tuple(job)] for job in jobs])
        width = max(map(len, distinct))
        ids = torch.tensor([list(prompt) + [0] * (width - len(prompt)) for prompt in distinct])
        turned = self._turning(torch.arange(width))

        def attend(index, projected):
            q, k, v = (part.transpose(1, 2) for part in turned(projected))
            keys, values = cache[index]
            keys[rows, :, :width], values[rows, :, :width] = k[which], v[which]
            seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            return seen.transpose(1, 2).flatten(2)

        x = self._forward(F.embedding(ids, self.embedding), attend)
        last = torch.tensor([len(prompt) - 1 for prompt in distinct])
        return self._logits(x[torch.arange(len(distinct)), last])[which]

    def step(self, token: torch.Tensor, length: torch.Tensor, cache: Cache) -> torch.Tensor:
        """One more token for every row: put it at position `length`, return the logits after it (rows, vocabulary).
        Below zero nobody's answer grows there, and the row's logits mean nothing.
        """
        attend = self._compiled_attention(length, cache) if self.compiled else self._attention(length, cache)
        return self._logits(self._forward(F.embedding(token, self.embedding), attend))

    def _compiled_attention(self, length: torch.Tensor, cache: Cache) -> Callable:
        seen = torch.zeros(len(length), self.heads, self.width)
        fixed = (self.cosine.numpy(), self.sine.numpy(), length.numpy())

        def attend(index, projected):
            keys, values = cache[index]
            decode_attention(projected.numpy(), *fixed, keys.numpy(), values.numpy(), seen.numpy())
            return seen.flatten(1)

        return attend

    def _attention(self, length: torch.Tensor, cache: Cache) -> Callable:
        length = length.clamp(min=0)
        every, reach = torch.arange(len(length)), int(length.max()) + 1
        mask, turned = (torch.arange(reach) <= length[:, None])[:, None, None], self._turning(length)

        def attend(index, projected):
            q, k, v = turned(projected)
            keys, values = cache[index]
            keys[every, :, length], values[every, :, length] = k, v
            # queries of one group stand side by side as if they were neighbours in time: no copy of keys and values
            q = q.unflatten(1, (self.groups, -1))
            return F.scaled_dot_product_attention(q, keys[:, :, :reach], values[:, :, :reach], mask).flatten(1)

        return attend
