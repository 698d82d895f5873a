"""Muon: AdamW's step for a matrix is replaced by the nearest orthogonal one.

A gradient matrix is dominated by a few directions; AdamW follows them and learns the rest slowly. Muon keeps the
momentum and gives all its directions the same length (Newton-Schulz), which a tiny model in a small world notices: the
loss of pretraining that took AdamW 700 steps took Muon 300 (docs/log.md). torch.optim has it for matrices; what is no
matrix, and the embedding, stays with AdamW. Both share one learning rate, since Muon's step is scaled to the size of
AdamW's (arXiv 2502.16982, section 2.2). Which optimizer the paper used is not known.
"""

import torch
from torch.optim import AdamW, Optimizer
from torch.optim import Muon as TorchMuon
from transformers import PreTrainedModel


class Muon(Optimizer):
    """torch's Muon for the matrices of a model's layers and AdamW for the rest, stepped, saved and loaded as one."""

    def __init__(self, model: PreTrainedModel, lr: float, weight_decay: float):
        embeddings = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        matrices = [weight for weight in trained if weight.ndim == 2 and id(weight) not in embeddings]
        rest = [weight for weight in trained if weight.ndim != 2 or id(weight) in embeddings]
        self.parts = (
            TorchMuon(matrices, lr=lr, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            AdamW(rest, lr=lr, weight_decay=0.0, betas=(0.9, 0.98)),
        )
        super().__init__([{"params": trained}], {"lr": lr})
        self.param_groups = [group for part in self.parts for group in part.param_groups]  # shared with the parts

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
        """Both states, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict) -> None:
        """Put both states back; the learning rates with them."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def muon() -> type[Muon]:
    """What transformers' Trainer calls to get the class (its protocol for optimizers that split parameters)."""
    return Muon
