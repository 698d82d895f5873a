"""The functions that an expression may use: sines, logarithms, roots, factorials, floors, …"""

import math
from collections.abc import Callable
from fractions import Fraction

from mpmath import mp, mpc, mpf

from phi_lab.verify.arithmetic import NOTHING, Value, add, as_float, checked, divide, power, root, times
from phi_lab.verify.tree import Unread


def call(name: str, args: list[Value]) -> Value:
    """The value of a function at some values. Raises Unread, or ZeroDivisionError."""
    if any(isinstance(arg, list) for arg in args):
        raise Unread(f"{name} of a matrix")
    if name in _EXACT:
        return _EXACT[name](*args)
    x = as_float(args[0])
    if abs(x) > 10**20 or (x != 0 and abs(x) < mpf(10) ** -100):
        raise Unread(f"{name} of so large or small a number")
    if name in ("ln", "lg", "log"):
        if x == 0:
            raise ZeroDivisionError
        base = as_float(args[1]) if len(args) > 1 else mpf(10)
        if name != "ln" and base in (0, 1):
            raise ZeroDivisionError
        return _tidy(mp.log(x)) if name == "ln" else divide(_tidy(mp.log(x)), _tidy(mp.log(base)))
    if name == "exp":
        return power(+mp.e, args[0])
    if name in ("cot", "sec", "csc"):
        under = {"cot": mp.tan, "sec": mp.cos, "csc": mp.sin}[name](x)
        return divide(Fraction(1), _tidy(under))
    their = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}.get(name, name)
    value = _tidy(getattr(mp, their)(x))
    if abs(as_float(value)) > 1 / NOTHING:
        raise ZeroDivisionError  # the tangent of a right angle
    return value


def _tidy(value: Value) -> Value:
    """A result of a function that is near nothing is zero: the sine of pi."""
    return Fraction(0) if abs(value) < NOTHING else checked(value)


def _factorial(value: Value) -> Value:
    if isinstance(value, Fraction) and value.denominator == 1:
        if not 0 <= value <= 2000:
            raise Unread("a factorial too large")
        return Fraction(math.factorial(int(value)))
    if isinstance(value, mpc) or abs(as_float(value)) > 2000:
        raise Unread("a factorial")
    return checked(mp.gamma(as_float(value) + 1))


def _binomial(n: Value, k: Value) -> Value:
    if all(isinstance(v, Fraction) and v.denominator == 1 for v in (n, k)):
        if not 0 <= n <= 5000:
            raise Unread("a binomial too large")
        return Fraction(math.comb(int(n), int(k)) if k >= 0 else 0)
    if any(isinstance(v, mpc) for v in (n, k)):
        raise Unread("a binomial")
    return divide(_factorial(n), times(_factorial(k), _factorial(add([n, times(Fraction(-1), k)]))))


def _whole(call: Callable) -> Callable:
    def integers(*args: Value) -> Value:
        if not all(isinstance(v, Fraction) and v.denominator == 1 for v in args):
            raise Unread("not of whole numbers")
        return Fraction(call(*map(int, args)))

    return integers


def _floor(value: Value) -> Value:
    if isinstance(value, mpc) or abs(value) > 10**30:
        raise Unread("a floor")
    return Fraction(math.floor(value) if isinstance(value, Fraction) else int(mp.floor(value)))


def _extreme(call: Callable) -> Callable:
    def extreme(*args: Value) -> Value:
        if any(isinstance(v, mpc) for v in args):
            raise Unread("no order among complex numbers")
        return call(args, key=as_float)

    return extreme


def _nth_root(value: Value, degree: Value) -> Value:
    if isinstance(degree, Fraction) and degree.denominator == 1 and 1 <= degree <= 10_000:
        return root(value, int(degree))
    return power(value, divide(Fraction(1), degree))


_EXACT: dict[str, Callable] = {
    "factorial": _factorial,
    "binom": _binomial,
    "abs": abs,
    "root": _nth_root,
    "degree": lambda: mp.pi / 180,
    "gcd": _whole(math.gcd),
    "lcm": _whole(math.lcm),
    "max": _extreme(max),
    "min": _extreme(min),
    "lfloor": _floor,
    "lceil": lambda value: -_floor(times(Fraction(-1), value)),
}
