"""Tables of HTML for a notebook page, readable without style sheets, without colour and without a kernel.

Notebook viewers remove style sheets and scripts, so everything here is a plain table with a few inline styles. Text of
a model enters through `html.text` only: it is shown, never interpreted.
"""

from collections.abc import Iterable, Sequence

from phi_lab import verify
from phi_lab.model import chat
from phi_lab.report.html import text
from phi_lab.report.plot_style import VERDICTS

CELL = "text-align:left;vertical-align:top;padding:.35em .9em .35em 0"
WORK = "white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;font-size:.9em;max-width:32em"


def table(caption: str, head: Iterable[object], rows: Iterable[Iterable[object]], raw: bool = False) -> str:
    """An HTML table with its caption below; cells are escaped unless they are HTML of this project (`raw`)."""
    show = str if raw else text
    top = "".join(f'<th style="{CELL}">{text(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f'<td style="{CELL}">{show(cell)}</td>' for cell in row) + "</tr>" for row in rows)
    under = f'<p style="margin:.2em 0 .6em"><small>{text(caption)}</small></p>' if caption else ""
    return f'<table style="margin-left:0"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{under}'


def badge(verdict: str) -> str:
    """A verdict as a coloured word with ✓ or ✗."""
    sign = "✓" if verdict == "right" else "✗"
    return f'<b style="color:{VERDICTS.get(verdict, "inherit")}">{sign} {text(verdict)}</b>'


def answer(completion: str, verdict: str) -> str:
    """One answer: its verdict, the extracted answer, and the thoughts in a fold."""
    extracted = verify.extract(completion)
    thought, end, rest = completion.partition(chat.THINK_END)
    work = (thought + end).removeprefix(chat.THINK).removesuffix(chat.THINK_END) if chat.THINK in completion else ""
    shown = f'<div style="white-space:nowrap;min-width:9em">{badge(verdict)}: {text(extracted or "no answer")}</div>'
    if not work:
        return shown if extracted else f'{shown}<div style="{WORK}">{text(completion[:300])}</div>'
    summary = f'<summary style="white-space:nowrap">{len(work)} characters</summary>'
    return f'{shown}<details>{summary}<div style="{WORK}">{text(work)}</div></details>'


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


def rollout(row: dict) -> str:
    """One rollout in full: question, gold answer, verdict, and the whole completion."""
    units = (("tokens", "tokens"), ("source", ""))
    about = ", ".join(f"{text(row[name])} {unit}" for name, unit in units if name in row)
    return (
        f"<p>{text(row['prompt'])} <b>Answer: {text(row['answer'])}</b></p><p>{badge(row['verdict'])} "
        f'<small>{about}</small></p><div style="{WORK};max-width:46em">{text(row["completion"])}</div>'
    )
