"""The engine `vllm`, with a stand-in for the package: what it is given, and what comes back."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from phi_lab import sampling
from phi_lab.core.errors import UserError
from phi_lab.model import chat, checkpoints
from phi_lab.sampling import SamplingParams

PROMPTS = ["Compute 47+38-12.", "Find 9*7."]


def test_vllm_gets_token_ids_and_gives_ids_with_their_log_probabilities(shipped, tokenizer, monkeypatch):
    """A stand-in for the package: what our side hands over, and that answers come back in the order of the jobs."""
    seen, started = {}, []

    class LLM:
        def __init__(self, folder, **settings):
            assert (Path(folder) / "model.safetensors").is_file()
            started.append(settings)

        def generate(self, jobs, settings, use_tqdm):
            seen.update(settings=settings, jobs=jobs)
            ids = [[5, 6 + place, tokenizer.eos_token_id] for place in range(len(jobs))]
            steps = [[{token: SimpleNamespace(logprob=-token / 8)} for token in row] for row in ids]
            rows = zip(ids, steps, strict=True)
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=i, logprobs=p)]) for i, p in rows]

    package = SimpleNamespace(LLM=LLM, SamplingParams=dict, TokensPrompt=lambda prompt_token_ids: prompt_token_ids)
    monkeypatch.setitem(sys.modules, "vllm", package)
    sampling.release_engine()
    model = checkpoints.load_to_sample(shipped("grpo"), "vllm")
    assert model.device.type == "meta"  # shapes only: vLLM reads the weights
    params = SamplingParams(n=2, temperature=0.6, top_p=0.9, max_tokens=9, seed=3)
    other_seed = replace(params, seed=4)
    groups = sampling.sample(model, tokenizer, PROMPTS, params, engine="vllm", quiet=True)
    flat = [answer for group in groups for answer in group]
    assert [answer.ids[1] for answer in flat] == [6, 7, 8, 9]
    assert [answer.logprobs for answer in flat] == [[-token / 8 for token in answer.ids] for answer in flat]
    assert {answer.finish_reason for answer in flat} == {"stop"}
    assert seen["jobs"] == [chat.prompt_ids(tokenizer, prompt) for prompt in PROMPTS for _ in range(2)]
    settings = seen["settings"]
    assert {(row["temperature"], row["top_p"], row["max_tokens"]) for row in settings} == {(0.6, 0.9, 9)}
    assert len({row["seed"] for row in settings}) == 4  # samples of one prompt must differ
    (engine,) = started
    assert engine["logprobs_mode"] == "processed_logprobs"  # of the distribution that was sampled from
    assert max(map(len, seen["jobs"])) + 9 <= engine["max_model_len"] <= model.config.max_position_embeddings
    sampling.sample(model, tokenizer, [PROMPTS[0], 40 * "a longer one "], other_seed, engine="vllm", quiet=True)
    assert len(started) == 1 and settings != seen["settings"]  # the engine stays, the seed is another
    sampling.release_engine()
    sampling.sample(model, tokenizer, PROMPTS, other_seed, engine="vllm", quiet=True)
    assert len(started) == 2
    sampling.release_engine()


def test_without_vllm_one_line_says_what_to_install(shipped, tokenizer, monkeypatch):
    model = checkpoints.load_to_sample(shipped("grpo"), "vllm")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="needs a GPU and pip install"):
        sampling.sample(model, tokenizer, PROMPTS, SamplingParams(n=1, temperature=0, max_tokens=2), engine="vllm")
