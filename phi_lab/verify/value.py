"""The one place where an answer meets a parser: math-verify's LaTeX grammar, then sympy values.

Called for leaves that are no plain numbers, in the verifier's worker process only. Text never goes
to `eval`, `sympify` or `parse_expr`; a parsed expression is never printed: that may take for ever.
"""

import re
from functools import cache

from phi_lab.verify.text import braced, number


@cache
def _parser():
    """math-verify's LaTeX parser, case kept, reading number tokens itself: the original hands them
    to `sympy.Number`, which hands a string to `sympify`, and that to `eval`."""
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
    from sympy import Integer

    class Parser(_Latex2Sympy):
        def __init__(self, real):
            super().__init__(is_real=real, config=ConversionConfig(lowercase_symbols=False))

        def parse_number(self, text):
            return Integer(int(text.replace(",", "")))

    return Parser


def parse(text, real=True):
    """A sympy expression of one LaTeX leaf, decimals exact; raises whatever the parser raises."""
    from sympy import Rational

    if value := number(text):
        return Rational(value[0], value[1])
    s = braced(text)
    s = re.sub(r"\\sqrt\s*(?:(\d)|\(([^()]*)\))", r"\\sqrt{\1\2}", s)
    s = re.sub(r"\^\s*(?:\(([^()]*)\)|(\d{2,}))", r"^{\1\2}", s)
    s = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", s)
    s = re.sub(r"(\d*)\.(\d+)", lambda m: rf"\frac{{{m[1]}{m[2]}}}{{{10 ** len(m[2])}}}", s)
    return _parser()(real or None).parse(s.replace("%", ""))


def same_value(a, b, sides=None):
    """Are two expressions the same? With `sides` (1, -1 or 0) a and b are relations, as pairs, and
    the question is whether their lhs - rhs are proportional, with that sign (0: either).

    Exact where both are rational; otherwise 40 digits at several points. None: cannot be read."""
    import sympy

    texts = [a, b] if sides is None else [*a, *b]
    real = not any(re.search(r"(?<![A-Za-z\\])i(?![A-Za-z])|\d[ij]\b", t) for t in texts)
    try:
        values = [parse(t, real) for t in texts]
        if any(_exponent(v) > 20_000 for v in values):
            return None  # it would take powers or factorials without end
        if not real:
            values = [v.subs(sympy.Symbol("i"), sympy.I) for v in values]
    except Exception:
        return None
    if all(getattr(v, "shape", ()) for v in values) and sides is None:
        x, y = (v.doit() for v in values)
        return x.shape == y.shape and all(_close(_n(p), _n(q)) for p, q in zip(x, y, strict=True))
    if any(not isinstance(v, sympy.Expr) for v in values):
        return None
    if sides is not None:
        values = [values[0] - values[1], values[2] - values[3]]
    x, y = values
    symbols = sorted(x.free_symbols | y.free_symbols, key=lambda s: s.name)
    if sides is None and not symbols:
        x, y = x.doit(), y.doit()
        if x.is_Rational and y.is_Rational or not (x.is_finite and y.is_finite):
            return bool(x == y and x.is_comparable)  # infinities have a sign; 1/0 is no number
        return _close(_n(x), _n(y)) or _rounded(a, x, y) or _rounded(b, y, x)
    ratio = None
    for point in ("1.37", "2.61", "0.83", "-1.29"):
        here = {s: sympy.Rational(point) + sympy.Rational(i, 7) for i, s in enumerate(symbols)}
        p, q = _n(x.subs(here)), _n(y.subs(here))
        if point[0] == "-" and not (p.is_real and q.is_real):
            continue  # roots of negative numbers have several conventions
        if sides is None:
            if not _close(p, q):
                return False
            continue
        if _close(p, 0) or _close(q, 0) or not (p.is_finite and q.is_finite):
            return None
        ratio = p / q if ratio is None else ratio
        if not _close(ratio, p / q) or (sides and not (p / q * sides).is_positive):
            return False
    return True


def _exponent(node):
    """The largest product of exponents, one inside the other, in an expression; huge factorials
    count as infinite."""
    import sympy

    parts = node.flat() if isinstance(node, sympy.MatrixBase) else node.args
    inner = max((_exponent(part) for part in parts), default=1)
    if isinstance(node, sympy.Pow) and not node.exp.free_symbols:
        size = node.exp.evalf(5)
        return inner * max(1, abs(size)) if size.is_real else sympy.oo
    if isinstance(node, (sympy.factorial, sympy.binomial)):
        if any(abs(arg.evalf(5)) > 2000 for arg in node.args if not arg.free_symbols):
            return sympy.oo
    return inner


def _n(value):
    return value.doit().evalf(40)


def _close(p, q):
    gap = abs(p - q)
    return bool(gap.is_finite and gap.is_number and gap <= max(abs(p), abs(q), 1) * 1e-25)


def _rounded(text, value, exact):
    """Is the text a decimal that rounds an irrational value, to six places or more?"""
    places = re.fullmatch(r"-?\d*\.(\d{6,})", text.strip())
    if not places or exact.is_rational:
        return False
    return bool(abs(_n(exact) - value) * 2 * 10 ** len(places[1]) <= 1)
