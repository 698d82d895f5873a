"""vLLM itself on a CPU: the same greedy texts and log-probabilities as the engine cpu, in float32; its server as a
teacher, with and without a reasoning parser.

Skipped where vLLM is missing. Its CPU build pins packages that this project's environment has in other versions, so it
needs one of its own (docs/scaling.md).
"""

import functools
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress

import pytest
import split_thoughts

from phi_lab import sampling
from phi_lab.core import lifeline
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


@contextmanager
def serving(folder, *options):
    """The address of vLLM's own server of the shipped teacher, on this machine; its log goes into `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", TEACHER, "--served-model-name",
               "teacher", "--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--host", "127.0.0.1",
               "--port", port, *options]
    settings = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    words = [str(word) for word in command]
    with (folder / "log").open("w") as log, subprocess.Popen(words, env=settings, stdout=log, stderr=log,
                                                             preexec_fn=lifeline.in_child()) as server:
        try:
            for _ in range(600):
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
                assert server.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_set_distilled_from_its_server_holds_our_greedy_answers(tmp_path):
    with serving(tmp_path) as url:
        split_thoughts.require_greedy_set(url, tmp_path / "set", split_thoughts.LONG)


def test_its_reasoning_parser_splits_thoughts_off_and_a_set_has_them_whole(tmp_path):
    with serving(tmp_path, "--reasoning-parser", split_thoughts.PARSER) as url:
        for tokens in (split_thoughts.LONG, split_thoughts.CUT):
            split_thoughts.require_thoughts_apart(url, tokens)
            split_thoughts.require_greedy_set(url, tmp_path / f"set-{tokens}", tokens, parsed=True)
