"""A served teacher draws from its own distribution: what is sent, what is written down, and what comes back."""

import argparse
import math
import threading

import pytest
import torch
from served_distillation import distil, good, reply

from phi_lab import sampling
from phi_lab.cli import options
from phi_lab.config.schema import INSTRUCTION, DistillationConfig
from phi_lab.core.files import read_json
from phi_lab.core.paths import TEACHER
from phi_lab.distill import jobs, shards
from phi_lab.model import chat, checkpoints
from phi_lab.problems import arithmetic

NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "max_tokens": 256}
FILLED_IN = {"top_k": 40, "top_p": 0.95, "min_p": 0.05}  # by llama.cpp, where a request says nothing
OFF = '{"top_k": 0, "min_p": 0}'


def test_every_sampling_field_is_sent_and_written_down(tmp_path, server, capsys):
    server.behave = lambda handler, body: handler.send(200, {
        **reply("<think>so it is. </think>\\boxed{7}"), "model": "served-one", "system_fingerprint": "b11549"})
    assert distil(tmp_path, server) == 0
    assert all(NEUTRAL.items() <= body.items() and "seed" in body for body in server.bodies)
    manifest, card = read_json(tmp_path / "set" / "distill.json"), (tmp_path / "set" / "README.md").read_text()
    assert manifest["sampling"] == NEUTRAL and manifest["served"] == ["served-one (b11549)"]
    assert "top_p 1.0, presence_penalty 0.0" in card and "Served as served-one (b11549)." in card
    assert "the server's own top_k, min_p and repetition penalty apply" in capsys.readouterr().out


def test_extra_fields_are_sent_and_null_leaves_one_out(tmp_path, server, capsys):
    server.behave = good
    extra = '{"top_k": 0, "min_p": 0, "seed": null, "max_tokens": null, "max_completion_tokens": 99}'
    assert distil(tmp_path, server, "--extra-body", extra) == 0
    for body in server.bodies:
        assert (body["top_k"], body["min_p"], body["max_completion_tokens"]) == (0, 0, 99)
        assert not {"seed", "max_tokens", "extra_body"} & body.keys()
    assert read_json(tmp_path / "set" / "distill.json")["sampling"]["max_completion_tokens"] == 99
    assert "server's own" not in capsys.readouterr().out
    assert distil(tmp_path, server, "--questions", 8) == 2
    assert "sampling differs from this command's" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "words"), [
    ("[1]", "no JSON object"), ("{", "no JSON object"), ('{"model": "x"}', "model is not set here"),
    ('{"temperature": 0.3}', "set by --temperature"), ('{"max_tokens": 3}', "set by --max-tokens"),
    ('{"x": {"api_key": "sk-12345"}}', "a key or a password"), ('{"Authorization": "sk-12345"}', "a key or a password"),
])
def test_an_extra_body_that_cannot_be_one(text, words):
    with pytest.raises(argparse.ArgumentTypeError, match=words) as refused:
        options.extra_body(text)
    assert "sk-12345" not in str(refused.value)


class Filling:
    """The shipped teacher behind a server that fills in what a request leaves unsaid. All answers to `questions` under
    one setting are drawn at once, before anything is asked; a request that comes again gets the same one.
    """

    def __init__(self, questions, samples):
        self.network, self.tokenizer = checkpoints.load(TEACHER), checkpoints.load_tokenizer(TEACHER)
        self.questions, self.samples, self.lock = questions, samples, threading.Lock()
        settings = (FILLED_IN, {"top_k": 0, "top_p": 1.0, "min_p": 0})
        self.pools, self.places = {tuple(one.items()): self.draw(one) for one in settings}, {}

    def __call__(self, handler, body):
        setting = tuple((FILLED_IN | {name: body[name] for name in FILLED_IN if name in body}).items())
        question = body["messages"][0]["content"].removeprefix(f"{INSTRUCTION}\n\n")
        with self.lock:
            places = self.places.setdefault((setting, question), {})
            place = places.setdefault(body["seed"], len(places))
        text, reason = self.pools[setting][question][place]
        handler.send(200, reply(text, reason=reason))

    def draw(self, setting):
        repeated = [question for question in self.questions for _ in range(self.samples)]
        prompts = [chat.prompt_ids(self.tokenizer, question) for question in repeated]
        width, stops = max(map(len, prompts)), sampling.stop_tokens(self.network, self.tokenizer)
        torch.manual_seed(3)
        with torch.inference_mode():
            drawn = self.network.generate(
                input_ids=torch.tensor([[min(stops)] * (width - len(prompt)) + prompt for prompt in prompts]),
                attention_mask=torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
                do_sample=True, temperature=1.0, max_new_tokens=256, eos_token_id=sorted(stops),
                pad_token_id=min(stops), **setting,
            )[:, width:].tolist()
        pool = {question: [] for question in self.questions}
        for place, ids in enumerate(drawn):
            end = next((i for i, token in enumerate(ids) if token in stops), None)
            answer = self.tokenizer.decode(ids[:end]), "length" if end is None else "stop"
            pool[self.questions[place // self.samples]].append(answer)
        return pool


def z_score(a, b, n):
    """Of the difference between two shares, a and b of n each."""
    share = (a + b) / (2 * n)
    return (a - b) / math.sqrt(2 * share * (1 - share) * n)


def wrong(folder):
    rows = list(shards.rows(folder / "rollouts"))
    return sum(row["verdict"] != "right" for row in rows), len(rows)


@pytest.mark.slow
def test_a_served_teacher_is_as_often_wrong_as_in_this_process(tmp_path, server):
    """Its mistakes are what Rollout DPO learns from, and what top_k, top_p and min_p cut away."""
    questions = [problem.prompt for problem in arithmetic.sample_problems(60, 0)]
    server.behave = Filling(questions, 8)
    size = ("--questions", 60, "--samples", 8)
    assert distil(tmp_path / "off", server, *size, "--extra-body", OFF) == 0
    assert distil(tmp_path / "theirs", server, *size, "--extra-body", '{"top_p": null}') == 0  # nothing said
    jobs.run_job(jobs.DistillationJob(
        out=tmp_path / "ours", config=DistillationConfig(60, 0, samples=8, temperature=1.0, max_new_tokens=256)))
    (off, count), (theirs, _), (ours, _) = (wrong(tmp_path / name) for name in ("off/set", "theirs/set", "ours"))
    assert count == 480 and abs(z_score(off, ours, count)) < 1.96
    assert z_score(theirs, ours, count) < -1.96  # so this test tells the two apart
