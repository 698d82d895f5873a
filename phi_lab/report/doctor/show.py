"""Findings as people read them: lines of a terminal, HTML of the report, rows of a table."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from textwrap import fill

from phi_lab.report import html
from phi_lab.report.doctor.folders import Checked

LABELS = {"meaning": "means", "cause": "likely", "remedy": "try"}  # the parts of a finding, as a terminal names them


def as_text(checked: Sequence[Checked]) -> str:
    """All that was checked, a line each, with the findings below it; the last line counts them."""
    lines = []
    for part in checked:
        verdict = "nothing found" if not part.findings else f"{len(part.findings)} found"
        lines.append(f"{part.source}: {part.count:,} {part.unit}, {verdict}")
        for finding in part.findings:
            lines += ["", *_paragraph(finding.rule, finding.seen)]
            for name, label in LABELS.items():
                lines += _paragraph(f"  {label}", getattr(finding, name))
        lines += [""] * bool(part.findings)
    return "\n".join([*lines, summary(checked)])


def summary(checked: Sequence[Checked]) -> str:
    """One sentence: how much was found in how many files."""
    found = [finding.rule for part in checked for finding in part.findings]
    names = ", ".join(dict.fromkeys(found))
    files = f"{len(checked)} file" + "s" * (len(checked) != 1)
    return f"{len(found)} found: {names}" if found else f"nothing found in {files}"


def rules_as_text(rules: Sequence[tuple[str, Callable]]) -> str:
    """A line or two for each rule: what it reads, its name, and what sets it off."""
    lines = []
    for reads, rule in rules:
        first_paragraph = " ".join((rule.__doc__ or "").partition("\n\n")[0].split())
        lines.append(fill(f"{reads:<13} {rule_name(rule)}: {first_paragraph}", 110, subsequent_indent=" " * 14,
                          break_on_hyphens=False))
    return "\n".join(lines)


def rule_name(rule: Callable) -> str:
    """The name that its findings carry."""
    return rule.__name__.replace("_", "-")


def _paragraph(label: str, text: str) -> list[str]:
    indents = {"initial_indent": "  ", "subsequent_indent": "      "}
    return fill(f"{label}: {text}", 100, break_on_hyphens=False, **indents).splitlines()


def as_json(checked: Sequence[Checked]) -> list[dict]:
    """The same as JSON's types."""
    return [asdict(part) for part in checked]


def as_html(checked: Sequence[Checked]) -> str:
    """A line for what was read without a finding, and a fold for each finding; "" where nothing was read."""
    folds = ""
    for part in checked:
        for finding in part.findings:
            rest = html.settings({"means": finding.meaning, "likeliest cause": finding.cause, "try": finding.remedy})
            folds += (f'<details open><summary><b class="wrong">{html.text(finding.rule)}</b> '
                      f"{html.text(finding.seen)}<small>{html.text(part.source)}</small></summary>{rest}</details>")
    if folds or not checked:
        return folds
    read = ", ".join(f"{part.count:,} {part.unit}" for part in checked)
    return f'<p class="soft">Doctor: nothing found in {html.text(read)}.</p>'


def table(checked: Sequence[Checked]) -> list[list[str]]:
    """Header and one line for each finding, for a notebook's table."""
    head = ["where", "finding", "seen", "what it means", "likeliest cause", "try"]
    return [head, *([part.source, f.rule, f.seen, f.meaning, f.cause, f.remedy]
                    for part in checked for f in part.findings)]
