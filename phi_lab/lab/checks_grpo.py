"""Checks of the exercises about GRPO: temperature and advantages (notebook 05), mixed groups (08)."""

from collections.abc import Callable, Sequence

import torch

from phi_lab.lab.grading import WrongAttempt, call_attempt, shown


def advantage_fault(attempt: Callable, reference: Callable) -> str | None:
    def rewards_of(*rows: str) -> torch.Tensor:
        return torch.tensor([[1.0 if sign == "+" else -1.0 for sign in row] for row in rows])

    eight = rewards_of("+-------", "++++----", "+++++---", "--------", "++++++++")
    six = rewards_of("+-----", "+++---", "++++--")
    for rewards, kept in ((eight, (1, 4, 0, 0, 0)), (six, (1, 3, 0))):
        drawn = set()
        for seed in range(6):
            got, again = _advantages(attempt, rewards, seed), _advantages(attempt, rewards, seed)
            if why := _row_fault(rewards, got, kept):
                return why
            if not torch.equal(got, again):
                return (
                    f"the same rewards and a generator of the same seed gave {shown(got[0])}, then {shown(again[0])}: "
                    "draw with generator=random, else no run can be repeated"
                )
            drawn.add(tuple(got[0].tolist()))
        if len(drawn) == 1:
            return "the same wrong answers are kept every time; draw them at random, with generator=random"


def _advantages(attempt: Callable, rewards: torch.Tensor, seed: int) -> torch.Tensor:
    got = call_attempt(attempt, rewards.clone(), torch.Generator().manual_seed(seed))
    if not isinstance(got, torch.Tensor) or got.shape != rewards.shape:
        raise WrongAttempt(f"rewards of shape {tuple(rewards.shape)} have to give a tensor of the same shape")
    return got


def _row_fault(rewards: torch.Tensor, got: torch.Tensor, kept: Sequence[int]) -> str | None:
    for row, values, k in zip(rewards, got, kept, strict=True):
        case = f"rewards {shown(row.int())} gave {shown(values)}: "
        if not set(values.tolist()) <= {-1.0, 0.0, 1.0} or (values * row < 0).any():
            return case + "an advantage is +1 for a right answer that counts, -1 for a wrong one that counts, else 0"
        hits, misses = int((values > 0).sum()), int((values < 0).sum())
        if (hits, misses) != (k, k):
            return f"{case}{hits} right and {misses} wrong answers count, and it should be {k} of each"
    return None


def temperature_fault(attempt: Callable, reference: Callable) -> str | None:
    for steps in (30, 31, 100):
        for step in (0, steps // 4, steps // 3, steps // 2, steps // 2 + 1, 3 * steps // 4, steps - 1):
            got, right = call_attempt(attempt, step, steps), reference(step, steps)
            if not abs(got - right) <= 1e-6:
                return (
                    f"temperature({step}, {steps}) gave {shown(got)}, and it should be {right:.4f}: "
                    f"half of {steps} steps is {steps / 2:g}"
                )


def mixed_share_fault(attempt: Callable, reference: Callable) -> str | None:
    for rewards in ([[1, -1], [1, 1]], [[-1, -1], [-1, -1]], [[1, -1, -1], [-1, 1, 1], [1, 1, 1], [-1, -1, -1]],
                    [[1, 1, -1, -1], [1, -1, -1, 1], [-1, -1, -1, -1]]):
        tensor = torch.tensor(rewards, dtype=torch.float)
        got, wanted = float(call_attempt(attempt, tensor)), reference(tensor)
        if not abs(got - wanted) <= 1e-6:
            return f"mixed_share({rewards}) gave {got:.2f}, and {wanted:.2f} of the groups hold both kinds"
