"""Muon: against torch's own, its saved state, and the schedule of its two parts."""

import copy

import pytest
import torch

from phi_lab.config.schema import HardwareConfig
from phi_lab.model import checkpoints
from phi_lab.stages.muon import Muon, Orthogonal, orthogonal


@pytest.fixture
def stepped(student):
    """stepped(steps, state=None, model=None) -> (model, optimizer) after some steps on random tokens."""
    ids = torch.randint(492, (16, 60), generator=torch.Generator().manual_seed(0))

    def run(steps, state=None, model=None):
        model = model or checkpoints.load(student)
        optimizer = Muon(model, lr=1e-2, weight_decay=0.0)
        if state:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            model(ids, labels=ids, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return model, optimizer

    return run


def test_muon_moves_matrices_in_all_directions_and_the_rest_as_adamw(student, stepped):
    before, (model, _) = checkpoints.load(student), stepped(1)
    for (name, old), new in zip(before.named_parameters(), model.parameters(), strict=True):
        update = (new - old).detach()
        if old.ndim == 2 and "embed" not in name:
            values = torch.linalg.svdvals(update)
            assert values[0] / values[len(values) // 2] < 2, name  # a gradient's own spread is ten times as large
            assert update.square().mean().sqrt() == pytest.approx(0.2 * 1e-2, rel=0.3), name  # as AdamW's would be
        else:
            assert update.abs().max() == pytest.approx(1e-2, rel=0.05), name


@pytest.mark.parametrize("shape", [(128, 256), (128, 128), (384, 128)])
def test_muon_steps_as_torch_s_does_but_in_full_precision(shape):
    chance = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(shape, generator=chance), torch.randn((3, *shape), generator=chance)
    ends = []
    for make in (lambda one: Orthogonal(one, 1e-2, 0.1),
                 lambda one: torch.optim.Muon(one, 1e-2, 0.1, 0.95, adjust_lr_fn="match_rms_adamw")):
        weight = torch.nn.Parameter(start.clone())
        optimizer = make([weight])
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        ends.append(weight.detach() - start)
    assert (ends[0] - ends[1]).norm() < 0.03 * ends[1].norm()  # bfloat16 has 8 bits
    values = torch.linalg.svdvals(orthogonal(gradients[0][None])[0])
    assert 0.5 < values.median() and values.max() < 1.5


def test_matrices_of_one_shape_step_as_each_alone():
    """They are multiplied together; each keeps its own momentum and gets its own update, and one without a gradient
    stays.
    """
    chance, shapes = torch.Generator().manual_seed(0), [(8, 16), (16, 8), (8, 16), (8, 8), (8, 16)]
    start = [torch.randn(shape, generator=chance) for shape in shapes]
    gradients = [[torch.randn(shape, generator=chance) for shape in shapes] for _ in range(3)]
    together = [torch.nn.Parameter(one.clone()) for one in start]
    alone = [torch.nn.Parameter(one.clone()) for one in start]
    optimizers = [Orthogonal(together, 1e-2, 0.1), *(Orthogonal([one], 1e-2, 0.1) for one in alone)]
    for some in gradients:
        for place, gradient in enumerate(some[:4]):
            together[place].grad, alone[place].grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert not torch.equal(together[0], start[0]) and torch.equal(together[4], start[4])


def test_muon_goes_on_from_its_saved_state(stepped):
    whole, _ = stepped(4)
    half, optimizer = stepped(2)
    resumed, _ = stepped(2, copy.deepcopy(optimizer.state_dict()), half)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_schedule_reaches_both_parts_of_muon(student):
    optimizer = Muon(checkpoints.load(student), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert [part.param_groups[0]["lr"] for part in optimizer.parts] == [5e-3, 5e-3]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    schedule.step()
    assert [part.param_groups[0]["lr"] for part in optimizer.parts] == [2.5e-3, 2.5e-3]


def test_an_adapter_has_matrices_alone_and_muon_trains_them(student):
    """All that is left for AdamW would be an empty list, which torch refuses."""
    model = checkpoints.load(student, HardwareConfig(adapter="lora"))
    optimizer = Muon(model, lr=1e-2, weight_decay=0.0)
    assert [type(part) for part in optimizer.parts] == [Orthogonal] and not optimizer.state
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    ids = torch.randint(492, (4, 20), generator=torch.Generator().manual_seed(0))
    model(ids, labels=ids, use_cache=False).loss.backward()
    optimizer.step()
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved and all("lora_B" in name for name in moved), "A has no gradient while B is 0"
    assert optimizer.state


def test_its_state_is_that_of_both_parts(stepped):
    _, fresh = stepped(0)
    assert not fresh.state
    _, optimizer = stepped(1)
    assert len(optimizer.state) == sum(len(part.state) for part in optimizer.parts) > len(optimizer.parts[1].state) > 0
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert len(fresh.state) == len(optimizer.state)
