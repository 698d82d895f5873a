"""The verifier: what it extracts, what it takes as equal, and that no text can hurt it."""

import gzip
import importlib
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_lab.verify import Verdict, audit, compare, equal, extract, verdict, verify, verify_many
from phi_lab.verify import text as verify_text
from phi_lab.verify import worker as verify_worker
from phi_lab.verify.text import MAX_DIGITS, hostile, number

CASES = Path(os.environ.get("PHI_LAB_CASES", Path(__file__).parents[3] / "shared" / "data"))

# One object a line: gold, answer or text (a whole completion), verdict, why, and for a text perhaps extracted.
WRITTEN = [json.loads(line) for line in (Path(__file__).parent / "verifier_cases.jsonl").open(encoding="utf-8")]


@pytest.mark.parametrize("case", WRITTEN, ids=[case["why"] for case in WRITTEN])
def test_written_case(case):
    gold, why, right = case["gold"], case["why"], case["verdict"] == "right"
    if "answer" in case:
        assert equal(case["answer"], gold) is right, why
        assert "one way" in case or equal(gold, case["answer"]) is right, f"{why}, the other way round"
        assert equal(case["answer"], gold, strict=False) is (case.get("benchmarks", case["verdict"]) == "right"), why
        assert (verify(rf"\boxed{{{case['answer']}}}", gold).verdict == "right") is right, f"{why}, in a box"
        if right is not (case.get("benchmarks", case["verdict"]) == "right"):  # only the answer is not worked out
            assert equal(gold, case["answer"]), f"{why}, the other way round"
    else:
        verdict = verify(case["text"], gold)
        assert verdict.verdict == case["verdict"], why
        if "extracted" in case:
            assert verdict.extracted == extract(case["text"]) == case["extracted"], why


def test_written_cases_are_many_and_distinct():
    assert len({case["why"] for case in WRITTEN}) == len(WRITTEN) >= 300
    assert sum(case["verdict"] != "right" for case in WRITTEN) > len(WRITTEN) / 3


KINDS = [json.loads(line) for line in (Path(__file__).parent / "kinds.jsonl").open(encoding="utf-8")]


@pytest.mark.parametrize("kind", sorted({case["kind"] for case in KINDS}))
def test_kind_of_fault(kind):
    """Wrong answers of a kind that graders took for right, and right ones beside them; none may be missed."""
    cases = [case for case in KINDS if case["kind"] == kind]
    verdicts = verify_many([(case["text"], case["gold"]) for case in cases])
    missed = [(c, v) for c, v in zip(cases, verdicts, strict=True) if (v.verdict == "right") is not c["right"]]
    assert missed == [] and len(cases) >= 4


def test_verdicts():
    assert verify(r"<think>1+1=2</think>\boxed{2}", "2")[:2] == ("right", "2")
    assert verify(r"<think>1+1=3</think>\boxed{3}", "2")[:2] == ("wrong", "3")
    assert verify(r"<think>1+1=2 so \boxed{2}", "2")[:2] == ("unfinished", None)
    assert verify(r"<think>1+1=2</think>\boxed{2", "2")[:2] == ("unfinished", None)
    assert verify(r"<think>1+1=2</think>", "2")[:2] == ("unfinished", None)
    assert verify(r"\boxed{}", "2")[:2] == ("unparsed", None)
    assert verify(r"\boxed{-2} and \boxed{1}", "1,-2").verdict == "right"  # several answers asked
    assert verify(r"\boxed{2}, no, sorry, \boxed{1}", "1,2").verdict == "wrong"  # a correction
    assert verify("It can't be A, so I think it's (D).", "D")[:2] == ("right", "D")
    assert verify(r"\boxed{12}", "12") == Verdict("right", "12", "box; text")  # and why
    assert verify(r"\boxed{4 times nine}", "4").rule == "box; words"
    assert "sum" in verify(r"\boxed{\sum_{k=1}^{4} k}", "10").rule
    assert verify("It is perhaps 12.", "12").rule == "a denial, a hedge or an alternative"
    many = [(r"\boxed{2}", "2"), (r"\boxed{2}", r"\sqrt{4}"), (r"\boxed{2}", r"\sqrt{5}")]
    assert [v.verdict for v in verify_many(many, jobs=2)] == ["right", "right", "wrong"]


BEFORE = ["", "So ", "<think>1", "</think>", "[THINK]", "[/THINK]", "◁think▷", "It is not ", "never ", "It isn’t ",
          "Not ", r"\boxed{6} or " + "it is " * 9, r"\boxed{6} or \boxed{4 + ", "it is " * 12, r"\fbox{6} or ",
          r"\boxed{6}, ", r"\boxed{", "6 < 7. ", "no ", "other than ", r"x \ne ", "nothing but ", "9 no",
          "Nor the answer ", "A note on knots: it is "]  # fmt: skip
BEHIND = ["", ".", "$.", r"\)", r" or \boxed{6}", "<think>", " feet", "}",
          "The final answer is $6$. I hope it is correct."]  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.sampled_from(BEFORE), max_size=3), st.sampled_from(["5", "1/2", "-5", "6", "x", ""]),
       st.sampled_from(BEHIND), st.sampled_from(["5", "0.5", "6", "B", "\\boxed{5}", ""]), st.booleans())  # fmt: skip
def test_a_verdict_at_a_glance_is_the_whole_verdict(before, answer, behind, gold, strict):
    text = f"{''.join(before)}\\boxed{{{answer}}}{behind}"
    quick = verify(text, gold, strict)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdict, "at_a_glance", lambda _: None)
        patch.setattr(verdict, "alone", lambda _: False)
        assert verify(text, gold, strict) == quick


def renderings(p, q):
    g = math.gcd(p, q)
    yield from (f"{p}/{q}", rf"\frac{{{p}}}{{{q}}}", rf"$\dfrac{{{p}}}{{{q}}}$", f"{3 * p}/{3 * q}")
    yield rf"\left( {p // g}/{q // g} \right)"
    if q // g == 1:
        yield from (str(p // g), f"{p // g:,}", f"{p // g}.0", rf"\text{{{p // g}}}", f"{p // g}.")
    if 10**6 % (q // g) == 0:
        whole, part = divmod(abs(p) * 10**6 // q, 10**6)
        yield f"{'-' if p < 0 else ''}{whole}.{part:06d}"


@given(st.integers(-(10**12), 10**12), st.integers(1, 10**4))
def test_every_rendering_is_the_number(p, q):
    forms = list(renderings(p, q))
    assert all(verify(rf"<think>0</think>\boxed{{{f}}}", forms[0]).verdict == "right" for f in forms)


@given(st.from_regex(r"-?[1-9][0-9]{0,30}(\.[0-9]{1,20})?", fullmatch=True), st.data())
def test_a_changed_digit_is_never_right(text, data):
    place = data.draw(st.sampled_from([i for i, c in enumerate(text) if c.isdigit()]))
    digit = data.draw(st.sampled_from([d for d in "0123456789" if d != text[place]]))
    changed = text[:place] + digit + text[place + 1 :]
    assert not equal(text, changed)
    assert not equal(changed, text)
    assert verify(rf"\boxed{{{changed}}}", text).verdict == "wrong"


LEAVES = ["2", "0.5", "1/3", r"\sqrt{2}", r"\pi", "x", "x+1", "2x", "yes", "B", "x=2", "x<2", "1,2"]


def test_modes():
    """What counts only by the conventions of public benchmarks."""
    unworked = [(r"\boxed{\gcd(12,18)}", "6"), (r"\boxed{(47+38)*3}", "255"), (r"\boxed{5\times4\text{ ways}}", "20")]
    for text, gold in [("They need 3 buses for 90 people.", "90"), *unworked]:
        assert verify(text, gold).verdict != "right", text
        assert verify(text, gold, strict=False).verdict == "right", text
    minerva = r"So \boxed{255}. Final Answer: The final answer is $10,455$. I hope it is correct."
    assert verify(minerva, "10455").verdict == "wrong"
    assert [v.verdict for v in verify_many([(minerva, "10455")], strict=False)] == ["right"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LEAVES), st.sampled_from(LEAVES), st.sampled_from(["{}", "({},3)", "-{}"]))
def test_symmetric_and_reflexive(a, b, form):
    a, b = form.format(a), form.format(b)
    assert equal(a, a)
    assert equal(a, b) == equal(b, a)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="0123456789xy+-*/^(){}[]\\,.!=<>_$%fracsqt pibxed\x00\ud800", max_size=40))
def test_any_text_gets_a_verdict(text):
    assert verify(text, "2").verdict in {"right", "wrong", "unfinished", "unparsed", "timeout"}


PIECES = [r"\frac{", r"\sqrt", r"\boxed{", r"\text{ cm}", r"\pm", r"\cup", r"\infty", "≤", "½", "²", " or ", "million"]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(WRITTEN), st.sampled_from([*PIECES, *"0123456789xi+-*/^(){}[],;:!=<>$%&| "]), st.data())
def test_mutated_cases_are_judged_in_time(case, piece, data):
    text = case.get("answer", case.get("text"))
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    changed = text[:start] + piece + text[min(end, start + 3) :]
    start = time.process_time()  # of this process; the worker's is bounded (test_worker.py)
    verdict = verify(changed, case["gold"]).verdict
    assert time.process_time() - start < 2.0 - verify_worker.DEADLINE
    assert verdict in {"right", "wrong", "unfinished", "unparsed", "timeout"}


HOSTILE = {
    "power tower": r"\boxed{9^{9^9}}",
    "tall tower": r"\boxed{9^{9^{9^{9^{9}}}}}",
    "powers of powers": r"\boxed{((9^{1999})^{1999})^{1999}}",
    "factorial tower": r"\boxed{((((9!)!)!)!)!}",
    "large factorial": r"\boxed{99999999!}",
    "nested parentheses": r"\boxed{" + "(" * 1000 + "1" + ")" * 1000 + "}",
    "braces": r"\boxed{" + "{" * 3000 + "1" + "}" * 3000 + "}",
    "open braces": r"\boxed{" * 3000,
    "empty boxes": r"\boxed{}" * 400,
    "a megabyte of digits": r"\boxed{" + "7" * 1_000_000 + "}",
    "a megabyte without a box": "7" * 1_000_000,
    "a megabyte of dollars": "$" * 1_000_000,
    "a megabyte of answers": "the answer is " * 70_000,
    "NUL": "\\boxed{1\x002}",
    "lone surrogate": "\\boxed{\ud800 + 1}",
    "long sum": r"\boxed{\sum_{n=1}^{99999999} \sin(n^n)}",
    "integral": r"\boxed{\int_0^1 \frac{\sin(x^x)}{\sqrt{1+x^9+\cos(x)}} dx}",
    "groups of text": r"\boxed{" + r"\text{}" * 22 + "}",
    "groups of words": r"\boxed{7" + r"\text{ a}" * 200 + "}",
    "number words": r"\boxed{" + "twenty one hundred " * 60 + "}",
    "spaces": r"\boxed{1" + " " * 19_000 + "1}",
    "a large binomial": r"\boxed{\binom{1000000}{500000}}",
    "signs": r"\boxed{" + r"\pm 1" * 300 + "}",
    "code": r"\boxed{__import__('os').system('true')}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_answered_and_the_pool_still_serves(name):
    assert equal("2", r"\sqrt{4}")  # a worker is up
    start = time.process_time()  # of this process; the worker's is bounded (test_worker.py)
    verdict = verify(HOSTILE[name], "42").verdict
    assert time.process_time() - start < 2.0 - verify_worker.DEADLINE
    assert verdict in {"wrong", "unfinished", "unparsed", "timeout"}
    assert equal("3", r"\sqrt{9}")


COSTLY = {  # a text and a gold; each took seconds in this process or asked a worker for hours
    "boxes of one root": (r"\boxed{\sqrt2}, " * 6250, "5"),
    "boxes of one number": (r"\boxed{1} and " * 21_500, "A"),
    "boxes of sums": (", ".join(rf"\boxed{{\binom{{19{n}}}{{30}}}}" for n in range(300)), "5"),
    "boxes of one value": (", ".join(rf"\boxed{{\sqrt{{25}}+{n}-{n}}}" for n in range(300)), "5"),
    "boxes in each other": (r"\boxed{1" * 20_000 + "}" * 20_000, "5"),
    "so": ("so " * 6667, "A"),
    "so is": ("so it is A " * 1800, "A"),
    "options": ("option A or " * 1600, "A"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_long_text_costs_no_more_than_a_few_answers(name, monkeypatch):
    """Seconds of this process, and seconds of a worker's time that are asked for at most."""
    asked, ask = [], verify_worker.ask

    def counted(answer, gold, strict=True, seconds=verify_worker.DEADLINE):
        asked.append(seconds)
        return ask(answer, gold, strict, seconds) if len(asked) < 30 else ("unparsed", "")

    monkeypatch.setattr(verify_worker, "ask", counted)
    start = time.process_time()
    verify(*COSTLY[name])
    assert time.process_time() - start < 0.7 and sum(asked) < 2.1 * verify_worker.DEADLINE


def test_boxes_that_stand_together_share_the_time_of_one():
    several = [", ".join(rf"\boxed{{\sqrt{{{i * i}}}+{20 - i}}}" for i in range(1, count)) for count in (6, 21, 22)]
    assert [verify(text, "20", strict=False).verdict for text in several] == ["right", "right", "unparsed"]
    assert verify(several[0] + r", \boxed{\sqrt{9}}", "20", strict=False).verdict == "wrong"


def test_import_is_light_and_scripts_need_no_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from phi_lab.verify import equal\n"
        "assert not {'sympy', 'math_verify', 'latex2sympy2_extended'} & set(sys.modules)\n"
        "assert equal('1/2', '0.5') and equal('2', r'\\sqrt{4}')\n"
        "assert 'sympy' not in sys.modules\n"
    )
    root = str(Path(__file__).parents[2])
    env = dict(os.environ, PYTHONPATH=root)
    subprocess.run([sys.executable, str(script)], check=True, env=env, timeout=120)


@pytest.mark.slow
def test_works_in_spawned_processes_and_under_torchrun(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, os, sys\n"
        "from phi_lab.verify import verify\n"
        "def judge(n):\n"
        "    return verify(rf'\\boxed{{{n}}}', rf'\\sqrt{{{n * n}}}').verdict\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
        "        assert pool.map(judge, [2, 3]) == ['right', 'right']\n"
        "    sys.stdout.reconfigure(write_through=False)  # or pieces of two ranks' lines may mix\n"
        "    print('rank', os.environ.get('RANK'), judge(5), flush=True)\n"
    )
    env = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)]
    said = subprocess.run(command, check=True, env=env, timeout=240, capture_output=True, text=True).stdout
    assert "rank 0 right" in said and "rank 1 right" in said


def test_long_sums_are_answered():
    terms = [rf"\frac{{x^{{{n}}}}}{{{n}}}" for n in range(1, 201)]
    assert equal("+".join(terms), "+".join(reversed(terms)))
    assert not equal("+".join(terms[:-1]), "+".join(terms))
    letters = [f"{c}_{{{i}}}" for c in "abcdfghkmn" for i in range(15)]
    assert equal("+".join(letters), "+".join(reversed(letters)))


PIECES_OF_PATTERNS = [
    "\\text{}",
    "\\text{a}",
    "\\text{",
    "{",
    "(",
    "[",
    " ",
    "a",
    "ab ",
    "1",
    "1,",
    "1/2",
    "=",
    "-",
    "$",
    "$1$ ",
    "or ",
    "one ",
    "twenty one hundred ",
    "a b c ",
    "is ",
    "the answer is ",
    "x_{1}",
    "x^{2}",
    "°",
    "**a**",
    "5 km ",
    "5 hours 30 minutes ",
    ". ",
    "not ",
    ":",
    "\\boxed{",
    "\\frac{",
    "m + n",
    "a^2",
    "<",
    "x=",
]


MODULES = "choices clean compare extraction latex latex_commands leaves phrases prose relations shape text units"


@pytest.mark.parametrize("module", MODULES.split())
def test_no_pattern_takes_exponential_time(module):
    """Length doubled four times: what grows exponentially takes for ever at 320 characters."""
    scope = vars(importlib.import_module(f"phi_lab.verify.{module}"))
    patterns = [v for v in scope.values() if isinstance(v, re.Pattern)] + [p for p, _ in scope.get("_REWRITINGS", [])]
    assert patterns or module == "relations"
    for pattern in patterns:
        for piece in PIECES_OF_PATTERNS:
            for length in (20, 40, 80, 160, 320):
                text = piece * (length // len(piece) + 1) + "§"
                start = time.process_time()
                pattern.search(text), pattern.match(text), pattern.fullmatch(text)
                assert time.process_time() - start < 0.25, (pattern.pattern, piece, length)


def test_model_text_never_reaches_eval(monkeypatch):
    """`eval`, `exec` and `compile` raise while all written cases are compared in this process; sympy is not loaded."""
    import builtins

    def forbidden(*args, **kwargs):
        raise AssertionError("model text reached a function that evaluates it")

    for case in WRITTEN:
        a, b = case.get("answer", ""), case["gold"]
        if not a or hostile(a) or hostile(b):
            continue
        with monkeypatch.context() as patch:
            for name in ("eval", "exec", "compile"):
                patch.setattr(builtins, name, forbidden)
            result = compare.compare(a, b)
        assert bool(result.same) is (case["verdict"] == "right"), case["why"]


def test_the_worker_loads_no_algebra_system():
    code = "import sys; from phi_lab.verify.worker import _rules; _rules(); sys.exit('sympy' in sys.modules)"
    env = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=120)


def test_number_is_bounded():
    assert number("7" * 1_000_000) is None
    assert number("1/" + "0" * 50) is None
    assert number("1,234.5") == (2469, 2, False)
    assert verify_text._number.cache_info().maxsize * MAX_DIGITS < 3_000_000  # characters kept
    before = verify_text._number.cache_info().currsize
    assert number(" " * 400 + "7") is None and verify_text._number.cache_info().currsize == before


def test_speed_of_the_integer_path():
    think = "<think>47+38:7+8=15,4+3+1=8;85.85-12:5-2=3,8-1=7;73." + "0" * 24 + "</think>"
    pairs = [(rf"{think}\boxed{{{n}}}", str(n + n % 2)) for n in range(10_000)]
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        for text, gold in pairs:
            verify(text, gold)
        best = min(best, time.process_time() - start)
    rate = len(pairs) / best
    print(f"integer path: {rate:,.0f} verdicts a second")
    assert rate > 100_000  # a core gives 800,000; the clock would measure the load


# Agreement measured on these files, less a little: a floor that a change may not break unseen.
@pytest.mark.parametrize(
    ("file", "floor"),
    [
        ("verifier-cases/public.jsonl", 0.975),
        ("verifier-cases/hunt.jsonl", 0.97),
        ("model-responses/gsm8k-gpt3.jsonl.gz", 1.0),
        ("model-responses/math-qwen-cot.jsonl", 1.0),
        ("model-responses/r1-tails.jsonl", 1.0),
        ("model-responses/sky-eval.jsonl.gz", 0.996),
    ],
)
def test_agreement_with_public_cases(file, floor):
    found = audit.summary(audit.judge_file(public(file), jobs=2))["main"]
    print(file, found)
    agree, of = found["agreement"][:2]
    assert agree >= floor * of
    assert found["false positives"][0] <= (0 if "public" in file else 3)


@pytest.mark.parametrize(
    "file",
    [
        "gsm8k/test.jsonl",
        "math500/test.jsonl",
        "aime/aime24.jsonl",
        "aime/aime25.jsonl",
        "amc23/test.jsonl",
        "aqua-rat/test.jsonl",
        "olympiadbench/test.jsonl",
    ],
)
def test_gold_is_right_against_itself(file):
    with public(file).open(encoding="utf-8") as lines:
        golds = {json.loads(line)["answer"] for line in lines}
    texts = {gold: rf"<think>\boxed{{0}}</think>So it is $\boxed{{ {gold} }}$." for gold in golds}
    verdicts = verify_many([(text, gold) for gold, text in texts.items()])
    assert [g for g, verdict in zip(texts, verdicts, strict=True) if verdict.verdict != "right"] == []
    assert [gold for gold in golds if not equal(gold, gold) or verify(gold, gold).verdict != "right"] == []


def public(file):
    if not (CASES / file).exists():
        pytest.skip(f"{file} is not in {CASES} (set PHI_LAB_CASES)")
    return CASES / file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "longer_than", "count", "floor"),
    [("sky-eval.jsonl.gz", 3000, 60, 5), ("gsm8k-gpt3.jsonl.gz", 0, 300, 1)],
)
def test_speed_against_math_verify(file, longer_than, count, floor):
    """Floors of half of what is promised; the numbers measured are printed."""
    import math_verify

    with gzip.open(public(f"model-responses/{file}"), "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if len(row["response"]) > longer_than]
    rows = rows[:: len(rows) // count][:count]
    assert equal("2", r"\sqrt{4}")  # a worker is up

    def seconds(judge):
        start = time.perf_counter()
        for row in rows:
            judge(row["response"], row["gold"])
        return time.perf_counter() - start

    ours = min(seconds(verify) for _ in range(3))
    theirs = seconds(lambda text, gold: math_verify.verify(math_verify.parse(f"${gold}$"), math_verify.parse(text)))
    print(f"{file}: {len(rows) / ours:,.0f} a second, {theirs / ours:.1f} times math-verify's rate")
    assert theirs / ours > floor


@pytest.mark.slow
def test_math_verify_agrees_where_nothing_is_in_dispute():
    import math_verify

    for gold, answer in (("19/12", "38/24"), ("0.5", "1/2"), ("x^2-1", "(x-1)(x+1)"), ("7", "8"), ("2/3", "0.66")):
        theirs = math_verify.verify(math_verify.parse(f"${gold}$"), math_verify.parse(f"${answer}$"))
        assert equal(gold, answer) is theirs, (gold, answer)
