"""The decoding loop of one page writes the same tokens as `sampling` and as transformers' `generate`."""

import pytest
import torch

from phi_lab import sampling
from phi_lab.model import chat, checkpoints
from phi_lab.sampling import minimal_decode

QUESTIONS = ["Compute 47+38-12.", "Find 9*7."]


@pytest.fixture(scope="module")
def mid(shipped):
    return checkpoints.load(shipped("mid")).eval(), checkpoints.load_tokenizer(shipped("mid"))


@pytest.mark.parametrize("question", QUESTIONS)
def test_greedy_tokens_are_those_of_generate(mid, question):
    model, tokenizer = mid
    prompt, stops = chat.prompt_ids(tokenizer, question), sampling.stop_tokens(model, tokenizer)
    ids = minimal_decode.decode(model, prompt, 120, stops)
    output = model.generate(
        input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=120,
        do_sample=False, eos_token_id=sorted(stops), pad_token_id=min(stops),
    )
    assert ids == output[0, len(prompt) :].tolist() and len(ids) > 8 and ids[-1] in stops


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.5])
def test_tokens_are_those_of_the_engine(mid, temperature):
    """At any temperature: the engine draws by the same rule from the generator of seed 2 x its own."""
    model, tokenizer = mid
    stops = sampling.stop_tokens(model, tokenizer)
    written = []
    for seed in (3, 4):
        params = sampling.SamplingParams(n=1, temperature=temperature, max_tokens=60, seed=seed)
        ((wanted,),) = sampling.sample(model, tokenizer, QUESTIONS[:1], params, quiet=True)
        prompt = chat.prompt_ids(tokenizer, QUESTIONS[0])
        written.append(minimal_decode.decode(model, prompt, 60, stops, temperature, seed=2 * seed))
        assert written[-1] == wanted.ids
    assert (written[0] == written[1]) == (temperature == 0)


def test_the_cache_changes_the_work_and_not_the_tokens(mid, monkeypatch):
    model, tokenizer = mid
    prompt, read, real = chat.prompt_ids(tokenizer, QUESTIONS[0]), [], model.forward

    def counted(input_ids, **rest):
        read.append(input_ids.shape[1])
        return real(input_ids=input_ids, **rest)

    monkeypatch.setattr(model, "forward", counted)
    with_cache, without = (minimal_decode.decode(model, prompt, 12, set(), use_cache=use) for use in (True, False))
    assert with_cache == without and len(with_cache) == 12
    assert read[:12] == [len(prompt)] + [1] * 11
    assert read[12:] == [len(prompt) + count for count in range(12)]
