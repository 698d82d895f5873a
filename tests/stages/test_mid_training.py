"""Mid-training learns, stops on a plateau, and resumes where it was killed."""

from dataclasses import replace

import pytest
from stage_helpers import MID, both, check_leftovers, interrupted, loss_on, moved, same

from phi_lab.config import schema
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.model import checkpoints
from phi_lab.stages import lm_trainer, mid_training, packing

STILL = schema.LanguageModelingConfig(
    learning_rate=0.0, batch_size=2, row_length=320, steps=100, eval_steps=2, patience=3
)


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


@pytest.mark.slow
def test_training_ends_where_validation_stops_improving(tmp_path, student, data):
    """A rate of zero improves nothing: one evaluation to start from, `patience` without a better one, and the end."""
    result = mid_training.train(student, *both(data), tmp_path, STILL, seed=0)
    assert max(row["step"] for row in result.metrics) == 2 * (1 + 3)
    assert moved(student, result.model) == 0


@pytest.mark.slow
def test_the_rate_falls_to_zero_after_the_plateau_and_then_training_ends(tmp_path, student, data):
    """The plateau is seen at step 8, so step 10, the second of the four, takes three quarters of the rate."""
    still = replace(STILL, learning_rate=1e-9, cooldown_steps=4)
    result = mid_training.train(student, *both(data), tmp_path, still, seed=0)
    rates = [row["learning_rate"] for row in result.metrics if row["step"] == 10 and "learning_rate" in row]
    assert rates == [pytest.approx(7.5e-10)]
    assert max(row["step"] for row in result.metrics) == 12
    assert "eval_loss" in result.metrics[-1]


def test_a_slow_fall_is_no_plateau():
    def patience_used(losses):
        plateau = lm_trainer.Plateau(2, 5e-3, 4)
        for loss in losses:
            plateau.check_metric_value(None, None, None, loss)
        return plateau.early_stopping_patience_counter

    assert patience_used([0.115, 0.112, 0.107]) == 0  # 3 and 5 thousandths: together more than 5
    assert patience_used([0.115, 0.112, 0.111]) == 2
    assert patience_used([0.115, 0.100, 0.120, 0.096]) == 2


def test_a_plateau_that_never_comes_leaves_the_last_steps_to_the_cooldown():
    plateau = lm_trainer.Plateau(3, 5e-3, 4)
    assert [plateau.factor(step, 10) for step in (0, 6, 8, 10)] == [1, 1, 0.5, 0]
    assert lm_trainer.Plateau(3, 5e-3, 0).factor(9, 10) == 1
    plateau.falls_from = 7  # one that comes when the rate is falling already changes nothing
    assert [plateau.factor(step, 10) for step in (6, 8, 10)] == [1, 0.5, 0]


@pytest.mark.slow
def test_the_best_weights_are_kept_when_training_makes_it_worse(tmp_path, student, data):
    wild = replace(MID, learning_rate=0.1, batch_size=2, steps=12, eval_steps=1)
    held = read_rows(data / "validation-right.jsonl")
    result = mid_training.train(student, *both(data), tmp_path, wild, seed=0)
    losses = [row["eval_loss"] for row in result.metrics if "eval_loss" in row]
    assert losses[-1] > min(losses) + 0.3  # it did get worse
    assert loss_on(result.model, held) == pytest.approx(min(losses), abs=0.1)


def test_a_plateau_needs_validation(tmp_path, student, data):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(UserError, match="no validation documents"):
        mid_training.train(student, data / "train-right.jsonl", tmp_path / "none.jsonl", tmp_path, MID, seed=0)


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
def test_a_resumed_plateau_ends_where_it_would_have_ended(tmp_path, student, data, monkeypatch):
    """The evaluations without improvement before the kill count too, and so do the steps of the cooldown."""
    for place, (at, cooldown, expected) in enumerate(((5, 0, [5, 6, 7, 8]), (11, 4, [11, 12]))):
        still = replace(STILL, learning_rate=1e-9, cooldown_steps=cooldown)

        def run(out=tmp_path / str(place), still=still):
            return mid_training.train(student, *both(data), out, still, seed=0)

        _, steps = interrupted(monkeypatch, run, at=at)
        assert steps == expected


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
    config = replace(MID, steps=13, patience=0, eval_steps=0, batch_size=2)
    right, model, tokenizer = read_rows(both(data)[0]), checkpoints.load(student), checkpoints.load_tokenizer(student)
    documents = [packing.document(tokenizer, row["prompt"], row["completion"]) for row in right]
    result = lm_trainer.fit(model, tokenizer, documents, [], tmp_path, config, pack=packing.pack_best_fit, packed=True,
                            seed=0, title="13 steps")
    assert result.metrics[-1]["step"] == 10
    assert result.train_tokens == 13 * 2 * MID.row_length
