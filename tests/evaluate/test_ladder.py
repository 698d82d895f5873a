"""What is sampled of each benchmark, and what its rows say: every protocol, every part, nothing twice."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from phi_lab.config import presets
from phi_lab.config.schema import EvaluationConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, write_rows
from phi_lab.core.paths import SHIPPED
from phi_lab.core.run_folder import EvalFolder
from phi_lab.evaluate import ladder
from phi_lab.problems import benchmarks
from phi_lab.report.ladder_rows import protocol

FEW = EvaluationConfig(problems=6, samples=2, pass_problems=3, pass_samples=4, max_new_tokens=4)
LIGHT = replace(FEW, cool_temperature=0.0, pass_problems=0)


@pytest.fixture
def problems(monkeypatch):
    """Six made-up problems of each benchmark, on two levels, two with fractions; a course has the first four."""
    rows = [
        {"id": f"p{number}", "domain": "arithmetic", "level": 3 + number % 2, "answer": "1",
         "prompt": "What is 1/2+1/2 as a fraction?" if number < 2 else "Compute 1."}
        for number in range(6)
    ]
    monkeypatch.setattr(benchmarks, "load", lambda name: rows)
    monkeypatch.setattr(ladder, "LAB", replace(presets.LAB, evaluation=replace(FEW, problems=4)))
    return rows


def saved_answers(folder, problems, config):
    """Random verdicts for everything that `config` asks for; returns the rows of `hard`."""
    rng, saved = random.Random(0), {}
    for benchmark in benchmarks.NAMES:
        heats = {0.0: 1, config.temperature: config.samples if benchmark == "hard" else 1}
        if benchmark == "hard" and config.cool_temperature:
            heats[config.cool_temperature] = 1
        keys = [(problem["id"], heat, number) for heat, count in heats.items() for problem in problems
                for number in range(count)]
        if benchmark == "hard":
            keys += [(problem["id"], config.temperature, number) for problem in problems[: config.pass_problems]
                     for number in range(config.samples, config.pass_samples)]
        saved[benchmark] = [
            {"id": name, "temperature": heat, "sample": number, "verdict": rng.choice(["right", "wrong", "unparsed"])}
            for name, heat, number in keys
        ]
        write_rows(folder.answers("x", benchmark), saved[benchmark])
    return saved["hard"]


def share(rows):
    return sum(row["verdict"] == "right" for row in rows) / len(rows)


def test_every_protocol_of_hard_counts_its_own_answers(tmp_path, problems):
    folder = EvalFolder(tmp_path)
    answers = saved_answers(folder, problems, FEW)
    rows = ladder.ladder_rows("x", "sft", "main", folder, FEW, 3, {"seconds": 1.0})
    assert Counter((row["benchmark"], row["protocol"]) for row in rows) == Counter(
        [("hard", "cool"), ("hard", "pass"), *((name, kind) for name in benchmarks.NAMES
                                               for kind in ("greedy", "sampled"))])
    hard = {row["protocol"]: row for row in rows if row["benchmark"] == "hard"}
    assert {kind: (row["temperature"], row["k"], row["n"]) for kind, row in hard.items()} == {
        "greedy": (0.0, 1, 6), "sampled": (0.6, 2, 12), "cool": (0.3, 1, 6), "pass": (0.6, 4, 12)}
    first_two = [row for row in answers if row["temperature"] == 0.6 and row["sample"] < 2]
    assert hard["sampled"]["accuracy"] == share(first_two)
    assert hard["cool"]["accuracy"] == share([row for row in answers if row["temperature"] == 0.3])
    assert hard["greedy"]["accuracy"] == share([row for row in answers if row["temperature"] == 0.0])
    hits = [any(row["verdict"] == "right" for row in answers if (row["id"], row["temperature"]) == (name, 0.6))
            for name in ("p0", "p1", "p2")]
    assert hard["pass"]["pass_at_k"] == sum(hits) / 3
    assert all(hard[kind]["pass_at_k"] is None for kind in ("greedy", "sampled", "cool"))
    assert [protocol(row) for row in rows] == [row["protocol"] for row in rows]
    assert all(row["seed"] == 3 and row["seconds"] == 1.0 for row in rows)


def test_parts_are_counted_apart(tmp_path, problems):
    folder = EvalFolder(tmp_path)
    answers = saved_answers(folder, problems, FEW)
    (row,) = [row for row in ladder.ladder_rows("x", "sft", "main", folder, FEW, 0, {})
              if (row["benchmark"], row["protocol"]) == ("hard", "sampled")]
    members = {"level 3": ("p0", "p2", "p4"), "level 4": ("p1", "p3", "p5"), "fractions": ("p0", "p1"),
               "first half": ("p0", "p1", "p2", "p3")}
    for part, ids in members.items():
        here = [one for one in answers if one["temperature"] == 0.6 and one["sample"] < 2 and one["id"] in ids]
        assert row["parts"][part] == [sum(one["verdict"] == "right" for one in here), 2 * len(ids)]
    assert set(row["parts"]) == set(members)
    short = replace(FEW, problems=4)
    saved_answers(folder, problems[:4], short)
    assert all("first half" not in row["parts"] for row in ladder.ladder_rows("x", "sft", "main", folder, short, 0, {}))
    for problem in problems:
        problem["level"] = 0  # a public set
    saved_answers(folder, problems, FEW)
    assert all(row["parts"] == {} for row in ladder.ladder_rows("x", "sft", "main", folder, FEW, 0, {}))


def test_a_lighter_measurement_is_a_matter_of_configuration(tmp_path, problems):
    folder = EvalFolder(tmp_path)
    saved_answers(folder, problems, LIGHT)
    rows = ladder.ladder_rows("x", "sft", "control", folder, LIGHT, 0, {})
    assert {row["protocol"] for row in rows} == {"greedy", "sampled"}
    for config in (FEW, LIGHT, *(replace(FEW, benchmarks=sets) for sets in (("easy", "hard", ""), ("easy", "", "")))):
        sets = [name for name, chosen in zip(benchmarks.NAMES, config.benchmarks, strict=True) if chosen]
        asked = [len(one.problems) * one.samples for name in sets for one in ladder._rounds(name, problems, config, 0)]
        assert config.answers == sum(asked)
    full = replace(presets.LAB.evaluation, problems=1000)
    light = replace(full, samples=2, cool_temperature=0.0, pass_problems=0)
    asked = [sum(len(one.problems) * one.samples for one in ladder._rounds("hard", benchmarks.load("hard"), config, 0))
             for config in (full, light)]
    assert asked == [6 * len(problems) + 4 * len(problems), 3 * len(problems)]


@pytest.mark.parametrize("change", ["missing", "other problem", "other temperature"])
def test_answers_to_something_else_are_refused(tmp_path, problems, change):
    folder = EvalFolder(tmp_path)
    answers = saved_answers(folder, problems, FEW)
    if change == "missing":
        answers.pop()
    else:
        answers[-1] |= {"id": "p9"} if change == "other problem" else {"temperature": 0.7}
    write_rows(folder.answers("x", "hard"), answers)
    with pytest.raises(UserError, match="hard.jsonl holds 29 of 30 answers; delete it"):
        ladder.ladder_rows("x", "sft", "main", folder, FEW, 0, {})


def test_what_a_model_is_asked(tmp_path, student):
    """On the real path: as many answers of each kind as the rows then count, other draws at each seed of a round."""
    folder = EvalFolder(tmp_path)
    ladder.evaluate(student, "x", folder, FEW, 0)
    for benchmark in benchmarks.NAMES:
        rows = read_rows(folder.answers("x", benchmark))
        assert len({(row["id"], row["temperature"], row["sample"]) for row in rows}) == len(rows)
        assert Counter(row["temperature"] for row in rows) == (
            {0.0: 6, 0.6: 12 + 6, 0.3: 6} if benchmark == "hard" else {0.0: 6, 0.6: 6})
    hard = read_rows(folder.answers("x", "hard"))
    name = hard[0]["id"]
    draws = [row["completion"] for row in hard if (row["id"], row["temperature"]) == (name, 0.6)]
    assert len(draws) == 4 == len(set(draws))
    assert [row["sample"] for row in hard if (row["id"], row["temperature"]) == (name, 0.6)] == [0, 1, 2, 3]
    assert len(ladder.ladder_rows("x", "x", "main", folder, FEW, 0, {})) == 8


def test_an_engine_that_fails_leaves_what_was_measured_and_binds_nobody(tmp_path, problems, student):
    """The corrected command is another one, and finds nothing in its way."""
    folder = EvalFolder(tmp_path)
    with pytest.raises(UserError, match="unknown engine 'none'"):
        ladder.evaluate(student, "x", folder, replace(LIGHT, engine="none"), 0)
    ladder.evaluate(student, "x", folder, LIGHT, 0)
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.suffix.startswith(".json")}
    assert len(before) == 4
    with pytest.raises(UserError, match="unknown engine 'none'"):  # other weights
        ladder.evaluate(SHIPPED / "sft", "x", folder, replace(LIGHT, engine="none"), 0, resample_stale=True)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_name_with_a_dot_is_another_model(tmp_path, problems, student):
    folder = EvalFolder(tmp_path)
    ladder.evaluate(SHIPPED / "sft", "phi.v2", folder, LIGHT, 0)
    other = {path: path.read_bytes() for path in tmp_path.glob("phi.v2*")}
    ladder.evaluate(student, "phi", folder, LIGHT, 0, resample_stale=True)
    assert len(other) == 4 and all(path.read_bytes() == content for path, content in other.items())


@pytest.mark.parametrize("damage", [{"id": [1]}, {"temperature": "x"}, {"sample": None}, {"verdict": 5}])
def test_a_mistyped_answer_is_named(tmp_path, damage):
    row = {"id": "a", "temperature": 0.0, "sample": 0, "completion": "1", "verdict": "right"}
    write_rows(tmp_path / "grpo.hard.jsonl", [row, row | damage])
    with pytest.raises(UserError, match=f"hard.jsonl, line 2: '{next(iter(damage))}' must be"):
        ladder._all_answers(tmp_path / "grpo.hard.jsonl", [])
