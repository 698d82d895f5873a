"""The audit page: counts with intervals, every miss with math-verify's verdict beside it, hostile text harmless."""

import json
import os
import time
from pathlib import Path

import pytest
from html_page import HOSTILE, Page

from phi_lab import cli
from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import atomic_write, read_rows
from phi_lab.verify import audit, reference, worker

CASES = [
    {"id": "fp", "gold": "2", "response": r"\boxed{2}", "correct": False, "kind": "extraction", "tags": ["a", "b<i>"]},
    {"id": "fn", "gold": "7", "response": r"so $7$ and \boxed{8}", "correct": True, "benchmark": "gsm8k"},
    {"id": "open", "gold": "7", "response": "<think>7", "expected": True, "quality": "unboxed"},
    {"id": "odd", "gold": "1,2", "prediction_text": r"\boxed{2,1}", "expected": True, "contested": True},
    {"id": HOSTILE, "gold": HOSTILE, "response": rf"\boxed{{{HOSTILE}0}}", "expected": True},
    {"id": "long", "gold": "3", "response": "x" * 20_001 + r"\boxed{4}", "expected": True},
    {"id": "bare", "gold": "1", "response": "1"},
    *({"id": i, "gold": str(i), "response": rf"\boxed{{{i + i % 2}}}", "expected": not i % 2} for i in range(8)),
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A page, made by the command from two files, of which one is missing: the other is judged all the same."""
    folder = tmp_path_factory.mktemp("audit")
    cases = write(folder / "cases.jsonl", CASES)
    out = folder / "judged.jsonl"
    assert cli.main(["verify", "--cases", str(cases), str(folder / "none.jsonl"), "--out", str(out)]) == 2
    return out


@pytest.fixture(scope="module")
def page(written):
    return Page(written.with_suffix(".html").read_text(encoding="utf-8"))


def test_rows_keep_their_fields_and_say_their_file(written):
    rows = read_rows(written, ("verdict", "extracted"))
    assert [row["id"] for row in rows[:4]] == ["fp", "fn", "open", "odd"] and len(rows) == len(CASES)
    assert {row["file"] for row in rows} == {"cases.jsonl"}


def test_counts_and_intervals(written):
    found = audit.summary(read_rows(written))
    assert found["cases"] == 15 and found["labelled"] == 14
    assert found["main"]["false positives"] == (1, 5, *stats.wilson(1, 5))
    assert found["main"]["false negatives"] == (3, 7, *stats.wilson(3, 7))
    assert found["main"]["agreement"] == (8, 12, *stats.wilson(8, 12))
    assert found["contested"]["agreement"][1] == found["unboxed"]["agreement"][1] == 1
    assert "main, with the judge" not in found


def test_the_judge_only_adds_rights(written):
    rows = [{**row, "judge": "right" if row["id"] == "fn" else "wrong"} for row in read_rows(written)]
    found = audit.summary(rows)
    assert found["main"]["false negatives"][0] == 3
    assert found["main, with the judge"]["false negatives"][0] == 2
    assert found["main, with the judge"]["false positives"][0] == 1  # "wrong" takes nothing away


def test_the_page_says_it(page):
    says = page.says()
    assert "15 cases, 14 with a label" in says
    assert "main 8 of 12 66.7 % [39.1, 86.2] 1 of 5 20.0 % [3.6, 62.4] 3 of 7 42.9 % [15.8, 75.0]" in says
    assert "main, math-verify alone" in says and "unboxed" in says and "contested" in says
    assert "math-verify judged 13 of 14 labelled cases; 1 are longer than 20,000 characters and were left out" in says
    assert "Not in these numbers: " in says and "none.jsonl" in says
    assert "False positives: accepted, but wrong: 1 case gold" in says
    assert "fp main; file cases.jsonl; kind extraction; tags a, b<i> 2 2 right box; text right –" in says
    assert "fn main; file cases.jsonl; benchmark gsm8k 7 8 wrong box; number wrong –" in says
    assert "long main; file cases.jsonl 3 4 wrong box; number too long –" in says
    assert "False negatives: right, but judged unfinished: 1" in says
    assert "cases.jsonl extraction main 1 of 1 0 of 0 1 of 1 0 of 0" in says  # by set and kind, math-verify beside it
    assert "cases.jsonl gsm8k main 0 of 0 1 of 1 0 of 0 1 of 1" in says


def test_one_answer_is_explained(capsys):
    assert cli.main(["verify", "--explain", r"\boxed{\gcd(12,18)}", "--gold", "6"]) == 0
    strict, benchmark = capsys.readouterr().out.splitlines()
    assert strict.startswith("strict: wrong;") and "rule: box; not worked out: gcd" in strict
    assert benchmark.startswith("by the conventions of benchmarks: right;")
    for line in (["verify", "--explain", "1"], ["verify", "--cases", "a.jsonl"], ["verify"]):
        assert cli.main(line) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_page_needs_nothing_and_runs_nothing(page):
    assert not {"script", "img", "iframe", "link", "object", "a", "i"} & set(page.tags())
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("src", "href") for name in attributes), (tag, attributes)
    assert page.says().count("<script>alert(1)</script>") == 3  # id, gold, what was read


def test_votes_stand_beside_misses(written, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "ask", lambda pairs: ["right" for _ in pairs])
    rows = [{**row, "judge": "none<b>"} for row in read_rows(written) if row["id"] == "fn"]
    audit.write_page(tmp_path / "a.html", rows)
    says = Page((tmp_path / "a.html").read_text()).says()
    assert "7 8 wrong box; number right none<b>" in says and "main, with the judge 0 of 1" in says


def test_without_labels_and_in_large_sets(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(reference, "ask", lambda pairs: [asked.append(pair) or "wrong" for pair in pairs])
    bare = [{"id": 1, "gold": "1", "response": "1", "verdict": "right", "extracted": "1"}]
    audit.write_page(tmp_path / "a.html", bare)
    assert "No case has a label" in Page((tmp_path / "a.html").read_text()).says() and asked == []
    right, missed = {**bare[0], "correct": True}, {**bare[0], "correct": False}
    monkeypatch.setattr(audit, "WHOLE", 300)
    audit.write_page(tmp_path / "b.html", [*[right] * 100, *[missed] * 201])
    large = Page((tmp_path / "b.html").read_text())
    says = large.says()
    assert large.tags().count("pre") == 2 * 200  # gold and what was read
    assert len(asked) == 201 and "judged 201 of 301 labelled cases, the misses only" in says
    assert "math-verify alone" not in says and "The first 200 of them." in says


def test_files_that_cannot_be_read(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reference, "ask", lambda pairs: ["right" for _ in pairs])
    good, bad = write(tmp_path / "good.jsonl", CASES[:1]), write(tmp_path / "bad.jsonl", [{"id": 1}])
    out = str(tmp_path / "out.jsonl")
    assert cli.main(["verify", "--cases", str(bad), "--cases", str(good), "--out", out]) == 2
    assert f"not in these numbers: {bad}: line 1: field 'gold' is missing\n" in capsys.readouterr().err
    assert len(read_rows(tmp_path / "out.jsonl")) == 1  # of the file that can be read
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "out.jsonl")
    assert cli.main(["verify", "--cases", str(good), "--out", str(tmp_path / "link.jsonl")]) == 0
    assert (tmp_path / "link.jsonl").is_symlink()  # and what it leads to is written
    with pytest.raises(UserError, match="as it is no file"):
        atomic_write(Path(os.devnull), b"")
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + good.read_bytes())
    assert len(audit.judge_file(tmp_path / "bom.jsonl")) == 1 and len(read_rows(tmp_path / "bom.jsonl")) == 1
    assert cli.main(["verify", "--cases", str(bad), str(tmp_path / "none.jsonl"), "--out", out]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "bad.jsonl" in told and "none.jsonl" in told
    assert cli.main(["verify", "--cases", str(good), "--out", str(tmp_path / "out.html")]) == 2
    with pytest.raises(UserError, match="field 'gold'"):
        audit.judge_files([bad])
    assert "file" not in audit.judge_files([good])[0][0]


@pytest.mark.slow
def test_math_verify_is_asked_in_a_child_that_can_be_stopped(tmp_path):
    trap = tmp_path / "trap"
    start = time.monotonic()
    said = reference.ask(
        [
            (r"\boxed{\frac{38}{24}}", "19/12"),
            (r"\boxed{(x+1)^2}", "x^2+2x+1"),  # sympy loads its units here, which parses their names
            ("answer: 9**9**9**9", "3"),
            (r"\boxed{7}", "8"),
            (f"\\boxed{{__import__('pathlib').Path('{trap}').touch()}}", "1"),
            ("", "1"),
            ("the answer is 1/2", "0.5"),
        ],
        seconds=3,
    )
    assert said == ["right", "right", "timeout", "wrong", said[4], "unparsed", "right"]
    assert not trap.exists() and time.monotonic() - start < 60


def test_a_child_that_does_not_start_is_told(monkeypatch):
    monkeypatch.setattr(worker.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="does not start"):
        reference.ask([("1", "1")])


def test_a_file_of_cases_is_judged(tmp_path):
    cases = tmp_path / "cases.jsonl"
    rows = [
        {"id": 1, "gold": "2", "prediction_text": r"\boxed{2}", "expected": True},
        {"id": 2, "gold": "2", "response": r"\boxed{3}", "correct": False},
        {"id": 3, "gold": "2", "response": "<think>", "expected": True, "contested": True},
    ]
    cases.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    out = audit.judge_file(cases, jobs=1)
    assert [(r["id"], r["verdict"], r["extracted"]) for r in out] == [
        (1, "right", "2"),
        (2, "wrong", "3"),
        (3, "unfinished", None),
    ]
    found = audit.summary(out)
    assert found["main"]["agreement"][:2] == (2, 2) and found["main"]["false positives"][:2] == (0, 1)
    assert found["contested"]["agreement"][:2] == (0, 1)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": 1, "response": "2"}', "line 2: field 'gold'"),
        ('{"gold": "2", "response": "2"}', "line 2: field 'id'"),
        ('{"id": 1, "gold": "2"}', "line 2: field 'prediction_text' or 'response'"),
        ('{"id": 1, "gold": 2, "response": "2"}', "line 2: field 'gold' must be a string"),
        ('{"id": 1', "line 2: not JSON"),
        ("[1]", "line 2: a case must be an object"),
    ],
)
def test_audit_names_the_mistake(tmp_path, line, says):
    cases = tmp_path / "cases.jsonl"
    cases.write_text('{"id": 0, "gold": "1", "response": "1"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        audit.judge_file(cases)
    assert says in str(error.value)
    assert "cases.jsonl" in str(error.value)
    with pytest.raises(UserError, match="cannot be read"):
        audit.judge_file(tmp_path / "none.jsonl")
