"""Mid-training learns, takes the epochs it is told, replays text of pretraining, and resumes where it was killed."""

from dataclasses import replace

import pytest
from stage_helpers import MID, both, check_leftovers, interrupted, loss_on, moved, same

from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.model import checkpoints
from phi_lab.stages import lm_trainer, mid_training, packing


def test_mid_training_learns(tmp_path, student, data):
    result = mid_training.train(student, *both(data), tmp_path, MID, seed=0)
    check_leftovers(result, tmp_path)
    assert moved(student, result.model) > 0.01
    for name in ("train-right", "validation-right"):
        rows = read_rows(data / f"{name}.jsonl")
        assert loss_on(result.model, rows) < loss_on(student, rows) - 0.5
    assert result.train_tokens == MID.steps * MID.batch_size * MID.row_length  # packed rows are all as long
    losses = [row["eval_loss"] for row in result.metrics if "eval_loss" in row]
    assert len(losses) == 3 and losses == sorted(losses, reverse=True)  # improving: all six steps are taken
    assert losses[-1] == pytest.approx(loss_on(result.model, read_rows(data / "validation-right.jsonl")), abs=0.05)


def test_epochs_decide_the_steps_and_the_rate_falls_to_zero_at_their_end(tmp_path, student, data):
    """Three passes over the rows; after a constant phase the rate falls linearly over the last half of the steps."""
    config = replace(MID, steps=1000, epochs=3, lr_schedule="warmup_stable_decay", warmup_ratio=0.0, decay_ratio=0.5,
                     eval_steps=0, batch_size=1)
    tokenizer = checkpoints.load_tokenizer(student)
    right = read_rows(both(data)[0])
    lengths = [len(packing.document(tokenizer, row["prompt"], row["completion"])[0]) for row in right]
    rows = len(packing.pack_best_fit(lengths, MID.row_length))
    result = mid_training.train(student, *both(data), tmp_path, config, seed=0)
    assert result.train_tokens == 3 * rows * MID.row_length
    rates = [row["learning_rate"] for row in result.metrics if "learning_rate" in row]
    steps = [row["step"] for row in result.metrics if "learning_rate" in row]
    assert rates[0] == config.learning_rate
    for step, rate in zip(steps, rates, strict=True):  # that of a step is logged after it was taken
        falling = (3 * rows - step + 1) / round(1.5 * rows)
        assert rate == pytest.approx(config.learning_rate * min(1.0, falling), rel=1e-6)
    limited = replace(config, steps=2)
    assert lm_trainer.count_steps(rows, limited) == 2  # steps are a limit


def test_a_share_of_the_tokens_is_replayed_text(tmp_path, student, data, monkeypatch):
    """And it is text of pretraining, not of the set: logic, which no rollout shows, is among it."""
    seen, real = [], lm_trainer.fit

    def fit(model, tokenizer, documents, *rest, **options):
        seen.append([tokenizer.decode(ids) for ids, _ in documents])
        seen.append([len(ids) for ids, _ in documents])
        return real(model, tokenizer, documents, *rest, **options)

    monkeypatch.setattr(lm_trainer, "fit", fit)
    mid_training.train(student, *both(data), tmp_path, replace(MID, steps=1, replay_share=0.3), seed=0)
    texts, lengths = seen
    own = len(read_rows(both(data)[0]))
    assert sum(lengths[own:]) / sum(lengths) == pytest.approx(0.3, abs=0.02)
    assert not any("Run the stack" in text for text in texts[:own])
    assert sum("Run the stack" in text or "how many are true" in text for text in texts[own:]) > len(texts[own:]) / 3


@pytest.mark.slow
def test_the_best_weights_are_kept_when_training_makes_it_worse(tmp_path, student, data):
    wild = replace(MID, learning_rate=0.1, batch_size=2, steps=4, eval_steps=1, keep_best=True)
    held = read_rows(data / "validation-right.jsonl")
    result = mid_training.train(student, *both(data), tmp_path, wild, seed=0)
    losses = [row["eval_loss"] for row in result.metrics if "eval_loss" in row]
    assert losses[-1] > min(losses) + 0.3  # it did get worse
    assert loss_on(result.model, held) == pytest.approx(min(losses), abs=0.1)


def test_the_best_weights_need_validation(tmp_path, student, data):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(UserError, match="no validation documents"):
        mid_training.train(student, data / "train-right.jsonl", tmp_path / "none.jsonl", tmp_path,
                           replace(MID, keep_best=True), seed=0)


def test_documents_that_fit_no_row_are_told(tmp_path, student, data):
    (tmp_path / "short.jsonl").write_text('{"prompt": "1", "completion": "1"}\n')
    for right, room, what in (
        (data / "train-right.jsonl", 8, "training"),
        (tmp_path / "short.jsonl", 12, "validation"),
    ):
        with pytest.raises(UserError, match=f"no {what} document fits into {room} tokens"):
            mid_training.train(student, right, both(data)[1], tmp_path / what, replace(MID, row_length=room), seed=0)


@pytest.mark.slow
def test_mid_training_killed_and_resumed_ends_at_the_same_weights(tmp_path, student, data, monkeypatch):
    def run(out):
        return mid_training.train(student, *both(data), out, MID, seed=3)

    whole = run(tmp_path / "whole")
    resumed, steps = interrupted(monkeypatch, lambda: run(tmp_path / "resumed"), at=5)
    assert steps == [5, 6]  # it went on from the checkpoint at step 4
    same(whole, resumed)


@pytest.mark.slow
def test_a_checkpoint_that_was_only_half_written_is_not_resumed_from(tmp_path, student, data, monkeypatch):
    def run(out):
        return mid_training.train(student, *both(data), out, MID, seed=3)

    half = tmp_path / "trainer" / "checkpoint-4"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half of it")
    same(run(tmp_path), run(tmp_path / "whole"))


def test_tokens_are_counted_to_the_last_step(tmp_path, student, data):
    """Not to the last step that was logged, every tenth."""
    config = replace(MID, steps=13, eval_steps=0, batch_size=2)
    right, model, tokenizer = read_rows(both(data)[0]), checkpoints.load(student), checkpoints.load_tokenizer(student)
    documents = [packing.document(tokenizer, row["prompt"], row["completion"]) for row in right]
    result = lm_trainer.fit(model, tokenizer, documents, [], tmp_path, config, pack=packing.pack_best_fit, packed=True,
                            seed=0, title="13 steps")
    assert result.metrics[-1]["step"] == 10
    assert result.train_tokens == 13 * 2 * MID.row_length
