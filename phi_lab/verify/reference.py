"""What math-verify itself says, to stand beside this project's own verdict (`phi_lab.verify.audit`).

The paper's checker is math-verify as it comes: it reads the whole completion. It can hang (big powers, long texts)
and hands text to sympy's `parse_expr`, which evaluates it. So it runs in the verifier's kind of worker, with a
deadline and a memory limit, and there `parse_expr` sees nothing but arithmetic.

Source: github.com/huggingface/Math-Verify.
"""

import re
from collections.abc import Callable, Iterable

from phi_lab.core.progress import Bar
from phi_lab.verify import worker

DEADLINE = 10.0  # seconds for one case; math-verify's own limits are 5 to parse and 5 to compare
MEMORY = 2 << 30  # bytes of address space
ARITHMETIC = re.compile(r"[\d\s.+\-*/^()×÷]*")


def ask(pairs: Iterable[tuple[str, str]], seconds: float = DEADLINE) -> list[str]:
    """math-verify's verdicts on (text, gold) pairs: right, wrong, unparsed, or timeout (`seconds` each are over,
    or the child died). Raises RuntimeError where the child does not start."""
    pairs, pool = list(pairs), worker.Pool("phi_lab.verify.reference", spare=False)
    said = []
    with Bar(len(pairs), "math-verify", " cases") as bar:
        try:
            for text, gold in pairs:
                said.append(pool.ask([text, gold], seconds)[0])
                bar.update()
        finally:
            pool.close()
    return said


def main() -> None:
    """The child's side."""
    worker.serve(_math_verify, MEMORY)


def _math_verify() -> Callable:
    import math_verify.parser
    import sympy.physics.units  # noqa: F401  it parses its own unit names when it is first needed
    from latex2sympy2_extended import latex2sympy2
    from sympy.parsing import sympy_parser

    genuine = sympy_parser.parse_expr

    def guarded(text: str, *args: object, **kwargs: object) -> object:
        if not ARITHMETIC.fullmatch(text):
            raise ValueError("text may not reach parse_expr")
        return genuine(text, *args, **kwargs)

    for module in (sympy_parser, latex2sympy2, math_verify.parser):  # sympify goes through sympy_parser
        module.parse_expr = guarded

    def compare(text: str, gold: str) -> bool | None:
        wanted = math_verify.parse(gold if "$" in gold or "\\boxed" in gold else f"${gold}$")
        found = math_verify.parse(text)
        return math_verify.verify(wanted, found) if wanted and found else None

    return compare
