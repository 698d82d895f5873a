"""Every stage really trains: a few real steps each, the parts by hand, and what must not move does not."""

import copy
import math
import random
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from phi_lab import sampling
from phi_lab.config import presets, schema
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.model import chat, checkpoints, shapes
from phi_lab.problems import arithmetic, worked_solutions
from phi_lab.stages import base, grpo, mid_training, rollout_dpo, sft, training
from phi_lab.stages import language_modeling as lm
from phi_lab.stages.muon import Muon, Orthogonal, orthogonal

MID = schema.LanguageModelingConfig(learning_rate=1e-3, batch_size=4, row_length=320, steps=6, eval_steps=2, patience=3)
STILL = schema.LanguageModelingConfig(learning_rate=0.0, batch_size=2, row_length=320, steps=100, eval_steps=2, patience=3)
SFT = schema.LanguageModelingConfig(learning_rate=1e-3, batch_size=8, row_length=320, steps=15, documents=40)
DPO = schema.DPOConfig(learning_rate=1e-3, batch_size=4, max_pairs=16, max_student_nll=math.inf, pairs_per_question=2)
GRPO = schema.GRPOConfig(learning_rate=1e-3, steps=6, prompts_per_step=4, group_size=8, candidate_prompts=8, max_new_tokens=1)


def both(folder):
    """Training and validation rollouts."""
    return folder / "train-right.jsonl", folder / "validation-right.jsonl"


def weights(folder):
    return {name: value.clone() for name, value in checkpoints.load(folder).state_dict().items()}


def moved(before, after):
    """Norm of the update over the norm of the weights."""
    first, second = weights(before), weights(after)
    update = sum(((first[name] - second[name]) ** 2).sum().item() for name in first)
    return math.sqrt(update / sum((value**2).sum().item() for value in first.values()))


def log_probabilities(model, tokenizer, prompt, completion, temperature=1.0):
    """Of each token of a completion and of the stop token after it, by a plain forward pass."""
    ids, labels = lm.document(tokenizer, prompt, completion)
    logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1] / temperature
    said = sum(label >= 0 for label in labels)
    return logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]][-said:]


def loss_on(folder, rows):
    model, tokenizer = checkpoints.load(folder).eval(), checkpoints.load_tokenizer(folder)
    with torch.no_grad():
        said = torch.cat([log_probabilities(model, tokenizer, row["prompt"], row["completion"]) for row in rows])
    return -said.mean().item()


def check_leftovers(result, out):
    """What every stage leaves behind."""
    assert result.model == out / "model" and (out / "model" / "model.safetensors").is_file()
    assert not (out / "trainer").exists()
    assert isinstance(AutoModelForCausalLM.from_pretrained(result.model).config.vocab_size, int)
    assert result.metrics == read_rows(out / "metrics.jsonl")
    assert all({"step", "tokens", "seconds"} <= set(row) for row in result.metrics)
    assert any("loss" in row for row in result.metrics)
    assert result.seconds > 0 and result.train_tokens > 0


# ------------------------------------------------------------------ adapters


@pytest.fixture(scope="module")
def stage_of(data):
    """Train one stage by name: (student, out, hardware) -> Result. GRPO's rewarded answers are odd at random."""

    def stage(name, student, out, hardware):
        if name == "mid":
            return mid_training.train(student, *both(data), out, replace(MID, hardware=hardware, muon=False), seed=0)
        if name == "sft":
            return sft.train(student, *both(data), out, replace(SFT, hardware=hardware, muon=False), seed=0)
        if name == "dpo":
            pair = data / "train-right.jsonl", data / "wrong.jsonl"
            return rollout_dpo.train(student, *pair, out, replace(DPO, hardware=hardware), seed=0)
        config = replace(GRPO, steps=2, hardware=hardware, muon=False)
        return grpo.train(student, arithmetic.sample_problems(4, 1), out, config, seed=0, reward=long_word, select=everything)

    return stage


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_adapters_go_through_all_four_stages(tmp_path, student, stage_of, adapter):
    """Each stage trains a new adapter on the merged model of the one before; what is saved is a plain model."""
    hardware = schema.HardwareConfig(adapter=adapter, gradient_checkpointing=True, micro_batch_size=4, engine="hf" if adapter == "qlora" else "cpu")
    for name in ("mid", "sft", "dpo", "grpo"):
        result = stage_of(name, student, tmp_path / name, hardware)
        check_leftovers(result, tmp_path / name)
        assert (result.model / "adapter" / "adapter_model.safetensors").is_file()
        before, after = weights(student), weights(result.model)
        assert before.keys() == after.keys()
        changed = {weight for weight in before if not torch.equal(before[weight], after[weight])}
        assert changed and all(weight.endswith("_proj.weight") for weight in changed), name
        student = result.model


# ------------------------------------------------------------------ base, mid-training, SFT


@pytest.mark.slow
def test_base_and_teacher_learn(tmp_path, tokenizer):
    config = schema.LanguageModelingConfig(learning_rate=8e-3, batch_size=4, row_length=320, steps=10, documents=300, warmup_ratio=0.1)
    result = base.train_base(tmp_path / "base", config, seed=0)
    check_leftovers(result, tmp_path / "base")
    asked = arithmetic.sample_problems(20, 1)
    rows = [{"prompt": problem.prompt, "completion": f"\\boxed{{{problem.answer}}}"} for problem in asked]
    checkpoints.save(shapes.build("phi-nano", len(tokenizer), 0), tokenizer, tmp_path / "start")
    assert moved(tmp_path / "start", result.model) > 0.01
    assert loss_on(result.model, rows) < loss_on(tmp_path / "start", rows) - 0.5
    taught = base.train_teacher(result.model, tmp_path / "teacher", config, seed=0)
    check_leftovers(taught, tmp_path / "teacher")
    assert min(row["eval_loss"] for row in taught.metrics if "eval_loss" in row) < math.log(len(tokenizer)) - 0.5
    assert 0.01 < moved(result.model, taught.model) < moved(tmp_path / "start", taught.model)  # from the base


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
def test_sft_learns_also_where_to_stop(tmp_path, student, data):
    result = sft.train(student, *both(data), tmp_path, SFT, seed=0)
    check_leftovers(result, tmp_path)
    assert moved(student, result.model) > 0.01
    rows = sft.choose(read_rows(data / "train-right.jsonl"), 40, 0)
    assert loss_on(result.model, rows) < loss_on(student, rows) - 0.5
    stops = {}
    for folder in (student, result.model):
        model, tokenizer = checkpoints.load(folder).eval(), checkpoints.load_tokenizer(folder)
        with torch.no_grad():
            last = [log_probabilities(model, tokenizer, row["prompt"], row["completion"])[-1] for row in rows]
        stops[folder] = torch.stack(last).mean().item()
    assert stops[result.model] > stops[student] + 0.5


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
        plateau = lm.Plateau(2, 5e-3, 4)
        for loss in losses:
            plateau.check_metric_value(None, None, None, loss)
        return plateau.early_stopping_patience_counter

    assert patience_used([0.115, 0.112, 0.107]) == 0  # 3 and 5 thousandths: together more than 5
    assert patience_used([0.115, 0.112, 0.111]) == 2
    assert patience_used([0.115, 0.100, 0.120, 0.096]) == 2


def test_a_plateau_that_never_comes_leaves_the_last_steps_to_the_cooldown():
    plateau = lm.Plateau(3, 5e-3, 4)
    assert [plateau.factor(step, 10) for step in (0, 6, 8, 10)] == [1, 1, 0.5, 0]
    assert lm.Plateau(3, 5e-3, 0).factor(9, 10) == 1
    plateau.falls_from = 7  # one that comes when the rate is falling already changes nothing
    assert [plateau.factor(step, 10) for step in (6, 8, 10)] == [1, 0.5, 0]


@pytest.mark.slow
def test_the_best_weights_are_kept_when_training_makes_it_worse(tmp_path, student, data):
    wild = schema.LanguageModelingConfig(learning_rate=0.1, batch_size=2, row_length=320, steps=12, eval_steps=1, patience=3)
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


def test_sft_chooses_a_compact_harder_subset_of_answers_that_are_written_out():
    work = "<think>12+3:2+3=5,1;15.</think>\\boxed{15}"
    rows = [
        {
            "id": f"q{question}",
            "domain": "arithmetic",
            "level": 1 + question % 4,
            "pass_rate": question / 40,
            "tokens": 40 + 7 * (sample * 3 % 5),
            "completion": work,
        }
        for question in range(40)
        for sample in range(5)
    ]
    terse = [{**row, "completion": f"<think>12+3:5,{n};15.</think>\\boxed{{15}}"} for n, row in enumerate(rows)]
    some = sft.choose(terse, 1000, 0)
    assert 40 < len(some) < 115  # about half of 200, at most three a question
    chosen = sft.choose(terse[::2] + rows, 1000, 0, worked_solutions.shows_columns)
    assert len(chosen) == 120  # three of five answers to each question
    assert all(row["completion"] == work for row in chosen)
    for name in {row["id"] for row in chosen}:
        tokens = [row["tokens"] for row in chosen if row["id"] == name]
        assert len(tokens) == len(set(tokens)) == 3
    assert len({row["tokens"] for row in chosen}) == 5  # no length is preferred
    compact = sft.choose(rows, 49, 0)
    assert Counter(row["level"] for row in compact) == {1: 14, 2: 7, 3: 14, 4: 14}
    for level in (1, 2, 3, 4):  # what the teacher failed most comes first
        rates = [row["pass_rate"] for row in compact if row["level"] == level]
        assert rates == sorted(rates) and set(rates) == {row["pass_rate"] for row in rows if row["level"] == level
                                                         and row["pass_rate"] <= max(rates)}
    assert sft.choose(rows, 49, 0) == compact != sft.choose(rows, 49, 1)
    lonely = [{"id": "a", "domain": "arithmetic", "level": 3, "pass_rate": 0.1, "tokens": 5, "completion": work}]
    assert sft.choose(lonely, 9, 0) == lonely
    text = [{**lonely[0], "domain": "gsm8k", "level": 0, "completion": "<think>So it is.</think>\\boxed{15}"}]
    assert sft.choose(text, 9, 0) == text  # no columns to write out


def test_the_form_of_a_solution_is_told_by_its_columns():
    rng, seen = random.Random(1), set()
    for _ in range(300):
        problem = arithmetic.sample(rng, rng.randint(1, 4))
        style = rng.choice(worked_solutions.STYLES)
        work, _ = worked_solutions.write_solution(problem, style, rng)
        terse = style == "terse" and problem.level > 1
        seen.add((style, terse))
        assert worked_solutions.shows_columns(work) != terse, work
    assert len(seen) == 4


# ------------------------------------------------------------------ optimizer


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


# ------------------------------------------------------------------ what only large models need


def test_the_fused_head_has_the_same_loss_and_no_logits(tmp_path, stage_of, student, tokenizer, monkeypatch):
    """What `liger` also asks for; the layers' kernels themselves do not run on a CPU."""
    real, forward, heads = lm.SFTConfig, torch.nn.Linear.forward, []
    monkeypatch.setattr(lm, "SFTConfig", lambda **words: real(**{**words, "use_liger_kernel": False}))

    def watched(self, *inputs):
        heads.append(self.out_features == len(tokenizer))
        return forward(self, *inputs)

    monkeypatch.setattr(torch.nn.Linear, "forward", watched)
    plain = stage_of("mid", student, tmp_path / "plain", schema.HardwareConfig(micro_batch_size=4))
    assert any(heads)
    heads.clear()
    fused = stage_of("mid", student, tmp_path / "fused", schema.HardwareConfig(micro_batch_size=4, liger=True))
    assert heads and not any(heads)
    for one, other in zip(plain.metrics, fused.metrics, strict=True):
        for name in {"loss", "eval_loss"} & set(one):
            assert one[name] == pytest.approx(other[name], abs=1e-4)
    first, second, begun = (weights(folder) for folder in (plain.model, fused.model, student))
    update = sum(float((first[name] - begun[name]).norm()) for name in first)
    assert 0 < sum(float((first[name] - second[name]).norm()) for name in first) < 0.02 * update


def test_sharded_models_do_not_round_what_they_return(tmp_path):
    """accelerate's own policy would: log-probabilities of a long answer would be 16 nats apart."""
    words = {"bf16": True, "use_cpu": True, "fsdp": True, "fsdp_config": {"version": 2}}
    config = rollout_dpo.trl.DPOConfig(output_dir=str(tmp_path), **words)
    training.keep_fp32_outputs_under_fsdp(config)
    plugin = FullyShardedDataParallelPlugin(**config.fsdp_plugin_args)
    plugin.set_mixed_precision("bf16")
    policy = plugin.mixed_precision_policy
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, None)


# ------------------------------------------------------------------ resuming


class Stop(Exception):
    pass


def interrupted(monkeypatch, run, at):
    """Run a stage, kill it at step `at`, then run it again."""
    before = training.Recorder.on_step_end

    def on_step_end(self, args, state, control, **rest):
        before(self, args, state, control, **rest)
        if state.global_step == at:
            raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(training.Recorder, "on_step_end", on_step_end)
        with pytest.raises(Stop):
            run()
    steps = []
    with monkeypatch.context() as patched:
        patched.setattr(
            training.Recorder, "on_step_end", lambda self, args, state, *_, **__: steps.append(state.global_step)
        )
        result = run()
    return result, steps


def same(one, other):
    first, second = weights(one.model), weights(other.model)
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-6

    def seen(result):  # the first training loss after a resume is the mean of fewer steps
        return [
            {name: value for name, value in row.items() if name not in ("seconds", "loss")} for row in result.metrics
        ]

    assert seen(one) == seen(other)


@pytest.mark.slow
def test_mid_training_killed_and_resumed_ends_at_the_same_weights(tmp_path, student, data, monkeypatch):
    def run(out):
        return mid_training.train(student, *both(data), out, MID, seed=3)

    whole = run(tmp_path / "whole")
    resumed, steps = interrupted(monkeypatch, lambda: run(tmp_path / "resumed"), at=5)
    assert steps == [5, 6]  # it went on from the checkpoint at step 4
    same(whole, resumed)


@pytest.mark.slow
def test_sft_killed_and_resumed_ends_at_the_same_weights(tmp_path, student, data, monkeypatch):
    """It measures at its end only, and saves every 20 steps all the same."""

    def run(out):
        return sft.train(student, *both(data), out, replace(SFT, steps=23, batch_size=2), seed=3)

    whole = run(tmp_path / "whole")
    resumed, steps = interrupted(monkeypatch, lambda: run(tmp_path / "resumed"), at=22)
    assert steps == [21, 22, 23]
    first, second = weights(whole.model), weights(resumed.model)
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-6


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
def test_grpo_killed_and_resumed_ends_at_the_same_weights(tmp_path, student, monkeypatch):
    """Sampling, temperature and the random choice of rebalancing all continue; prompts are chosen once."""
    config = schema.GRPOConfig(learning_rate=1e-3, steps=13, prompts_per_step=4, group_size=8, candidate_prompts=6, max_new_tokens=3)
    chosen = []

    def select(*asked):
        chosen.append(grpo.select_uniform_length(*asked))
        return chosen[-1]

    def run(out):
        return grpo.train(student, arithmetic.sample_problems(6, 1), out, config, seed=3, reward=long_word, select=select)

    whole = run(tmp_path / "whole")
    resumed, steps = interrupted(monkeypatch, lambda: run(tmp_path / "resumed"), at=12)
    assert steps == [11, 12, 13]
    same(whole, resumed)
    assert len(chosen) == 2 and resumed.forward_tokens == whole.forward_tokens


@pytest.mark.slow
def test_a_checkpoint_that_was_only_half_written_is_not_resumed_from(tmp_path, student, data, monkeypatch):
    def run(out):
        return mid_training.train(student, *both(data), out, MID, seed=3)

    half = tmp_path / "trainer" / "checkpoint-4"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half of it")
    same(run(tmp_path), run(tmp_path / "whole"))


# ------------------------------------------------------------------ Rollout DPO


def rollout(name, tokens, **rest):
    return {"id": name, "tokens": tokens, "prompt": f"Compute {name}.", "completion": f"{name} in {tokens}", **rest}


def test_pairs_are_those_closest_in_length():
    right = [rollout("a", tokens) for tokens in (10, 50, 90)]
    wrong = [rollout("a", tokens) for tokens in (52, 12, 200)]
    pairs = rollout_dpo.pair_closest_length(right, wrong, 2, random.Random(0))
    assert sorted((good["tokens"], bad["tokens"]) for good, bad in pairs) == [(10, 12), (50, 52)]
    everything = rollout_dpo.pair_closest_length(right, wrong, 9, random.Random(0))
    assert len(everything) == 3  # nobody is used twice
    assert sorted((good["tokens"], bad["tokens"]) for good, bad in everything) == [(10, 12), (50, 52), (90, 200)]


def test_pairs_are_of_one_question_in_trls_columns(tokenizer):
    right = [rollout(name, tokens) for name in "abc" for tokens in (10, 20, 30)]
    wrong = [rollout(name, tokens) for name in "bcd" for tokens in (11, 21, 31)]
    rows = rollout_dpo.make_pairs(tokenizer, right, wrong, DPO, 0, rollout_dpo.pair_closest_length)
    assert len(rows) == 4  # b and c, two each
    for row in rows:
        assert set(row) == {"prompt", "chosen", "rejected"}
        assert (
            row["prompt"] == chat.prompt_text(f"Compute {row['chosen'][0]}.") and row["chosen"][0] == row["rejected"][0]
        )
    few = rollout_dpo.make_pairs(tokenizer, right, wrong, replace(DPO, max_pairs=3), 0, rollout_dpo.pair_closest_length)
    assert len(few) == 3
    with pytest.raises(UserError, match="both a right and a plausible wrong"):
        rollout_dpo.make_pairs(tokenizer, right[:3], wrong, DPO, 0, rollout_dpo.pair_closest_length)


def test_only_mistakes_that_the_student_might_make_are_paired(student, data):
    """The log-probability of a whole answer with its stop token, whatever shares its batch, decides."""
    model, tokenizer = checkpoints.load(student).eval(), checkpoints.load_tokenizer(student)
    rows = read_rows(data / "wrong.jsonl")
    with torch.no_grad():
        wanted = [log_probabilities(model, tokenizer, row["prompt"], row["completion"]).sum().item() for row in rows]
    assert rollout_dpo.log_probabilities(model, tokenizer, rows) == pytest.approx(wanted, rel=1e-4)
    middle = sorted(wanted)[len(wanted) // 2]
    kept = rollout_dpo.filter_by_student_likelihood(model, tokenizer, rows, replace(DPO, max_student_nll=-middle + 1e-3))
    assert kept == [row for row, value in zip(rows, wanted, strict=True) if value >= middle]
    assert 0 < len(kept) < len(rows)
    assert rollout_dpo.filter_by_student_likelihood(None, None, rows, replace(DPO, max_student_nll=math.inf)) == rows  # nobody is asked


@pytest.mark.parametrize("max_student_nll", [math.inf, 1e6])
def test_dpo_counts_what_it_reads_to_choose_and_to_score(tmp_path, student, data, max_student_nll):
    pairs, files = [], (data / "train-right.jsonl", data / "wrong.jsonl")

    def pair(right, wrong, count, rng):
        pairs.extend(chosen := rollout_dpo.pair_closest_length(right, wrong, count, rng))
        return chosen

    config = replace(DPO, max_pairs=10**6, batch_size=16, max_student_nll=max_student_nll)
    result = rollout_dpo.train(student, *files, tmp_path, config, seed=0, pair=pair)
    answered, tokenizer = {row["id"] for row in read_rows(files[0])}, checkpoints.load_tokenizer(student)

    def tokens(rows):
        return sum(len(lm.document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows)

    read = tokens(row for one in pairs for row in one)
    if max_student_nll < math.inf:  # each mistake was read, question and all
        read += tokens(row for row in read_rows(files[1]) if row["id"] in answered)
    assert result.forward_tokens == pytest.approx(read, abs=2 * len(pairs))  # their stop tokens


def test_dpo_leaves_out_what_is_too_long(tmp_path, student, data):
    seen, files, tokenizer = [], (data / "train-right.jsonl", data / "wrong.jsonl"), checkpoints.load_tokenizer(student)

    def pair(right, wrong, count, rng):
        seen.extend([*right, *wrong])
        return rollout_dpo.pair_closest_length(right, wrong, count, rng)

    def tokens(row):
        return len(lm.document(tokenizer, row["prompt"], row["completion"])[0])

    lengths = sorted(tokens(row) for file in files for row in read_rows(file))
    middle = lengths[len(lengths) // 2]
    rollout_dpo.train(student, *files, tmp_path / "some", replace(DPO, max_pairs=4, max_tokens=middle), seed=0, pair=pair)
    assert max(map(tokens, seen)) == middle < lengths[-1]
    with pytest.raises(UserError, match="no question has both"):
        rollout_dpo.train(student, *files, tmp_path / "none", replace(DPO, max_tokens=3), seed=0)


def test_dpo_trains_on_what_was_selected(tmp_path, student, data):
    seen = []

    def pair(right, wrong, count, rng):
        seen.extend(wrong)
        return rollout_dpo.pair_closest_length(right, wrong, count, rng)

    def select(model, tokenizer, wrong, config):
        return list(wrong)[::2]

    files = data / "train-right.jsonl", data / "wrong.jsonl"
    rollout_dpo.train(student, *files, tmp_path, replace(DPO, max_pairs=4), seed=0, pair=pair, select=select)
    answered = {row["id"] for row in read_rows(files[0])}
    wrong = [row for row in read_rows(files[1]) if row["id"] in answered]
    assert sorted(map(str, seen)) == sorted(map(str, wrong[::2]))


@pytest.mark.slow
def test_dpo_starts_at_ln_2_and_prefers_right_answers(tmp_path, student, data):
    pairs = []

    def pair(right, wrong, count, rng):
        pairs.extend(chosen := rollout_dpo.pair_closest_length(right, wrong, count, rng))
        return chosen

    result = rollout_dpo.train(
        student, data / "train-right.jsonl", data / "wrong.jsonl", tmp_path, DPO, seed=0, pair=pair
    )
    check_leftovers(result, tmp_path)
    first = result.metrics[0]  # steps 1 and 2: the rate is zero at 1, so both see the reference itself
    assert first["step"] == 2 and first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["rewards/chosen"] == pytest.approx(0, abs=1e-5) and first["rewards/rejected"] == pytest.approx(
        0, abs=1e-5
    )
    assert {"logps/chosen", "logps/rejected", "rewards/accuracies"} <= set(first)
    assert moved(student, result.model) > 0.001

    def margins(folder):
        model, tokenizer = checkpoints.load(folder).eval(), checkpoints.load_tokenizer(folder)
        with torch.no_grad():
            return torch.stack(
                [
                    log_probabilities(model, tokenizer, good["prompt"], good["completion"]).sum()
                    - log_probabilities(model, tokenizer, bad["prompt"], bad["completion"]).sum()
                    for good, bad in pairs
                ]
            )

    change = DPO.beta * (margins(result.model) - margins(student))
    assert -torch.nn.functional.logsigmoid(change).mean() < math.log(2) - 0.02
    assert (change > 0).float().mean() > 0.8


@pytest.mark.slow
def test_dpo_log_probabilities_are_those_of_whole_answers(tmp_path, student, data):
    """One step on every pair: TRL's logps are ours, prompt left out, stop token included."""
    used = []

    def pair(right, wrong, count, rng):
        used.append((right[0], wrong[0]))
        return used[-1:]

    config = replace(DPO, learning_rate=0.0, batch_size=24, max_pairs=24)
    result = rollout_dpo.train(
        student, data / "train-right.jsonl", data / "wrong.jsonl", tmp_path, config, seed=0, pair=pair
    )
    model, tokenizer = checkpoints.load(student).eval(), checkpoints.load_tokenizer(student)
    for side, name in enumerate(("logps/chosen", "logps/rejected")):
        with torch.no_grad():
            rows = [two[side] for two in used]
            sums = [log_probabilities(model, tokenizer, row["prompt"], row["completion"]).sum() for row in rows]
        assert result.metrics[0][name] == pytest.approx(torch.stack(sums).mean().item(), rel=1e-4)


@pytest.mark.slow
def test_dpo_by_length_is_dpo(tmp_path, student, data):
    """Two pairs at a time, sorted, are the batch in one piece: loss, margins, gradient, weights; and the reference's
    log-probabilities go back to the pairs that they are of (else the first loss is not ln 2).
    """
    files, results = (data / "train-right.jsonl", data / "wrong.jsonl"), []
    for rows in (8, 2):
        config = replace(DPO, batch_size=8, max_pairs=24, hardware=replace(DPO.hardware, micro_batch_size=rows))
        results.append(rollout_dpo.train(student, *files, tmp_path / str(rows), config, seed=0))
    whole, parts = results
    assert parts.metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    compared = {*rollout_dpo.KEPT, "loss", "grad_norm"} - {"rewards/accuracies"}  # which are ties at first
    assert compared <= set(whole.metrics[0])
    for one, other in zip(whole.metrics, parts.metrics, strict=True):
        for name in compared & set(one):
            assert other[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4), name
    assert moved(whole.model, parts.model) < 1e-3 * moved(student, whole.model)


def test_tokens_are_counted_to_the_last_step(tmp_path, student, data):
    """Not to the last step that was logged, every tenth."""
    config = replace(MID, steps=13, patience=0, eval_steps=0, batch_size=2)
    right, model, tokenizer = read_rows(both(data)[0]), checkpoints.load(student), checkpoints.load_tokenizer(student)
    documents = [lm.document(tokenizer, row["prompt"], row["completion"]) for row in right]
    result = lm.fit(model, tokenizer, documents, [], tmp_path, config, pack=lm.pack_best_fit, packed=True, seed=0,
                    title="13 steps")
    assert result.metrics[-1]["step"] == 10
    assert result.train_tokens == 13 * 2 * MID.row_length


@pytest.mark.parametrize("trained", [True, False])
def test_a_question_read_once_gives_what_two_rows_give(student, trained):
    """Chosen and rejected answers behind one reading of their question: TRL's own head over a row each is the judge,
    for what it returns, for the gradient, and for an answer whose neighbour is another one.
    """
    model, one = checkpoints.load(student), torch.Generator().manual_seed(0)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    asked, said = torch.tensor([9, 4, 12]), torch.tensor([[20, 7, 1], [3, 25, 1]])
    width = int((asked + said).max())
    ids, place = torch.randint(10, 400, (6, width), generator=one), torch.arange(width)
    ids[3:] = torch.where(place < asked[:, None], ids[:3], ids[3:])
    mask = (place < (asked + said).flatten()[:, None]).long()
    labels = ids.masked_fill((mask == 0) | (place < asked.repeat(2)[:, None]), lm.IGNORE)
    batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": labels, "use_cache": False}
    found, gradients = [], []
    for scored in (model, partial(rollout_dpo.shared_prefix_logprobs, model)):
        with torch.set_grad_enabled(trained):
            found.append(scored(**batch, fused_lm_head=True))
            if trained:
                model.zero_grad()
                (found[-1].log_probs * torch.arange(1.0, 7)[:, None]).sum().backward()
                gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    theirs, ours = found
    for name in ("log_probs", "entropy", "mean_logits"):
        assert torch.allclose(getattr(ours, name), getattr(theirs, name), atol=1e-4), name
    assert torch.equal(ours.is_top1 & (labels[:, 1:] != lm.IGNORE), theirs.is_top1 & (labels[:, 1:] != lm.IGNORE))
    assert ours.log_probs[:, 0].eq(0).all() and (ours.log_probs < 0).sum() == said.sum()
    if trained:
        assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()
    other = batch | {"input_ids": batch["input_ids"].clone()}
    other["input_ids"][3:][labels[3:] != lm.IGNORE] = 77
    changed = rollout_dpo.shared_prefix_logprobs(model, **other, fused_lm_head=True)
    assert torch.allclose(changed.log_probs[:3], ours.log_probs[:3], atol=1e-5)  # the chosen ones
    assert not torch.allclose(changed.log_probs[3:], ours.log_probs[3:], atol=1)


@pytest.mark.parametrize("once", [True, False])
def test_pairs_of_like_length_go_together(once):
    chance = torch.Generator().manual_seed(0)
    asked, said = torch.randint(1, 9, (10,), generator=chance), torch.randint(1, 30, (2, 10), generator=chance)
    mask = (torch.arange(40) < (asked + said).flatten()[:, None]).long()
    answers = mask * (torch.arange(40) >= asked.repeat(2)[:, None])
    batch = {"input_ids": torch.arange(20)[:, None].expand(20, 40) * mask, "attention_mask": mask,
             "completion_mask": answers, "ref_chosen_logps": torch.arange(10.0)}
    parts = list(rollout_dpo.by_length(batch, 4, once))
    order = torch.cat([some for some, _ in parts])
    assert sorted(order.tolist()) == list(range(10)) and [len(some) for some, _ in parts] == [4, 4, 2]
    tokens = (asked + said.sum(0) if once else asked + said.amax(0))[order]
    assert torch.equal(tokens, tokens.sort().values)
    for some, part in parts:
        assert torch.equal(part["ref_chosen_logps"], some.float())
        assert torch.equal(part["input_ids"][:, 0], torch.cat([some, some + 10]))  # chosen above rejected
        assert part["input_ids"].shape[1] == (asked + said)[:, some].max() == part["attention_mask"].sum(1).max()


# ------------------------------------------------------------------ GRPO, its parts


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("right", "group", "k"),
    [(0, 8, 0), (1, 8, 1), (3, 8, 3), (4, 8, 4), (5, 8, 0), (8, 8, 0), (1, 16, 1), (2, 5, 2), (3, 5, 0)],
)
def test_rebalance_keeps_k_of_each_side(right, group, k):
    """k = min(right, wrong, G/2); nothing where more than half are right, or where k is 0."""
    rewards = torch.tensor([[1.0] * right + [-1.0] * (group - right)])
    for seed in range(5):
        advantages = grpo.rebalance(rewards, chance(seed))[0]
        assert (advantages[:right] == 1).sum() == (advantages[right:] == -1).sum() == k
        assert (advantages != 0).sum() == 2 * k


def test_rebalance_chooses_at_random_by_its_seed_and_each_prompt_for_itself():
    rewards = torch.tensor([[1.0] * 2 + [-1.0] * 10, [-1.0] * 12])
    chosen = {tuple(grpo.rebalance(rewards, chance(seed))[0].tolist()) for seed in range(20)}
    assert len(chosen) > 5
    assert torch.equal(grpo.rebalance(rewards, chance(1)), grpo.rebalance(rewards, chance(1)))
    assert not grpo.rebalance(rewards, chance(1))[1].any()
    assert torch.equal(rewards, torch.tensor([[1.0] * 2 + [-1.0] * 10, [-1.0] * 12]))  # left as they were


def test_group_normalised_by_hand():
    rewards = torch.tensor([[1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]])
    wanted = torch.tensor([[1.5, -0.5, -0.5, -0.5], [0] * 4, [0] * 4])  # mean -0.5, standard deviation 1
    assert torch.allclose(grpo.group_normalised(rewards, chance()), wanted, atol=2e-4)


def test_temperature_falls_over_the_first_half():
    temperature = grpo.anneal(schema.GRPOConfig(1e-5, steps=40, prompts_per_step=1, group_size=8, candidate_prompts=1))
    assert [temperature(step, 40) for step in (0, 5, 10, 20, 30, 39)] == pytest.approx([1.0, 0.9, 0.8, 0.6, 0.6, 0.6])
    assert grpo.anneal(schema.GRPOConfig(1e-5, 1, 1, 8, 1))(0, 1) == 1.0
    assert grpo.anneal(schema.GRPOConfig(1e-5, 4, 1, 8, 1, anneal_fraction=0.0))(3, 4) == pytest.approx(0.6)


def test_a_sampler_that_is_another_model_is_refused(tmp_path, seven, monkeypatch):
    """A planted mismatch: every log-probability is 0.2 nats off. The true ones are within 1e-4."""
    folder, problems, _ = seven
    model, tokenizer = checkpoints.load(folder), checkpoints.load_tokenizer(folder)
    asked = [chat.prompt_ids(tokenizer, problem.prompt) for problem in problems]
    prompts = [problem.prompt for problem in problems]
    cool, usual = (sampling.SamplingParams(n=1, temperature=temperature, max_tokens=12) for temperature in (0.7, 1.0))
    groups = sampling.sample(model, tokenizer, prompts, cool, quiet=True)
    assert grpo.parity(model, asked, [one for (one,) in groups], 0.7) < 1e-4
    assert grpo.parity(model, asked, [one for (one,) in groups], 1.0) > grpo.MAX_LOGPROB_GAP  # another temperature is a mismatch
    real = sampling.sample

    def shifted(*arguments, **rest):
        return [[replace(one, logprobs=[value - 0.2 for value in one.logprobs]) for one in group]
                for group in real(*arguments, **rest)]

    monkeypatch.setattr(sampling, "sample", shifted)
    with pytest.raises(UserError, match=r"differ by 0\.200 nats a token.*nothing is trained$"):
        grpo.train(folder, problems, tmp_path, GRPO, seed=0, reward=long_word, select=everything)
    assert not (tmp_path / "model").exists()
    model.config.rope_parameters["rope_type"] = "longrope"
    with pytest.raises(UserError, match="LongRoPE"):
        grpo.require_parity(
            model, asked, [one for (one,) in shifted(model, tokenizer, prompts, usual, quiet=True)], 1.0
        )


@pytest.mark.parametrize("shift", [0.0, -0.2])
def test_grpo_samples_from_the_vllm_that_trl_keeps(tmp_path, seven, monkeypatch, shift):
    """A stand-in for TRL's vLLM, that samples from the trainer's own model: what it is asked, and that its answers are
    what is trained on. Log-probabilities that are off refuse to train.
    """
    folder, problems, _ = seven
    seen = []

    class Generation:
        def __init__(self, model, processing_class, max_completion_length, max_model_length, mode, **_):
            self.model, self.tokenizer, self.longest = model, processing_class, max_completion_length
            assert mode == "colocate" and max_model_length > max_completion_length
            self.synced = 0

        def sync_weights(self):
            self.synced += 1

        def generate(self, prompts, images, num_generations, profiler=None):
            assert images is None and len(prompts) % num_generations == 0
            assert all(ids == prompts[place - place % num_generations] for place, ids in enumerate(prompts))
            seen.append((len(prompts), num_generations, self.temperature, self.synced))
            stops = sampling.stop_tokens(self.model, self.tokenizer)
            params = sampling.SamplingParams(
                n=1, temperature=self.temperature, max_tokens=self.longest, seed=len(seen)
            )
            raw = sampling.ENGINES["cpu"](self.model, prompts, params, stops, lambda count: None)
            with_shift = [[[value + shift] for value in logprobs] for _, logprobs in raw]
            return prompts, [ids for ids, _ in raw], with_shift, None

    from trl.trainer import grpo_trainer

    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", Generation)
    monkeypatch.setattr(sampling, "require_vllm", lambda: None)
    config = replace(GRPO, steps=3, candidate_prompts=4, max_new_tokens=6, hardware=replace(GRPO.hardware, engine="vllm"))

    def train():
        return grpo.train(folder, problems, tmp_path, config, seed=0, reward=long_word)

    if shift:
        with pytest.raises(UserError, match="nothing is trained"):
            train()
        return
    result = train()
    assert seen[0][:3] == (4, 1, config.temperature_start)  # choosing prompts, all in one call
    assert [one[:3] for one in seen[-3:]] == [(32, 8, grpo.anneal(config)(step, 3)) for step in range(3)]
    assert [one[3] for one in seen[-3:]] == [1, 2, 3]  # weights are sent before every step
    assert moved(folder, result.model) > 0


def test_without_vllm_grpo_says_so_before_anything_is_loaded(tmp_path, seven, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "vllm", None)
    monkeypatch.setattr(checkpoints, "load", lambda *_: pytest.fail("loaded"))
    config = replace(GRPO, hardware=replace(GRPO.hardware, engine="vllm"))
    with pytest.raises(UserError, match="the engine vllm needs a GPU and pip install"):
        grpo.train(seven[0], seven[1], tmp_path, config, seed=0)


# ------------------------------------------------------------------ the longest batch first


@pytest.mark.parametrize("name", ["sft", "dpo", "grpo"])
def test_the_longest_batch_comes_first_and_leaves_no_trace(tmp_path, student, data, stage_of, monkeypatch, name):
    """Without the rehearsal the same weights and metrics come out; with it, the second step meets the longest rows."""
    longest, real = [], training.preflight_longest_batch

    def watched(trainer, model, loss, what):
        assert trainer.state.global_step == 1
        longest.append(what)
        real(trainer, model, loss, what)

    hardware = schema.HardwareConfig(micro_batch_size=4)
    monkeypatch.setattr({"sft": lm, "dpo": rollout_dpo, "grpo": grpo}[name], "preflight_longest_batch", watched)
    with_it = stage_of(name, student, tmp_path / "with", hardware)
    monkeypatch.setattr({"sft": lm, "dpo": rollout_dpo, "grpo": grpo}[name], "preflight_longest_batch", lambda *_: None)
    without = stage_of(name, student, tmp_path / "without", hardware)
    assert checkpoints.fingerprint(with_it.model) == checkpoints.fingerprint(without.model)
    for row in with_it.metrics + without.metrics:
        row.pop("seconds")
    assert with_it.metrics == without.metrics
    (what,) = longest
    if name == "sft":
        rows = sft.choose(read_rows(data / "train-right.jsonl"), SFT.documents, 0)
        tokenizer = checkpoints.load_tokenizer(student)
        most = max(len(lm.document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows)
        assert what == f"rows of {most} tokens, 4 at once"
    if name == "grpo":
        assert what.endswith("answers of 1 tokens at once")


def test_a_longest_batch_that_does_not_fit_is_one_line(tmp_path, student, data, stage_of, monkeypatch):
    real, calls = torch.Tensor.backward, []

    def full(self, *arguments, **rest):
        calls.append(1)
        if len(calls) == 3:  # two parts of the first step, then the rehearsal
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *arguments, **rest)

    monkeypatch.setattr(torch.Tensor, "backward", full)
    with pytest.raises(UserError, match=r"rows of \d+ tokens, 4 at once, does not fit.*phi-lab plan"):
        stage_of("sft", student, tmp_path / "sft", schema.HardwareConfig(micro_batch_size=4))


def test_reward_is_plus_or_minus_one():
    texts = [r"<think>1+2=3.</think>\boxed{3}", r"\boxed{4}", "3", "", r"<think>\boxed{3}"]
    assert grpo.verified(texts, ["3"] * 5)[:2] == [1.0, -1.0]
    assert set(grpo.verified(texts, ["3"] * 5)) == {1.0, -1.0}
    assert grpo.verified([r"\boxed{38/24}"], ["19/12"]) == [1.0]


def test_prompts_with_answers_alike_in_length_are_kept():
    """Ten prompts whose spread grows; three will not do. The most even 60 % of the rest stay, and a prompt that is
    answered well at once costs one rollout."""
    problems, counts = arithmetic.sample_problems(10, 3), []
    special = {
        problems[0].id: "rrrrrrrr",
        problems[1].id: "wwwwwwww",
        problems[2].id: "wrrrrrww",
    }  # the last: mostly right

    def ask(asked, samples, seed):
        counts.append((len(asked), samples))
        groups = []
        for problem in asked:
            spread, verdicts = problems.index(problem), special.get(problem.id, "wwwwwrrr")
            part = slice(0, 1) if samples == 1 else slice(1, None)
            groups.append([sampling.Sample([1] * (50 + (spread if one % 2 else -spread)), [], verdict, "stop")
                           for one, verdict in list(enumerate(verdicts))[part]])
        return groups

    def reward(texts, answers):
        return [1.0 if text == "r" else -1.0 for text in texts]

    config = schema.GRPOConfig(1e-5, steps=1, prompts_per_step=1, group_size=8, candidate_prompts=10, probe_rollouts=8, keep_fraction=0.6)
    chosen = grpo.select_uniform_length(ask, problems[::-1], config, 0, reward)
    assert chosen == problems[3:7]
    assert counts == [(10, 1), (9, 7)]
    assert grpo.select_uniform_length(ask, problems[:3], config, 0, reward) == problems[:3]  # none will do


# ------------------------------------------------------------------ GRPO, training


def long_word(texts, answers):
    """A reward that half of a random model's answers get."""
    return [1.0 if sum(map(ord, text)) % 2 else -1.0 for text in texts]


def everything(ask, problems, config, seed, reward):
    return list(problems)


@pytest.mark.parametrize("advantage", [grpo.rebalance, grpo.group_normalised])
@pytest.mark.parametrize("value", [1.0, -1.0])
def test_a_constant_reward_moves_nothing(tmp_path, student, advantage, value):
    result = grpo.train(student, arithmetic.sample_problems(4, 1), tmp_path, GRPO, seed=0, advantage=advantage,
                        reward=lambda texts, answers: [value] * len(texts))
    assert moved(student, result.model) == 0
    assert all(row["zero_variance_share"] == 1 and row["kept_share"] == 0 for row in result.metrics)


@pytest.fixture(scope="module")
def seven(tmp_path_factory, tokenizer):
    """A random model that begins an answer with "7" now and then."""
    folder, problems = tmp_path_factory.mktemp("seven"), arithmetic.sample_problems(4, 1)
    model = shapes.build("phi-nano", len(tokenizer), 0).eval()
    (token,) = tokenizer("7").input_ids
    with torch.no_grad():
        asked = [torch.tensor([chat.prompt_ids(tokenizer, problem.prompt)]) for problem in problems]
        hidden = torch.stack([model.model(ids).last_hidden_state[0, -1] for ids in asked]).mean(0)
        model.lm_head.weight[token] = hidden * math.log(0.3 * len(tokenizer)) / hidden.square().sum()
    checkpoints.save(model, tokenizer, folder)
    return folder, problems, token


@pytest.mark.parametrize("advantage", [grpo.rebalance, grpo.group_normalised])
def test_a_rewarded_token_becomes_more_probable(tmp_path, seven, advantage):
    folder, problems, token = seven
    result = grpo.train(folder, problems, tmp_path, GRPO, seed=0, advantage=advantage, select=everything,
                        reward=lambda texts, answers: [1.0 if text == "7" else -1.0 for text in texts])

    def probability(where):
        model, tokenizer = checkpoints.load(where).eval(), checkpoints.load_tokenizer(where)
        with torch.no_grad():
            asked = [torch.tensor([chat.prompt_ids(tokenizer, problem.prompt)]) for problem in problems]
            logits = [model(ids).logits[0, -1] for ids in asked]
        return torch.stack(logits).softmax(-1)[:, token].mean().item()

    before, after = probability(folder), probability(result.model)
    assert 0.1 < before < 0.5 and after > before + 0.05, (before, after)
    assert moved(folder, result.model) > 0
    check_leftovers(result, tmp_path)
    assert set(grpo.LOGGED) <= set(result.metrics[0])
    wanted = [grpo.anneal(GRPO)(step, GRPO.steps) for step in range(GRPO.steps)]
    assert [row["temperature"] for row in result.metrics] == pytest.approx(wanted)


@pytest.mark.parametrize("advantage", [grpo.rebalance, grpo.group_normalised])
def test_the_gradient_is_the_one_on_paper(tmp_path, student, advantage, monkeypatch):
    """At every step that of -sum(advantage x log-probability) / tokens that count, at the temperature that the step's
    answers were sampled at.
    """
    parts = schema.HardwareConfig(micro_batch_size=5)  # several, the last of them smaller
    config = schema.GRPOConfig(1e-9, steps=2, prompts_per_step=4, group_size=8, candidate_prompts=4, max_new_tokens=6, hardware=parts)
    problems, seen, real = arithmetic.sample_problems(4, 1), [], sampling.sample

    def sample(model, tokenizer, prompts, params, **rest):
        seen.append((params.temperature, prompts, groups := real(model, tokenizer, prompts, params, **rest)))
        return groups

    monkeypatch.setattr(sampling, "sample", sample)
    result = grpo.train(student, problems, tmp_path, config, seed=2, reward=long_word, advantage=advantage,
                        select=everything, temperature=lambda step, steps: (0.7, 1.6)[step])
    assert [temperature for temperature, _, _ in seen] == [0.7, 1.6]
    model, tokenizer = checkpoints.load(student), checkpoints.load_tokenizer(student)
    for step, ((temperature, prompts, groups), metrics) in enumerate(zip(seen, result.metrics, strict=True)):
        assert sorted(prompts) == sorted(problem.prompt for problem in problems)
        rewards = torch.tensor([long_word([one.text for one in group], []) for group in groups])
        advantages = advantage(rewards, chance(2 * 1_000_003 + step))
        loss, tokens = 0.0, 0
        for prompt, group, row in zip(prompts, groups, advantages, strict=True):
            asked = chat.prompt_ids(tokenizer, prompt)
            for one, value in zip(group, row, strict=True):
                if value:
                    logits = model(torch.tensor([asked + one.ids])).logits[0, len(asked) - 1 : -1] / temperature
                    loss = loss - value * logits.log_softmax(-1)[range(len(one.ids)), one.ids].sum()
                    tokens += len(one.ids)
        model.zero_grad()
        (loss / tokens).backward()
        norm = math.sqrt(sum(weight.grad.square().sum().item() for weight in model.parameters()))
        assert metrics["grad_norm"] == pytest.approx(norm, rel=2e-3), temperature
        assert metrics["kept_share"] == pytest.approx((advantages != 0).float().mean().item())
        assert metrics["reward"] == pytest.approx(rewards.mean().item(), abs=1e-5)
        lengths = [len(one.ids) for group in groups for one in group]
        assert metrics["mean_length"] == pytest.approx(sum(lengths) / len(lengths))


@pytest.mark.parametrize("by_muon", [True, False])
def test_grpo_moves_matrices_as_muon_does(tmp_path, student, by_muon):
    """All directions alike; AdamW follows the few that its gradient has. The first of two steps only warms up."""
    config = replace(GRPO, steps=2, max_new_tokens=6, muon=by_muon)
    result = grpo.train(student, arithmetic.sample_problems(4, 1), tmp_path, config, seed=0, reward=long_word,
                        advantage=grpo.group_normalised, select=everything)
    before, after = weights(student), weights(result.model)
    spreads = []
    for name in before:
        if name.endswith("_proj.weight"):
            values = torch.linalg.svdvals(after[name] - before[name])
            spreads.append(float(values[0] / values[len(values) // 2]))
    assert spreads and (max(spreads) < 2 if by_muon else min(spreads) > 2), spreads


def test_a_learners_parts_are_what_runs(tmp_path, student):
    called = []

    def part(name, value):
        def function(*arguments):
            called.append(name)
            return value(*arguments)

        return function

    config = schema.GRPOConfig(1e-3, steps=2, prompts_per_step=4, group_size=8, candidate_prompts=4, max_new_tokens=1)
    grpo.train(student, arithmetic.sample_problems(4, 1), tmp_path, config, seed=0,
               reward=part("reward", long_word), advantage=part("advantage", grpo.group_normalised),
               temperature=part("temperature", lambda step, steps: 0.9), select=part("select", everything))
    assert set(called) == {"reward", "advantage", "temperature", "select"}
    assert {row["temperature"] for row in read_rows(tmp_path / "metrics.jsonl")} == {0.9}


def test_every_prompt_is_asked_before_any_comes_again(tmp_path, student):
    problems, asked = arithmetic.sample_problems(4, 1), []
    assert len({problem.answer for problem in problems}) == 4

    def reward(texts, answers):
        asked.extend(answers[::8])
        return long_word(texts, answers)

    config = schema.GRPOConfig(1e-3, steps=4, prompts_per_step=2, group_size=8, candidate_prompts=4, max_new_tokens=1)
    grpo.train(student, problems, tmp_path, config, seed=0, reward=reward, select=everything)
    assert len(set(asked[:4])) == len(set(asked[4:])) == 4


@pytest.mark.slow
def test_smoke_grpo_meets_mixed_groups_and_improves_on_them(tmp_path, shipped, monkeypatch):
    """From the shipped DPO checkpoint: enough prompts are sometimes right; what was rewarded becomes more probable."""
    config, student, batches, real = presets.SMOKE.grpo, shipped("dpo"), [], sampling.sample

    def sample(model, tokenizer, prompts, params, **rest):
        groups = real(model, tokenizer, prompts, params, **rest)
        if not rest["title"]:  # a training batch, not the choice of prompts
            batches.append((prompts, groups))
        return groups

    monkeypatch.setattr(sampling, "sample", sample)
    problems = arithmetic.sample_problems(config.candidate_prompts, 50_000, levels=(3, 4))
    result = grpo.train(student, problems, tmp_path, config, seed=0)
    mixed = [1 - row["zero_variance_share"] for row in result.metrics]
    assert sum(mixed) / len(mixed) >= 0.3, mixed
    assert moved(student, result.model) > 0
    answers = {problem.prompt: problem.answer for problem in problems}

    def objective(folder):
        model, tokenizer = checkpoints.load(folder).eval(), checkpoints.load_tokenizer(folder)
        total = 0.0
        with torch.no_grad():
            for prompts, groups in batches:
                for prompt, group in zip(prompts, groups, strict=True):
                    rewards = torch.tensor([grpo.verified([one.text for one in group], [answers[prompt]] * len(group))])
                    for one, value in zip(group, grpo.group_normalised(rewards, chance())[0].tolist(), strict=True):
                        if value and one.finish_reason == "stop":
                            total += value * log_probabilities(model, tokenizer, prompt, one.text).sum().item()
        return total

    assert objective(result.model) > objective(student)


@pytest.mark.slow
def test_every_shipped_checkpoint_trains_in_the_next_stage(tmp_path, shipped, data):
    """Real checkpoints, real data, the smoke profile's own rates: updates, and a loss that does not blow up."""
    validation, smoke = data / "validation-right.jsonl", presets.SMOKE
    right = data / "train-right.jsonl"
    rows = read_rows(right)
    short = {"steps": 6, "batch_size": 4}
    middle = mid_training.train(shipped("base"), right, validation, tmp_path / "mid",
                                replace(smoke.mid, **short, eval_steps=3), seed=0)
    assert moved(shipped("base"), middle.model) > 0 and loss_on(middle.model, rows) < loss_on(shipped("base"), rows)
    fine = sft.train(shipped("mid"), right, validation, tmp_path / "sft", replace(smoke.sft, **short), seed=0)
    assert moved(shipped("mid"), fine.model) > 0 and loss_on(fine.model, rows) < loss_on(shipped("mid"), rows)
    preferred = rollout_dpo.train(shipped("sft"), right, data / "wrong.jsonl", tmp_path / "dpo",
                                  replace(smoke.dpo, batch_size=8, max_pairs=24, max_student_nll=math.inf), seed=0)
    assert moved(shipped("sft"), preferred.model) > 0
    assert [row["loss"] for row in preferred.metrics if "loss" in row][-1] <= math.log(2) + 1e-3
