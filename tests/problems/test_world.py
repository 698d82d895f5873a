"""The small world: worked solutions are true, twins share a split, benchmarks are never trained on.

Nothing here trusts the code that wrote the problems: prompts and solutions are read back as text below.
"""

import ast
import hashlib
import random
import re
from collections import defaultdict
from fractions import Fraction
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_lab.config.schema import DistillationConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.distill import shards, teachers, training_sets
from phi_lab.model import chat
from phi_lab.pipeline.run import DISTILLED
from phi_lab.problems import arithmetic, benchmarks, logic
from phi_lab.stages import base, language_modeling

SEEDS = st.integers(0, 2**32)
LEVELS = st.integers(1, 4)

# ------------------------------------------------------------------ reading a prompt back

OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
UNDO = {"+": "-", "-": "+", "*": "/", "/": "*"}
WORDS = (
    (r"(?:gets|finds|buys) (\d+) more", "+"),
    (r"(?:gives away|loses|sells) (\d+)", "-"),
    (r"(?:makes it|ends up with) (\d+) times as many", "*"),
    (r"shares them equally among (\d+) bags and keeps one bag", "/"),
    (r"keeps only one part of (\d+) equal parts", "/"),
)


def compute(operator, left, right):
    left = Fraction(left)
    return {"+": left + right, "-": left - right, "*": left * right, "/": left / right if right else None}[operator]


def unfold(text, **letters):
    """'(47+38)*3' -> (47, [('+', 38), ('*', 3)]): where the innermost left operand starts and what is done to it."""

    def walk(node):
        if isinstance(node, ast.BinOp):
            start, operations = walk(node.left)
            right = node.right
            assert isinstance(right, ast.Constant), text
            return start, [*operations, (OPERATORS[type(node.op)], right.value)]
        if isinstance(node, ast.Name):
            return letters[node.id]
        return node.value, []

    return walk(ast.parse(text, mode="eval").body)


def chain_of(prompt):
    """The start value and the operations that a question about whole numbers means, whatever its words."""
    if match := re.fullmatch(r"Compute (.+)\.", prompt):
        return unfold(match[1])
    if match := re.fullmatch(r"Solve (.+) = (\d+) for x\.", prompt):
        (_, operations), right = unfold(match[1], x=(None, [])), int(match[2])
        return right, [(UNDO[operator], number) for operator, number in reversed(operations)]
    if "Find" in prompt:
        letters = {}
        for letter, text in re.findall(r"Let (\w) = ([^.]+)\.", prompt):
            letters[letter] = unfold(text, **letters)
        return unfold(re.search(r"Find ([^.]+)\.$", prompt)[1], **letters)
    first, *sentences, question = re.findall(r"[^.?]+[.?]", prompt)
    name, start, things = re.fullmatch(r"(\w+) has (\d+) (\w+)\.", first).groups()
    assert question.strip() == f"How many {things} does {name} have now?"
    operations = []
    for sentence in sentences:
        told = re.fullmatch(rf" Then {name} (.+)\.", sentence)[1]
        (found,) = [(sign, int(match[1])) for words, sign in WORDS if (match := re.fullmatch(words, told))]
        operations.append(found)
    return int(start), operations


FRACTION = re.compile(
    r"(?=.*fraction)(?:What is|Compute|What fraction is) "
    r"\(?(\d+)/(\d+)([-+*])(\d+)/(\d+)\)?(?:\*(\d+))?(?: as a fraction)?[?.]"
)


def answer_of(prompt):
    """The answer, worked out from the words alone."""
    if match := FRACTION.fullmatch(prompt):
        a, b, operator, c, d, e = match.groups()
        return compute(operator, Fraction(int(a), int(b)), Fraction(int(c), int(d))) * int(e or 1)
    if match := re.fullmatch(r"Run the stack: (.+)\. Top\?", prompt):
        stack = []
        for word in match[1].replace("push ", "").split():
            if word.isdigit():
                stack.append(int(word))
            else:
                b, a = stack.pop(), stack.pop()
                stack.append({"add": a + b, "sub": a - b, "mul": a * b, "max": max(a, b)}[word] % 10)
        (top,) = stack
        return Fraction(top)
    if match := re.fullmatch(r"Given (.+): how many are true\? (.+)\.", prompt):
        values = {part.split(" is ")[0]: part.endswith("true") for part in match[1].split(", ")}
        assert set(values) == set("pqr")
        count = 0
        for statement in match[2].split("; "):
            words = statement.split()
            if words[0] == "not":
                count += not values[words[1]]
            else:
                pair = [values[words[0]], values[words[2]]]
                count += {"and": all(pair), "or": any(pair), "xor": sum(pair) == 1}[words[1]]
        return Fraction(count)
    start, operations = chain_of(prompt)
    if match := re.fullmatch(r"Solve (.+) = (\d+) for x\.", prompt):  # put the solution in
        value = answer = value_of(start, operations)
        for operator, number in unfold(match[1], x=(None, []))[1]:
            value = compute(operator, value, number)
        assert value == int(match[2])
        return answer
    return value_of(start, operations)


def value_of(start, operations):
    value = Fraction(start)
    for operator, number in operations:
        value = compute(operator, value, number)
    return value


def identity(prompt):
    """Operands and operators of a question, in one order: what two questions share that are the same in other words."""
    if match := FRACTION.fullmatch(prompt):
        a, b, operator, c, d, e = match.groups()
        pair = [(int(a), int(b)), (int(c), int(d))]
        pair = pair if operator == "-" else sorted(pair)
        return f"fraction:{pair[0]}{operator}{pair[1]}" + (f"*{e}" if e else "")
    if match := re.fullmatch(r"Run the stack: (.+)\. Top\?", prompt):
        _, first, _, second, operation, *rest = match[1].split()
        first, second = sorted((first, second)) if operation in ("add", "mul", "max") else (first, second)
        return " ".join(["push", first, "push", second, operation, *rest])
    if match := re.fullmatch(r"Given (.+): how many are true\? (.+)\.", prompt):
        statements = [words if words[0] == "not" else [words[1], *sorted((words[0], words[2]))]
                      for words in map(str.split, match[2].split("; "))]
        return "|".join([match[1], *sorted(map(" ".join, statements))])
    return chain_identity(*chain_of(prompt))


def chain_identity(start, operations):
    operator, number = operations[0]
    if operator in "+*":
        start, number = sorted((start, number))
    return f"{start}{operator}{number}" + "".join(f"{sign}{right}" for sign, right in operations[1:])


def bucket(key):
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100


def split_of(key):
    return "train" if bucket(key) < 80 else "validation" if bucket(key) < 88 else "benchmark"


# ------------------------------------------------------------------ reading a worked solution


def true_equation(text):
    """Is '4*6+4=28', '8/3=2r2' or '38/24=19/12' true?"""
    left, right = text.split("=")
    start, operations = unfold(left)
    value = value_of(start, operations)
    if "r" in right:
        quotient, rest = map(int, right.split("r"))
        divisor = operations[-1][1]
        return len(operations) == 1 and 0 < rest < divisor and value == quotient + Fraction(rest, divisor)
    return value == Fraction(right)


def read_columns(operator, columns, repaired):
    """Check every column, and return the number that the columns spell."""
    results = []
    for column in columns:
        if " no " in column:
            slip, column = column.split(" no ")
            repaired.append(slip)
            assert slip != column
            assert "=" not in slip or not true_equation(slip), f"{slip} is called wrong and is true"
        assert "=" not in column or true_equation(column), column
        results.append(column.split("=")[-1].split("r")[0])
    if operator == "/":
        return int("".join(results))
    *low, high = map(int, results)
    return int(str(high) + "".join(str(number % 10) for number in reversed(low)))


def read_solution(work):
    """Check every equation of a solution; returns [(left, operator, right, result)], its end, and its slips."""
    steps, slips, ahead, plan, checked = [], [], [], None, False  # ahead: what each step says is left to do
    assert work.endswith(".")
    *sentences, last = work[:-1].split(".")
    end = None
    if re.fullmatch(r"\d+/\d+(=\d+/\d+)?", last):  # the fraction at the end
        assert "=" not in last or true_equation(last)
        end = last.split("=")[-1]
    else:
        sentences.append(last)
    if not re.search("[:=]", sentences[0]):
        plan = sentences.pop(0).split(",")
    to_do = r"(,[^:=]+)?"
    for sentence in sentences:
        if match := re.fullmatch(rf"(\d+){to_do}", sentence):  # after a check the result is said again
            assert checked and int(match[1]) == steps[-1][3]
            ahead[-1], checked = match[2], False
            continue
        assert not checked, sentence
        if match := re.fullmatch(rf"(\d+)([-+*/])(\d+)=(\d+){to_do}", sentence):
            left, operator, right, result, rest = match.groups()
            assert true_equation(f"{left}{operator}{right}={result}"), sentence
        else:
            pattern = rf"(check )?(\d+)([-+*/])(\d+):([^;]+);(\d+)( ok)?{to_do}"
            check, left, operator, right, columns, result, ok, rest = re.fullmatch(pattern, sentence).groups()
            assert bool(check) == bool(ok) and not (check and rest)
            assert read_columns(operator, columns.split(","), slips) == int(result), sentence
            assert true_equation(f"{left}{operator}{right}={result}"), sentence
            if check:  # undoes exactly the step before
                assert (int(left), operator, int(right)) == (steps[-1][3], UNDO[steps[-1][1]], steps[-1][2])
                assert int(result) == steps[-1][0]
                checked = True
                continue
        steps.append((int(left), operator, int(right), int(result)))
        ahead.append(rest)
    assert not checked
    if plan and end:  # a fraction: all that is left to do is worth the answer
        left = [rest.removeprefix(",").split(",") for rest in ahead]
        assert {worth(None, plan), *map(worth, (step[3] for step in steps), left)} == {Fraction(end)}, (plan, left)
        return steps, end, slips
    before = [None, *(result for *_, result in steps)]
    done = [f"{op}{right}" if left == was else f"{left}{op}{right}"
            for (left, op, right, _), was in zip(steps, before, strict=False)]
    assert plan in (None, done), (plan, done)
    if plan:  # what a step says is left to do is what is then done
        assert [rest.split(",")[1:] if rest else [] for rest in ahead] == [done[i:] for i in range(1, len(done) + 1)]
    else:
        assert not any(ahead)
    return steps, end, slips


def worth(start, parts):
    """What is left to do of a fraction comes to: from the part without a sign, else from `start`, the division last."""
    parts = [re.fullmatch(r"([-+*/]?)(\d+)(?:\*(\d+))?", part).groups() for part in parts]
    config = [(sign, int(left) * int(right or 1)) for sign, left, right in parts]
    value = Fraction(next((number for sign, number in config if not sign), start))
    for sign, number in sorted(config, key=lambda part: part[0] == "/"):
        value = compute(sign, value, number) if sign else value
    return value


def test_the_parser_itself_sees_a_lie():
    for work in (
        "47+38:7+8=15,4+3+1=9;95.", "47+38=86.", "87/3:8/3=2r1,27/3=9;29.", "47+38:7+8=15,4+3+1=8;86.",
        "47+38,-11.47+38:7+8=15,4+3+1=8;85,-11.85-12:5-2=3,8-1=7;73.", "47+38:7+8=15,4+3+1=8;85,-12.85-12=73.",
        "47+38,-12.47+38:7+8=15,4+3+1=8;85.85-12=73.", "47+38:15,8;85.check 85-38:7,4;47 ok.58.",
        "/2*4,3*7.2*4=8,3*7,/9.3*7=21,/8.21/8.",
        "/2*3,+1*2,1*3.2*3=6,+1*2,1*3,/6.1*2=2,1*3,+4,/6.1*3=3,+2,/6.3+2=5,/6.5/6.",
    ):
        with pytest.raises(AssertionError):
            read_solution(work)
    with pytest.raises(AssertionError, match="is true"):
        read_solution("47+38:7+8=15 no 7+8=16,4+3+1=8;86.")
    assert read_solution("47+38:7+8=14 no 7+8=15,4+3+1=8;85.85-12=73.")[0][-1] == (85, "-", 12, 73)


@settings(max_examples=600)
@given(SEEDS, LEVELS, st.sampled_from(arithmetic.STYLES))
def test_every_worked_solution_is_true_and_ends_at_the_answer(seed, level, style):
    rng = random.Random(seed)
    problem = arithmetic.sample(rng, level)
    work, answer = arithmetic.solution(problem, style, rng)
    steps, end, slips = read_solution(work)
    assert Fraction(answer) == Fraction(problem.answer) == answer_of(problem.prompt)
    assert not slips or style == "backtracking"
    assert (level > 1 and style != "terse") == (not re.search("[:=]", work.split(".")[0]))  # a plan comes first
    if level == 1 and ":" in work:  # a single operation always shows its columns
        assert re.search(r":\d+[-+*/]\d", work)
    assert "check" not in work or style == "checking"
    if problem.family == "fraction":
        assert Fraction(end) == Fraction(answer)
        return
    start, operations = chain_of(problem.prompt)
    assert len(steps) == len(operations) == level
    for (left, operator, right, result), wanted in zip(steps, operations, strict=True):
        assert (left, (operator, right)) == (start, wanted)  # each step goes on from the result of the one before
        start = result
    assert start == int(answer)


@settings(max_examples=200)
@given(SEEDS, LEVELS)
def test_logic_answers(seed, level):
    problem = logic.sample(random.Random(seed), level)
    assert Fraction(problem.answer) == answer_of(problem.prompt)
    assert len(problem.answer) == 1


def test_styles_really_occur():
    rng, seen = random.Random(0), {"check": 0, " no ": 0, ":": 0, ",-": 0}
    for _ in range(300):
        problem = arithmetic.sample(rng, 3)
        for style in arithmetic.STYLES:
            work = arithmetic.solution(problem, style, rng)[0]
            for mark in seen:
                seen[mark] += mark in work
    assert min(seen.values()) > 100, seen


# ------------------------------------------------------------------ splits


@settings(max_examples=200)
@given(SEEDS, LEVELS)
def test_reworded_twins_share_key_and_split(seed, level):
    rng = random.Random(seed)
    start, operations = arithmetic._chain(rng, level, 0.5)
    twins = {}
    while len(twins) < 4:
        problem = arithmetic._dress(rng, start, operations)
        twins[problem.family] = problem
    operator, number = operations[0]
    if operator in "+*":  # 47+38 is 38+47
        turned = [(operator, start), *operations[1:]]
        twins["turned"] = arithmetic._dress(rng, number, turned)
    assert len({twin.prompt for twin in twins.values()}) == len(twins) or start == number
    assert len({twin.key for twin in twins.values()}) == 1
    assert len({twin.split for twin in twins.values()}) == 1
    assert {identity(twin.prompt) for twin in twins.values()} == {problem.key}
    assert {chain_of(twin.prompt)[1][1:] == operations[1:] for twin in twins.values()} == {True}


@settings(max_examples=200)
@given(SEEDS, st.integers(2, 4))
def test_fractions_in_either_order_share_a_key(seed, level):
    problem = arithmetic._fraction(random.Random(seed), level)
    assert identity(problem.prompt) == problem.key
    a, b, operator, c, d, e = FRACTION.fullmatch(problem.prompt).groups()
    turned = f"What is ({c}/{d}{operator}{a}/{b})*{e}" if e else f"What is {c}/{d}{operator}{a}/{b}"
    same = identity(f"{turned} as a fraction?") == problem.key
    assert same == (operator in "+*" or (a, b) == (c, d))


@settings(max_examples=100)
@given(SEEDS)
def test_the_order_of_statements_is_not_in_the_key(seed):
    problem = logic._truth(random.Random(seed), 3)
    assert identity(problem.prompt) == problem.key


def test_splits_have_their_shares_and_follow_from_the_words():
    rng = random.Random(1)
    problems = [arithmetic.sample(rng, 4) for _ in range(4000)]
    assert all(problem.split == split_of(identity(problem.prompt)) for problem in problems)
    splits = [problem.split for problem in problems]
    share = [splits.count(name) / len(splits) for name in ("train", "validation", "benchmark")]
    assert share == pytest.approx([0.80, 0.08, 0.12], abs=0.03)


# ------------------------------------------------------------------ benchmarks


@pytest.fixture(scope="module")
def rows():
    return {name: benchmarks.load(name) for name in benchmarks.NAMES}


def test_benchmarks_are_what_is_documented(rows):
    levels = {"easy": {1}, "hard": {3, 4}, "transfer": {1, 2, 3}}
    for name, problems in rows.items():
        assert len(problems) >= 1000
        assert len({row["id"] for row in problems}) == len({row["prompt"] for row in problems}) == len(problems)
        assert {row["level"] for row in problems} == levels[name]
        assert {row["domain"] for row in problems} == {"logic" if name == "transfer" else "arithmetic"}
        assert set(problems[0]) == {"id", "domain", "level", "prompt", "answer"}
    assert not {row["id"] for row in rows["easy"]} & {row["id"] for row in rows["hard"]}


def test_benchmark_answers_are_right(rows):
    for problems in rows.values():
        for row in problems:
            assert Fraction(row["answer"]) == answer_of(row["prompt"]), row


def test_benchmarks_are_rebuilt_byte_for_byte(tmp_path):
    benchmarks.build(tmp_path)
    for name in benchmarks.NAMES:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (benchmarks.FOLDER / f"{name}.jsonl").read_bytes()


def test_unknown_benchmark():
    with pytest.raises(UserError, match="easy, hard, transfer"):
        benchmarks.load("aime")


def test_every_benchmark_problem_falls_into_the_benchmark_split(rows):
    for problems in rows.values():
        assert {split_of(identity(row["prompt"])) for row in problems} == {"benchmark"}


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_operands_of_a_benchmark_are_drawn_for_training(rows, split):
    forbidden = {identity(row["prompt"]) for problems in rows.values() for row in problems}
    rng = random.Random(split)
    drawn = [arithmetic.sample_split(rng, level, split) for level in (1, 1, 1, 3, 4) for _ in range(1500)]
    drawn += [logic.sample_split(rng, level, split) for level in (1, 1, 2) for _ in range(1500)]
    met = {identity(problem.prompt) for problem in drawn}
    assert not met & forbidden
    # The check can fail: problems drawn without a split do meet the benchmarks.
    free = {identity(arithmetic.sample(rng, 1).prompt) for _ in range(3000)}
    assert free & forbidden


def read_documents(tokenizer, documents):
    """(prompt or None, text said) of each document; text without a question has no prompt."""
    for ids, _ in documents:
        text = tokenizer.decode(ids)
        match = re.fullmatch(r"<\|user\|>(.*)<\|end\|><\|assistant\|>(.*)<\|end\|>", text)
        yield match.groups() if match else (None, text)


def problems_behind(prompt, said):
    """Keys of all problems that a document is made from."""
    if prompt is not None:
        return [identity(prompt)]
    if not said.endswith(chat.END):  # facts and readings: each result is a problem of its own
        results = re.findall(r"(\d+)([-+*/])(\d+)=(\d+)\.", said)
        if re.match(r"\d[*]|\d+/\d=\dr", said):  # tables: products of digits and quotients with a rest are no problems
            assert all(int(left) < 10 for left, _, _, _ in results)
            return [None]
        if not results:  # plans: only the questions say which problems they are
            return [identity(asked) for asked, _ in re.findall(r"(.+?[.?]) ([/\d][-+*/\d]*(?:,[-+*/\d]+)*)\.", said)]
        assert len(results) in (6, 12)
        return [chain_identity(int(left), [(operator, int(right))]) for left, operator, right, _ in results]
    steps = read_solution(said.removesuffix(chat.END))[0]
    if steps[0][0] < 11:  # the work of a fraction, whose question cannot be told from it
        return []
    assert all(before[3] == after[0] for before, after in zip(steps, steps[1:], strict=False))
    return [chain_identity(steps[0][0], [step[1:3] for step in steps])]


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation"])
def test_pretraining_and_teacher_documents_come_from_their_split(tokenizer, split):
    documents = base.base_documents(tokenizer, 3000, 3, split) + base.worked_documents(tokenizer, 500, 3, split)
    kinds = {"logic": 0, "arithmetic": 0, "no question": 0}
    for prompt, said in read_documents(tokenizer, documents):
        keys = problems_behind(prompt, said)
        assert {split_of(key) for key in keys if key} <= {split}, said
        assert keys or said.endswith(chat.END), said  # only the work of a fraction hides its question
        if prompt is None:
            kinds["no question"] += 1
        else:
            kinds["logic" if prompt.startswith(("Run", "Given")) else "arithmetic"] += 1
            assert Fraction(re.search(r"\\boxed\{(.+)\}$", said)[1]) == answer_of(prompt)
    assert min(kinds.values()) > 100, kinds


def test_readings_say_what_a_question_asks():
    for asked, follows in arithmetic.readings(random.Random(1), "train") + arithmetic.readings(
        random.Random(2), "train"
    ):
        left, operator, right, result = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)\.", follows).groups()
        assert identity(asked.strip()) == chain_identity(int(left), [(operator, int(right))])
        assert Fraction(result) == answer_of(asked.strip())


def test_plans_name_the_operations_and_no_result():
    for seed in range(40):
        for asked, follows in arithmetic.plans(random.Random(seed), "train"):
            assert split_of(identity(asked.strip())) == "train"
            if FRACTION.fullmatch(asked.strip()):
                assert worth(None, follows.removesuffix(".").split(",")) == answer_of(asked.strip())
                continue
            first, *rest = follows.removesuffix(".").split(",")
            left, operator, right = re.fullmatch(r"(\d+)([-+*/])(\d+)", first).groups()
            operations = [(operator, int(right)), *((part[0], int(part[1:])) for part in rest)]
            assert identity(asked.strip()) == chain_identity(int(left), operations)
            result = int(left)
            for sign, number in operations:
                result = arithmetic.apply(sign, result, number)
            assert answer_of(asked.strip()) == result


def test_base_meets_no_worked_solutions_and_the_teacher_only_arithmetic(tokenizer):
    for prompt, said in read_documents(tokenizer, base.base_documents(tokenizer, 300, 4)):
        assert prompt is None or not said.startswith(chat.THINK)
    for prompt, said in read_documents(tokenizer, base.worked_documents(tokenizer, 300, 4)):
        assert said.startswith(chat.THINK) and not prompt.startswith(("Run", "Given"))


def test_distillation_asks_different_questions_of_one_split():
    for split in ("train", "validation"):
        asked = training_sets.questions(400, 7, split)
        assert {split_of(identity(problem.prompt)) for problem in asked} == {split}
        assert len({identity(problem.prompt) for problem in asked}) == len(asked) == 400
        assert {problem.domain for problem in asked} == {"arithmetic"}
    assert {problem.level for problem in training_sets.questions(50, 1, levels=(3, 4))} == {3, 4}


@pytest.mark.slow
def test_shipped_rollouts_never_meet_a_benchmark():
    for name, split in (("rollouts", "train"), ("validation_rollouts", "validation")):
        path = DISTILLED / f"{name}.jsonl.gz"
        assert path.is_file(), f"{path} is part of the course and missing: phi-lab ship"
        prompts = {row["prompt"] for row in read_rows(path, ("prompt",))}
        assert {split_of(identity(prompt)) for prompt in prompts} == {split}


@pytest.mark.slow
def test_the_shipped_teacher_s_answers_differ_in_length_and_in_verdict():
    """On questions as hard as `hard`: what prompt selection by length, DPO and GRPO live on."""
    groups = defaultdict(list)
    for row in read_rows(DISTILLED / "rollouts.jsonl.gz"):
        if row["level"] >= 3:
            groups[row["id"]].append(row)
    ratios = [max(row["tokens"] for row in group) / min(row["tokens"] for row in group) for group in groups.values()]
    assert len(groups) > 500 and median(ratios) >= 1.5
    verdicts = [{row["verdict"] == "right" for row in group} for group in groups.values()]
    assert sum(len(found) == 2 for found in verdicts) / len(verdicts) >= 0.3


# ------------------------------------------------------------------ the script teacher


def said(problems, samples):
    """The script's answers to each problem."""
    places = [(place, sample) for place in range(len(problems)) for sample in range(samples)]
    chunk, groups = shards.Chunk(problems, 0, places, None), [[] for _ in problems]
    teacher = teachers.script(DistillationConfig(60, 0, samples=samples), 5)
    teacher([chunk], lambda _, place, answer: groups[place[0]].append(answer))
    return groups


def test_answers_to_one_hard_prompt_differ_in_length(rows):
    problems = [arithmetic.sample_split(random.Random(seed), 3 + seed % 2, "train") for seed in range(60)]
    groups = said(problems, 8)
    assert {len(group) for group in groups} == {8}
    ratios = [max(tokens for _, _, tokens in group) / min(tokens for _, _, tokens in group) for group in groups]
    assert median(ratios) >= 1.5


def test_script_teacher_is_always_right_and_counts_tokens_as_training_does(tokenizer):
    problems = training_sets.questions(30, 9)
    for problem, group in zip(problems, said(problems, 2), strict=True):
        for text, reason, tokens in group:
            work, answer = re.fullmatch(r"<think>(.+)</think>\\boxed\{(.+)\}", text).groups()
            assert Fraction(answer) == answer_of(problem.prompt) and reason == "stop"
            assert read_solution(work)
            ids, labels = language_modeling.document(tokenizer, problem.prompt, text)
            assert sum(label >= 0 for label in labels) == tokens
