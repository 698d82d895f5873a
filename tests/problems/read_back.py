"""Prompts and worked solutions read back as text, so that no test trusts the code that wrote them."""

import ast
import hashlib
import re
from fractions import Fraction

# ------------------------------------------------------------------ reading a prompt back

OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
UNDO = {"+": "-", "-": "+", "*": "/", "/": "*"}
PHRASES = (
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
    """The start value and the operations that a question about whole numbers asks for, in any wording."""
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
        phrase = re.fullmatch(rf" Then {name} (.+)\.", sentence)[1]
        (operation,) = [(sign, int(match[1])) for pattern, sign in PHRASES if (match := re.fullmatch(pattern, phrase))]
        operations.append(operation)
    return int(start), operations


FRACTION = re.compile(
    r"(?=.*fraction)(?:What is|Compute|What fraction is) "
    r"\(?(\d+)/(\d+)([-+*])(\d+)/(\d+)\)?(?:\*(\d+))?(?: as a fraction)?[?.]"
)


def answer_of(prompt):
    """The answer, worked out from the prompt alone."""
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
    """The canonical operands and operators of a question, read from its prompt."""
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
    terms = [(sign, int(left) * int(right or 1)) for sign, left, right in parts]
    value = Fraction(next((number for sign, number in terms if not sign), start))
    for sign, number in sorted(terms, key=lambda part: part[0] == "/"):
        value = compute(sign, value, number) if sign else value
    return value
