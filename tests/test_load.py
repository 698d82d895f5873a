"""Much at once: many rollouts in bounded memory, many learners side by side, long logs. `make soak` takes more of each.

    PHI_LAB_LOAD=1000000 python -m pytest tests/test_load.py
"""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from phi_lab import cli
from phi_lab.core.files import read_json, read_rows
from phi_lab.distill import shards
from phi_lab.distill.decontamination import BenchmarkIndex
from phi_lab.distill.funnel import Funnel
from phi_lab.lab.notebook import Lab

pytestmark = pytest.mark.slow
ROLLOUTS = int(os.environ.get("PHI_LAB_LOAD", "40000"))
SAMPLES = 8
LEARNERS = 64


def rollouts(count):
    """Rollouts to questions of the small world, a question's eight together, one of them wrong."""
    for number in range(count):
        question, sample = divmod(number, SAMPLES)
        text = f"<think>{question}+{sample}={question + sample}. So it is {sample}.</think>\\boxed{{{question}}}"
        yield {
            "id": f"arithmetic-{question}", "domain": "arithmetic", "level": 1, "split": "train",
            "prompt": f"What is {question}+0?", "answer": str(question), "sample": sample, "completion": text,
            "verdict": "right" if sample else "wrong", "finish_reason": "stop", "tokens": 30, "teacher": "t",
            "temperature": 1.0, "seed": 0,
        }


def test_memory_does_not_grow_with_rollouts():
    funnel, process = Funnel(benchmarks=BenchmarkIndex([("hard", "How many apples has Ann?")])), psutil.Process()
    kept, sizes = 0, []
    for number, (right, _) in enumerate(funnel.filter(rollouts(ROLLOUTS))):
        kept += len(right)
        if number % (ROLLOUTS // SAMPLES // 10) == 0:
            sizes.append(process.memory_info().rss / 2**20)
    assert funnel.rollouts == ROLLOUTS and funnel.questions == ROLLOUTS // SAMPLES and kept > ROLLOUTS // 2
    assert max(sizes[2:]) - sizes[1] < 16, sizes  # MB; the rollouts themselves take over 1 kB each


def test_sixty_four_learners_do_not_mix(tmp_path, monkeypatch):
    """Each has a lab in a folder of the same tree, with another seed; eight work at any moment."""
    monkeypatch.setenv("PHI_LAB_PROFILE", "smoke")
    labs = []
    for number in range(LEARNERS):
        monkeypatch.setenv("PHI_LAB_RUN", str(tmp_path / f"learner-{number}"))
        monkeypatch.setenv("PHI_LAB_SEED", str(number))
        labs.append(Lab())
        monkeypatch.setattr(labs[-1], "data", lambda lab=labs[-1]: lab.run.data)  # without the teacher's rollouts
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda lab: lab.script_rollouts(2), labs))
    for number, rows in enumerate(made):
        folder = tmp_path / f"learner-{number}"
        assert read_json(folder / "config.json")["seed"] == number
        assert {row["seed"] for row in rows} == {number}
        assert list(shards.rows(folder / "data" / "script")) == rows
        assert sorted(path.name for path in folder.iterdir()) == ["config.json", "data"]
    assert len({tuple(row["prompt"] for row in rows) for rows in made}) > LEARNERS // 2  # other seeds ask otherwise


def test_a_long_log_of_grpo(tmp_path, capsys):
    """Two thousand steps: read, drawn and checked in seconds, and the last row is seen."""
    steps = 2000 * max(1, ROLLOUTS // 40000)
    row = {"loss": 0.01, "learning_rate": 1e-4, "reward": 0.1, "zero_variance_share": 0.3, "mean_length": 50,
           "entropy": 0.4, "temperature": 0.8, "kept_share": 0.5, "tokens": 100, "seconds": 1.0}
    (tmp_path / "grpo").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"scale": "cpu", "profile": "lab", "seed": 0}))
    (tmp_path / "ladder.json").write_text("[]")
    with (tmp_path / "grpo" / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            flat = {"zero_variance_share": 1.0, "reward": -1.0} if step > steps // 2 else {}
            file.write(json.dumps({**row, **flat, "step": step}) + "\n")
    began = time.process_time()
    assert cli.main(["doctor", str(tmp_path)]) == 0
    assert f"{steps} logged steps" in capsys.readouterr().out.replace(",", "")
    assert cli.main(["report", str(tmp_path)]) == 0
    assert time.process_time() - began < 30
    assert len(read_rows(tmp_path / "grpo" / "metrics.jsonl")) == steps
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
