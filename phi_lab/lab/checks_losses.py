"""Checks of the exercises about losses: an answer's log-probability and DPO's loss (notebook 04), GRPO's advantage,
ratio, clip and means (05).
"""

import math
from collections.abc import Callable

import torch

from phi_lab.lab.grading import WrongAttempt, call_attempt, shown

NEAR = 1e-4
NO_GRADIENT = "the numbers are right and have no gradient: do not leave tensors, or nothing can be learned"


def dpo_loss_fault(attempt: Callable, reference: Callable) -> str | None:
    start = (torch.tensor([-20.0]), torch.tensor([-30.0]))
    got = _number(call_attempt(attempt, start, start, 0.1))
    if not abs(got - math.log(2)) <= NEAR:  # so that nan is wrong, too, here and below
        return (
            f"policy and reference are the same model, and the loss is {got:.3f}: nothing has moved yet, so the margin "
            "is 0 and the loss -log sigmoid(0) = ln 2 = 0.693"
        )
    for chosen, rejected, beta in ((-18.0, -30.0, 0.1), (-20.0, -26.0, 0.1), (-19.0, -31.0, 0.5), (-25.0, -32.0, 0.1),
                                   (-1120.0, -30.0, 0.1), (-20.0, -1130.0, 0.1)):
        policy = (torch.tensor([chosen], requires_grad=True), torch.tensor([rejected], requires_grad=True))
        case = f"log pi went from (-20, -30) to ({chosen:.0f}, {rejected:.0f}), beta {beta}: "
        got = call_attempt(attempt, policy, start, beta)
        if why := _difference(case, got, reference(policy, start, beta), policy):
            far = math.isinf(_number(got))
            return why + (": sigmoid of a far margin is 0 or its exponential infinite in floating point; "
                          "torch.nn.functional.logsigmoid computes both in one" if far else "")
    policy = (torch.tensor([-18.0, -25.0]), torch.tensor([-30.0, -31.0]))
    before = (torch.tensor([-20.0, -25.0]), torch.tensor([-30.0, -31.0]))
    return _difference("two pairs, beta 0.1: ", call_attempt(attempt, policy, before, 0.1),
                       reference(policy, before, 0.1), ())


def sequence_logprob_fault(attempt: Callable, reference: Callable) -> str | None:
    """A vocabulary of four tokens; rows ask with two tokens or three, answer with as many, and are padded."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 4, generator=generator)
    ids = torch.tensor([[1, 2, 3, 1, 0, 0, 0], [2, 1, 2, 3, 2, 1, 0]])
    mask = torch.tensor([[0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 0]])
    wanted = reference(logits, ids, mask)
    learned = logits.clone().requires_grad_()
    got = call_attempt(attempt, learned, ids, mask)
    if not isinstance(got, torch.Tensor) or got.shape != wanted.shape:
        raise WrongAttempt(f"two rows have to give two numbers, a tensor of shape {tuple(wanted.shape)}")
    if not torch.allclose(got, wanted, atol=NEAR):
        case = f"two answers of 2 and 3 tokens gave {_short(got.detach())} nats, and it should be {_short(wanted)}"
        for why, other in {
            "this is the mean over tokens: then a long answer is as likely as a short one": wanted / mask.sum(1),
            "the question counts, too": reference(logits, ids, (ids > 0).long()),
            "the mask was not moved with the tokens": reference(logits, ids, mask.roll(1, 1)),
            "the logits at t are about token t + 1": _unshifted(logits, ids, mask),
            "padding counts, too": reference(logits, ids, ((mask > 0) | (ids == 0)).long()),
            "the sign is turned: a log-probability is below 0": -wanted,
            "the mask is not used: question and padding count, too": reference(logits, ids, torch.ones_like(mask)),
            "logits are not log-probabilities: log_softmax over the vocabulary comes first": (
                logits[:, :-1].gather(2, ids[:, 1:, None])[..., 0] * mask[:, 1:]).sum(1),
        }.items():
            if torch.allclose(got, other, atol=NEAR):
                return f"{case}: {why}"
        return case
    return _gradient_fault(got.sum(), reference(learned, ids, mask).sum(), learned)


def _unshifted(logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (logits.log_softmax(-1).gather(2, ids[..., None])[..., 0] * mask).sum(1)


def group_advantage_fault(attempt: Callable, reference: Callable) -> str | None:
    for rows in ([[1, -1, -1, -1]], [[1, 1, 1, 1], [1, -1, 1, -1]], [[-1, -1], [1, 1]],
                 [[1, 1, 1, -1], [-1, -1, -1, 1]]):
        rewards = torch.tensor(rows, dtype=torch.float)
        got, wanted = call_attempt(attempt, rewards.clone()), reference(rewards)
        _require_shape(got, rewards)
        for row, mine, right in zip(rows, got, wanted, strict=True):
            if not torch.allclose(mine, right, atol=1e-3):  # wide enough for TRL's 1e-4 beside the deviation
                why = "all are equal, so none is better than its group" if len(set(row)) == 1 else "by its own group"
                if torch.allclose(mine, right * ((len(row) - 1) / len(row)) ** 0.5, atol=1e-3) and right.any():
                    why = "the standard deviation is divided by n, not by n - 1: correction=0"
                digits = 2 if _short(mine) != _short(right) else 4
                return f"rewards {row} gave {_short(mine, digits)}, and it should be {_short(right, digits)} ({why})"


def policy_gradient_fault(attempt: Callable, reference: Callable) -> str | None:
    cases = (([-1.0, -2.0], [-1.0, -2.0], [1.0, -1.0]), ([-1.0, -2.0], [-1.5, -2.0], [1.0, 1.0]),
             ([-0.5], [-1.0], [-1.0]), ([-1.0, -2.0, -0.5], [-1.2, -2.0, -0.5], [1.7, -0.6, 0.0]))
    for now, before, advantages in cases:
        new, old, weights = torch.tensor(now, requires_grad=True), torch.tensor(before), torch.tensor(advantages)
        case = f"new {now}, old {before}, advantages {advantages}: "
        got, wanted = call_attempt(attempt, new, old, weights), reference(new, old, weights)
        if why := _difference(case, got, wanted, (new,)):
            return why


def clipped_fault(attempt: Callable, reference: Callable) -> str | None:
    for ratio, advantage, why in (
        (1.1, 1.0, "inside the limits nothing is clipped"),
        (3.0, 1.0, "it has moved far enough, so it is clipped at 1.2"),
        (0.5, -1.0, "it has fallen far enough, so it is clipped at 0.8"),
        (3.0, -1.0, "a wrong token became likelier: the full -3 has to pull it back"),
        (0.5, 1.0, "a right token became less likely: it must not be clipped, or nothing pulls it back"),
    ):
        got = call_attempt(attempt, torch.tensor([ratio]), torch.tensor([advantage]), 0.2)
        wanted = reference(torch.tensor([ratio]), torch.tensor([advantage]), 0.2)
        _require_shape(got, wanted)
        if not torch.allclose(got, wanted, atol=NEAR):
            case = f"ratio {ratio}, advantage {advantage:+.0f}, epsilon 0.2 gave {float(got):.2f}"
            return f"{case}, and it should be {float(wanted):.2f}: {why}"
    many, signs = torch.tensor([1.1, 3.0, 0.5, 3.0, 0.5], requires_grad=True), torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0])
    got, wanted = call_attempt(attempt, many, signs, 0.2), reference(many, signs, 0.2)
    if not torch.allclose(got, wanted, atol=NEAR):
        case = f"ratios {_short(many)}, advantages {_short(signs)}, epsilon 0.2 gave {_short(got)}"
        return f"{case}, and it should be {_short(wanted)}: each token is clipped by itself"
    if why := _gradient_fault(got.sum(), wanted.sum(), many):
        return why
    ratio, advantage = torch.tensor([1.5, 0.5]), torch.tensor([1.0, -1.0])
    if not torch.allclose(call_attempt(attempt, ratio, advantage, 0.4), reference(ratio, advantage, 0.4), atol=NEAR):
        case = "ratios [1.5, 0.5], advantages [1, -1], epsilon 0.4 should be [1.4, -0.6]"
        return f"{case}: epsilon is an argument, not always 0.2"


def two_means_fault(attempt: Callable, reference: Callable) -> str | None:
    for losses, mask in (
        ([[2.0, 2.0, 2.0, 2.0], [4.0, 0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]),
        ([[9.0, 1.0, 3.0], [9.0, 5.0, 9.0]], [[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]),
        ([[1.0, 1.0], [0.0, 0.0], [2.0, 9.0]], [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]),
    ):
        given = torch.tensor(losses), torch.tensor(mask)
        got, wanted = call_attempt(attempt, *given), reference(*given)
        if not isinstance(got, tuple | list) or len(got) != 2:
            return f"it has to give two means, (of tokens, of completions), and gave {shown(got)}"
        for name, mine, right in zip(("of tokens", "of completions"), got, wanted, strict=True):
            if not abs(float(mine) - float(right)) <= NEAR:
                return (
                    f"losses {losses} with mask {mask}: the mean {name} was {float(mine):.2f}, and it should be "
                    f"{float(right):.2f}"
                )
    learned, mask = torch.ones(2, 3, requires_grad=True), torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    for mine, right in zip(call_attempt(attempt, learned, mask), reference(learned, mask), strict=True):
        if why := _gradient_fault(mine, right, learned):
            return why


def _number(value: object) -> float:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise WrongAttempt(f"a loss is one number, a tensor without dimensions, and it gave {shown(value)}")
    return float(value.detach())


def _difference(case: str, got: object, wanted: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> str | None:
    """What differs in value, or in the gradient for each of `inputs`."""
    if not abs(_number(got) - float(wanted.detach())) <= NEAR:
        return f"{case}the loss was {_number(got):.3f}, and it should be {float(wanted.detach()):.3f}"
    if not inputs:
        return None
    if not got.requires_grad:
        return f"{case}the loss is right and has no gradient: nothing would be learned from it"
    for one, other in zip(_gradients(got, *inputs), _gradients(wanted, *inputs), strict=True):
        if one is None or not torch.allclose(one, other, atol=NEAR):
            return f"{case}the loss is right, but its gradient is {_short(one)}, and it should be {_short(other)}"
    return None


def _gradient_fault(got: object, wanted: torch.Tensor, learned: torch.Tensor) -> str | None:
    """What is wrong with the gradient of a result that is right."""
    (mine,), (right,) = _gradients(got, learned), _gradients(wanted, learned)
    if mine is None:
        return NO_GRADIENT
    if not torch.allclose(mine, right, atol=NEAR):
        return "the numbers are right, and their gradient is another: compute from what was given, and detach nothing"


def _gradients(result: object, *inputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """The gradient for each of `inputs`, None where the result does not depend on it."""
    if not isinstance(result, torch.Tensor) or not result.requires_grad:
        return (None,) * len(inputs)
    return torch.autograd.grad(result, inputs, allow_unused=True, retain_graph=True)


def _require_shape(got: object, like: torch.Tensor) -> None:
    if not isinstance(got, torch.Tensor) or got.shape != like.shape:
        raise WrongAttempt(f"it has to give a tensor of the shape it was given, {tuple(like.shape)}")


def _short(tensor: torch.Tensor | None, digits: int = 2) -> str:
    return "missing" if tensor is None else "[" + ", ".join(f"{value:.{digits}f}" for value in tensor.tolist()) + "]"
