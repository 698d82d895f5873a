"""Tables of HTML for a notebook page, readable without style sheets, without colour and without a kernel.

Notebook viewers remove style sheets and scripts, so everything here is a plain table with a few inline styles. Text of
a model enters through `html.text` only: it is shown, never interpreted.
"""

import re
from collections.abc import Iterable, Sequence

from IPython.display import HTML

from phi_lab import verify
from phi_lab.lab import thoughts
from phi_lab.lab.exercises import first_slip
from phi_lab.model import chat
from phi_lab.problems.problem import Problem
from phi_lab.report.html import text
from phi_lab.report.plot_style import BLUE, VERDICTS

CELL = "text-align:left;vertical-align:top;padding:.35em .9em .35em 0"
LONG_WORD = re.compile(r"\S{25,}")
INTERVAL = re.compile(r"\[[-+\d., %]+\]")
PARTING = f'<b style="color:{BLUE}">➔</b>'  # the place from which two answers differ
WORK = "white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;font-size:.9em;max-width:32em"


def table(caption: str, head: Iterable[object], rows: Iterable[Iterable[object]], raw: bool = False) -> str:
    """An HTML table with its caption below; cells are escaped unless they are HTML of this project (`raw`)."""
    show = str if raw else _breakable
    top = "".join(f'<th style="{CELL}">{text(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f'<td style="{CELL}">{show(cell)}</td>' for cell in row) + "</tr>" for row in rows)
    under = f'<p style="margin:.2em 0 .6em"><small>{text(caption)}</small></p>' if caption else ""
    return f'<table style="margin-left:0"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{under}'


def _breakable(cell: object) -> str:
    """A cell escaped, for a narrow window: lines break between a value and its interval and after an underscore, and
    not inside of the interval; and in a thought, which has no spaces, after a step or a column.
    """
    shown = LONG_WORD.sub(lambda found: re.sub("([,;:])", r"\1<wbr>", found[0]), text(cell).replace("_", "_<wbr>"))
    return INTERVAL.sub(lambda found: f'<span style="white-space:nowrap">{found[0]}</span>', shown)


def badge(verdict: str) -> str:
    """A verdict as a coloured word with ✓ or ✗."""
    sign = "✓" if verdict == "right" else "✗"
    return f'<b style="color:{VERDICTS.get(verdict, "inherit")}">{sign} {text(verdict)}</b>'


def show(completion: str, problem: Problem | None = None, find_slip: thoughts.FindSlip = first_slip) -> HTML:
    """A completion laid out as one adds on paper (`thoughts.read`), and below it, folded, the text itself."""
    return HTML(laid_out(completion, problem, find_slip) + _folded("as the model wrote it", _work(completion)))


def laid_out(
    completion: str, problem: Problem | None = None, find_slip: thoughts.FindSlip = first_slip,
    parts_at: int | None = None,
) -> str:
    """A table with a line for each step of a thought: operation, columns, result, what is left to do. A wrong column
    or step has a ✗, a slip that was noticed is struck out. Without a thought about sums it is the text itself.

    parts_at: the index of a character; the step that holds it has a ➔, and in a text it stands before that character.
    """
    lines = thoughts.read(completion, problem, find_slip)
    if not lines:
        return _work(completion, parts_at)
    parting = None if parts_at is None else len([line for line in lines if line.start <= parts_at]) - 1
    if parts_at is not None and parts_at >= completion.index(chat.THINK_END):
        parting = len(lines)  # in the answer
    columns = max(2, *(len(line.columns) for line in lines))
    body = []
    for number, line in enumerate(lines):
        cells = [_column(column, place == line.slip) for place, column in enumerate(line.columns)]
        cells += [""] * (columns - len(cells))
        name = f"<code>{text(line.operation)}</code>" if line.operation or line.result else "plan"
        body.append([_parted(_crossed(name, line.wrong), number == parting), *cells, f"<b>{text(line.result)}</b>",
                     f"<code>{text(', '.join(line.rest))}</code>"])
    answer_text = completion.partition(chat.THINK_END)[2]
    final = f"<b>{text(verify.extract(answer_text) or answer_text[:40])}</b>"
    body.append([_parted("answer", parting == len(lines)), *[""] * columns, final, ""])
    places = ["ones", "tens", "hundreds", *(f"place {number}" for number in range(4, columns + 1))][:columns]
    return table("", ("step", *places, "result", "left to do"), body, raw=True)


def _column(column: str, slip: bool) -> str:
    noticed, _, last = column.rpartition(" no ")
    struck = f"<s>{text(noticed)}</s> " if noticed else ""
    return _crossed(f"<code>{struck}{text(last)}</code>", slip)


def _crossed(cell: str, wrong: bool) -> str:
    return f'<b style="color:{VERDICTS["wrong"]}">✗</b> {cell}' if wrong else cell


def _parted(cell: str, parts: bool) -> str:
    return f"{PARTING} {cell}" if parts else cell


def _work(work: str, parts_at: int | None = None) -> str:
    if parts_at is None:
        return f'<div style="{WORK}">{text(work)}</div>'
    return f'<div style="{WORK}">{text(work[:parts_at])}{PARTING}{text(work[parts_at:])}</div>'


def _folded(summary: str, body: str) -> str:
    return f'<details><summary style="white-space:nowrap">{text(summary)}</summary>{body}</details>'


def answer(completion: str, verdict: str) -> str:
    """One answer: its verdict, the extracted answer, and in a fold the thoughts, laid out where they are sums."""
    extracted = verify.extract(completion)
    thought, end, rest = completion.partition(chat.THINK_END)
    work = (thought + end).removeprefix(chat.THINK).removesuffix(chat.THINK_END) if chat.THINK in completion else ""
    shown = f'<div style="white-space:nowrap;min-width:9em">{badge(verdict)}: {text(extracted or "no answer")}</div>'
    if not work:
        return shown if extracted else f'{shown}<div style="{WORK}">{text(completion[:300])}</div>'
    body = laid_out(completion) if thoughts.read(completion) else _work(work)
    return shown + _folded(f"{len(work)} characters", body)


def side_by_side(names: Sequence[str], columns: Sequence[Sequence[dict]]) -> str:
    """The same problems answered by several models; `columns` hold rows with prompt, answer, completion, verdict."""
    head = ["problem", "answer", *names]
    lines = [
        [text(rows[0]["prompt"]), f"<b>{text(rows[0]['answer'])}</b>",
         *(answer(row["completion"], row["verdict"]) for row in rows)]
        for rows in zip(*columns, strict=True)
    ]
    right = [sum(row["verdict"] == "right" for row in column) for column in columns]
    counts = ", ".join(f"{name} {hits} right" for name, hits in zip(names, right, strict=True))
    return table(f"Of {len(lines)}: {counts}. Open a line of thought to read it.", head, lines, raw=True)


def wrong_steps(found: Iterable[tuple[str, str, int, str]], before: int = 40) -> str:
    """Wrong answers around their first wrong step, which has a ✗, as a table of two columns.

    found: (question, completion, the index of the character with which the step begins, the step); before: how many
    characters that precede the step are shown.
    """
    lines = []
    for question, completion, place, step in found:
        start = max(0, place - before)
        shown = f"{'…' if start else ''}{completion[start:place]}"
        share = f"{100 * place / max(1, len(completion)):.0f} % of the answer stands before it"
        lines.append([f"{text(question)}<br><small>{share}</small>",
                      f'<code>{text(shown)}</code><br>{_crossed(f"<code>{text(step)}</code>", True)}'])
    return table("", ("question", "its answer, up to the first wrong step"), lines, raw=True)


def rollout(row: dict) -> str:
    """One rollout in full: question, gold answer, verdict, and the whole completion, laid out where it is a sum."""
    units = (("tokens", "tokens"), ("source", ""))
    about = ", ".join(f"{text(row[name])} {unit}" for name, unit in units if name in row)
    completion, whole = row["completion"], f'<div style="{WORK};max-width:46em">{text(row["completion"])}</div>'
    problem = row.get("problem")  # of answers that a page sampled itself
    body = laid_out(completion, problem) + _folded("as written", whole) if thoughts.read(completion) else whole
    return (
        f"<p>{text(row['prompt'])} <b>Answer: {text(row['answer'])}</b></p><p>{badge(row['verdict'])} "
        f"<small>{about}</small></p>{body}"
    )
