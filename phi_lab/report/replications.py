"""What independent chains say together: the ladder that README, docs/results.md, every report and notebook 06 show.

One chain, that is one seed from distillation to GRPO with all its controls, is one observation. Rungs are compared over
chains by a paired t-test, corrected for their number by Holm's method. The published chains are rows in
data/chains.jsonl, written by `phi-lab experiment ladder`; every page and picture is made from them and nothing else.

    phi-lab experiment publish --out runs/ladder
"""

import hashlib
from pathlib import Path

from matplotlib import rc_context

from phi_lab.config.schema import STAGES
from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, write_rows
from phi_lab.model.checkpoints import DATA
from phi_lab.report import figures
from phi_lab.report.plot_style import BENCHMARKS, Figure

RUNGS = STAGES[1:]
PUBLISHED = DATA / "chains.jsonl"
PAGES = ("README.md", "docs/results.md")
MARKS = ("<!-- chains: phi-lab experiment publish -->\n", "\n<!-- end of chains -->")


def published() -> list[dict]:
    """The rows of the published chains by seed, in the form of `experiment.chain_row`; none before any `publish`."""
    return read_rows(PUBLISHED, ("seed", "accuracy")) if PUBLISHED.exists() else []


def rungs(rows: list[dict], benchmark: str = "hard") -> list[dict]:
    """What each stage brought, over chains: {"stage", "over": PairedT, "p_holm", "control": PairedT, "control_p_holm"}.

    `over` compares with the stage before, or the shipped checkpoint that a stage started from instead; `control` with
    the stage's control; accuracies are shares. The last row is GRPO beside its second control, "grpo-sft", and has no
    `over`. Holm's method counts each column's tests.
    Raises UserError with fewer than two chains.
    """
    if len(rows) < 2:
        raise UserError(f"{len(rows)} finished chain: two are needed to compare rungs, six for a claim")

    def values(name: str) -> list[float]:
        return [chain["accuracy"][name][benchmark] for chain in rows]

    found = []
    begun = figures.starts(rows[0]["accuracy"])
    for before, stage in zip(STAGES, RUNGS, strict=False):
        before, mine = f"{before}-{figures.START}" if stage in begun else before, values(stage)
        found.append({"stage": stage, "over": stats.paired_t(mine, values(before)),
                      "control": stats.paired_t(mine, values(f"{stage}-control"))})
    found.append({"stage": "grpo-sft", "control": stats.paired_t(values("grpo"), values("grpo-sft"))})
    for name, column in (("over", "p_holm"), ("control", "control_p_holm")):
        tested = [row for row in found if name in row]
        for row, p in zip(tested, stats.holm([row[name].p for row in tested]), strict=True):
            row[column] = p
    return found


def means_table(rows: list[dict]) -> list[list[str]]:
    """Header and one line an arm: its mean on each benchmark, then `hard` chain by chain, in percent."""
    lines = [["arm", *BENCHMARKS, "hard, chain by chain"]]
    for name in [name for name in rows[0]["accuracy"] if all(name in chain["accuracy"] for chain in rows)]:
        means = [100 * sum(chain["accuracy"][name][b] for chain in rows) / len(rows) for b in BENCHMARKS]
        each = ", ".join(f"{100 * chain['accuracy'][name]['hard']:.1f}" for chain in rows)
        lines.append([name, *(f"{mean:.1f} %" for mean in means), each])
    return lines


def rungs_table(rows: list[dict]) -> list[list[str]]:
    """Header and one line a rung: what it gains on `hard` over the stage before and over its control, in points; last
    GRPO beside its second control.
    """
    over = "over what it started from" if figures.starts(rows[0]["accuracy"]) else "over the stage before"
    lines = [["hard, points", over, "p, Holm", "over its control", "p, Holm"]]
    for row in rungs(rows):
        cells = []
        for t, p in ((row.get("over"), row.get("p_holm")), (row["control"], row["control_p_holm"])):
            gain = f"{100 * t.mean:+.1f} [{100 * t.low:+.1f}, {100 * t.high:+.1f}]" if t else ""
            cells += [gain, f"{p:.2g}" if t else ""]
        lines.append(["grpo, beside SFT again" if row["stage"] == "grpo-sft" else row["stage"], *cells])
    return lines


def summary(rows: list[dict]) -> str:
    """Both tables as Markdown; of one chain only the first."""
    tables = [means_table(rows), *([rungs_table(rows)] if len(rows) > 1 else [])]
    return "\n\n".join("\n".join(_markdown(table)) for table in tables)


def _markdown(table: list[list[str]]) -> list[str]:
    head, *rest = ["| " + " | ".join(cells) + " |" for cells in table]
    return [head, "|---" * len(table[0]) + "|", *rest]


def picture(rows: list[dict], path: Path) -> Figure:
    """Save the ladder over chains as SVG, the same bytes for the same rows, whose `fingerprint` it carries."""
    figure = figures.chains(rows)
    with rc_context({"svg.hashsalt": "phi-lab"}):
        figure.savefig(path, metadata={"Date": None, "Description": fingerprint(rows)})
    return figure


def fingerprint(rows: list[dict]) -> str:
    """Says in a picture which chains it shows."""
    return hashlib.sha256(summary(rows).encode()).hexdigest()


def write_summary(path: Path) -> None:
    """Beside the file of chains: summary.md, and from two chains on chains.svg."""
    rows = read_rows(path)
    path.with_name("summary.md").write_text(summary(rows) + "\n", encoding="utf-8")
    if len(rows) > 1:
        picture(rows, path.with_name("chains.svg"))


def publish(out: Path, root: Path = DATA.parent) -> None:
    """Make the chains of a queue the published ones: data/chains.jsonl, and from it alone the tables in README and
    docs/results.md, between `MARKS`, and docs/ladder.svg.

    Raises UserError with fewer than two chains, or when a page lacks its marks.
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
    write_rows(root / PUBLISHED.relative_to(DATA.parent), rows)
    picture(rows, root / "docs" / "ladder.svg")
