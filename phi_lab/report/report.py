"""One page for one run: `report.html`, readable anywhere, with nothing to load and nothing to run.

The idea: the page is a pure function of the files in a run folder (ladder.json, config.json, data/funnel.json,
<stage>/metrics.jsonl, ten.json) and of the published chains (data/chains.jsonl). It can be made again at any time,
shows the same bytes for the same files, and says which parts are missing. The paper's ladder stands beside the run's
own for its shape, with the authors' later and lower re-run of their final model.

    phi-lab report RUN_FOLDER
"""

import os
from pathlib import Path

from phi_lab.core import files
from phi_lab.core.errors import UserError
from phi_lab.report import figures, html, replications
from phi_lab.report.figures import PAPER, STAGES, START, protocol
from phi_lab.report.plot_style import BENCHMARKS

_COSTS = {"seconds": "seconds", "train_tokens": "tokens", "peak_rss_mb": "peak memory, MB"}
_TITLE = ("scale", "profile", "seed")  # what config.json says under the title
LONGEST = 4000  # characters shown of one answer: a runaway completion must not drown the rest
RERUN = "48.1 on AIME 2024, 91.2 on MATH-500 and 44.5 on GPQA-D"  # arXiv 2507.06607's model card


def write_report(run_dir: Path) -> Path:
    """Write `run_dir/report.html` and return its path; missing parts are named on the page.

    Raises UserError when ladder.json is missing, or a file is not in its format or not writable.
    """
    run = Path(run_dir)
    if not (run / "ladder.json").is_file():
        raise UserError(f"{run / 'ladder.json'} is missing; `phi-lab run --out {run}` writes it")
    try:
        rows = files.read_json(run / "ladder.json")
        config = _read(run / "config.json")
        parts = [
            _head(config or {}, rows),
            _ladder(rows),
            "<h2>Independent chains</h2>",
            _chains(replications.published()),
            "<h2>Distillation</h2>",
            _funnel(_read(run / "data" / "funnel.json")),
            "<h2>Training</h2>",
            *(_training(stage, _read(run / stage / "metrics.jsonl")) for stage in STAGES),
            "<h2>Ten problems through all stages</h2>",
            _ten(_read(run / "ten.json"), rows),
            "<h2>Cost</h2>",
            _cost(rows),
            "<h2>Configuration</h2>",
            html.settings(config) if config else _missing("config.json"),
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run}: a file of this run has an unexpected form: {error!r}") from error
    target, partial = run / "report.html", run / "report.html.partial"
    try:
        # Model text from JSON may hold lone surrogates, which UTF-8 has no bytes for.
        partial.write_bytes(html.frame("phi-lab report", "".join(parts)).encode("utf-8", "replace"))
        os.replace(partial, target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror})") from error
    return target


def _read(path: Path):
    if not path.is_file():
        return None
    return files.read_rows(path) if path.suffix == ".jsonl" else files.read_json(path)


def _missing(what: str) -> str:
    return f'<p class="soft">Not in this run: {html.text(what)}.</p>'


def _arms(rows: list[dict]) -> list[tuple[str, str]]:
    """The (stage, arm) pairs of the ladder, in the order of the recipe, "main" first."""
    order = list(STAGES)
    pairs = {(row["stage"], row["arm"]) for row in rows}
    return sorted(pairs, key=lambda pair: (order.index(pair[0]), pair[1] != "main", pair[1]))


def _name(stage: str, arm: str = "main") -> str:
    if arm == START:
        return figures.title(f"{stage}-{START}")
    return STAGES[stage] if arm == "main" else f"{STAGES[stage]}, arm “{html.text(arm)}”"


def _apart(rows: list[dict]) -> str:
    """Which stages started from a shipped checkpoint and not from the run's own stage before; nothing for a chain."""
    names = [STAGES[stage] for stage in figures.started(rows)]
    if not names:
        return ""
    who = f"{', '.join(names[:-1])} and {names[-1]} start" if names[1:] else f"{names[0]} starts"
    return f"{who} from the shipped checkpoint of the stage before, not from this run's own."


def _head(config: dict, rows: list[dict]) -> str:
    begun = figures.started(rows)
    said = html.text(" · ".join(f"{key} {config[key]}" for key in _TITLE if key in config))
    tiles = ""
    for benchmark in BENCHMARKS:
        shown = [row for row in rows if row["benchmark"] == benchmark and protocol(row) == "sampled"]
        found = {(row["stage"], row["arm"]): row["accuracy"] for row in shown}
        climb: list[tuple[str, str]] = []
        for stage in STAGES:
            if (begun.get(stage), START) in found:  # another chain: what came before it is no part of the climb
                climb = [(begun[stage], START)]
            if (stage, "main") in found:
                climb.append((stage, "main"))
        if climb:
            ends = dict.fromkeys((climb[0], climb[-1]))  # one stage only: named once
            shares = " → ".join(f"{100 * found[end]:.1f} %" for end in ends)
            names = " → ".join(_name(*end) for end in ends)
            tiles += f'<div>{benchmark}<b>{shares}</b><span class="soft">{names}</span></div>'
    apart = f"<p>Not one chain: {_apart(rows)} The tiles begin where the last of them started.</p>" if begun else ""
    return f'<h1>phi-lab report</h1><p class="soft">{said}</p>{apart}<div class="tiles">{tiles}</div>'


def _ladder(rows: list[dict]) -> str:
    found = {(row["stage"], row["arm"], row["benchmark"], protocol(row)): row for row in rows}

    def cell(arm: tuple[str, str], benchmark: str, kind: str) -> str:
        row = found.get((*arm, benchmark, kind))
        if row is None:
            return "–"
        if kind == "pass":
            return f"{100 * row['pass_at_k']:.1f} %<small>k = {row['k']}</small>"
        low, high = 100 * row["ci_low"], 100 * row["ci_high"]
        return f"{100 * row['accuracy']:.1f} %<small>{low:.1f} to {high:.1f}</small>"

    arms, kinds = _arms(rows), [*((name, "greedy") for name in BENCHMARKS), ("hard", "pass")]
    own = [[_name(*arm), *(cell(arm, name, "sampled") for name in BENCHMARKS)] for arm in arms]
    other = [[_name(*arm), *(cell(arm, *kind) for kind in kinds)] for arm in arms]
    columns = [[f"{value:.1f} %" for value in values] for _, values in PAPER.values()]
    theirs = zip(STAGES.values(), *columns, strict=True)
    counts = sorted({(row["benchmark"], row["n"]) for row in rows if protocol(row) == "sampled"})
    sizes = ", ".join(f"{html.text(name)} {n:,}" for name, n in counts)
    says = "Accuracy with 95 % intervals; beside it the paper's, for its shape. Hollow: other arms."
    if apart := _apart(rows):
        says += f" Broken lines: {apart}"
    return (
        "<h2>The ladder</h2>"
        + html.picture(figures.ladder(rows), "ladder", says)
        + '<div class="two">'
        + html.table(f"This run, 95 % intervals. Samples: {sizes}.", ["stage", *BENCHMARKS], own)
        + html.table(
            "The paper (arXiv 2504.21233): another model, other benchmarks; compare the shape.",
            ["stage", *(title for title, _ in PAPER.values())], theirs,
        )
        + f'</div><p class="soft">The same authors later measured their final model over more '
        f"samples and found less: {RERUN}.</p>"
        + html.table(
            "Besides: greedy answers, and the chance that one of k sampled answers is right.",
            ["stage", *(f"{name}, greedy" for name in BENCHMARKS), "hard, pass@k"], other,
        )
    )


def _chains(rows: list[dict]) -> str:
    """What a run alone cannot say: whether its rungs come back on other seeds, and beside controls."""
    if not rows:
        return _missing("independent chains; none are published with this version")
    means, rungs = (
        [[html.text(cell) for cell in line] for line in table]
        for table in (replications.means_table(rows), replications.rungs_table(rows))
    )
    says = f"{len(rows)} seeds, each from distillation to GRPO; published with the course, not part of this run."
    gains = "What each stage brings, with 95 % intervals over chains; p by a paired t-test, corrected by Holm."
    return (
        html.picture(figures.chains(rows), "chains", says)
        + html.table(gains, rungs[0], rungs[1:])
        + html.table("Means over chains; every arm.", means[0], means[1:])
    )


def _funnel(counts: dict | None) -> str:
    if counts is None:
        return _missing("data/funnel.json")
    says = "How many of the teacher's rollouts survive each filter. Pale: what a filter removes."
    return html.picture(figures.funnel(counts), "funnel", says)


def _training(stage: str, metrics: list[dict] | None) -> str:
    head = f"<h3>{STAGES[stage]}</h3>"
    if not metrics:
        return head + _missing(f"{stage}/metrics.jsonl")
    if stage == "grpo":
        figure = figures.rl_curves(metrics)
        says = "What GRPO saw and did, by step. Pale: single steps; strong: a running mean."
    elif stage == "dpo":
        figure = figures.dpo_curves(metrics)
        says = "Right answers should gain on wrong ones; watch whether both lose probability."
    else:
        figure, last = figures.loss_curve(metrics, "Loss"), metrics[-1]
        says = f"{last['step']:,} steps, {last['tokens']:,} tokens, {last['seconds']:,.0f} seconds."
    return head + html.picture(figure, stage, says)


def _ten(ten: list[dict] | None, rows: list[dict]) -> str:
    if not ten:
        return _missing("ten.json")
    stages = [stage for stage in STAGES if any(stage in item["completions"] for item in ten)]

    def verdict(item: dict, stage: str) -> str:
        if stage not in item["completions"]:
            return "–"
        found = item["completions"][stage]["verdict"]
        sign, colour = ("✓", "right") if found == "right" else ("✗", "wrong")
        return f'<span class="{colour}">{sign} {html.text(found)}</span>'

    def answers(item: dict) -> str:
        shown = ""
        for stage in filter(item["completions"].__contains__, stages):
            said = item["completions"][stage]["completion"]
            more = f"\n… and {len(said) - LONGEST:,} characters more" if len(said) > LONGEST else ""
            said = html.text(said[:LONGEST] + more)
            shown += f"<p>{STAGES[stage]}: {verdict(item, stage)}</p><pre>{said}</pre>"
        summary = f"{html.text(item['prompt'])} <b>Answer: {html.text(item['answer'])}</b>"
        return f"<details><summary>{summary}</summary>{shown}</details>"

    asked = [f"{html.text(i['prompt'][:100])}<small>{html.text(i['id'])}</small>" for i in ten]
    marks = [[verdict(item, stage) for stage in stages] for item in ten]
    lines = ([first, *rest] for first, rest in zip(asked, marks, strict=True))
    names = ["problem", *(STAGES[stage] for stage in stages)]
    table = html.table(f"The same hard problems after each stage. {_apart(rows)}".strip(), names, lines)
    return table + "<h3>What the models wrote</h3>" + "".join(map(answers, ten))


def _cost(rows: list[dict]) -> str:
    lines, total = [], [0.0, 0]
    for stage, arm in [pair for pair in _arms(rows) if pair[1] != START]:
        mine = [row for row in rows if (row["stage"], row["arm"]) == (stage, arm)]
        # Every row of a stage repeats the stage's own cost: take it once.
        seconds, tokens, memory = (max(row[key] or 0 for row in mine) for key in _COSTS)
        total = [total[0] + seconds, total[1] + tokens]
        joules = mine[0].get("joules")
        lines.append([_name(stage, arm), f"{seconds:,.0f}", f"{tokens:,}", f"{memory:,.0f}",
                      "–" if joules is None else f"{joules:,}"])
    lines.append(["together", f"{total[0]:,.0f}", f"{total[1]:,}", "", ""])
    head = ["stage", *_COSTS.values(), "joules of the processors"]
    if not any("joules" in row for row in rows):  # most machines do not say
        head, lines = head[:-1], [line[:-1] for line in lines]
    apart = " What made the shipped checkpoints that stages start from is not counted." if figures.started(rows) else ""
    return html.table(f"What each stage took to train.{apart}", head, lines)
