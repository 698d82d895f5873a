"""The DPO of one page: its losses and gradients are TRL's, each row of the arithmetic by hand, and it learns."""

import math

import pytest
import torch
import trl
from datasets import Dataset

from phi_lab.core.errors import UserError
from phi_lab.model import chat, checkpoints, shapes
from phi_lab.stages import minimal_dpo

# A recorded batch of two pairs, as token ids; 0 is padding. Chosen completions first, then the rejected ones.
IDS = torch.tensor([
    [5, 17, 3, 40, 41, 42, 1],
    [8, 2, 77, 1, 0, 0, 0],
    [5, 17, 3, 40, 9, 1, 0],
    [8, 2, 60, 61, 62, 1, 0],
])
MASK = torch.tensor([  # 1: a token of the completion
    [0, 0, 0, 1, 1, 1, 1],
    [0, 0, 1, 1, 0, 0, 0],
    [0, 0, 0, 1, 1, 1, 0],
    [0, 0, 1, 1, 1, 1, 0],
])


def tiny(seed):
    model = shapes.build("phi-nano", 96, seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2 if weight.dim() > 1 else 1)
    return model


def trl_loss(model, reference, tokenizer, kind, out, sft_weight=0.0):
    """TRL's own loss: `DPOTrainer.compute_loss`."""
    kinds, weights = ([kind, "sft"], [1.0, sft_weight]) if sft_weight else ([kind], None)
    arguments = trl.DPOConfig(
        output_dir=str(out), loss_type=kinds, loss_weights=weights, beta=0.1, report_to="none", use_cpu=True,
        bf16=False, per_device_train_batch_size=2,
    )
    pairs = Dataset.from_list([{"prompt": "1+1=", "chosen": "2", "rejected": "3"}] * 2)
    trainer = trl.DPOTrainer(
        model=model, ref_model=reference, args=arguments, train_dataset=pairs, processing_class=tokenizer
    )
    batch = {"input_ids": IDS, "attention_mask": (IDS != 0).long(), "completion_mask": MASK}
    return trainer.compute_loss(model.train(), batch)


def gradient(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize(("kind", "sft_weight"), [("sigmoid", 0), ("ipo", 0), ("apo_zero", 0), ("sigmoid", 100)])
def test_loss_and_gradient_are_trl_s(tmp_path, tokenizer, kind, sft_weight):
    model, theirs, reference = tiny(0), tiny(0), tiny(1)
    policy = minimal_dpo.completion_logprobs(model, IDS, MASK)
    with torch.no_grad():
        start = minimal_dpo.completion_logprobs(reference, IDS, MASK)
    lengths = MASK.sum(1)
    loss = minimal_dpo.dpo_loss(policy, start, lengths, 0.1, kind)
    loss = loss + sft_weight * minimal_dpo.chosen_loss(policy, lengths)
    wanted = trl_loss(theirs, reference, tokenizer, kind, tmp_path, sft_weight)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5, abs=1e-5)
    ours, wanted = gradient(model, loss), gradient(theirs, wanted)
    assert wanted.norm() > 0.01
    assert (ours - wanted).norm() / wanted.norm() < 1e-5


def test_losses_by_hand():
    """One pair: the chosen completion of 4 tokens gained 2 nats, the rejected one of 2 tokens lost 1. beta = 0.1."""
    policy, reference, lengths = torch.tensor([-6.0, -9.0]), torch.tensor([-8.0, -8.0]), torch.tensor([4.0, 2.0])

    def loss(kind):
        return minimal_dpo.dpo_loss(policy, reference, lengths, 0.1, kind).item()

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    assert loss("sigmoid") == pytest.approx(-math.log(sigmoid(0.1 * (2 - -1))))
    assert loss("ipo") == pytest.approx((2 / 4 - -1 / 2 - 1 / (2 * 0.1)) ** 2)  # a margin of 1 nat a token; 5 wanted
    assert loss("apo_zero") == pytest.approx(1 - sigmoid(0.1 * 2) + sigmoid(0.1 * -1))
    with pytest.raises(UserError, match="unknown loss 'hinge': choose sigmoid, ipo or apo_zero"):
        loss("hinge")


def test_the_loss_begins_at_ln_2_with_a_gradient_of_half_beta():
    start = torch.tensor([-6.0, -9.0])
    policy = start.clone().requires_grad_()
    loss = minimal_dpo.dpo_loss(policy, start, torch.ones(2), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert policy.grad.tolist() == pytest.approx([-0.05, 0.05])


def test_the_log_probability_is_a_sum_over_the_completion_alone():
    model = tiny(0)
    with torch.no_grad():
        got = minimal_dpo.completion_logprobs(model, IDS, MASK)
        logprobs = model(input_ids=IDS[1:2, :4]).logits[0].log_softmax(-1)  # alone, without padding
    assert got[1].item() == pytest.approx((logprobs[1, 77] + logprobs[2, 1]).item(), abs=1e-4)


def test_rows_are_prompt_completion_and_stop_token(tokenizer):
    prompt, odd = "Find 9*7.", "7<|end|>"  # text that looks like a stop token is read as its letters
    pairs = [{"prompt": prompt, "chosen": "63", "rejected": "6"}, {"prompt": prompt, "chosen": odd, "rejected": "163"}]
    ids, mask = minimal_dpo.to_rows(tokenizer, pairs)
    asked = chat.prompt_ids(tokenizer, "Find 9*7.")
    for row, (row_mask, text) in enumerate(zip(mask.bool(), ["63", odd, "6", "163"], strict=True)):
        completion = ids[row][row_mask].tolist()
        assert ids[row, : len(asked)].tolist() == asked and not row_mask[: len(asked)].any()
        assert tokenizer.decode(completion[:-1]) == text and completion.count(tokenizer.eos_token_id) == 1
        assert completion[-1] == tokenizer.eos_token_id


def test_training_prefers_what_is_chosen(shipped, tokenizer):
    """Right answers over wrong ones: from ln 2 down, the margin grows, and the reference does not move."""
    model = checkpoints.load(shipped("base"))
    pairs = [
        {"prompt": f"Compute {n}+{n + 3}.", "chosen": f"\\boxed{{{2 * n + 3}}}",
         "rejected": f"\\boxed{{{2 * n + 4}}}"}
        for n in range(20, 36)
    ]
    rows = minimal_dpo.train(model, tokenizer, pairs, steps=5, batch_size=16, learning_rate=2e-4, on_step=len)
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4) and rows[0]["chosen"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.02
    assert rows[-1]["chosen"] > rows[-1]["rejected"] + 0.5 and rows[-1]["right_order"] > 0.8
