"""More mutations: of points, words, lists, letters, bases, and copies of the question."""

from mutations import LETTERS, WORDS, boxed, distinct, mutation, number


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
