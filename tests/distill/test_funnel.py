"""The funnel: each filter removes what it says, counts add up to the row, and nothing of a benchmark gets in."""

import random
import time
import tracemalloc

import pytest

from phi_lab.core.files import read_json, read_rows
from phi_lab.distill import training_sets
from phi_lab.distill.decontamination import BenchmarkIndex
from phi_lab.distill.funnel import Funnel, Rules


def row(question=0, sample=0, completion=None, verdict="right", **more):
    text = completion or f"<think>{sample}+{question}={sample + question}.</think>\\boxed{{{sample}}}"
    return {
        "id": f"q{question}", "domain": "arithmetic", "level": 1, "split": "train", "prompt": f"Question {question}",
        "answer": "1", "sample": sample, "completion": text, "verdict": verdict, "finish_reason": "stop", "tokens": 20,
        "teacher": "t", "temperature": 1.0, "seed": 0, **more,
    }


def run_funnel(rows, rules=None, benchmarks=None):
    """(kept, wrong, removed by step) of some rows."""
    funnel = Funnel(rules or Rules(), benchmarks)
    sets = list(funnel.filter(rows))
    report = funnel.report()
    removed = {step["name"]: step["removed"] for step in report["steps"] if step["removed"]}
    kept, wrong = ([row for pair in sets for row in pair[side]] for side in (0, 1))
    assert report["steps"][-1]["kept"] == len(kept) and sum(removed.values()) + len(kept) == len(rows)
    return kept, wrong, removed


@pytest.mark.parametrize(
    ("odd", "step"),
    [
        ({"verdict": "wrong"}, "right"),
        ({"verdict": "unfinished"}, "right"),
        ({"completion": "\\boxed{1}"}, "worked"),
        ({"completion": "<think></think>\\boxed{1}"}, "worked"),
        ({"completion": "<think>1+1=2. so it is. so it is. so it is. </think>\\boxed{1}"}, "no repetition"),
        ({"completion": "<think>一二三四五六七 and so on</think>\\boxed{1}"}, "one script"),
        ({"tokens": 301}, "fits"),
    ],
)
def test_each_filter_removes_its_kind_and_no_other(odd, step):
    kept, _, removed = run_funnel([row(0), row(0, 1, **odd), row(1)])
    assert removed == {step: 1} and [r["id"] for r in kept] == ["q0", "q1"]


def test_greek_and_accents_are_at_home():
    kept, _, _ = run_funnel([row(completion="<think>α + β = γ, naïveté π</think>\\boxed{1}")])
    assert len(kept) == 1


def test_equal_and_alike_answers():
    words = [str(n) for n in range(40)]
    near = " ".join([*words[:39], "other"])
    texts = [" ".join(words), " ".join(words), near, " ".join(reversed(words))]
    rows = [row(0, n, f"<think>{text}</think>\\boxed{{1}}") for n, text in enumerate(texts)]
    assert run_funnel(rows)[2] == {"distinct": 1}
    kept, _, removed = run_funnel(rows, Rules(near_duplicate_threshold=0.8))
    assert removed == {"distinct": 1, "not alike": 1} and [r["sample"] for r in kept] == [0, 3]


def test_pass_rate_and_attributes():
    rows = [row(0, n, verdict="right" if n else "wrong") for n in range(4)] + [row(1, n) for n in range(4)]
    kept, wrong, removed = run_funnel(rows, Rules(pass_rate_range=(0.1, 0.9)))
    assert removed == {"right": 1, "difficulty": 4}
    assert {r["pass_rate"] for r in kept} == {0.75} and not any(r["repeats"] for r in kept)
    assert [(r["id"], r["pass_rate"]) for r in wrong] == [("q0", 0.75)]


def test_questions_of_other_levels_are_left_out():
    rows = [row(n, level=n) for n in range(5)]
    kept, _, removed = run_funnel(rows, Rules(level_range=(2, 3)))
    assert removed == {"difficulty": 3} and [r["level"] for r in kept] == [2, 3]


def test_a_domain_has_its_share():
    rows = [row(n, domain="logic" if n % 2 else "arithmetic") for n in range(20)]
    kept, _, removed = run_funnel(rows, Rules(max_per_domain=3))
    assert removed == {"balance": 14} and [r["id"] for r in kept] == [f"q{n}" for n in range(6)]


PROMPT = "A train leaves the old station at nine in the morning and travels at sixty miles an hour towards the north"


def test_benchmarks_stay_out():
    """Thirteen words in a row in natural text, the operands in the small world; short questions only when equal."""
    held = BenchmarkIndex([("math500", f"{PROMPT}. When does it arrive?"), ("amc", "What is 2+2?")])
    rows = [
        row(0, domain="text", prompt=f"Once more: {PROMPT.upper()}, they say; where is it?"),
        row(1, domain="text", prompt=" ".join(PROMPT.split()[:12])),
        row(2, domain="text", prompt="what is 2 + 2"),
        row(3, domain="text", prompt="What is 2+2? And then what is it after three more minutes of the same thing?"),
        row(4, split="benchmark"),
        row(5),
    ]
    funnel = Funnel(Rules(), held)
    kept = [r["id"] for right, _ in funnel.filter(rows) for r in right]
    assert kept == ["q1", "q3", "q5"]
    report = funnel.report()
    assert [found["id"] for found in report["contaminated"]] == ["q0", "q2", "q4"]
    assert report["contaminated"][0]["shared"].startswith("math500: a train leaves the old")


def test_the_same_question_in_nearly_the_same_words():
    words = PROMPT.split()
    rows = [
        row(0, domain="text", prompt=PROMPT), row(1, domain="text", prompt=PROMPT.replace("old", "OLD") + "!"),
        row(2, domain="text", prompt=" ".join(reversed(words))),
        row(3, prompt="Compute 1+2."), row(4, prompt="Compute 1+2."),  # canonical operands are the world's own business
    ]
    kept, _, removed = run_funnel(rows)
    assert removed == {"new question": 1} and [r["id"] for r in kept] == ["q0", "q2", "q3", "q4"]


def test_sets_funnel_and_card_agree_to_the_row(tmp_path):
    rng = random.Random(0)
    rows = [row(q, s, verdict=rng.choice(["right", "wrong", "unparsed"])) for q in range(50) for s in range(4)]
    report = training_sets.write_training_sets(iter(rows), tmp_path, about="Made up.")
    right, wrong = (read_rows(tmp_path / f"{name}.jsonl") for name in ("right", "wrong"))
    assert report == read_json(tmp_path / "funnel.json")
    assert len(right) == report["steps"][-1]["kept"] == sum(r["verdict"] == "right" for r in rows)
    assert len(wrong) == report["verdicts"]["wrong"] == sum(r["verdict"] == "wrong" for r in rows)
    card = (tmp_path / "README.md").read_text()
    assert "Made up." in card and f"| right | {200 - len(right)} | {len(right)} |" in card
    assert f"| unparsed | {report['verdicts']['unparsed']} |" in card
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.slow
def test_memory_and_speed_do_not_depend_on_the_number():
    """20,000 rollouts a second through the cheap filters, 2,000 through all of them (targets on two cores)."""
    text = " ".join(f"step {n} gives {n * n}" for n in range(12))

    def some(count, domain):
        for n in range(count // 8):
            for s in range(8):
                yield row(
                    n,
                    s,
                    f"<think>{text} {n} {s}</think>\\boxed{{1}}",
                    domain=domain,
                    prompt=f"{PROMPT} {n} {text[n % 90 :]}",
                )

    def through(count, rules, domain):
        funnel, start = Funnel(rules), time.perf_counter()
        assert sum(len(right) for right, _ in funnel.filter(some(count, domain))) > 0
        return count / (time.perf_counter() - start)

    cheap, whole = through(40_000, Rules(), "arithmetic"), through(8_000, Rules(near_duplicate_threshold=0.9), "text")
    print(f"{cheap:,.0f} and {whole:,.0f} rollouts a second")
    assert cheap > 20_000 and whole > 2_000
    peaks = []
    for count in (8_000, 32_000):
        tracemalloc.start()
        through(count, Rules(), "arithmetic")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 100_000
