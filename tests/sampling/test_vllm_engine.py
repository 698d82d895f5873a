"""vLLM itself on a CPU: the same greedy texts and log-probabilities as the engine cpu, in float32.

Skipped where vLLM is missing. Its CPU build pins packages that this project's environment has in other versions, so it
needs one of its own (docs/scaling.md).
"""

import functools
import importlib.util

import pytest

from phi_lab import sampling
from phi_lab.core.paths import TEACHER
from phi_lab.model import checkpoints
from phi_lab.problems import arithmetic

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed (docs/scaling.md)"),
]


@pytest.fixture(scope="module")
def vllm():
    """vLLM in this process, in float32 and without compiling."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                            "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items():
            patched.setenv(name, value)
        import vllm

        patched.setattr(vllm, "LLM", functools.partial(vllm.LLM, dtype="float32", enforce_eager=True))
        yield vllm
        sampling.release_engine()


def require_same_greedy_answers(folder, max_tokens):
    tokenizer, prompts = checkpoints.load_tokenizer(folder), [p.prompt for p in arithmetic.sample_problems(8, 0)]
    params = sampling.SamplingParams(n=1, temperature=0.0, max_tokens=max_tokens)
    ours, theirs = (
        [one for (one,) in sampling.sample(checkpoints.load_to_sample(folder, engine), tokenizer, prompts, params,
                                           engine=engine, quiet=True)] for engine in ("cpu", "vllm"))
    assert [answer.ids for answer in ours] == [answer.ids for answer in theirs]
    for one, two in zip(ours, theirs, strict=True):
        assert two.logprobs == pytest.approx(one.logprobs, abs=1e-4)


def test_greedy_texts_and_log_probabilities_are_those_of_the_engine_cpu(vllm):
    require_same_greedy_answers(TEACHER, 128)


def test_longrope_rotates_as_ours_from_the_first_token(vllm, long_roped):
    """Questions and the first tokens of answers lie below the 32 at which transformers would change its factors."""
    require_same_greedy_answers(long_roped, 40)
