"""Small settings of each stage, and what its tests measure: weights, losses, a stage killed and resumed."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from phi_lab.config import schema
from phi_lab.core.files import read_rows
from phi_lab.model import checkpoints
from phi_lab.stages import packing, training

MID = schema.LanguageModelingConfig(learning_rate=1e-3, batch_size=4, row_length=320, steps=6, eval_steps=2)
SFT = schema.LanguageModelingConfig(learning_rate=1e-3, batch_size=8, row_length=320, steps=15, documents=40)
DPO = schema.DPOConfig(learning_rate=1e-3, batch_size=4, max_pairs=16, max_student_nll=math.inf, pairs_per_question=2)
GRPO = schema.GRPOConfig(
    learning_rate=1e-3, steps=6, prompts_per_step=4, group_size=8, candidate_prompts=8, max_new_tokens=1
)


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
    ids, labels = packing.document(tokenizer, prompt, completion)
    logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1] / temperature
    completion_tokens = sum(label >= 0 for label in labels)
    return logits.log_softmax(-1)[range(len(ids) - 1), ids[1:]][-completion_tokens:]


def loss_on(folder, rows):
    model, tokenizer = checkpoints.load(folder).eval(), checkpoints.load_tokenizer(folder)
    with torch.no_grad():
        logprobs = torch.cat([log_probabilities(model, tokenizer, row["prompt"], row["completion"]) for row in rows])
    return -logprobs.mean().item()


def check_leftovers(result, out):
    """What every stage leaves behind."""
    assert result.model == out / "model" and (out / "model" / "model.safetensors").is_file()
    assert not (out / "trainer").exists()
    assert isinstance(AutoModelForCausalLM.from_pretrained(result.model).config.vocab_size, int)
    assert result.metrics == read_rows(out / "metrics.jsonl")
    assert all({"step", "tokens", "seconds"} <= set(row) for row in result.metrics)
    assert any("loss" in row for row in result.metrics)
    assert result.seconds > 0 and result.train_tokens > 0


class Stop(Exception):
    pass


def interrupted(monkeypatch, run, at):
    """Run a stage, kill it at step `at`, then run it again."""
    before = training.MetricsRecorder.on_step_end

    def on_step_end(self, args, state, control, **rest):
        before(self, args, state, control, **rest)
        if state.global_step == at:
            raise Stop

    with monkeypatch.context() as patched:
        patched.setattr(training.MetricsRecorder, "on_step_end", on_step_end)
        with pytest.raises(Stop):
            run()
    steps = []
    with monkeypatch.context() as patched:
        patched.setattr(
            training.MetricsRecorder, "on_step_end", lambda self, args, state, *_, **__: steps.append(state.global_step)
        )
        result = run()
    return result, steps


def same(one, other):
    first, second = weights(one.model), weights(other.model)
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-6

    def seen(result):
        return [{name: value for name, value in row.items() if name != "seconds"} for row in result.metrics]

    assert seen(one) == seen(other)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def odd_text(texts, answers):
    """A reward that half of a random model's completions get."""
    return [1.0 if sum(map(ord, text)) % 2 else -1.0 for text in texts]


def everything(ask, problems, config, seed, reward):
    return list(problems)
