"""The engines that run on a CPU sample from the model: log-probabilities, greedy choices, frequencies."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mpmath import gammainc

from phi_lab.core.errors import UserError
from phi_lab.model import chat, checkpoints
from phi_lab.sampling import rollouts

PROMPTS = ["Compute 47+38-12.", "Find 9*7.", "Ann has 12 nuts. Then Ann loses 5. How many nuts does Ann have now?"]
ENGINES = sorted(set(rollouts.ENGINES) - {"vllm"})


@pytest.fixture(scope="module")
def peaky(tokenizer):
    """Random weights, but large: a near-uniform model would forgive any mistake in attention or norms."""
    model = checkpoints.build("phi-nano", len(tokenizer), 5).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_((12 if "embed" in name else 6) if weight.dim() > 1 else torch.rand_like(weight) + 0.5)
        model.lm_head.weight[tokenizer.eos_token_id] *= 2  # so that some answers end
    return model


def reference(model, tokenizer, prompt, ids, temperature):
    """Log-probability of each of `ids` under transformers' forward."""
    asked = chat.prompt_ids(tokenizer, prompt)
    with torch.no_grad():
        logits = model(torch.tensor([asked + ids])).logits[0, len(asked) - 1 : -1]
    return (logits / (temperature or 1.0)).log_softmax(-1)[range(len(ids)), ids]


def check_logprobs(model, tokenizer, prompts, groups, temperature):
    for prompt, group in zip(prompts, groups, strict=True):
        for one in group:
            wanted = reference(model, tokenizer, prompt, one.ids, temperature)
            assert torch.tensor(one.logprobs) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_log_probabilities_of_every_token(peaky, tokenizer, engine, temperature):
    groups = rollouts.sample(peaky, tokenizer, PROMPTS, samples=3, temperature=temperature, max_new_tokens=30, seed=1,
                             engine=engine, quiet=True)
    assert [len(group) for group in groups] == [3, 3, 3]
    check_logprobs(peaky, tokenizer, PROMPTS, groups, temperature)
    assert min(min(one.logprobs) for group in groups for one in group) < -0.5  # the model is not certain of everything


def test_log_probabilities_of_a_shipped_model(shipped):
    model, tokenizer = checkpoints.load(shipped("grpo")).eval(), checkpoints.load_tokenizer(shipped("grpo"))
    groups = rollouts.sample(
        model, tokenizer, PROMPTS, samples=4, temperature=1.0, max_new_tokens=150, seed=2, quiet=True
    )
    check_logprobs(model, tokenizer, PROMPTS, groups, 1.0)
    assert all("\\boxed{" in one.text for one in groups[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_greedy_is_generate_token_for_token(peaky, tokenizer, engine):
    groups = rollouts.sample(peaky, tokenizer, PROMPTS, samples=1, temperature=0, max_new_tokens=40, seed=0,
                             engine=engine, quiet=True)
    stops = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    for prompt, (one,) in zip(PROMPTS, groups, strict=True):
        asked = torch.tensor([chat.prompt_ids(tokenizer, prompt)])
        whole = peaky.generate(input_ids=asked, attention_mask=torch.ones_like(asked), max_new_tokens=40,
                               do_sample=False, eos_token_id=stops, pad_token_id=stops[1])
        assert whole[0, asked.shape[1] :].tolist() == one.ids


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
    (group,) = rollouts.sample(peaky, tokenizer, PROMPTS[:1], samples=3000, temperature=temperature, max_new_tokens=1,
                               seed=11, engine=engine, quiet=True)
    for one in group:
        counts[one.ids[0]] += 1
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
    (group,) = rollouts.sample(peaky, tokenizer, PROMPTS[:1], samples=3000, temperature=2.5, top_p=0.7, seed=11,
                               max_new_tokens=1, engine=engine, quiet=True)
    for one in group:
        counts[one.ids[0]] += 1
        assert one.logprobs[0] == pytest.approx(chances[one.ids[0]].log().item(), abs=1e-4)  # of all tokens
    assert sum(counts[token] for token in order[:few]) == 3000
    assert chi_square([counts[token] for token in order[:few]], kept[order[:few]].tolist()) > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_the_seed_makes_the_rollouts(peaky, tokenizer, engine):
    def collect_rollouts(seed):
        return rollouts.sample(peaky, tokenizer, PROMPTS, samples=2, temperature=1.0, max_new_tokens=12, seed=seed,
                               engine=engine, quiet=True)

    assert collect_rollouts(4) == collect_rollouts(4) != collect_rollouts(5)


@pytest.fixture
def threads():
    """Sets the number of torch's threads, for this test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_threads_do_not_change_the_rollouts_of_two_halves(peaky, tokenizer, threads):
    """Three questions, 99 jobs: two halves, cut within a question."""
    found = []
    for count in (1, 2):
        threads(count)
        counts = []
        found.append(rollouts.sample(peaky, tokenizer, PROMPTS, samples=33, temperature=1.0, max_new_tokens=20, seed=1,
                                     tick=counts.append))
        assert sum(counts) == 99 and torch.get_num_threads() == count
    assert found[0] == found[1]
    check_logprobs(peaky, tokenizer, PROMPTS, found[0], 1.0)
    alike = rollouts.sample(peaky, tokenizer, PROMPTS[:1], samples=80, temperature=1.0, max_new_tokens=20, seed=1,
                            quiet=True)
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
        rollouts.sample(peaky, tokenizer, PROMPTS, samples=100, temperature=1.0, max_new_tokens=200, seed=1, tick=tick)
    assert len(ticks) <= 2 and torch.get_num_threads() == count


@pytest.mark.parametrize("slots", [3, 8, 64])
def test_rows_are_refilled_and_retired_without_mixing_answers(peaky, tokenizer, monkeypatch, slots):
    """40 answers of different lengths through few rows: each must still be its own question's."""
    monkeypatch.setitem(rollouts.SLOTS, "cpu", slots)
    prompts = [f"Compute {number}+{'1' * (number % 7 + 1)}." for number in range(20)]
    groups = rollouts.sample(
        peaky, tokenizer, prompts, samples=2, temperature=1.0, max_new_tokens=25, seed=6, quiet=True
    )
    lengths = {len(one.ids) for group in groups for one in group}
    reasons = {one.finish_reason for group in groups for one in group}
    assert len(lengths) > 5 and reasons == {"stop", "length"}, (lengths, reasons)
    check_logprobs(peaky, tokenizer, prompts, groups, 1.0)


def test_hf_goes_on_in_batches(peaky, tokenizer, monkeypatch):
    monkeypatch.setitem(rollouts.SLOTS, "cpu", 4)
    groups = rollouts.sample(peaky, tokenizer, PROMPTS, samples=3, temperature=1.0, max_new_tokens=20, seed=6,
                             engine="hf", quiet=True)
    check_logprobs(peaky, tokenizer, PROMPTS, groups, 1.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_how_an_answer_ends(peaky, tokenizer, engine):
    groups = rollouts.sample(peaky, tokenizer, PROMPTS * 4, samples=2, temperature=1.0, max_new_tokens=20, seed=3,
                             engine=engine, quiet=True)
    flat = [one for group in groups for one in group]
    stops = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert {one.finish_reason for one in flat} == {"stop", "length"}
    for one in flat:
        stopped = one.finish_reason == "stop"
        assert len(one.ids) == len(one.logprobs) <= 20
        assert (one.ids[-1] in stops) == stopped and not stops & set(one.ids[:-1])
        assert stopped or len(one.ids) == 20
        assert one.text == tokenizer.decode(one.ids[:-1] if stopped else one.ids)


def test_sampling_leaves_the_model_as_it_was(peaky, tokenizer):
    peaky.train()
    rollouts.sample(peaky, tokenizer, PROMPTS, samples=1, temperature=1.0, max_new_tokens=3, seed=0, quiet=True)
    assert peaky.training
    peaky.eval()
    rollouts.sample(peaky, tokenizer, PROMPTS, samples=1, temperature=1.0, max_new_tokens=3, seed=0, quiet=True)
    assert not peaky.training


def test_unknown_engine(peaky, tokenizer):
    with pytest.raises(UserError, match="unknown engine 'tpu'.*cpu, hf, vllm"):
        rollouts.sample(peaky, tokenizer, PROMPTS, samples=1, temperature=0, max_new_tokens=1, seed=0, engine="tpu")


def test_the_engine_cpu_knows_one_architecture(peaky, tokenizer, monkeypatch):
    monkeypatch.setattr(peaky.config, "model_type", "gpt2")
    with pytest.raises(UserError, match="Phi-3 models only, not gpt2: choose hf"):
        rollouts.sample(peaky, tokenizer, PROMPTS, samples=1, temperature=0, max_new_tokens=1, seed=0)


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
    rollouts.release_engine()
    model = checkpoints.load_to_sample(shipped("grpo"), "vllm")
    assert model.device.type == "meta"  # shapes only: vLLM reads the weights
    asked = {"samples": 2, "temperature": 0.6, "top_p": 0.9, "max_new_tokens": 9, "engine": "vllm", "quiet": True}
    groups = rollouts.sample(model, tokenizer, PROMPTS[:2], seed=3, **asked)
    flat = [one for group in groups for one in group]
    assert [one.ids[1] for one in flat] == [6, 7, 8, 9]
    assert [one.logprobs for one in flat] == [[-token / 8 for token in one.ids] for one in flat]
    assert {one.finish_reason for one in flat} == {"stop"}
    assert seen["jobs"] == [chat.prompt_ids(tokenizer, prompt) for prompt in PROMPTS[:2] for _ in range(2)]
    settings = seen["settings"]
    assert {(one["temperature"], one["top_p"], one["max_tokens"]) for one in settings} == {(0.6, 0.9, 9)}
    assert len({one["seed"] for one in settings}) == 4  # samples of one prompt must differ
    (engine,) = started
    assert engine["logprobs_mode"] == "processed_logprobs"  # of the distribution that was sampled from
    assert max(map(len, seen["jobs"])) + 9 <= engine["max_model_len"] <= model.config.max_position_embeddings
    rollouts.sample(model, tokenizer, [*PROMPTS[:1], 40 * "a longer one "], seed=4, **asked)
    assert len(started) == 1 and settings != seen["settings"]  # the engine stays, the seed is another
    rollouts.release_engine()
    rollouts.sample(model, tokenizer, PROMPTS[:2], seed=4, **asked)
    assert len(started) == 2
    rollouts.release_engine()


def test_without_vllm_one_line_says_what_to_install(peaky, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="needs a GPU and pip install"):
        rollouts.sample(peaky, tokenizer, PROMPTS[:1], samples=1, temperature=0, max_new_tokens=2, seed=0,
                        engine="vllm", quiet=True)


def test_answers_at_once_fit_into_half_of_the_free_memory():
    """Keys and values of Phi-4-mini are 256 KiB a token in float32: 4,352 tokens an answer, 14 GB free."""
    phi = checkpoints.config("phi-4-mini", 200064)
    assert rollouts._rows(phi, 4352, 14 * 2**30, 1024) == 6  # 6.6 times 1,088 MiB are 7 GiB
    assert rollouts._rows(phi, 4352, 2**20, 1024) == 1 and rollouts._rows(phi, 100, 80 * 2**30, 1024) == 1024
