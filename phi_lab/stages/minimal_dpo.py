"""DPO in ten lines, without TRL: the log-probability of two completions, those of a reference, one loss, a short loop.

A pair is a prompt with a chosen and a rejected completion. All that DPO knows of the model is four numbers a pair: the
log-probability of either completion, by the model that is trained (the policy) and by a frozen copy of its start (the
reference). rollout_dpo.py does the same for longer. A test holds this page's losses and gradients to TRL's
(tests/stages/test_minimal_dpo.py).

    model, tokenizer = checkpoints.load(folder), checkpoints.load_tokenizer(folder)
    minimal_dpo.train(model, tokenizer, pairs)  # of preference_pairs.make_pairs
"""

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab.core.errors import UserError
from phi_lab.core.records import PreferencePair
from phi_lab.stages.minimal_lm import loss_mask
from phi_lab.stages.packing import IGNORE, pair_document


def to_rows(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[PreferencePair]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, (2 x pairs, tokens): all chosen completions, then all rejected ones, each after its prompt.
    The mask is 1 on a completion and its stop token, 0 on prompt and padding: SFT's.
    """
    rows, masks = [], []
    for side in ("chosen", "rejected"):
        for pair in pairs:
            ids, labels = pair_document(tokenizer, pair, side)
            rows.append(torch.tensor(ids))
            before = labels.count(IGNORE)
            masks.append(torch.tensor(loss_mask(before, len(ids) - before)))
    return pad_sequence(rows, batch_first=True), pad_sequence(masks, batch_first=True)


def completion_logprobs(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """log pi(completion | prompt) of each row, in nats: the sum over the completion's tokens, not their mean."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]  # those at t are about token t + 1
    logprobs = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return (logprobs * mask[:, 1:]).sum(1)


def dpo_loss(
    policy: torch.Tensor, reference: torch.Tensor, lengths: torch.Tensor, beta: float = 0.1, kind: str = "sigmoid"
) -> torch.Tensor:
    """The loss of a batch of pairs. policy, reference: `completion_logprobs`; lengths: tokens; all (2 x pairs,).

    sigmoid: DPO's (arXiv 2305.18290, equation 7); ln 2 at the start, where policy and reference are one model.
    ipo: a margin of 1 / (2 beta) is enough (arXiv 2310.12036, equation 17), here in nats a token, as in TRL. apo_zero:
    the chosen one up *and* the rejected one down, each for itself (arXiv 2408.06266, equation 7). Raises UserError for
    another kind.
    """
    ratio = policy - reference  # log pi / ref: how much likelier than at the start
    chosen, rejected = (ratio / lengths if kind == "ipo" else ratio).chunk(2)
    if kind == "sigmoid":
        return -F.logsigmoid(beta * (chosen - rejected)).mean()
    if kind == "ipo":
        return ((chosen - rejected - 1 / (2 * beta)) ** 2).mean()
    if kind == "apo_zero":
        return (torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)).mean()
    raise UserError(f"unknown loss {kind!r}: choose sigmoid, ipo or apo_zero")


def chosen_loss(policy: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """SFT's loss of the chosen completions, the mean a token, in nats. Added to DPO's with a weight it keeps them
    likely, whatever the margin does (arXiv 2404.19733, equation 2). policy, lengths: as in `dpo_loss`.
    """
    return -policy.chunk(2)[0].sum() / lengths.chunk(2)[0].sum()


def train(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[PreferencePair], *, steps: int = 8,
    batch_size: int = 16, learning_rate: float = 1e-4, beta: float = 0.1, kind: str = "sigmoid",
    sft_weight: float = 0.0, on_step: Callable[[dict], object] = print,
) -> list[dict]:
    """Train `model` in place on pairs; returns one row of metrics a step, and gives each to `on_step`.

    chosen, rejected: the mean of log pi / ref of either side, in nats. Watch both fall while the margin grows.
    """
    reference = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    rows = []
    for step in range(steps):
        ids, mask = to_rows(tokenizer, [pairs[(step * batch_size + i) % len(pairs)] for i in range(batch_size)])
        start = completion_logprobs(reference, ids, mask)
        policy = completion_logprobs(model, ids, mask)
        lengths = mask.sum(1)
        loss = dpo_loss(policy, start, lengths, beta, kind) + sft_weight * chosen_loss(policy, lengths)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()  # the policy changes here
        chosen, rejected = (policy - start).detach().chunk(2)
        rows.append({
            "step": step + 1, "loss": loss.item(), "chosen": chosen.mean().item(), "rejected": rejected.mean().item(),
            "right_order": (chosen > rejected).float().mean().item(),
        })
        on_step(rows[-1])
    return rows
