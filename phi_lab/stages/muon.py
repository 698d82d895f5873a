"""Muon: an optimizer whose step for a matrix is the orthogonal matrix nearest to the momentum.

A gradient matrix is dominated by a few directions; AdamW follows them and learns the rest slowly. Muon takes the
momentum and gives all its directions the same length (Newton-Schulz), which a tiny model in a small world profits from:
Muon reached in 300 steps of pretraining the loss that AdamW reached in 700 (docs/log.md). Parameters that are not
matrices, and the embedding, stay with AdamW. Both share one learning rate, since Muon's step is scaled to the size of
AdamW's (arXiv 2502.16982, section 2.2). Which optimizer the paper used is not known. Deviation from torch.optim.Muon,
which iterates in bfloat16: here it is the precision of the weights, since on a CPU without bfloat16 units the iteration
would take two thirds of a training step.
"""

import math
from collections import ChainMap, defaultdict
from functools import partial

import torch
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # https://kellerjordan.github.io/posts/muon/


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """About the orthogonal matrix nearest to each of `matrices` (number, rows, columns): the same singular vectors with
    singular values of 0.5 to 1.5, less where the matrix's are almost zero.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if tall else wide


class Orthogonal(Optimizer):
    """Nesterov momentum, made orthogonal, for matrices; decoupled weight decay."""

    def __init__(self, matrices: list[torch.Tensor], lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One step; matrices without a gradient do not change."""
        for group in self.param_groups:
            # Matrices of one shape are multiplied together: those of a tiny model are too small to be fast alone.
            by_shape = defaultdict(list)
            for weight in (weight for weight in group["params"] if weight.grad is not None):
                by_shape[weight.shape].append(weight)
            for shape, weights in by_shape.items():
                gradients = []
                for weight in weights:
                    state = self.state[weight]
                    if not state:
                        state["momentum_buffer"] = torch.zeros_like(weight.grad)
                    momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
                    gradients.append(weight.grad.lerp(momentum, group["momentum"]))  # Nesterov
                for weight, update in zip(weights, orthogonal(torch.stack(gradients)), strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))


class Muon(Optimizer):
    """`Orthogonal` for the matrices of a model's layers and AdamW for the rest, stepped, saved and loaded as one. Of an
    adapter, which has matrices alone, there is no rest.
    """

    def __init__(self, model: PreTrainedModel, lr: float, weight_decay: float):
        embeddings = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        matrices = [weight for weight in trained if weight.ndim == 2 and id(weight) not in embeddings]
        rest = [weight for weight in trained if weight.ndim != 2 or id(weight) in embeddings]
        parts = (partial(Orthogonal, weight_decay=weight_decay), partial(AdamW, weight_decay=0.0, betas=(0.9, 0.98)))
        self.parts = [part(weights, lr=lr) for part, weights in zip(parts, (matrices, rest), strict=True) if weights]
        super().__init__([{"params": trained}], {"lr": lr})
        self._share()

    def _share(self) -> None:
        """Show the groups and the state of the parts as this optimizer's own."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        self.state = ChainMap(*(part.state for part in self.parts))

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One step of both."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of both."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict:
        """The states of both, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore both states, and the learning rates with them."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()


def muon() -> type[Muon]:
    """The class, as transformers' Trainer asks for an optimizer that splits the parameters itself."""
    return Muon
