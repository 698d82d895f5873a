"""An adversary composes wrong answers from right ones; the verifier may accept one in a thousand at most.

A policy that is rewarded by a verifier finds what the verifier takes for right. Here 54 mutations with names do what
such a policy does: they negate, hedge, offer two answers, change a unit, drop a side of an equation, … Every mutation
gives an answer that is certainly wrong, in one of the forms that models answer in. Right answers are judged too, so
that a verifier that refuses everything fails.
"""

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi_lab.verify import verify, verify_many

UNITS = ["kJ", "J", "kg", "g", "km", "m", "cm", "s", "h", "N", "Pa", "W", "kW", "L", "mL", "V", "A", "Hz", "GHz"]
CURRENCIES = [r"\$", "€", "£", "¥"]
THINGS = ["apples", "pears", "boys", "girls", "cars", "books"]
WORDS = ["even", "odd", "increasing", "decreasing", "Tuesday", "isosceles", "Paris", "never", "prime"]
LETTERS = "ABCDE"
UNEQUAL = {("kJ", "J"), ("g", "kg")}


def number(rng, low=2, high=400):
    return rng.randint(low, high)


def other(rng, n):
    return rng.choice([n + 1, n - 1, 10 * n, n + 10, 2 * n + 1, -n])


def boxed(answer):
    return rf"So it is $\boxed{{{answer}}}$."


def tuple_of(numbers):
    return "(" + ", ".join(map(str, numbers)) + ")"


def distinct(rng, count):
    return rng.sample(range(2, 60), count)


MUTATIONS = {}


def mutation(function):
    MUTATIONS[function.__name__] = function
    return function


# Each takes a random generator and returns (gold, a wrong text).


@mutation
def another_number(rng):
    n = number(rng)
    return str(n), boxed(other(rng, n))


@mutation
def negate(rng):
    n = number(rng)
    return str(n), boxed(f"-{n}")


@mutation
def deny_in_prose(rng):
    n = number(rng)
    return str(n), rng.choice(
        ["The answer is not {}.", "It cannot be {}.", "It is certainly never {}.", "The answer isn't {}."]
    ).format(n)


@mutation
def deny_a_box(rng):
    n = number(rng)
    return str(n), rng.choice(
        [r"The answer is not $\boxed{%d}$.", r"It cannot be \boxed{%d}.", r"It isn't \boxed{%d}.",
         r"It is no \boxed{%d}.", r"Anything but \boxed{%d}.",
         r"$x \ne \boxed{%d}$", r"I do not think that it is \boxed{%d}."]  # fmt: skip
    ) % n


@mutation
def hedge_in_prose(rng):
    n = number(rng)
    forms = [
        "Perhaps {}.",
        "The answer is maybe {}.",
        "The answer is ${}$ at most.",
        "The answer is the square root of {}.",
        "The answer is ${}$ divided by $3$.",
        "The answer is {} and a half.",
        "The answer is at least {}.",
        "It is possibly {}.",
        "The answer is more than {}.",
    ]
    return str(n), rng.choice(forms).format(n)


@mutation
def hedge_in_a_box(rng):
    n = number(rng)
    return str(n), boxed(
        f"{n}" + rng.choice([r" \text{ maybe}", "?", r" \text{ or so}", r" \text{ at least}", r" \text{ if even}", "+"])
    )


@mutation
def bound(rng):
    n = number(rng)
    return str(n), boxed(rng.choice([r"\ge ", "<", r"\le ", r"\neq ", "> "]) + str(n))


@mutation
def offer_two(rng):
    n = number(rng)
    m = other(rng, n)
    a, b = rng.sample([n, m], 2)
    return str(n), boxed(
        rng.choice([rf"{a} \text{{ or }} {b}", f"{a}, {b}", f"{a} (or {b})", f"{a}; {b}", rf"{a} \text{{ and }} {b}"])
    )


@mutation
def offer_two_boxes(rng):
    n = number(rng)
    a, b = rng.sample([n, other(rng, n)], 2)
    return str(n), rng.choice(
        [r"\boxed{%s} or \boxed{%s}", r"either \boxed{%s} or \boxed{%s}", r"\boxed{%s}, \boxed{%s}",
         r"\boxed{%s or \boxed{%s}}", r"\boxed %s or %s"]  # fmt: skip
    ) % (a, b)


@mutation
def offer_two_in_prose(rng):
    n = number(rng)
    a, b = rng.sample([n, other(rng, n)], 2)
    return str(n), rng.choice(["The answer is {} or {}.", "Either {} or {}.", "The answer is ${}$ or ${}$."]).format(
        a, b
    )


@mutation
def a_range(rng):
    n = number(rng)
    return str(n), boxed(
        rng.choice([f"[{n}, {n + 3}]", f"{n}-{n + 3}", f"({n - 2}, {n})", rf"{n} \pm 1", rf"{n} \text{{ to }} {n + 2}"])
    )


@mutation
def retract(rng):
    n = number(rng)
    return str(n), rf"It is \boxed{{{n}}}. No, that is wrong: it is \boxed{{{other(rng, n)}}}."


@mutation
def only_in_the_thinking(rng):
    n = number(rng)
    tag = rng.choice(["think", "thinking", "reasoning"])
    return str(n), rf"<{tag}>So \boxed{{{n}}}.</{tag}> " + rng.choice(
        ["I cannot tell.", rf"It is \boxed{{{other(rng, n)}}}."]
    )


@mutation
def number_in_passing(rng):
    n, m = rng.sample(range(2, 400), 2)
    return str(n), rng.choice(
        [f"With {n} as a start, the result is {m}.", f"I first thought of {n}, but the answer is {m}."]
    )


@mutation
def later_sentence(rng):
    n = number(rng)
    m = other(rng, n)
    return str(n), rf"\boxed{{{m}}}. " + rng.choice(
        [f"The final answer is found in {n} steps.", f"Note that {n} is close to it."]
    )


@mutation
def multiply_in_words(rng):
    n = number(rng)
    return str(n), boxed(
        f"{n} " + rng.choice(["times nine", r"\text{ times two}", "plus one", "minus four", "divided by 3", "over two"])
    )


@mutation
def operator_in_words(rng):
    n = number(rng)
    return str(n), boxed(
        f"{n} " + rng.choice(["factorial", "squared", "cubed", "hundred", "thousand", "million", "dozen", "halves"])
    )


@mutation
def operator_in_signs(rng):
    n = number(rng)
    return str(n), boxed(
        str(n) + rng.choice(["!+1", "^2", r"\cdot 2", "/7", "+1", "x", "_{10}x", "-5", r"\pi", "i", r"\%^2"])
    )


@mutation
def change_a_unit(rng):
    n, (a, b) = number(rng), rng.sample(UNITS, 2)
    return rf"{n} \text{{ {a}}}", boxed(rf"{n} \text{{ {b}}}")


@mutation
def change_a_power_of_a_unit(rng):
    n = number(rng)
    return rf"{n} \text{{ cm}}^2", boxed(rf"{n} \text{{ cm}}^3")


@mutation
def change_a_currency(rng):
    n, (a, b) = number(rng), rng.sample(CURRENCIES, 2)
    return f"{a}{n}", boxed(f"{b}{n}")


@mutation
def cents_for_dollars(rng):
    n = number(rng)
    return rf"\${n}", boxed(f"{n} cents")


@mutation
def change_a_thing(rng):
    n, (a, b) = number(rng), rng.sample(THINGS, 2)
    return rf"{n} \text{{ {a}}}", boxed(rf"{n} \text{{ {b}}}")


@mutation
def drop_a_side(rng):
    a, b, c = (number(rng, 2, 30) for _ in range(3))
    gold = rng.choice([f"{a}x-{b}y={c}", f"(x+{a})^2+(y-{b})^2={c}", f"x^2+{a}y={c}", rf"\sin x=\frac{{{c}}}{{61}}"])
    return gold, boxed(gold.rpartition("=")[rng.choice([0, 2])])


@mutation
def change_an_equation(rng):
    a, b, c = (number(rng, 2, 30) for _ in range(3))
    return f"{a}x+{b}y={c}", boxed(
        rng.choice([f"{a}x-{b}y={c}", f"{a}x+{b}y={c + 1}", f"{a + 1}x+{b}y={c}", f"{2 * a}x+{2 * b}y={c}"])
    )


@mutation
def equation_for_its_zero(rng):
    a, b = number(rng, 2, 30), number(rng, 2, 30)
    return "0", boxed(f"x^2-{a}x+{b}=0")


@mutation
def another_name(rng):
    n, (a, b) = number(rng), rng.sample("xyzkmnt", 2)
    return f"{a}={n}", boxed(f"{b}={n}")


@mutation
def ignore_a_middle(rng):
    low, high = sorted(distinct(rng, 2))
    middle = rng.choice(["x^2", "2x", "x+1", "5", r"\sqrt{x}", "|x|"])
    return f"[{low},{high}]", boxed(rf"{low} \le {middle} \le {high}")


@mutation
def open_an_interval(rng):
    low, high = sorted(distinct(rng, 2))
    return f"[{low},{high}]", boxed(
        rng.choice([f"({low},{high})", f"[{low},{high})", rf"{low}<x\le {high}", rf"x \le {high}"])
    )


@mutation
def reorder_a_tuple(rng):
    numbers = distinct(rng, rng.choice([2, 3, 4]))
    turned = numbers[1:] + numbers[:1]
    return tuple_of(numbers), boxed(tuple_of(turned))


@mutation
def change_a_repeat(rng):
    a, b = distinct(rng, 2)
    return f"{a},{a},{b}", boxed(rng.choice([f"{a},{b},{b}", f"{a},{b}", f"{a},{a},{a}", f"{a},{a},{b},{b}"]))


@mutation
def drop_or_add_an_item(rng):
    numbers = distinct(rng, 4)
    return ", ".join(map(str, numbers[:3])), boxed(", ".join(map(str, rng.choice([numbers[:2], numbers]))))


@mutation
def one_sign_of_two(rng):
    n = number(rng)
    return rf"\pm {n}", boxed(rng.choice([f"{n}", f"-{n}", f"+{n}"]))


@mutation
def round_a_fraction(rng):
    value = number(rng) + Fraction(rng.randint(1, 2), rng.choice([3, 7, 11, 13]) * 17)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}", boxed(f"{float(value):.{rng.choice([2, 4, 8, 12])}f}")


@mutation
def nearly_the_same(rng):
    k = rng.randint(30, 140)
    gold, wrong = rng.choice(
        [
            (f"e^{{-{k}}}", f"e^{{-{k + 1}}}"),
            ("0", f"e^{{-{k}}}"),
            (r"\pi", rf"\pi+10^{{-{k}}}"),
            (f"2^{{-{k}}}", "0"),
            (r"\sqrt{2}", rf"\sqrt{{2+10^{{-{k}}}}}"),
            ("1", f"1-e^{{-{k}}}"),
        ]
    )
    return gold, boxed(wrong)


@mutation
def shift_a_point(rng):
    n = number(rng, 11, 99)
    gold = f"{n // 10}.{n % 10}"
    return gold, boxed(rng.choice([str(n), f"0.{n}", f"{n}0", f"{n % 10}.{n // 10}" if n % 11 else str(n)]))


@mutation
def numbers_in_words(rng):
    n = number(rng, 11, 99)
    return rf"\text{{Plan {n // 10}.{n % 10}}}", boxed(
        rf"\text{{Plan {rng.choice([n, f'{n % 10 + 1}.{n // 10 + 3}', n // 10])}}}"
    )


@mutation
def another_word(rng):
    a, b = rng.sample(WORDS, 2)
    return rf"\text{{{a}}}", boxed(rng.choice([b, rf"\text{{not {a}}}", rf"\text{{{a} or {b}}}", rf"\text{{{a}/{b}}}"]))


@mutation
def another_letter(rng):
    a, b = rng.sample(LETTERS, 2)
    forms = [
        rf"\boxed{{{b}}}",
        f"The answer is {b}.",
        f"The answer is {b} because {a} is wrong.",
        f"The answer is {a} or {b}.",
        rf"\boxed{{\text{{{a}/{b}}}}}",
        f"Option {a} is wrong.",
        f"Answer: {a}, {b}",
        f"Eliminate option {a}.",
        f"({a}) does not work.",
        rf"\boxed{{{a}) is wrong}}",
        "\n".join(f"{letter}. {number(rng)}" for letter in LETTERS),
        rf"\boxed{{{b}: {a} larger sample}}",
    ]
    return a, rng.choice(forms)


@mutation
def a_letter_in_a_word(rng):
    return rng.choice(
        [
            ("A", "A car goes 30 km."),
            ("A", "So it is 60. A quick check agrees."),
            ("C", "Vitamin C does not help here."),
            ("B", "Plan B has failed."),
            ("I", "I do not know."),
        ]
    )


@mutation
def copy_the_question(rng):
    a, b = number(rng, 3, 9), number(rng, 12, 40)
    return rng.choice(
        [
            (str(sum(range(1, b + 1))), boxed(rf"\sum_{{k=1}}^{{{b}}} k")),
            (str(a), boxed(rf"\gcd({a * 8},{a * 9})")),
            (str(a * 2), boxed(rf"\int_0^{{{a}}} 2 dx")),
            (str(a), boxed(rf"\lfloor {a}.7\rfloor")),
            (str(b), boxed(rf"\max({a},{b})")),
        ]
    )


@mutation
def copy_the_calculation(rng):
    a, b, c = distinct(rng, 3)
    return rng.choice(
        [
            (str((a + b) * c), boxed(f"({a}+{b})*{c}")),
            (str(a - b + c), boxed(f"{a}-{b}+{c}")),
            (str(a * b), boxed(rf"{a} \cdot {b}")),
            (str(a**3), boxed(f"{a}^3" if a != 10 else "5^3 2^3")),
            (str(a), boxed(rf"\sqrt{{{a * a}}}")),
            (f"({a}, {b + c})", boxed(f"({a}, {b}+{c})")),
            (f"x<{a + b}", boxed(f"x<{a}+{b}")),
        ]
    )


@mutation
def add_up_a_list(rng):
    a, b = distinct(rng, 2)
    unit = rng.choice([r"^\circ", r" \text{ cm}", r"\text{ kg}"])
    return rng.choice(
        [
            (f"{a}{unit}, {b}{unit}", boxed(str(a + b))),
            (str(a + b), boxed(f"{a}{unit}, {b}{unit}")),
            (str(a + b), boxed(rf"{a}{unit} \text{{ and }} {b}{unit}")),
            (f"{a}{unit}, {b}{unit}", boxed(f"{a + b - 1}{unit}, 1{unit}")),
        ]
    )


@mutation
def leave_letters_out(rng):
    n, letters = number(rng), rng.choice(["mg", "kT", "Gm", "Pa", "hr", "cm"])
    return f"{n}{letters}", boxed(str(n))


@mutation
def a_size_without_its_sign(rng):
    n, (a, b) = number(rng), rng.sample("abkmxyz", 2)
    gold, wrong = rng.choice(
        [(f"|{a}-{b}|", f"{b}-{a}"), (f"|{a}-{b}|", f"{a}-{b}"), (f"|{a}-{n}|", f"{n}-{a}"), (f"|{a}+{n}|", f"{a}+{n}"),
         (f"|{a}{b}|", f"{a}{b}"), (rf"\max({a},{b})", b)]
    )  # fmt: skip
    return rng.choice([(gold, boxed(wrong)), (wrong, boxed(gold))])


@mutation
def glue_digits(rng):
    a, b = number(rng, 2, 9), number(rng, 2, 9)
    return f"{a}{b}", boxed(rng.choice([f"{a}({b})", f"({a})({b})", rf"{a}\ {b}", rf"{a}\quad {b}", f"{a}, {b}"]))


@mutation
def a_comma_for_a_point(rng):
    a, b = number(rng, 2, 9), number(rng, 2, 9)
    return f"{a},{b}", boxed(f"{a}.{b}")


@mutation
def and_for_or(rng):
    low, high = sorted(distinct(rng, 2))
    either, both = rf"x<{low} \text{{ or }} x>{high}", rf"x<{low} \text{{ and }} x>{high}"
    union = rf"(-\infty,{low})\cup({high},\infty)"
    return rng.choice([(either, boxed(both)), (both, boxed(either)), (union, boxed(both))])


@mutation
def round_to_nothing(rng):
    k = rng.randint(16, 90)
    return rng.choice([f"e^{{-{k}}}", rf"\pi\times10^{{-{k}}}"]), boxed("0." + "0" * rng.randint(6, 9))


@mutation
def a_part_for_a_whole(rng):
    n = number(rng)
    words = ["hundredths", "thousandths", "twelfths", "tenth", "sixth", "millions", "billions", "crore", "doubled"]
    return str(n), boxed(f"{n} {rng.choice(words)}")


@mutation
def another_letter_of_a_formula(rng):
    gold, wrong = rng.choice(
        [(r"\frac{GMm}{r^2}", r"\frac{Gmm}{r^2}"), ("nRT", "nrT"), ("qvB", "qvb"), (r"\text{Plan A}", r"\text{Plan}"),
         (r"\frac{nRT}{\delta}", r"\frac{nRT}{\Delta}"), (r"\tan x", r"\cot^{-1} x"), ("z", r"\overline{z}")]
    )  # fmt: skip
    return gold, boxed(wrong)


@mutation
def drop_a_domain(rng):
    low, high = sorted(distinct(rng, 2))
    return f"({low},{high})", boxed(rf"\{{x\in\mathbb{{{rng.choice('ZNQ')}}}\mid {low}<x<{high}\}}")


@mutation
def another_base(rng):
    digits = bin(number(rng))[2:]
    return f"{digits}_2", boxed(rng.choice([digits, f"{digits}_3", f"{digits[::-1]}1_2", str(int(digits, 2))]))


@mutation
def nonsense(rng):
    n = number(rng)
    return str(n), boxed(
        rng.choice(
            [
                r"\text{the right answer}",
                "?",
                r"\text{}",
                "0/0",
                "()",
                "0x2A",
                r"\infty",
                "[]",
                "{}",
                r"\text{see above}",
            ]
        )
    )


RIGHT = [  # (gold, a right text), so that refusing everything fails
    ("12", r"\boxed{12}"),
    ("12", "The answer is 12."),
    ("1/2", r"\boxed{0.5}"),
    (r"2\sqrt{2}", r"\boxed{\sqrt{8}}"),
    ("(1,2)", r"\boxed{(1, 2)}"),
    ("2x+3y=6", r"\boxed{4x+6y=12}"),
    ("[1,5]", r"\boxed{1\le x\le 5}"),
    (r"8 \text{ kJ}", r"\boxed{8000 \text{ J}}"),
    ("4,4,7", r"\boxed{7,4,4}"),
    ("A", "The answer is A."),
    (r"\text{odd}", r"\boxed{Odd}"),
    ("12", r"\boxed{12 \text{ apples}}"),
    (r"\pm 3", r"\boxed{3, -3}"),
    ("x=5", r"\boxed{5}"),
]


FORMS = [
    r"So it is $\boxed{%s}$.",
    r"\boxed{%s}",
    r"\fbox{%s}",
    "<answer>%s</answer>",
    "The answer is $%s$.",
    "#### %s",
    "Final answer: %s",
    "The answer is %s.",
    "%s",
    r"\boxed{ \boldsymbol{%s} }",
    r"\boxed{\text{%s}}",
    "**Answer:** $%s$",
    r"Thus \[ %s \]",
    '{"answer": "%s"}',
    "So the result is %s.",
    r"\boxed{\displaystyle %s.}",
    r"$$\boxed{\left(%s\right)}$$",
    "Therefore, $%s$ is the solution.",
]


def composed(name, seed):
    """A gold and a wrong text: a mutation, and where it gives the content of a box, one of the forms around it."""
    rng = random.Random(f"{name} {seed}")
    gold, text = MUTATIONS[name](rng)
    start, end = FORMS[0].split("%s")
    if text.startswith(start) and text.endswith(end):
        text = rng.choice(FORMS).replace("%s", text[len(start) : -len(end)])
    return gold, text


def test_there_are_forty_mutations_and_right_answers_pass():
    assert len(MUTATIONS) >= 40
    assert [(gold, text) for gold, text in RIGHT if verify(text, gold).verdict != "right"] == []


def test_at_most_one_in_a_thousand_is_accepted():
    cases = [(name, *composed(name, seed)) for name in MUTATIONS for seed in range(60)]
    verdicts = verify_many([(text, gold) for _, gold, text in cases])
    accepted = [(*case, verdict) for case, verdict in zip(cases, verdicts, strict=True) if verdict.verdict == "right"]
    print(f"{len(accepted)} of {len(cases)} accepted")
    assert len(cases) >= 2400 and len(accepted) <= len(cases) / 1000, accepted


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(st.sampled_from(sorted(MUTATIONS)), st.integers(0, 10**9))
def test_no_mutation_is_accepted(name, seed):
    gold, text = composed(name, seed)
    assert verify(text, gold).verdict != "right", (name, gold, text)
