"""The report of one run: `report.html`, one file that any browser shows, without a network and without scripts.

The page is a pure function of the files in a run folder (ladder.json, config.json, data/funnel.json,
<stage>/metrics.jsonl, data/rollouts/, evals/, ten.json) and of the published chains (data/chains.jsonl). It can be
written again at any time, equal files give equal bytes, and it names the parts that are missing. What the doctor finds
stands below the curves of each stage. The paper's ladder stands beside the run's own for its shape, with the authors'
later and lower re-run of their final model.

    phi-lab report RUN_FOLDER
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from phi_lab.config.schema import read_config
from phi_lab.core import files
from phi_lab.core.errors import UserError
from phi_lab.core.formatting import percent
from phi_lab.core.run_folder import RunFolder
from phi_lab.report import doctor, expectation, figures, html, plot_style, replications, summary
from phi_lab.report.chain_rows import chains
from phi_lab.report.doctor import show
from phi_lab.report.figures_ladder import PAPER
from phi_lab.report.ladder_rows import SHIPPED_START, STAGE_TITLES, protocol, read_ladder, shipped_starts_in
from phi_lab.report.plot_style import BENCHMARKS

COSTS = {"seconds": "seconds", "train_tokens": "tokens", "peak_rss_mb": "peak memory, MB"}
MAX_CHARACTERS = 4000  # shown of one answer; an answer that never ends would bury the others
RERUN = "48.1 on AIME 2024, 91.2 on MATH-500 and 44.5 on GPQA-D"  # arXiv 2507.06607's model card


def write_report(run_dir: Path) -> Path:
    """Write `run_dir/report.html` and return its path; missing parts are named on the page.

    Raises UserError when ladder.json is missing, or a file is not in its format or cannot be written.
    """
    run = RunFolder(Path(run_dir))
    if not run.ladder.is_file():
        raise UserError(f"{run.ladder} is missing; `phi-lab run --out {run.path}` writes it")
    rows = read_ladder(run.ladder)
    config = read_config(run.config) if run.config.is_file() else None
    expected = _part(run.config, run, expectation.compare_with_chains)
    checked = {part: _part(run.path / part, part, partial(doctor.check_stage, run)) for part in ("data", *STAGE_TITLES)}
    read = [one for part in checked.values() for one in part]
    trained = [stage for stage in STAGE_TITLES if stage != "base" or run.stage(stage).metrics.is_file()]
    parts = [
        _part(run.ladder, rows, lambda rows: summary.head(config or {}, rows, expected, read) + _ladder(rows)),
        "<h2>Independent chains</h2>",
        _chains(replications.published()),
        "<h2>Distillation</h2>",
        _part(run.data.funnel, _read(run.data.funnel), _funnel),
        show.as_html(checked["data"]),
        "<h2>Training</h2>",
        *(_part(path, _read(path), partial(_training, stage)) + show.as_html(checked[stage])
          for stage in trained for path in [run.stage(stage).metrics]),
        "<h2>Ten problems after each stage</h2>",
        _part(run.ten_problems, _read(run.ten_problems), lambda problems: _ten_problems(problems, rows)),
        "<h2>Cost</h2>",
        _part(run.ladder, rows, _cost),
        "<h2>Configuration</h2>",
        _part(run.config, config, html.folded_settings) if config else _missing("config.json"),
    ]
    try:
        # Model text from JSON may hold lone surrogates, which UTF-8 cannot encode.
        files.atomic_write(run.report, html.frame("phi-lab report", "".join(parts)).encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"{run.report}: cannot be written ({error.strerror})") from error
    return run.report


def _read(path: Path):
    if not path.is_file():
        return None
    return files.read_rows(path, empty=False) if path.suffix == ".jsonl" else files.read_json(path)


def _part(path: Path, content, render: Callable[..., str]) -> str:
    """The part of the page that shows the content of a file."""
    try:
        return render(content)
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{path} has an unexpected form ({error!r}); {files.REMADE}") from error


def _missing(name: str) -> str:
    return f'<p class="soft">Not in this run: {html.text(name)}.</p>'


def _arms(rows: list[dict]) -> list[tuple[str, str]]:
    """The (stage, arm) pairs of the ladder, in the order of the recipe, "main" first."""
    order = list(STAGE_TITLES)
    pairs = {(row["stage"], row["arm"]) for row in rows}
    return sorted(pairs, key=lambda pair: (order.index(pair[0]), pair[1] != "main", pair[1]))


def _ladder(rows: list[dict]) -> str:
    by_key = {(row["stage"], row["arm"], row["benchmark"], protocol(row)): row for row in rows}

    def cell(arm: tuple[str, str], benchmark: str, kind: str) -> str:
        row = by_key.get((*arm, benchmark, kind))
        if row is None:
            return "–"
        if kind == "pass":
            return f"{percent(row['pass_at_k'])}<small>k = {row['k']}</small>"
        return f"{percent(row['accuracy'])}<small>{100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f}</small>"

    arms, kinds = _arms(rows), [("hard", "cool"), *((name, "greedy") for name in BENCHMARKS), ("hard", "pass")]
    sampled = [[summary.arm_title(*arm), *(cell(arm, name, "sampled") for name in BENCHMARKS)] for arm in arms]
    others = [[summary.arm_title(*arm), *(cell(arm, *kind) for kind in kinds)] for arm in arms]
    columns = [[f"{value:.1f} %" for value in values] for _, values in PAPER.values()]
    paper = zip(STAGE_TITLES.values(), *columns, strict=True)
    counts = sorted({(row["benchmark"], row["n"]) for row in rows if protocol(row) == "sampled"})
    sizes = ", ".join(f"{html.text(name)} {n:,}" for name, n in counts)
    caption = "Accuracy with 95 % intervals; beside it the paper's, for its shape. Hollow marks: other arms of a stage."
    if note := summary.shipped_starts_note(rows):
        caption += f" Broken lines: {note}"
    return (
        "<h2>The ladder</h2>"
        + html.picture(figures.ladder(rows), "ladder", caption)
        + '<div class="two">'
        + html.table(f"This run, 95 % intervals. Samples: {sizes}.", ["stage", *BENCHMARKS], sampled)
        + html.table(
            "The paper (arXiv 2504.21233): another model, other benchmarks; compare the shape.",
            ["stage", *(title for title, _ in PAPER.values())], paper,
        )
        + f'</div><p class="soft">The same authors later measured their final model over more '
        f"samples and report less: {RERUN}.</p>"
        + html.table(
            "Also measured: cooler sampling, greedy answers, and pass@k, the chance that at least one of k sampled "
            "answers is right.",
            ["stage", "hard, cool", *(f"{name}, greedy" for name in BENCHMARKS), "hard, pass@k"], others,
        )
        + _parts(rows, arms)
    )


def _parts(rows: list[dict], arms: list[tuple[str, str]]) -> str:
    """The ladder on each level of `hard` and on its fractions; nothing for rows that do not count them."""
    hard = {(row["stage"], row["arm"]): row.get("parts", {}) for row in rows
            if (row["benchmark"], protocol(row)) == ("hard", "sampled")}
    names = {part: None for parts in hard.values() for part in parts if part != "first half"}
    if not names:
        return ""
    cells = {arm: [f"{percent(right / n)}<small>of {n:,}</small>" if n else "–"
                   for right, n in (hard.get(arm, {}).get(name, (0, 0)) for name in names)] for arm in arms}
    return html.table("hard by number of operations, and its fractions, sampled.", ["stage", *map(html.text, names)],
                      [[summary.arm_title(*arm), *cells[arm]] for arm in arms])


def _chains(rows: list[dict]) -> str:
    """What one run cannot show: whether its gains come back with other seeds, and against controls."""
    if not rows:
        return _missing("independent chains; none are published with this version")
    gains, means, parts = (
        [[html.text(cell) for cell in line] for line in table]
        for table in (replications.gains_table(rows), replications.means_table(rows), replications.parts_table(rows))
    )
    caption = (f"{len(chains(rows))} seeds, each from distillation to GRPO; published with the course, not part of "
               "this run.")
    return (
        html.picture(replications.figure(rows), "chains", caption)
        + html.table("Each rung against the one before and against what else the same compute could buy: differences "
                     "with 95 % intervals over chains; p by paired t-tests, corrected by Holm for the whole table.",
                     gains[0], gains[1:])
        + html.table("Means over chains, of every arm.", means[0], means[1:])
        + html.table("Means by number of operations, and on fractions.", parts[0], parts[1:])
    )


def _funnel(counts: dict | None) -> str:
    if counts is None:
        return _missing("data/funnel.json")
    caption = "How many of the teacher's rollouts each filter keeps. Pale: what it removes."
    return html.picture(figures.funnel(counts), "funnel", caption)


def _training(stage: str, metrics: list[dict] | None) -> str:
    head = f"<h3>{STAGE_TITLES[stage]}</h3>"
    if not metrics:
        return head + _missing(f"{stage}/metrics.jsonl")
    if stage == "grpo":
        figure = figures.rl_curves(metrics)
        caption = "GRPO's samples and updates, by step."
        if len(metrics) >= plot_style.SMOOTHED:
            caption += " Pale: single steps; strong: a running mean."
    elif stage == "dpo":
        figure = figures.dpo_curves(metrics)
        caption = "Right answers should gain on wrong ones; watch whether both lose probability."
    else:
        figure, last = figures.loss_curve(metrics, "Loss"), metrics[-1]
        caption = f"{last['step']:,} steps, {last['tokens']:,} tokens, {last['seconds']:,.0f} seconds."
    return head + html.picture(figure, stage, caption)


def _ten_problems(problems: list[dict] | None, rows: list[dict]) -> str:
    """The verdicts on ten hard problems after each stage as a table, then every answer in full."""
    if not problems:
        return _missing("ten.json")
    stages = [stage for stage in STAGE_TITLES if any(stage in problem["completions"] for problem in problems)]

    def badge(problem: dict, stage: str) -> str:
        if stage not in problem["completions"]:
            return "–"
        verdict = problem["completions"][stage]["verdict"]
        sign, colour = ("✓", "right") if verdict == "right" else ("✗", "wrong")
        return f'<span class="{colour}">{sign} {html.text(verdict)}</span>'

    def answers(problem: dict) -> str:
        body = ""
        for stage in filter(problem["completions"].__contains__, stages):
            completion = problem["completions"][stage]["completion"]
            rest = len(completion) - MAX_CHARACTERS
            cut = completion[:MAX_CHARACTERS] + (f"\n… and {rest:,} characters more" if rest > 0 else "")
            body += f"<p>{STAGE_TITLES[stage]}: {badge(problem, stage)}</p><pre>{html.text(cut)}</pre>"
        summary = f"{html.text(problem['prompt'])} <b>Answer: {html.text(problem['answer'])}</b>"
        return f"<details><summary>{summary}</summary>{body}</details>"

    lines = [
        [f"{html.text(problem['prompt'][:100])}<small>{html.text(problem['id'])}</small>",
         *(badge(problem, stage) for stage in stages)]
        for problem in problems
    ]
    caption = f"The same hard problems after each stage. {summary.shipped_starts_note(rows)}".strip()
    table = html.table(caption, ["problem", *(STAGE_TITLES[stage] for stage in stages)], lines)
    return table + "<h3>The answers in full</h3>" + "".join(map(answers, problems))


def _cost(rows: list[dict]) -> str:
    lines, total_seconds, total_tokens = [], 0.0, 0
    for stage, arm in [pair for pair in _arms(rows) if pair[1] != SHIPPED_START]:
        of_arm = [row for row in rows if (row["stage"], row["arm"]) == (stage, arm)]
        # Every row of a stage repeats the cost of the whole stage: count it once.
        seconds, tokens, memory = (max(row[key] or 0 for row in of_arm) for key in COSTS)
        total_seconds, total_tokens = total_seconds + seconds, total_tokens + tokens
        joules = of_arm[0].get("joules")
        lines.append([summary.arm_title(stage, arm), f"{seconds:,.0f}", f"{tokens:,}", f"{memory:,.0f}",
                      "–" if joules is None else f"{joules:,}"])
    lines.append(["together", f"{total_seconds:,.0f}", f"{total_tokens:,}", "", ""])
    head = ["stage", *COSTS.values(), "joules of the processors"]
    if not any("joules" in row for row in rows):  # most machines have no counter of energy
        head, lines = head[:-1], [line[:-1] for line in lines]
    note = ""
    if shipped_starts_in(rows):
        note = " The training of shipped checkpoints from which stages start is not counted."
    return html.table(f"What each stage took to train.{note}", head, lines)
