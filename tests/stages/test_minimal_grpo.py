"""The GRPO of one page: its loss and gradient are TRL's, each row of the arithmetic by hand, and it learns."""

from dataclasses import replace

import pytest
import torch
import trl
from stage_helpers import odd_text

from phi_lab import sampling
from phi_lab.model import checkpoints, shapes
from phi_lab.problems import arithmetic
from phi_lab.stages import grpo, minimal_grpo
from phi_lab.stages.grpo_trainer import problems_dataset

LIMIT = 6  # the longest completion that the recorded batch could have had

# A recorded batch: two prompts (of 3 and 2 tokens), two completions each, of which the first was rewarded.
PROMPTS = [[5, 17, 3], [5, 17, 3], [8, 2], [8, 2]]
COMPLETIONS = [[40, 41, 42, 1], [40, 9, 1], [77, 1], [60, 61, 62, 63, 64]]
ADVANTAGES = [1.0, -1.0, 1.0, -1.0]
# exp(new - old) of each completion's tokens, planted by choosing `old`. With epsilon 0.2 the ones beyond 0.8 to 1.2 in
# the advantage's direction are clipped: 1.5 in the first row (A > 0), 0.5 in the second and the last (A < 0).
RATIOS = [[1.5, 1.0, 0.5, 1.1], [0.5, 1.5, 1.0], [0.9, 1.0], [1.0, 0.5, 1.3, 0.9, 1.0]]


def tiny(seed=0):
    """A small random Phi, with larger weights than at the start of training, so that no two tokens look alike."""
    model = shapes.build("phi-nano", 96, seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.dim() > 1 else 1)
    return model


def recorded_batch(model, temperature, ratios):
    rollouts = [sampling.Sample(ids, [0.0] * len(ids), "", "stop") for ids in COMPLETIONS]
    batch = minimal_grpo.to_batch(PROMPTS, rollouts, torch.tensor(ADVANTAGES)[:, None])
    with torch.no_grad():
        old = minimal_grpo.token_logprobs(model, batch.ids, temperature)
    if ratios:
        planted = torch.ones_like(old)
        planted[batch.mask == 1] = torch.tensor([ratio for row in ratios for ratio in row])
        old = old - planted.log()
    return replace(batch, old=old * batch.mask)


def trl_batch(batch):
    """The same rollouts in TRL's layout: prompts padded on the left, completions on the right, in tensors of their own.
    """
    width, count = max(map(len, PROMPTS)), len(PROMPTS)
    longest = max(map(len, COMPLETIONS))
    old = torch.zeros(count, longest)
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        old[row, : len(completion)] = batch.old[row, len(prompt) - 1 : len(prompt) - 1 + len(completion)]
    return {
        "prompt_ids": torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in PROMPTS]),
        "prompt_mask": torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS]),
        "completion_ids": torch.tensor([ids + [0] * (longest - len(ids)) for ids in COMPLETIONS]),
        "completion_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in COMPLETIONS]),
        "advantages": torch.tensor(ADVANTAGES),
        "old_per_token_logps": old,
        "num_items_in_batch": torch.tensor(sum(map(len, COMPLETIONS))),
    }


def trl_loss(model, tokenizer, batch, loss_type, temperature, out):
    """TRL's own loss: `GRPOTrainer.compute_loss`."""
    arguments = trl.GRPOConfig(
        output_dir=str(out), loss_type=loss_type, temperature=temperature, epsilon=0.2, beta=0.0, report_to="none",
        max_completion_length=LIMIT, num_generations=2, per_device_train_batch_size=4, use_cpu=True, bf16=False,
    )
    trainer = trl.GRPOTrainer(
        model=model, reward_funcs=[lambda completions, **_: [0.0] * len(completions)], args=arguments,
        train_dataset=problems_dataset(arithmetic.sample_problems(4, 1)), processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.args.steps_per_generation = 1
    return trainer.compute_loss(model.train(), trl_batch(batch))


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("temperature", [1.0, 0.6])  # the two ends of the schedule
@pytest.mark.parametrize("ratios", [None, RATIOS], ids=["on-policy", "clipped"])
@pytest.mark.parametrize("loss_type", ["dapo", "dr_grpo"])
def test_loss_and_gradient_are_trl_s(tmp_path, tokenizer, loss_type, ratios, temperature):
    mean = minimal_grpo.token_mean if loss_type == "dapo" else minimal_grpo.constant_length_mean(LIMIT)
    model, theirs = tiny(), tiny()
    batch = recorded_batch(model, temperature, ratios)
    loss = minimal_grpo.policy_loss(model, batch, temperature, epsilon=0.2, mean=mean)
    wanted = trl_loss(theirs, tokenizer, batch, loss_type, temperature, tmp_path)
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    ours, wanted = gradient(model, loss), gradient(theirs, wanted)
    assert wanted.norm() > 0.1
    assert (ours - wanted).norm() / wanted.norm() < 1e-5


def test_the_loss_of_the_recorded_batch_by_hand():
    """Row by row: ratio, clipped ratio, and -min(ratio x A, clipped x A). The loss depends on no log-probability."""
    wanted = [
        # A = +1: above 1.2 it counts as 1.2, below 0.8 as it is
        [-1.2, -1.0, -0.5, -1.1],
        # A = -1: below 0.8 it counts as 0.8, above 1.2 as it is
        [0.8, 1.5, 1.0],
        [-0.9, -1.0],
        [1.0, 0.8, 1.3, 0.9, 1.0],
    ]
    for ratios, advantage, losses in zip(RATIOS, ADVANTAGES, wanted, strict=True):
        new = torch.tensor(ratios).log()
        got = minimal_grpo.clipped_token_loss(new, torch.zeros(len(ratios)), torch.tensor(advantage), 0.2)
        assert got.tolist() == pytest.approx(losses)
    total = -3.8 + 3.3 - 1.9 + 5.0
    model = tiny()
    batch = recorded_batch(model, 1.0, RATIOS)
    by_tokens = minimal_grpo.policy_loss(model, batch, 1.0)
    assert by_tokens.item() == pytest.approx(total / 14, abs=1e-5)  # 4 + 3 + 2 + 5 tokens
    by_length = minimal_grpo.policy_loss(model, batch, 1.0, mean=minimal_grpo.constant_length_mean(LIMIT))
    assert by_length.item() == pytest.approx(total / (4 * 6), abs=1e-5)  # 4 completions of at most 6 tokens


def test_a_ratio_of_one_has_a_gradient_and_a_clipped_ratio_has_none():
    old, advantages = torch.zeros(5), torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0])
    new = torch.tensor([1.0, 1.5, 0.5, 1.5, 0.5]).log().requires_grad_()
    minimal_grpo.clipped_token_loss(new, old, advantages, 0.2).sum().backward()
    # ratio 1: -A. Clipped: 0. On the wrong side of the range: -A x ratio.
    assert new.grad.tolist() == pytest.approx([-1.0, 0.0, 0.0, 1.5, -0.5])


def test_the_layout_of_a_batch():
    """Column t belongs to token t + 1: the last token of the prompt predicts the first of the completion."""
    rollouts = [sampling.Sample([40, 41, 1], [-0.1, -0.2, -0.3], "", "stop"), sampling.Sample([9], [-0.4], "", "stop")]
    batch = minimal_grpo.to_batch([[5, 17, 3], [8, 2]], rollouts, torch.tensor([[1.0], [-1.0]]))
    assert batch.ids.tolist() == [[5, 17, 3, 40, 41, 1], [8, 2, 9, 0, 0, 0]]
    assert batch.mask.tolist() == [[0, 0, 1, 1, 1], [0, 1, 0, 0, 0]]
    assert batch.old[0].tolist() == pytest.approx([0, 0, -0.1, -0.2, -0.3])
    assert batch.old[1].tolist() == pytest.approx([0, -0.4, 0, 0, 0])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_sampler_s_log_probabilities_are_the_model_s(shipped, temperature):
    """So every ratio is 1 at the first update. At another temperature none would be."""
    model, tokenizer = checkpoints.load(shipped("mid")), checkpoints.load_tokenizer(shipped("mid"))
    params = sampling.SamplingParams(n=4, temperature=temperature, max_tokens=160, seed=1)
    problems = arithmetic.sample_problems(4, 1)
    batch, rewards = minimal_grpo.collect(model, tokenizer, problems, params, grpo.verified, grpo.group_normalised)
    assert rewards.shape == (4, 4) and batch.advantages.shape == (16, 1)
    with torch.no_grad():
        ratios = {
            heat: (minimal_grpo.token_logprobs(model, batch.ids, heat) - batch.old).exp()[batch.mask == 1]
            for heat in (temperature, 1.6 - temperature)
        }
    assert (ratios[temperature] - 1).abs().max() < 1e-3
    assert (ratios[1.6 - temperature] - 1).abs().max() > 0.1


def test_rows_without_an_advantage_change_nothing_and_cost_nothing(tokenizer):
    """A step of `train` moves the weights as the loss of the rows that have an advantage does; without any it does not.
    """
    problems = arithmetic.sample_problems(4, 1)
    settings = {"steps": 1, "prompts_per_step": 4, "group_size": 4, "max_new_tokens": 3, "on_step": lambda row: None}

    def trained(reward):
        model = shapes.build("phi-nano", len(tokenizer), 0)
        before = [weight.detach().clone() for weight in model.parameters()]
        rows = minimal_grpo.train(model, tokenizer, problems, reward=reward, **settings)
        changes = [(new.detach() - old).abs().max() for old, new in zip(before, model.parameters(), strict=True)]
        return rows[0], max(changes)

    row, change = trained(odd_text)
    assert 0 < row["kept_share"] < 1 and row["grad_norm"] > 0 and change > 1e-5
    row, change = trained(lambda texts, answers: [1.0] * len(texts))
    assert row["kept_share"] == 0 and "grad_norm" not in row and change == 0


def test_several_updates_on_a_batch_move_ratios_until_they_are_clipped(tokenizer):
    seen = []

    def recording_mean(losses, mask):
        seen.append(losses.detach()[mask == 1])
        return minimal_grpo.token_mean(losses, mask)

    minimal_grpo.train(
        shapes.build("phi-nano", len(tokenizer), 0), tokenizer, arithmetic.sample_problems(4, 1), steps=1,
        prompts_per_step=4, max_new_tokens=3, updates=20, learning_rate=1e-3, reward=odd_text, mean=recording_mean,
        on_step=lambda row: None,
    )
    first, last = seen[0], [round(value, 4) for value in seen[-1].tolist()]
    assert len(seen) == 20 and (first.abs() - 1).abs().max() < 1e-3  # -ratio x advantage: every ratio is 1
    assert last.count(-1.2) > 5 and last.count(0.8) > 5  # clipped, each in its advantage's direction
