"""Independent replications of the ladder: the tables that docs/results.md, reports and notebook 06 show.

A chain is one seed from distillation to GRPO with all its controls; it counts as one observation. Stages are compared
over chains by a paired t-test, corrected for the number of tests by Holm's method. The published chains are the rows of
data/chains.jsonl, written by `phi-lab experiment ladder`; every table and figure is made from them and nothing else.

    phi-lab experiment publish --out runs/ladder
"""

import hashlib
from pathlib import Path

from matplotlib import rc_context

from phi_lab.config.schema import STAGES
from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, write_rows
from phi_lab.core.formatting import markdown_table, percent
from phi_lab.core.paths import DATA, ROOT
from phi_lab.report import figures
from phi_lab.report.ladder_rows import SHIPPED_START, shipped_starts
from phi_lab.report.plot_style import BENCHMARKS, Figure

PUBLISHED = DATA / "chains.jsonl"
PAGES = ("docs/results.md",)
MARKS = ("<!-- chains: phi-lab experiment publish -->\n", "\n<!-- end of chains -->")


def published() -> list[dict]:
    """The published chains by seed, rows like those of `experiment.chain_row`; empty where none are published."""
    return read_rows(PUBLISHED, ("seed", "accuracy")) if PUBLISHED.exists() else []


def stage_gains(rows: list[dict], benchmark: str = "hard") -> list[dict]:
    """The gain of each stage over chains: {"stage", "over": PairedT, "p_holm", "control": PairedT, "control_p_holm"}.

    `over` compares with the stage before, or with the shipped checkpoint that the stage started from; `control` with
    the stage's control at equal compute. Accuracies and gains are shares, 0 to 1. The last row compares GRPO with its
    second control, "grpo-sft", and has no `over`. Holm's method counts the tests of each column.
    Raises UserError with fewer than two chains.
    """
    if len(rows) < 2:
        raise UserError(f"{len(rows)} finished chain: two are needed to compare stages, six for a claim")

    def accuracies(name: str) -> list[float]:
        return [chain["accuracy"][name][benchmark] for chain in rows]

    gains = []
    starts = shipped_starts(rows[0]["accuracy"])
    for before, stage in zip(STAGES, STAGES[1:], strict=False):
        start = f"{before}-{SHIPPED_START}" if stage in starts else before
        gains.append({"stage": stage, "over": stats.paired_t(accuracies(stage), accuracies(start)),
                      "control": stats.paired_t(accuracies(stage), accuracies(f"{stage}-control"))})
    gains.append({"stage": "grpo-sft", "control": stats.paired_t(accuracies("grpo"), accuracies("grpo-sft"))})
    for name, column in (("over", "p_holm"), ("control", "control_p_holm")):
        tested = [row for row in gains if name in row]
        for row, p in zip(tested, stats.holm([row[name].p for row in tested]), strict=True):
            row[column] = p
    return gains


def means_table(rows: list[dict]) -> list[list[str]]:
    """Header and one line for each arm: its mean on each benchmark, then `hard` of each chain, in percent."""
    lines = [["arm", *BENCHMARKS, "hard, chain by chain"]]
    for name in [name for name in rows[0]["accuracy"] if all(name in chain["accuracy"] for chain in rows)]:
        means = [sum(chain["accuracy"][name][benchmark] for chain in rows) / len(rows) for benchmark in BENCHMARKS]
        each = ", ".join(f"{100 * chain['accuracy'][name]['hard']:.1f}" for chain in rows)
        lines.append([name, *map(percent, means), each])
    return lines


def gains_table(rows: list[dict]) -> list[list[str]]:
    """Header and one line for each stage: its gain on `hard` in points, over the stage before and over its control.

    The last line compares GRPO with its second control.
    """
    over = "over what it started from" if shipped_starts(rows[0]["accuracy"]) else "over the stage before"
    lines = [["hard, points", over, "p, Holm", "over its control", "p, Holm"]]
    for row in stage_gains(rows):
        cells = []
        for t, p in ((row.get("over"), row.get("p_holm")), (row["control"], row["control_p_holm"])):
            gain = f"{100 * t.mean:+.1f} [{100 * t.low:+.1f}, {100 * t.high:+.1f}]" if t else ""
            cells += [gain, f"{p:.2g}" if t else ""]
        lines.append(["grpo, beside SFT again" if row["stage"] == "grpo-sft" else row["stage"], *cells])
    return lines


def summary(rows: list[dict]) -> str:
    """Both tables as Markdown; of a single chain only the means."""
    tables = [means_table(rows), *([gains_table(rows)] if len(rows) > 1 else [])]
    return "\n\n".join("\n".join(markdown_table(table)) for table in tables)


def save_figure(rows: list[dict], path: Path) -> Figure:
    """Save the figure of the chains as SVG: equal rows give equal bytes, and it carries their `fingerprint`."""
    figure = figures.replications(rows)
    with rc_context({"svg.hashsalt": "phi-lab"}):
        figure.savefig(path, metadata={"Date": None, "Description": fingerprint(rows)})
    return figure


def fingerprint(rows: list[dict]) -> str:
    """The SHA-256 of the tables of these chains; the SVG file names the chains it shows by it."""
    return hashlib.sha256(summary(rows).encode()).hexdigest()


def write_summary(path: Path) -> None:
    """Write summary.md, and from two chains on chains.svg, into the folder of the file of chains `path`."""
    rows = read_rows(path)
    path.with_name("summary.md").write_text(summary(rows) + "\n", encoding="utf-8")
    if len(rows) > 1:
        save_figure(rows, path.with_name("chains.svg"))


def publish(out: Path, root: Path = ROOT) -> None:
    """Publish the chains in the folder `out`: write data/chains.jsonl and, from it alone, the tables in
    docs/results.md (between `MARKS`) and docs/ladder.svg. A test compares README's sentences with the chains.

    Raises UserError with fewer than two chains, or where a page lacks its marks.
    """
    rows = sorted(read_rows(out / "chains.jsonl"), key=lambda row: row["seed"])
    if len(rows) < 2:
        raise UserError(f"{out / 'chains.jsonl'}: {len(rows)} finished chain, two are needed to publish")
    pages = {}
    for name in PAGES:
        text = (root / name).read_text(encoding="utf-8")
        before, start, rest = text.partition(MARKS[0])
        _, end, after = rest.partition(MARKS[1])
        if not (start and end):
            raise UserError(f"{root / name}: the lines {MARKS[0].strip()} and {MARKS[1].strip()} are missing")
        pages[root / name] = before + start + summary(rows) + end + after
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    write_rows(root / PUBLISHED.relative_to(ROOT), rows)
    save_figure(rows, root / "docs" / "ladder.svg")
