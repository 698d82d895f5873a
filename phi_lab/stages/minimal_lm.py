"""Masks and one training loop of mid-training and SFT, without TRL: which tokens have a loss, which tokens see which.

The fast path is packing.py and lm_trainer.py. It writes no mask at all: transformers builds the block-diagonal one from
the position ids that restart at every document. Here masks are written out; a test holds logits, loss and gradient to
the fast path's (tests/stages/test_minimal_lm.py).
"""

from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

from phi_lab.stages.packing import IGNORE, Document, collate, rows_dataset


def loss_mask(prompt_tokens: int, completion_tokens: int) -> list[int]:
    """SFT's mask of a prompt with its completion: 1 where a token has a loss. The stop token is part of the completion;
    without a loss on it the model would never learn to end.
    """
    return [0] * prompt_tokens + [1] * completion_tokens


def documents_of(position_ids: torch.Tensor) -> torch.Tensor:
    """The number of the document that each token belongs to, (rows, tokens): one more wherever positions restart."""
    return (position_ids == 0).cumsum(1)


def document_mask(position_ids: torch.Tensor) -> torch.Tensor:
    """Packing's mask: whether the token in row i may attend to the one in column j, (rows, tokens, tokens).

    It may if j is not later (causal) and in the same document (block-diagonal). Without the second condition a document
    would be predicted with the help of its neighbour, which is not there when the model is used.
    """
    documents, tokens = documents_of(position_ids), position_ids.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=position_ids.device).tril()
    return causal & (documents[:, :, None] == documents[:, None, :])


def masked_logits(
    model: PreTrainedModel, ids: torch.Tensor, position_ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The logits where each token sees what `mask` (rows, tokens, tokens) says, for all heads."""
    return model(input_ids=ids, position_ids=position_ids, attention_mask=mask[:, None], use_cache=False).logits


def next_token_loss(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of -log pi(token | tokens before it) over the tokens with a loss: cross-entropy.

    logits: (rows, tokens, vocabulary); ids, mask: (rows, tokens). The logits at t are about token t + 1.
    """
    logprobs = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return -(logprobs * mask[:, 1:]).sum() / mask[:, 1:].sum()


def train(
    model: PreTrainedModel, documents: Sequence[Document], rows: Sequence[Sequence[int]], *, steps: int = 10,
    batch_size: int = 8, learning_rate: float = 1e-3, on_step: Callable[[float], object] = print,
) -> list[float]:
    """Train `model` in place on rows of documents (as `packing.pack_best_fit` gives them); returns each step's loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    losses, pad_rows = [], collate(pad=0)
    table = rows_dataset(documents, [list(row) for row in rows], pad=0, row_length=None)
    for step in range(steps):
        batch = pad_rows([table[(step * batch_size + i) % len(table)] for i in range(batch_size)])
        ids, positions = batch["input_ids"], batch["position_ids"]
        logits = masked_logits(model, ids, positions, document_mask(positions))
        loss = next_token_loss(logits, ids, batch["labels"] != IGNORE)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()  # the model changes here
        losses.append(loss.item())
        on_step(losses[-1])
    return losses
