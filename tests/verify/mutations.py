"""Wrong answers composed from right ones, each by a mutation with a name; those of single forms are in
`mutations_of_forms.py`.
"""

from fractions import Fraction

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
