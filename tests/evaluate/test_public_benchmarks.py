"""Public benchmarks end to end: real problems, a tiny model, every sample kept, a stopped measurement goes on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from phi_lab import cli, sampling
from phi_lab.config import schema
from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_rows
from phi_lab.distill import shards
from phi_lab.evaluate import public_benchmarks
from phi_lab.problems import sources

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SHORT = schema.BenchmarkProtocol(max_new_tokens=24, samples=3, aime_samples=5, problems=4)


@pytest.fixture
def sets(tmp_path, monkeypatch):
    folder = tmp_path / "sets"
    for name in ("math500", "aime24"):
        rows = [{"problem": f"What is {n}+{n}?", "answer": str(2 * n)} for n in range(6)]
        write_rows(folder / f"{name}.jsonl", rows)
    monkeypatch.setenv("PHI_LAB_SETS", str(folder))
    return folder


def measure(shipped, out, names=("math500", "aime24"), protocol=SHORT, said=None):
    say = (said if said is not None else []).append
    return public_benchmarks.evaluate_public(shipped("grpo"), names, out, protocol, 0, "cpu", say)


def test_every_sample_is_kept_and_counted(tmp_path, sets, shipped):
    said = []
    rows = measure(shipped, tmp_path / "out", said=said)
    assert [(row["benchmark"], row["problems"], row["samples"]) for row in rows] == [
        ("math500", 4, 3),
        ("aime24", 4, 5),
    ]
    assert rows == read_json(tmp_path / "out" / "scores.json")
    for row in rows:
        kept = list(shards.rows(tmp_path / "out" / row["benchmark"]))
        assert len(kept) == row["problems"] * row["samples"]
        assert row["accuracy"] == sum(one["verdict"] == "right" for one in kept) / len(kept)
        right = [
            sum(one["verdict"] == "right" for one in kept if one["id"] == name) for name in {o["id"] for o in kept}
        ]
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(stats.clustered_wilson(right, row["samples"]))
        cut = sum(one["finish_reason"] == "length" for one in kept)
        assert row["tokens"] <= 24 and 0 < row["cut"] == cut / len(kept)
    assert said == [public_benchmarks.score_line(row) for row in rows]
    lines = public_benchmarks.comparison_table(rows, "mine").splitlines()
    assert lines[0] == "| percent right | math500 | aime24 |" and lines[2].startswith("| **mine** | ")
    assert "| Phi-4-mini-reasoning (re-run) | 91.2 | 48.1 |" in lines


def test_the_model_is_asked_as_the_authors_ask(tmp_path, sets, shipped, monkeypatch):
    asked, real = [], sampling.sample

    def watched(model, tokenizer, prompts, params, **rest):
        asked.append((list(prompts), params.temperature, params.top_p, params.max_tokens))
        return real(model, tokenizer, prompts, params, **rest)

    monkeypatch.setattr(sampling, "sample", watched)
    measure(shipped, tmp_path / "out", ["math500"])
    ((prompts, *settings),) = asked
    assert settings == [0.6, 0.95, 24]
    assert prompts[:3] == [f"{schema.INSTRUCTION}\n\nWhat is 0+0?"] * 3 and len(prompts) == 12
    usual = schema.BenchmarkProtocol()
    assert (usual.temperature, usual.top_p, usual.max_new_tokens, usual.samples, usual.aime_samples) == (
        0.6, 0.95, 32768, 8, 64,
    )


def test_a_stopped_measurement_asks_only_for_what_is_missing(tmp_path, sets, shipped, monkeypatch):
    asked, real = [], sampling.sample

    def stopped(model, tokenizer, prompts, params, **rest):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return real(model, tokenizer, prompts, params, **rest)

    monkeypatch.setattr(public_benchmarks, "SAMPLES_PER_WRITE", 4)
    monkeypatch.setattr(sampling, "sample", stopped)
    with pytest.raises(KeyboardInterrupt):
        measure(shipped, tmp_path / "out", ["math500"])
    asked.append(0)  # from now on it goes through
    (row,) = measure(shipped, tmp_path / "out", ["math500"])
    assert sum(asked) == 12 == row["problems"] * row["samples"]
    first = read_json(tmp_path / "out" / "scores.json")
    assert measure(shipped, tmp_path / "out", ["math500"]) == first and sum(asked) == 12
    with pytest.raises(UserError, match="protocol differs.*choose another --out"):
        measure(shipped, tmp_path / "out", ["math500"], replace(SHORT, samples=2))


def test_a_set_is_measured_on_its_test_split_and_a_question_counts_once(tmp_path, sets, shipped):
    for split, number in (("train", 1), ("test", 2)):
        write_rows(sets / "gsm8k" / f"{split}.jsonl", [{"question": f"{number}?", "answer": f"#### {number}"}] * 2)
    (row,) = measure(shipped, tmp_path / "out", ["gsm8k"])
    assert {one["answer"] for one in shards.rows(tmp_path / "out" / "gsm8k")} == {"2"}
    assert (row["problems"], row["samples"]) == (1, 3)
    assert {problem.answer for problem, _ in sources.read_problems("gsm8k", sets)} == {"1"}  # what is learned from
    assert sources.NAMED["gsm8k"].eval_split == "test"


def test_every_portion_has_a_seed_of_its_own(tmp_path, sets, shipped, monkeypatch):
    seeds, real = [], sampling.sample
    monkeypatch.setattr(public_benchmarks, "SAMPLES_PER_WRITE", 5)
    monkeypatch.setattr(shards, "PROBLEMS_PER_SHARD", 2)

    def sample(model, tokenizer, prompts, params, **rest):
        seeds.append(params.seed)
        return real(model, tokenizer, prompts, params, **rest)

    monkeypatch.setattr(sampling, "sample", sample)
    measure(shipped, tmp_path / "out", ["math500"])
    assert len(seeds) == 4 == len(set(seeds))


def refused(capsys, *words):
    assert cli.main(["eval", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_bad_input_is_one_line(tmp_path, sets, shipped, capsys):
    asked = ("--model", shipped("grpo"), "--out", tmp_path / "out")
    assert "unknown benchmark 'mmlu'" in refused(capsys, *asked, "--benchmarks", "math500,mmlu")
    assert "unknown engine 'tpu'" in refused(capsys, *asked, "--benchmarks", "math500", "--engine", "tpu")
    assert "no gsm8k.jsonl" in refused(capsys, *asked, "--benchmarks", "gsm8k")
    assert "no model in" in refused(capsys, "--model", tmp_path, "--out", tmp_path / "o", "--benchmarks", "math500")
    write_rows(sets / "amc23.jsonl", [{"question": "why? " * 600, "answer": "1"}])
    words = (*asked, "--benchmarks", "amc23", "--engine", "cpu")
    assert "amc23: a question of" in refused(capsys, *words) and not list((tmp_path / "out").rglob("*.parquet"))


@pytest.mark.slow
def test_from_the_command_line_on_real_problems(tmp_path, shipped, capsys):
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here: real public problems are no part of the repository")
    words = ["eval", "--model", shipped("sft"), "--benchmarks", "gsm8k,amc23,aime24", "--sets", SHARED, "--problems", 6,
             "--samples", 2, "--max-tokens", 40, "--out", tmp_path / "out", "--name", "phi-nano"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PHI_LAB_SETS", "")  # which --sets would leave behind for other tests
        assert cli.main([str(word) for word in words]) == 0
    out = capsys.readouterr().out
    assert "| **phi-nano** |" in out and out.count("6 problems x 2") == 3
    rows = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [row["benchmark"] for row in rows] == ["gsm8k", "amc23", "aime24"]
    shutil.rmtree(tmp_path / "out")
