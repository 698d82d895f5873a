"""Checks of the exercises about who sees what: one cache step (notebook 01), positions and packing's mask (02), SFT's
labels (03).
"""

from collections.abc import Callable

import torch

from phi_lab.lab.grading import WrongAttempt, as_list, call_attempt, shown


def labels_fault(attempt: Callable, reference: Callable) -> str | None:
    # 1 is the stop token that ends every completion, 0 the padding.
    cases = (([5, 6], [7, 8, 1], 5), ([5, 6], [7, 1], 6), ([5], [1], 2), ([5, 5, 5], [5, 1], 8))
    for prompt, completion, width in cases:
        got = as_list(call_attempt(attempt, list(prompt), list(completion), width))
        wanted = reference(prompt, completion, width)
        if got == wanted:
            continue
        case = f"labels({prompt}, {completion}, {width}) gave {shown(got)}: "
        if len(got) != width:
            return f"{case}{len(got)} labels for a row of {width} tokens"
        if got == [*wanted[1:], -100]:
            return f"{case}nothing is shifted here: the loss compares each label with what was said one token before"
        if got == [-100] * (width - len(prompt) - len(completion)) + [-100] * len(prompt) + completion:
            return f"{case}the padding comes last: question, answer, padding"
        place = next(i for i, pair in enumerate(zip(got, wanted, strict=True)) if pair[0] != pair[1])
        if place < len(prompt):
            return f"{case}token {place} is the question's, and the model need not learn to ask"
        if place >= len(prompt) + len(completion):
            return f"{case}token {place} is padding, which nobody should learn to write"
        if completion[place - len(prompt)] == 1:
            return f"{case}token {place} is the stop token, and without a loss on it the model never learns to end"
        return f"{case}token {place} should have the label {wanted[place]}, itself"


def position_ids_fault(attempt: Callable, reference: Callable) -> str | None:
    for lengths in ([4], [3, 2], [1, 1, 3], [2, 4, 1, 2]):
        got, wanted = as_list(call_attempt(attempt, list(lengths))), reference(lengths)
        if got == wanted:
            continue
        case = f"documents of {lengths} tokens gave {shown(got)}: "
        if len(got) != len(wanted):
            return f"{case}{len(got)} positions for a row of {sum(lengths)} tokens"
        place = next(i for i, pair in enumerate(zip(got, wanted, strict=True)) if pair[0] != pair[1])
        if wanted[place] == 0 and place:
            return f"{case}a document starts at token {place}, and it starts at {shown(got[place])} instead of 0"
        return f"{case}token {place} should have position {wanted[place]}: counting begins at 0, and grows by 1"


def document_mask_fault(attempt: Callable, reference: Callable) -> str | None:
    for positions in ([0, 1, 2], [0, 1, 0, 1], [0, 0, 1, 2, 0, 1]):
        ids = torch.tensor([positions])
        got, wanted = call_attempt(attempt, ids), reference(ids)
        if not isinstance(got, torch.Tensor) or got.shape != wanted.shape:
            raise WrongAttempt(
                f"positions of shape (1, {len(positions)}) have to give a mask of shape {tuple(wanted.shape)}: "
                "for each row, each token and each token it may look at"
            )
        different = (got.bool() != wanted).nonzero()
        if len(different):
            _, i, j = different[0].tolist()
            documents = [positions[: k + 1].count(0) for k in (i, j)]
            if i == j:
                why = "it is the token itself"
            elif j > i:
                why = "it is later"
            else:
                same = documents[0] == documents[1]
                why = "it is earlier in its own document" if same else "it is in another document"
            verb = "may look at" if got[0, i, j] else "may not look at"
            return f"positions {positions}: token {i} {verb} token {j}, and {why}"
    two = torch.tensor([[0, 1, 2, 3], [0, 1, 0, 1]])
    if not torch.equal(call_attempt(attempt, two).bool(), reference(two)):
        return "two rows at once gave another mask than each row alone: rows are packed differently"


def cache_step_fault(attempt: Callable, reference: Callable) -> str | None:
    """Token by token has to give what attention over the whole text gives."""
    return _cache_fault(attempt, reference, 4) or _cache_fault(attempt, reference, 9)


def _cache_fault(attempt: Callable, reference: Callable, width: int) -> str | None:
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.empty(0, width), torch.empty(0, width)
    for step in range(4):
        query, key, value = (torch.randn(width, generator=generator) for _ in range(3))
        result = call_attempt(attempt, query, key, value, keys.clone(), values.clone())
        if not isinstance(result, tuple | list) or len(result) != 3:
            return f"it has to give three things, (what is read, keys, values), and gave {shown(result)}"
        read, got_keys, got_values = result
        wanted, keys, values = reference(query, key, value, keys, values)
        for name, got, right in (("keys", got_keys, keys), ("values", got_values, values)):
            if got.shape != right.shape:
                return (
                    f"after token {step} the cache holds {name} of shape {tuple(got.shape)}, and it should be "
                    f"{tuple(right.shape)}: one more row a token"
                )
            if not torch.allclose(got, right):
                return f"after token {step} the {name} in the cache are others: those of earlier tokens never change"
        if got := _unlike(read, wanted):
            return (
                f"token {step} read {got}, and attention over all {step + 1} tokens gives {_rounded(wanted)}"
                + (": a token sees itself, too" if step == 0 else "")
            )


def _unlike(read: object, wanted: torch.Tensor) -> str | None:
    if not isinstance(read, torch.Tensor) or read.shape != wanted.shape:
        raise WrongAttempt(f"what a token reads has the shape of one value, {tuple(wanted.shape)}")
    return None if torch.allclose(read, wanted, atol=1e-4) else _rounded(read)


def _rounded(tensor: torch.Tensor) -> str:
    return "[" + ", ".join(f"{value:.2f}" for value in tensor.tolist()) + "]"
