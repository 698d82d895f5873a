"""Independent replications of the ladder: the tables that docs/results.md, reports and notebook 06 show.

A chain is one seed from distillation to GRPO with all its controls; it counts as one observation. Each rung is compared
over chains with the rung before and with every honest rival (`ladder_rows.RIVALS`) by a paired t-test of `hard` at the
primary temperature. Holm's method corrects for all comparisons of the table together. What a comparison would have
shown, had it been there, stands beside it: with few chains "no difference shown" means little. Cooler sampling, greedy
answers and pass@k are shown beside and not tested. The published chains are the rows of data/chains.jsonl, written by
`phi-lab experiment ladder`; every table and figure is made from them and nothing else.

    phi-lab experiment publish --out runs/ladder
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context

from phi_lab.config.schema import STAGES
from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import write_rows
from phi_lab.core.formatting import markdown_table, percent
from phi_lab.core.page_parts import fill
from phi_lab.core.paths import ROOT
from phi_lab.core.stats import ALPHA, POWER
from phi_lab.report import figures, targets
from phi_lab.report.chain_rows import (
    PUBLISHED,
    all_names,
    chains,
    compared,
    paired_accuracies,
    published,
    read_chain_rows,
)
from phi_lab.report.ladder_rows import STAGE_TITLES
from phi_lab.report.plot_style import BENCHMARKS, Figure

PLANNED = 12  # chains, with the power they have, before the first had run (docs/log.md 91)
MARKS = ("<!-- chains: phi-lab experiment publish -->\n", "\n<!-- end of chains -->")
PROTOCOLS = {"sampled": "T 0.6", "cool": "T 0.3", "greedy": "greedy", "pass": "pass@8"}

__all__ = ["Comparison", "comparisons", "figure", "fingerprint", "gains_table", "headline", "means_table",
           "parts_table", "publish", "published", "results", "save_figure", "summary"]


class Comparison(NamedTuple):
    """A rung against another over chains, on `hard`: differences are shares, -1 to 1."""

    name: str
    against: str
    chains: int
    gain: stats.PairedT  # at the primary temperature
    p_holm: float
    detectable: float  # the smallest true difference that has p < ALPHA / (all comparisons) with a chance of POWER
    beside: dict[str, stats.PairedT]  # by protocol, those that both were measured by

    @property
    def verdict(self) -> str:
        """"above", "below" or "no difference shown"."""
        if self.p_holm < ALPHA:
            return "above" if self.gain.mean > 0 else "below"
        return "no difference shown"

    @property
    def words(self) -> str:
        """The verdict; where none is shown, with what would have been."""
        shown = self.p_holm < ALPHA
        return self.verdict if shown else f"{self.verdict} (would have seen {100 * self.detectable:.1f} points)"


def comparisons(rows: Sequence[dict]) -> list[Comparison]:
    """Every comparison of the table over the chains of these `rows`, each over the chains that hold both its arms.

    Raises UserError with fewer than two chains.
    """
    made = chains(rows)
    if len(made) < 2:
        raise UserError(f"{len(made)} finished chain: two are needed to compare stages, six for a claim")
    tested = []
    for name, against in compared(all_names(made)):
        values = {protocol: paired_accuracies(made, name, against, protocol) for protocol in PROTOCOLS}
        if len(values["sampled"]) > 1:
            tested.append((name, against, values))
    gains = [stats.paired_t(*zip(*values["sampled"], strict=True)) for _, _, values in tested]
    found = []
    for (name, against, values), gain, p_holm in zip(tested, gains, stats.holm([t.p for t in gains]), strict=True):
        count = len(values["sampled"])
        sd = float(np.subtract(*zip(*values["sampled"], strict=True)).std(ddof=1))
        detectable = stats.detectable_effect(sd, count, POWER, ALPHA / len(tested))
        beside = {protocol: stats.paired_t(*zip(*both, strict=True)) for protocol, both in values.items()
                  if protocol != "sampled" and len(both) > 1}
        found.append(Comparison(name, against, count, gain, p_holm, detectable, beside))
    return found


def _mean(values: Sequence[float | None]) -> str:
    """The mean of what was measured, in percent; a dash where nothing was."""
    there = [value for value in values if value is not None]
    return percent(sum(there) / len(there)) if there else "–"


def means_table(rows: Sequence[dict]) -> list[list[str]]:
    """Header and one line for each arm: its mean on each benchmark, on `hard` by the other protocols, then `hard` of
    each chain, in percent.
    """
    made, others = chains(rows), [protocol for protocol in PROTOCOLS if protocol != "sampled"]
    lines = [["arm", *BENCHMARKS, *(f"hard, {PROTOCOLS[protocol]}" for protocol in others), "hard, chain by chain"]]
    for name in all_names(made):
        means = [_mean([chain.accuracy(name, benchmark) for chain in made]) for benchmark in BENCHMARKS]
        means += [_mean([chain.accuracy(name, "hard", protocol) for chain in made]) for protocol in others]
        each = [chain.accuracy(name) for chain in made]
        lines.append([name, *means, ", ".join("–" if one is None else f"{100 * one:.1f}" for one in each)])
    return lines


def parts_table(rows: Sequence[dict]) -> list[list[str]]:
    """Header and one line for each arm: its mean on each level of `hard` and on its fractions, in percent."""
    made = chains(rows)
    found = {part for chain in made for row in chain.measured.values() if row["benchmark"] == "hard"
             for part in row["parts"]} - {"first half"}
    parts = sorted(found, key=lambda part: (part == "fractions", part))
    return [["arm", *parts], *(
        [name, *(_mean([chain.accuracy(name, part=part) for chain in made]) for part in parts)]
        for name in all_names(made)
    )]


def gains_table(rows: Sequence[dict]) -> list[list[str]]:
    """Header and one line for each comparison: the difference on `hard` in points, with its verdict."""
    others = [protocol for protocol in PROTOCOLS if protocol != "sampled"]
    head = ["hard, points", "against", PROTOCOLS["sampled"], "p, Holm", "verdict"]
    lines = [[*head, f"detectable ({100 * POWER:.0f} % power)", *(PROTOCOLS[protocol] for protocol in others)]]
    for row in comparisons(rows):
        beside = [_points(row.beside[protocol]) if protocol in row.beside else "–" for protocol in others]
        lines.append([row.name, row.against, _points(row.gain), f"{row.p_holm:.2g}", row.words,
                      f"{100 * row.detectable:.1f}", *beside])
    return lines


def _points(t: stats.PairedT) -> str:
    return f"{100 * t.mean:+.1f} [{100 * t.low:+.1f}, {100 * t.high:+.1f}]"


def summary(rows: Sequence[dict]) -> str:
    """All tables as Markdown; of a single chain only the means."""
    tables = [means_table(rows), parts_table(rows)]
    if len(chains(rows)) > 1:
        tables.append(gains_table(rows))
    return "\n\n".join("\n".join(markdown_table(table)) for table in tables)


def figure(rows: Sequence[dict]) -> Figure:
    """The chains and every difference with its verdict; of a single chain only its rungs."""
    tested = comparisons(rows) if len(chains(rows)) > 1 else []
    return figures.replications(rows, {(row.name, row.against): row.verdict for row in tested})


def save_figure(rows: Sequence[dict], path: Path) -> Figure:
    """Save the figure of the chains as SVG: equal rows give equal bytes, and it carries their `fingerprint`."""
    drawn = figure(rows)
    with rc_context({"svg.hashsalt": "phi-lab"}):
        drawn.savefig(path, metadata={"Date": None, "Description": fingerprint(rows)})
    return drawn


def fingerprint(rows: Sequence[dict]) -> str:
    """The SHA-256 of the tables of these chains; the SVG file names the chains it shows by it."""
    return hashlib.sha256(summary(rows).encode()).hexdigest()


def headline(rows: Sequence[dict]) -> str:
    """Which rungs have been earned, as a sentence and a table for README: a rung is earned where it is above the rung
    before and above each of its controls.
    """
    made = chains(rows)
    base, *after = (_mean([chain.accuracy(stage) for chain in made]).removesuffix(" %") for stage in STAGES)
    ends = [end for chain in made if (end := chain.accuracy(STAGES[-1])) is not None]
    planned = "" if len(made) >= PLANNED else f" Of {PLANNED} planned chains these have run so far."
    text = (f"On `hard`, problems with three to seven operations, {len(made)} chains (a chain is one run of all stages "
            f"with its own seed and its own distilled data) start at {base} % and reach {', '.join(after[:-1])} and "
            f"{after[-1]} % after mid-training, SFT, Rollout DPO and GRPO. They end between {percent(min(ends))} and "
            f"{percent(max(ends))}.{planned}")
    tested, lines = comparisons(rows), [["stage", "points over the stage before", "above", "not shown above", "earned"]]
    for stage in STAGES[1:]:
        found = [row for row in tested if row.name == stage]
        above = [f"`{row.against}`" for row in found if row.verdict == "above"]
        others = [f"`{row.against}`{' (below it)' if row.verdict == 'below' else ''}" for row in found
                  if row.verdict != "above"]
        lines.append([STAGE_TITLES[stage], _points(found[0].gain), ", ".join(above) or "–", ", ".join(others) or "–",
                      _earned(found)])
    return text + "\n\n" + "\n".join(markdown_table(lines))


def results(rows: Sequence[dict]) -> str:
    """All tables, and what was asked of the ladder beside what it gives, for docs/results.md."""
    return f"{summary(rows)}\n\n" + "\n".join(markdown_table(targets.table(rows)))


def _earned(found: Sequence[Comparison]) -> str:
    """Whether a stage with these comparisons has earned its rung."""
    if any(row.verdict == "below" for row in found):
        return "no"
    if any(row.verdict != "above" for row in found):
        return "not shown"
    return "yes" if len(found) > 1 else "not tested: no control was run"


PAGES = {"docs/results.md": results, "README.md": headline}  # what `publish` writes between `MARKS`


def publish(out: Path, root: Path = ROOT, log: Callable[[str], None] = print) -> None:
    """Publish the chains in the folder `out`: write data/chains.jsonl and, from it alone, what `PAGES` names (between
    `MARKS`) and docs/ladder.svg. A chain that lacks an arm which another has is left out, and named.

    Raises UserError with fewer than two chains, or where a page lacks its marks.
    """
    rows = sorted(read_chain_rows(out / "chains.jsonl"), key=lambda row: row["seed"])
    names = all_names(chains(rows))
    for chain in chains(rows):
        if missing := [name for name in names if name not in chain.names()]:
            log(f"seed {chain.seed} is left out: it has no {missing[0]} yet")
            rows = [row for row in rows if row["seed"] != chain.seed]
    if (count := len(chains(rows))) < 2:
        raise UserError(f"{out / 'chains.jsonl'}: {count} finished chain, two are needed to publish")
    pages = {root / name: fill(root / name, MARKS, written(rows)) for name, written in PAGES.items()}
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    write_rows(root / PUBLISHED.relative_to(ROOT), rows)
    save_figure(rows, root / "docs" / "ladder.svg")
