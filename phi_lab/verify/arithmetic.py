"""Arithmetic with exact fractions and 400-digit numbers that loses nothing unseen.

A value is a Fraction where it is rational, otherwise a number of mpmath, or a list of rows of them. Sizes are bounded
before anything is computed, and a sum in which a term disappears or nearly cancels raises `Unread`.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from mpmath import mp, mpc, mpf

from phi_lab.verify.tree import Unread

Value = Any  # Fraction, mpf, mpc, or a list of lists of them
LOST = mpf(10) ** -160  # a term that much smaller than another would be lost
NOTHING = mpf(10) ** -330  # what is that small came from rounding
MAX_BITS = 100_000  # of an exact number


def as_float(value: Value) -> Value:
    """A fraction as a number of mpmath; other values as they are."""
    return mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def checked(value: Value) -> Value:
    """A value that is small enough to go on with; a complex number of no imaginary part is real."""
    if isinstance(value, Fraction):
        if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
            raise Unread("too large")
        return value
    if isinstance(value, mpc):
        if not (mp.isfinite(value.real) and mp.isfinite(value.imag)):
            raise ZeroDivisionError
        if abs(value.imag) <= abs(value.real) * NOTHING:
            return checked(value.real)
        return mpc(0, value.imag) if abs(value.real) <= abs(value.imag) * NOTHING else value
    if not mp.isfinite(value):
        raise ZeroDivisionError
    return value


def add(values: list[Value]) -> Value:
    """The sum of values. Raises Unread where a term would be lost."""
    if any(isinstance(v, list) for v in values):
        return _matrix_sum(values)
    exact = sum((v for v in values if isinstance(v, Fraction)), Fraction(0))
    others = [v for v in values if not isinstance(v, Fraction)]
    if not others:
        return checked(exact)
    if exact != 0:
        others.append(as_float(exact))
    size = max(abs(v) for v in others)
    if any(0 < abs(v) < size * LOST for v in others):
        raise Unread("a term too small beside another")
    total = mp.fsum(others)
    if abs(total) <= size * NOTHING:
        return Fraction(0)
    if abs(total) < size * LOST:
        raise Unread("terms that nearly cancel")
    return checked(total)


def times(a: Value, b: Value) -> Value:
    """The product of two values, exact where both are."""
    if isinstance(a, list) or isinstance(b, list):
        return _matrix_product(a, b)
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return checked(a * b)
    if a == 0 or b == 0:
        return Fraction(0)
    return checked(as_float(a) * as_float(b))


def multiply(values: Sequence[Value]) -> Value:
    """The product of several values."""
    result = values[0]
    for value in values[1:]:
        result = times(result, value)
    return result


def divide(a: Value, b: Value) -> Value:
    """A quotient. Raises ZeroDivisionError."""
    if isinstance(b, list):
        raise Unread("a matrix below a line")
    if b == 0:
        raise ZeroDivisionError
    return times(a, 1 / b if isinstance(b, Fraction) else checked(1 / b))


def power(base: Value, exponent: Value) -> Value:
    """A power, exact where base and exponent allow it. Raises Unread for one too large."""
    if isinstance(base, list) or isinstance(exponent, list):
        raise Unread("a power of a matrix")
    if base == 0:
        if isinstance(exponent, mpc) or exponent <= 0:
            raise ZeroDivisionError
        return Fraction(0)
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(exponent) * size <= MAX_BITS:
            return base ** int(exponent)
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator <= 1000 and base > 0:
        if exponent.denominator != 1:
            return power(root(base, exponent.denominator), Fraction(exponent.numerator))
    b, e = as_float(base), as_float(exponent)
    if abs(e) > 10**9 or abs(e) * abs(mp.log(abs(b))) > 5 * 10**6:
        raise Unread("a power too large")
    return checked(mp.power(b, e))


def root(value: Value, degree: int) -> Value:
    """The real root where there is one."""
    if value == 0:
        return Fraction(0)
    if isinstance(value, Fraction):
        top, bottom = (_whole_root(abs(part), degree) for part in (value.numerator, value.denominator))
        if top is not None and bottom is not None and (value > 0 or degree % 2):
            return Fraction(top, bottom) * (1 if value > 0 else -1)
    real = as_float(value)
    if isinstance(real, mpf) and real < 0 and degree % 2:
        return -mp.root(-real, degree)
    return checked(mp.root(real, degree))


def _whole_root(value: int, degree: int) -> int | None:
    if degree == 2:
        root = math.isqrt(value)
    elif value.bit_length() > 4000 or degree > 64:
        return None
    else:
        low, high = 0, 1 << (value.bit_length() // degree + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
        root = low
    return root if root**degree == value else None


# ---- Matrices -----------------------------------------------------------------------------------


def _matrix_sum(values: list[Value]) -> Value:
    if not all(isinstance(v, list) for v in values) or len({(len(v), len(v[0])) for v in values}) > 1:
        raise Unread("a sum of different shapes")
    return [[add([v[i][j] for v in values]) for j in range(len(values[0][0]))] for i in range(len(values[0]))]


def _matrix_product(a: Value, b: Value) -> Value:
    if not isinstance(a, list) or not isinstance(b, list):
        factor, matrix = (b, a) if isinstance(a, list) else (a, b)
        return [[times(factor, entry) for entry in row] for row in matrix]
    if len(a[0]) != len(b) or len(a) * len(b[0]) > 100:
        raise Unread("a product of shapes that do not fit")
    columns = list(zip(*b, strict=True))
    return [[add([times(x, y) for x, y in zip(row, column, strict=True)]) for column in columns] for row in a]
