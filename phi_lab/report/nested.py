"""What an experiment with nested scores found, in tables: its levels, what of them is luck with single problems, how
many seeds and samples show a difference, and what that makes of the paper's own differences.
"""

from collections.abc import Mapping, Sequence

from phi_lab.core.formatting import markdown_table
from phi_lab.report import components, paper_differences, power
from phi_lab.report.components import BOTTOM, Anova, Level, Nest, ProblemParts, cells, levels
from phi_lab.report.contrasts import Primary

DIFFERENCES = (0.005, 0.01, 0.02, 0.03, 0.05)  # of the table of seeds
PROTOCOLS = ((30, 1), (30, 64), (200, 4), (500, 1), (500, 4), (1000, 4), (1000, 16))  # problems, samples
SEEDS = (2, 3, 6, 12, 24)


def primary(rows: Sequence[dict], nests: Sequence[Nest]) -> Primary:
    """What `phi-lab experiment --list` says: the highest level of the first nest, a standard deviation in shares."""
    one = levels(rows, nests)[0]
    return Primary(one.verdict, one.p_holm or 0.0, one.sd, one.sd_low, one.sd_high, one.detectable or 0.0)


def measured(rows: Sequence[dict], nest: Nest) -> tuple[Anova, ProblemParts, int, int]:
    """Its analysis of variance, its parts by problem, and the problems and samples of a score."""
    scores, counts, samples = cells(rows, nest)
    anova, parts = components.nested_anova(scores), components.problem_parts(counts, samples)
    return anova, parts, counts.shape[3], samples


def level_words(one: Level) -> str:
    """A level's standard deviation in points with its interval; 0 where its variance was estimated below 0."""
    below = ", estimated below 0" if one.negative else ""
    return f"{100 * one.sd:.2f} [{100 * one.sd_low:.2f}, {100 * one.sd_high:.2f}]{below}"


def levels_table(rows: Sequence[dict], nests: Sequence[Nest]) -> list[list[str]]:
    """Header and a line for each level of each nest; of evaluations also the standard deviation that independent
    answers to these problems give.
    """
    lines = [["after", "level", "units", "sd, points", "share of a score's variance", "F", "p, Holm", "verdict",
              "detectable sd (80 % power)", "sd by p (1 - p)"]]
    parts = {nest: measured(rows, nest) for nest in nests}
    for one in levels(rows, nests):
        _, of_nest, problems, samples = parts[one.nest]
        share = f"{100 * one.share:.0f} % [{100 * one.share_low:.0f}, {100 * one.share_high:.0f}]"
        lowest = one.name == one.nest.levels[BOTTOM]
        binomial = 100 * of_nest.variances(problems, samples).evaluation ** 0.5
        tested = ["–"] * 4 if lowest else [f"{one.f:.1f}", f"{one.p_holm:.2g}", one.verdict,
                                           f"{100 * (one.detectable or 0):.2f}"]
        lines.append([one.nest.name, one.name, f"{one.units}", level_words(one), share, *tested,
                      f"{binomial:.2f}" if lowest else "–"])
    return lines


def problems_table(rows: Sequence[dict], nests: Sequence[Nest]) -> list[list[str]]:
    """Header and a line for each nest: what its levels add on 30 problems, on those it was measured on, and on any
    number of them, in points.
    """
    lines = [["after", "level", "sd on 30 problems", "on those measured", "on very many"]]
    for nest in nests:
        _, parts, problems, _ = measured(rows, nest)
        for name, level in zip(nest.levels[:BOTTOM], ("chain", "training"), strict=True):
            variances = (getattr(parts.variances(count, 1), level) for count in (30, problems, 10**9))
            lines.append([nest.name, name, *(f"{100 * one**0.5:.2f}" for one in variances)])
    return lines


def seeds_tables(rows: Sequence[dict], nest: Nest) -> list[tuple[str, list[list[str]]]]:
    """(title, table): seeds of each recipe for differences of some points, paired and unpaired, by protocol; and the
    smallest difference that some seeds show by the protocol measured.
    """
    anova, parts, problems, samples = measured(rows, nest)
    by_protocol = [(f"{count} x {answers}", parts.variances(count, answers)) for count, answers in PROTOCOLS]
    titles = {True: "Seeds of each recipe, both from the same chains (problems x samples)",
              False: "Seeds of each recipe, each from chains of its own"}
    found = [(title, power.needed_table(by_protocol, DIFFERENCES, paired, anova.factors(paired)))
             for paired, title in titles.items()]
    return [*found, (f"The smallest difference that is seen on {problems} x {samples}, points",
                     power.detectable_table(parts.variances(problems, samples), SEEDS))]


def summary(rows: Sequence[dict], arms: Mapping[str, str], nests: Sequence[Nest]) -> str:
    """All tables in Markdown. Raises UserError with fewer than two seeds that have all arms of a nest."""
    units = ", ".join(sorted({row["unit"] for row in rows}))
    seeds = sorted({row["seed"] for row in rows})
    counts = ", ".join(f"{len(cells(rows, nest)[0])} after {nest.name}" for nest in nests)
    head = f"{len(seeds)} seeds ({units}); with all cells: {counts}."
    if others := sorted({row["seed"] for row in rows if row["notes"].get("chain_code") not in (None, row["code"])}):
        head += (f" **Other code trained the chains {', '.join(map(str, others))} than repeated their stages:** the "
                 "difference of their trainings is of seed and code.")
    tables = [("Levels", levels_table(rows, nests)),
              ("What of a level is luck with single problems, points", problems_table(rows, nests))]
    if nests[0].levels[0] == "chain":  # three bases say too little to plan with, and the paper compares no bases
        tables += seeds_tables(rows, nests[0])
        tables.append(("The paper's differences (ours stand in for its seeds: another model, another world)",
                       paper_differences.table(measured(rows, nests[0])[1])))
    return "\n\n".join([head, *(f"{title}:\n\n" + "\n".join(markdown_table(table)) for title, table in tables)])
