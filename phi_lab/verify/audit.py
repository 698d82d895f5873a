"""How far can the verifier be trusted? A page about files of labelled cases, with every miss on it.

Agreement alone hides which way a checker errs: a false positive pays a wrong answer (reward hacking starts
there), a false negative throws a right one away. So both are counted with 95 % Wilson intervals, beside
math-verify's own verdicts on the same texts and the judge's votes where there are any (`phi_lab.verify.judge`).

    phi-lab verify --cases FILE --out judged.jsonl         writes judged.jsonl and judged.html
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from phi_lab import verify
from phi_lab.core import files, stats
from phi_lab.core.errors import UserError
from phi_lab.core.formatting import one_line, percent_interval
from phi_lab.report import html
from phi_lab.report.plot_style import VERDICTS
from phi_lab.verify import reference

GROUPS = ("main", "contested", "unboxed")
LONGEST = 20_000  # characters that math-verify gets to read: its patterns take minutes on longer ones
WHOLE = 10_000  # labelled cases up to which math-verify judges all, not only the misses
SHOWN = 200  # misses of one kind on the page
ABOUT = ("file", "kind", "benchmark", "quality", "tags")  # what a case may say about itself


def judge_file(path: Path, jobs: int | None = None, strict: bool = True) -> list[dict]:
    """The cases of a file (JSON Lines, `.gz` allowed: `id`, `gold`, and `prediction_text` or `response`), with
    `verdict`, `extracted` and `rule` added. Raises UserError, naming file, line and field."""
    path = Path(path)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as file:
            lines = file.read().split("\n")  # a text may hold other line ends
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    cases = []
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, or 100,000 brackets
            raise UserError(f"{path}: line {line}: not JSON: {one_line(error)}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {line}: a case must be an object with id and gold")
        field = "prediction_text" if "prediction_text" in row else "response"
        for name in ("id", "gold", field):
            if name not in row:
                what = "prediction_text' or 'response" if name == field else name
                raise UserError(f"{path}: line {line}: field '{what}' is missing")
            if name != "id" and not isinstance(row[name], str):
                raise UserError(f"{path}: line {line}: field '{name}' must be a string")
        for name in ("expected", "correct"):
            if not isinstance(row.get(name), bool | None):
                raise UserError(f"{path}: line {line}: field '{name}' must be true or false")
        cases.append(row)
    if not cases:
        raise UserError(f"{path}: no case in it; a line is an object with id, gold, and prediction_text or response")
    verdicts = verify.verify_many([(_text(row), row["gold"]) for row in cases], jobs, strict)
    return [{**row, **verdict._asdict()} for row, verdict in zip(cases, verdicts, strict=True)]


def judge_files(paths: Sequence[Path], jobs: int | None = None, strict: bool = True) -> tuple[list[dict], list[str]]:
    """The verdicts on the cases of several files (rows as from `judge_file`, with `file` where there are several),
    and a line for each file that cannot be read. Raises UserError when none can."""
    rows, skipped = [], []
    for path in paths:
        try:
            found = judge_file(path, jobs, strict)
        except UserError as error:
            skipped.append(str(error))
        else:
            rows += found if len(paths) == 1 else [{**row, "file": Path(path).name} for row in found]
    if len(skipped) == len(paths):
        raise UserError("; ".join(skipped))
    return rows, skipped


def measure(rows: Iterable[dict], said: Callable[[dict], bool]) -> dict:
    """Agreement of a checker with the labels. Each share is (count, of how many, low, high), a 95 % interval in [0, 1]:
    false positives are of the answers that are wrong, false negatives of those that are right."""
    pairs = [(said(row), label(row)) for row in rows]

    def share(of: list[bool]) -> tuple[int, int, float, float]:
        return sum(of), len(of), *stats.wilson(sum(of), len(of))

    return {
        "agreement": share([a == b for a, b in pairs]),
        "false positives": share([a for a, b in pairs if not b]),
        "false negatives": share([not a for a, b in pairs if b]),
    }


def summary(rows: Sequence[dict], skipped: Sequence[str] = ()) -> dict:
    """Counts of cases and verdicts; `measure` of the rules for each group of labelled cases, and of the rules with the
    judge's "right" accepted, where it was asked; `skipped`, the files that cannot be read."""
    labelled = [row for row in rows if label(row) is not None]
    result = {"cases": len(rows), "labelled": len(labelled), "verdicts": dict(Counter(r["verdict"] for r in rows))}
    for name in GROUPS:
        mine = [row for row in labelled if group(row) == name]
        if mine:
            result[name] = measure(mine, _right)
            if any("judge" in row for row in mine):
                result[f"{name}, with the judge"] = measure(mine, lambda r: _right(r) or r.get("judge") == "right")
    return {**result, "skipped": list(skipped)} if skipped else result


def label(row: dict) -> bool | None:
    """Whether a case should be judged right; None where it does not say."""
    said = row.get("expected", row.get("correct"))
    return said if isinstance(said, bool) else None


def group(row: dict) -> str:
    """Which cases count together: contested ones and those without a box have weak labels."""
    if row.get("contested"):
        return "contested"
    return "unboxed" if row.get("quality") == "unboxed" else "main"


def _right(row: dict) -> bool:
    return row["verdict"] == verify.RIGHT


def _miss(row: dict) -> bool:
    return _right(row) != label(row)


def write_page(target: Path, rows: Sequence[dict], skipped: Sequence[str] = ()) -> None:
    """Write the page about `rows` whole or not at all. Asks math-verify, which takes about 20 ms a case."""
    labelled = [row for row in rows if label(row) is not None]
    asked = labelled if len(labelled) <= WHOLE else list(filter(_miss, labelled))
    short = [row for row in asked if len(_text(row)) <= LONGEST]
    said = reference.ask((_text(row), row["gold"]) for row in short)
    theirs = {id(row): verdict for row, verdict in zip(short, said, strict=True)}
    about = (
        f"math-verify judged {len(short):,} of {len(labelled):,} labelled cases"
        f"{'' if asked is labelled else ', the misses only'}; "
        f"{len(asked) - len(short):,} are longer than {LONGEST:,} characters and were left out, "
        f"{said.count('timeout'):,} took longer than {reference.DEADLINE:g} seconds and count as not right."
    )
    misses = sorted(filter(_miss, labelled), key=lambda row: GROUPS.index(group(row)))
    body = [
        f"<h1>Verifier audit</h1><p>{len(rows):,} cases, {len(labelled):,} with a label, {len(misses):,} misses.</p>",
        *(f'<p class="wrong">Not in these numbers: {html.text(line)}</p>' for line in skipped),
        "<h2>Agreement</h2>",
        _agreement(rows, short if asked is labelled else [], theirs, about),
        _by_kind(labelled, theirs) if asked is labelled else "",
        "<h2>Verdicts</h2>",
        _verdicts(rows),
        "<h2>Misses</h2>",
        _misses("False positives: accepted, but wrong", [r for r in misses if _right(r)], theirs),
    ]
    for v in VERDICTS:
        missed = [r for r in misses if r["verdict"] == v and not _right(r)]
        body.append(_misses(f"False negatives: right, but judged {v}", missed, theirs))
    files.atomic_write(Path(target), html.frame("Verifier audit", "".join(body)).encode("utf-8", "replace"))


def _agreement(rows: Sequence[dict], short: Sequence[dict], theirs: dict[int, str], about: str) -> str:
    """The table of groups: the rules, with the judge where it was asked, and math-verify alone."""
    groups = {name: value for name, value in summary(rows).items() if name.startswith(GROUPS)}
    for name in GROUPS:
        if mine := [row for row in short if group(row) == name]:
            groups[f"{name}, math-verify alone"] = measure(mine, lambda row: theirs[id(row)] == "right")
    if not groups:
        return "<p>No case has a label (expected or correct).</p>"
    order = sorted(groups, key=lambda name: GROUPS.index(name.split(",")[0]))
    cells = [[html.text(name), *map(_cell, groups[name].values())] for name in order]
    says = ("Counts, with shares and their 95 % intervals. False positives are of the answers that are wrong, "
            "false negatives of those that are right.")
    return html.table(says, ["cases", *next(iter(groups.values()))], cells) + f'<p class="soft">{about}</p>'


def _by_kind(labelled: Sequence[dict], theirs: dict[int, str]) -> str:
    """A line for every kind of case in every file: our misses, and math-verify's on the same cases."""
    kinds: dict[tuple[str, str, str], list[dict]] = {}
    for row in labelled:
        key = str(row.get("file", "")), str(row.get("kind") or row.get("benchmark") or ""), group(row)
        kinds.setdefault(key, []).append(row)
    if len(kinds) < 2:
        return ""

    def misses(rows: list[dict], right: Callable[[dict], bool]) -> list[str]:
        wrong = [row for row in rows if not label(row)]
        return [f"{sum(map(right, wrong))} of {len(wrong)}",
                f"{sum(not right(row) for row in rows if label(row))} of {len(rows) - len(wrong)}"]

    cells = []
    for key, found in sorted(kinds.items()):
        read = [row for row in found if id(row) in theirs]
        other = misses(read, lambda row: theirs[id(row)] == "right")
        cells.append([*map(html.text, key), *misses(found, _right), *other])
    head = ["file", "kind", "labels", "accepted, but wrong", "right, but refused", "math-verify: accepted, but wrong",
            "math-verify: right, but refused"]
    return "<h2>By set and kind</h2>" + html.table("math-verify on the cases that it could read.", head, cells)


def _verdicts(rows: Sequence[dict]) -> str:
    counts = Counter((row["verdict"], label(row)) for row in rows)
    lines = [[v, *(f"{counts[v, label]:,}" for label in (True, False, None))] for v in VERDICTS]
    return html.table("", ["verdict", "labelled right", "labelled wrong", "no label"], lines)


def explain(text: str, gold: str) -> list[str]:
    """The verdict on one completion in both modes, and the rules that decided, a line each."""
    lines = []
    for name, strict in (("strict", True), ("by the conventions of benchmarks", False)):
        found = verify.verify(text, gold, strict)
        read = "no answer was read" if found.extracted is None else f"the answer read is {found.extracted!r}"
        lines.append(f"{name}: {found.verdict}; {read}; rule: {found.rule}")
    return lines


def _text(row: dict) -> str:
    return row["prediction_text"] if "prediction_text" in row else row["response"]


def words(value: tuple[int, int, float, float]) -> str:
    """A share of `measure` as text: "569 of 573: 99.3 % [98.2, 99.7]"."""
    count, of, low, high = value
    return f"{count:,} of {of:,}" + (f": {percent_interval(count / of, low, high)}" if of else "")


def _cell(value: tuple[int, int, float, float]) -> str:
    count, _, part = words(value).partition(": ")
    return f"{count}<small>{part}</small>"


def _misses(title: str, rows: Sequence[dict], theirs: dict[int, str]) -> str:
    """One kind of miss; math-verify's verdict and the judge's vote in the last columns."""
    if not rows:
        return ""

    def shown(value: object) -> str:
        text = str(value)
        return f'<pre style="text-align:left;margin:0">{html.text(text[:300])}{"…" if len(text) > 300 else ""}</pre>'

    def line(row: dict) -> list[str]:
        said = {name: row[name] for name in ABOUT if row.get(name)}
        about = "; ".join(f"{k} {', '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in said.items())
        what = f"{html.text(row['id'])}<small>{group(row)}; {html.text(about)}</small>"
        read = "–" if row["extracted"] is None else shown(row["extracted"])
        other = theirs.get(id(row), "too long")
        rule = html.text(row.get("rule", "–"))
        return [what, shown(row["gold"]), read, row["verdict"], rule, other, html.text(row.get("judge", "–"))]

    more = f" The first {SHOWN} of them." if len(rows) > SHOWN else ""
    head = ["case", "gold", "what was read", "verdict", "rule", "math-verify", "judge"]
    return f"<h3>{title}: {len(rows):,}</h3>" + html.table(more, head, map(line, rows[:SHOWN]))
