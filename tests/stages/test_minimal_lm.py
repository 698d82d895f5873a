"""The masks of one page: what has a loss, what sees what; and the same logits and loss as the package's fast path."""

import pytest
import torch

from phi_lab.model import shapes
from phi_lab.stages import minimal_lm, packing
from phi_lab.stages.packing import IGNORE

# Two documents of 4 and 3 tokens in a row of 9; the rest is padding, a document of its own.
ROWS = [{"input_ids": [5, 6, 7, 8, 5, 9, 3, 0, 0], "labels": [-100, -100, 7, 8, -100, 9, 3, -100, -100],
         "position_ids": [0, 1, 2, 3, 0, 1, 2, 0, 1]}]


@pytest.fixture(scope="module")
def model():
    built = shapes.build("phi-nano", 96, 0)
    with torch.no_grad():
        for weight in built.parameters():
            weight.mul_(3 if weight.dim() > 1 else 1)  # so that a token that is seen by mistake shows
    return built


def as_batch(rows):
    return packing.collate(0)(rows)


def test_loss_mask_is_the_package_s(tokenizer):
    """The question has no loss, the answer and its stop token have."""
    ids, labels = packing.document(tokenizer, "Find 9*7.", r"\boxed{63}")
    completion = len(tokenizer(r"\boxed{63}").input_ids) + 1
    mask = minimal_lm.loss_mask(len(ids) - completion, completion)
    assert mask == [int(label != IGNORE) for label in labels]
    assert mask[-1] == 1 and ids[-1] == tokenizer.eos_token_id
    assert minimal_lm.loss_mask(3, 2) == [0, 0, 0, 1, 1]


def test_document_mask_by_hand():
    """A row for each token, a column for each token that it may see."""
    mask = minimal_lm.document_mask(torch.tensor([ROWS[0]["position_ids"]]))
    assert mask[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0, 0],  # the second document does not see the first
        [0, 0, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 0],  # nor does padding
        [0, 0, 0, 0, 0, 0, 0, 1, 1],
    ]


def test_logits_are_those_of_the_fast_path_and_of_each_document_alone(model):
    batch = as_batch(ROWS)
    ids, positions = batch["input_ids"], batch["position_ids"]
    with torch.no_grad():
        ours = minimal_lm.masked_logits(model, ids, positions, minimal_lm.document_mask(positions))
        fast = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        alone = torch.cat([model(input_ids=ids[:, :4]).logits, model(input_ids=ids[:, 4:7]).logits], 1)
        causal = torch.ones(1, 9, 9, dtype=torch.bool).tril()
        leaking = minimal_lm.masked_logits(model, ids, positions, causal)
    assert torch.allclose(ours, fast, atol=1e-5)
    assert torch.allclose(ours[:, :7], alone, atol=1e-5)
    leak = (leaking - ours)[0].abs().amax(-1)
    assert leak[:4].max() < 1e-5 and leak[4:7].min() > 0.01  # without the mask the second document sees the first


def test_loss_and_gradient_are_those_of_the_fast_path(model):
    batch = as_batch(ROWS)
    ids, positions, labels = batch["input_ids"], batch["position_ids"], batch["labels"]

    def gradient(loss):
        model.zero_grad()
        loss.backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    logits = minimal_lm.masked_logits(model, ids, positions, minimal_lm.document_mask(positions))
    loss = minimal_lm.next_token_loss(logits, ids, labels != IGNORE)
    wanted = model(input_ids=ids, position_ids=positions, labels=labels, use_cache=False).loss
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    ours, wanted = gradient(loss), gradient(wanted)
    assert wanted.norm() > 0.1 and (ours - wanted).norm() / wanted.norm() < 1e-5


def test_loss_by_hand():
    """Four tokens of a vocabulary of three; the first predicts the second, and only the last two have a loss."""
    probabilities = torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5], [0.9, 0.05, 0.05]]])
    ids, mask = torch.tensor([[0, 2, 1, 0]]), torch.tensor([[0, 0, 1, 1]])
    loss = minimal_lm.next_token_loss(probabilities.log(), ids, mask)
    # token 1 after the second position: 0.8; token 0 after the third: 0.25
    assert loss.item() == pytest.approx(-torch.tensor([0.8, 0.25]).log().mean().item())


def test_training_learns_what_it_is_shown(tokenizer):
    documents = [packing.document(tokenizer, f"Find {n}*7.", str(7 * n)) for n in range(2, 8)]
    rows = packing.pack_best_fit([len(ids) for ids, _ in documents], 40)
    assert max(map(len, rows)) > 1  # packed
    fresh = shapes.build("phi-nano", len(tokenizer), 0)
    losses = minimal_lm.train(fresh, documents, rows, steps=40, batch_size=3, learning_rate=3e-3, on_step=float)
    assert losses[0] == pytest.approx(torch.tensor(float(len(tokenizer))).log().item(), abs=0.5)
    assert losses[-1] < 0.5
