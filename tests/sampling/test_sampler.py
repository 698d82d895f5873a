"""The engines that run on a CPU sample from the model: log-probabilities, greedy choices, frequencies."""

import pytest
import torch
from mpmath import gammainc
from transformers import GenerationConfig

from phi_lab import sampling
from phi_lab.config.schema import HardwareConfig
from phi_lab.core.errors import UserError
from phi_lab.model import chat, checkpoints, shapes
from phi_lab.sampling import SamplingParams, hf
from phi_lab.sampling.params import MAX_ROWS

PROMPTS = ["Compute 47+38-12.", "Find 9*7.", "Ann has 12 nuts. Then Ann loses 5. How many nuts does Ann have now?"]
ENGINES = sorted(set(sampling.ENGINES) - {"vllm"})


@pytest.fixture(scope="module")
def peaky(tokenizer):
    """Random weights, but large: a near-uniform model would forgive any mistake in attention or norms."""
    model = shapes.build("phi-nano", len(tokenizer), 5).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_((12 if "embed" in name else 6) if weight.dim() > 1 else torch.rand_like(weight) + 0.5)
        model.lm_head.weight[tokenizer.eos_token_id] *= 2  # so that some answers end
    return model


def sample(model, tokenizer, prompts, *, engine="cpu", tick=None, **params):
    return sampling.sample(
        model, tokenizer, prompts, SamplingParams(**params), engine=engine, tick=tick, quiet=True
    )


def reference(model, tokenizer, prompt, ids, temperature):
    """Log-probability of each of `ids` under transformers' forward."""
    prompt_ids = chat.prompt_ids(tokenizer, prompt)
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids + ids])).logits[0, len(prompt_ids) - 1 : -1]
    return (logits / (temperature or 1.0)).log_softmax(-1)[range(len(ids)), ids]


def check_logprobs(model, tokenizer, prompts, groups, temperature):
    for prompt, group in zip(prompts, groups, strict=True):
        for answer in group:
            wanted = reference(model, tokenizer, prompt, answer.ids, temperature)
            assert torch.tensor(answer.logprobs) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_log_probabilities_of_every_token(peaky, tokenizer, engine, temperature):
    groups = sample(peaky, tokenizer, PROMPTS, n=3, temperature=temperature, max_tokens=30, seed=1, engine=engine)
    assert [len(group) for group in groups] == [3, 3, 3]
    check_logprobs(peaky, tokenizer, PROMPTS, groups, temperature)
    assert min(min(answer.logprobs) for group in groups for answer in group) < -0.5  # not all tokens are certain


def test_log_probabilities_of_a_shipped_model(shipped):
    model, tokenizer = checkpoints.load(shipped("grpo")).eval(), checkpoints.load_tokenizer(shipped("grpo"))
    groups = sample(model, tokenizer, PROMPTS, n=4, temperature=1.0, max_tokens=150, seed=2)
    check_logprobs(model, tokenizer, PROMPTS, groups, 1.0)
    assert all("\\boxed{" in answer.text for answer in groups[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_greedy_is_generate_token_for_token(peaky, tokenizer, engine):
    groups = sample(peaky, tokenizer, PROMPTS, n=1, temperature=0, max_tokens=40, engine=engine)
    stops = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    for prompt, (answer,) in zip(PROMPTS, groups, strict=True):
        ids = torch.tensor([chat.prompt_ids(tokenizer, prompt)])
        output = peaky.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=40,
                                do_sample=False, eos_token_id=stops, pad_token_id=stops[1])
        assert output[0, ids.shape[1] :].tolist() == answer.ids


def chi_square(counts, probabilities):
    """p-value that `counts` come from `probabilities`; rare outcomes are put together until five are expected."""
    total, bins = sum(counts), []
    expected = seen = 0.0
    for probability, count in sorted(zip(probabilities, counts, strict=True)):
        expected, seen = expected + probability * total, seen + count
        if expected >= 5:
            bins.append((seen, expected))
            expected = seen = 0.0
    bins[-1] = (bins[-1][0] + seen, bins[-1][1] + expected)
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in bins)
    assert len(bins) > 5
    return float(gammainc((len(bins) - 1) / 2, statistic / 2, regularized=True))


def test_chi_square_itself():
    assert chi_square([100] * 10, [0.1] * 10) == 1.0
    assert chi_square([130, 70] + [100] * 8, [0.1] * 10) == pytest.approx(0.0352, abs=2e-4)  # statistic 18, 9 degrees


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_first_tokens_follow_the_softmax(peaky, tokenizer, engine, temperature):
    counts = [0] * len(tokenizer)
    (group,) = sample(
        peaky, tokenizer, PROMPTS[:1], n=3000, temperature=temperature, max_tokens=1, seed=11, engine=engine
    )
    for answer in group:
        counts[answer.ids[0]] += 1
    with torch.no_grad():
        logits = peaky(torch.tensor([chat.prompt_ids(tokenizer, PROMPTS[0])])).logits[0, -1].double()
    assert chi_square(counts, (logits / temperature).softmax(-1).tolist()) > 1e-3
    # The other temperature is told apart, so the test has power.
    assert chi_square(counts, (logits / (1.6 - temperature)).softmax(-1).tolist()) < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_top_p_draws_from_the_likeliest_tokens_only(peaky, tokenizer, engine):
    with torch.no_grad():
        logits = peaky(torch.tensor([chat.prompt_ids(tokenizer, PROMPTS[0])])).logits[0, -1].double()
    chances = (logits / 2.5).softmax(-1)
    ranked, order = chances.sort(descending=True)
    few = int((ranked.cumsum(-1) < 0.7).sum()) + 1  # the fewest that hold 70 %
    kept = torch.zeros_like(chances).scatter(0, order[:few], ranked[:few] / ranked[:few].sum())
    assert 5 < few < len(tokenizer) // 2
    counts = [0] * len(tokenizer)
    (group,) = sample(
        peaky, tokenizer, PROMPTS[:1], n=3000, temperature=2.5, top_p=0.7, max_tokens=1, seed=11, engine=engine
    )
    for answer in group:
        counts[answer.ids[0]] += 1
        assert answer.logprobs[0] == pytest.approx(chances[answer.ids[0]].log().item(), abs=1e-4)  # of all tokens
    assert sum(counts[token] for token in order[:few]) == 3000
    assert chi_square([counts[token] for token in order[:few]], kept[order[:few]].tolist()) > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_the_seed_makes_the_rollouts(peaky, tokenizer, engine):
    def collect_rollouts(seed):
        return sample(peaky, tokenizer, PROMPTS, n=2, temperature=1.0, max_tokens=12, seed=seed, engine=engine)

    assert collect_rollouts(4) == collect_rollouts(4) != collect_rollouts(5)


@pytest.fixture
def threads():
    """Sets the number of torch's threads, for this test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_threads_do_not_change_the_rollouts_of_two_halves(peaky, tokenizer, threads):
    """Three questions, 99 jobs: two halves, cut within a question."""
    runs = []
    for count in (1, 2):
        threads(count)
        counts = []
        groups = sample(peaky, tokenizer, PROMPTS, n=33, temperature=1.0, max_tokens=20, seed=1, tick=counts.append)
        runs.append(groups)
        assert sum(counts) == 99 and torch.get_num_threads() == count
    assert runs[0] == runs[1]
    check_logprobs(peaky, tokenizer, PROMPTS, runs[0], 1.0)
    alike = sample(peaky, tokenizer, PROMPTS[:1], n=80, temperature=1.0, max_tokens=20, seed=1)
    assert alike[0][:40] != alike[0][40:]  # the halves do not share their random numbers


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_ends_both_halves(peaky, tokenizer, threads, count):
    threads(count)
    ticks = []

    def tick(finished):
        ticks.append(finished)
        if len(ticks) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(peaky, tokenizer, PROMPTS, n=100, temperature=1.0, max_tokens=200, seed=1, tick=tick)
    assert len(ticks) <= 2 and torch.get_num_threads() == count


@pytest.mark.parametrize("slots", [3, 8, 64])
def test_rows_are_refilled_and_retired_without_mixing_answers(peaky, tokenizer, monkeypatch, slots):
    """40 answers of different lengths through few rows: each must still be its own question's."""
    monkeypatch.setitem(MAX_ROWS, "cpu", slots)
    prompts = [f"Compute {number}+{'1' * (number % 7 + 1)}." for number in range(20)]
    groups = sample(peaky, tokenizer, prompts, n=2, temperature=1.0, max_tokens=25, seed=6)
    lengths = {len(answer.ids) for group in groups for answer in group}
    reasons = {answer.finish_reason for group in groups for answer in group}
    assert len(lengths) > 5 and reasons == {"stop", "length"}, (lengths, reasons)
    check_logprobs(peaky, tokenizer, prompts, groups, 1.0)


def test_hf_goes_on_in_batches(peaky, tokenizer, monkeypatch):
    monkeypatch.setitem(MAX_ROWS, "cpu", 4)
    groups = sample(peaky, tokenizer, PROMPTS, n=3, temperature=1.0, max_tokens=20, seed=6, engine="hf")
    check_logprobs(peaky, tokenizer, PROMPTS, groups, 1.0)


def test_nothing_of_a_folder_s_generation_config_is_sampled_with(peaky, tokenizer, monkeypatch):
    """Small instruct models come with a repetition penalty, R1 distills with a top_p."""
    (one,), = (sample(peaky, tokenizer, PROMPTS[:1], engine="hf", n=1, temperature=0.0, max_tokens=30),)
    theirs = GenerationConfig(
        repetition_penalty=9.0, no_repeat_ngram_size=1, eos_token_id=peaky.generation_config.eos_token_id)
    monkeypatch.setattr(peaky, "generation_config", theirs)
    (two,), = (sample(peaky, tokenizer, PROMPTS[:1], engine="hf", n=1, temperature=0.0, max_tokens=30),)
    assert two[0].ids == one[0].ids and len(set(one[0].ids)) < len(one[0].ids)
    assert peaky.generation_config is theirs


@pytest.mark.parametrize("engine", ENGINES)
def test_how_an_answer_ends(peaky, tokenizer, engine):
    groups = sample(peaky, tokenizer, PROMPTS * 4, n=2, temperature=1.0, max_tokens=20, seed=3, engine=engine)
    flat = [answer for group in groups for answer in group]
    stops = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert {answer.finish_reason for answer in flat} == {"stop", "length"}
    for answer in flat:
        stopped = answer.finish_reason == "stop"
        assert len(answer.ids) == len(answer.logprobs) <= 20
        assert (answer.ids[-1] in stops) == stopped and not stops & set(answer.ids[:-1])
        assert stopped or len(answer.ids) == 20
        assert answer.text == tokenizer.decode(answer.ids[:-1] if stopped else answer.ids)


def test_sampling_leaves_the_model_as_it_was(peaky, tokenizer):
    peaky.train()
    sample(peaky, tokenizer, PROMPTS, n=1, temperature=1.0, max_tokens=3)
    assert peaky.training
    peaky.eval()
    sample(peaky, tokenizer, PROMPTS, n=1, temperature=1.0, max_tokens=3)
    assert not peaky.training


def test_an_interrupted_sampling_leaves_the_adapter_unmerged(student, tokenizer):
    model = checkpoints.load(student, HardwareConfig(adapter="lora")).train()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.01)
    layer = model.base_model.model.model.layers[0].mlp.down_proj
    before = layer.base_layer.weight.clone()

    def interrupt(finished):
        assert not torch.allclose(layer.base_layer.weight, before)  # merged while it samples
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(model, tokenizer, PROMPTS, n=1, temperature=1.0, max_tokens=3, tick=interrupt)
    assert not layer.merged and torch.allclose(layer.base_layer.weight, before, atol=1e-6) and model.training


def test_unknown_engine(peaky, tokenizer):
    with pytest.raises(UserError, match="unknown engine 'tpu'.*cpu, hf, vllm"):
        sample(peaky, tokenizer, PROMPTS, n=1, temperature=0, max_tokens=1, engine="tpu")


def test_the_engine_cpu_knows_one_architecture(peaky, tokenizer, monkeypatch):
    monkeypatch.setattr(peaky.config, "model_type", "gpt2")
    with pytest.raises(UserError, match="Phi-3 models only, not gpt2: choose hf"):
        sample(peaky, tokenizer, PROMPTS, n=1, temperature=0, max_tokens=1)


def test_answers_at_once_fit_into_half_of_the_free_memory():
    """Keys and values of Phi-4-mini are 256 KiB a token in float32: 4,352 tokens an answer, 14 GB free."""
    phi = shapes.phi_config("phi-4-mini", 200064)
    assert hf.max_rows(phi, 4352, 14 * 2**30, 1024) == 6  # 6.6 times 1,088 MiB are 7 GiB
    assert hf.max_rows(phi, 4352, 2**20, 1024) == 1 and hf.max_rows(phi, 100, 80 * 2**30, 1024) == 1024
