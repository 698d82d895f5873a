"""What an experiment with nested scores found, in tables: its levels, what of them is luck with single problems, the
steps of the ladder, how many seeds and samples show a difference, and what that makes of the paper's own differences.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from phi_lab.config.schema import STAGES
from phi_lab.core import stats
from phi_lab.core.formatting import markdown_table, percent
from phi_lab.report import chain_rows, paper_differences, power, spread, steps
from phi_lab.report.components import BOTTOM, Nest, cells, drawn_expectations, level_words, levels, sd_words
from phi_lab.report.contrasts import Primary, accuracy, by_seed, points
from phi_lab.report.spread import Spread

DIFFERENCES = (0.005, 0.01, 0.02, 0.03, 0.05)  # of the table of seeds
PROTOCOLS = ((30, 1), (30, 64), (200, 4), (500, 1), (500, 4), (1000, 4), (1000, 16))  # problems, samples
SEEDS = (2, 3, 6, 12, 24)


def primary(rows: Sequence[dict], nests: Sequence[Nest]) -> Primary:
    """What `phi-lab experiment --list` says: the highest level of the first nest, a standard deviation in shares."""
    one = levels(rows, nests)[0]
    return Primary(one.verdict, one.p_holm or 0.0, one.sd, one.sd_low, one.sd_high, one.detectable or 0.0)


def levels_table(rows: Sequence[dict], spreads: Mapping[Nest, Spread]) -> list[list[str]]:
    """Header and a line for each level of each nest; of evaluations also the standard deviation that independent
    answers to these problems give.
    """
    lines = [["after", "level", "units", "sd, points", "share of a score's variance", "F", "p, Holm", "verdict",
              "detectable sd (80 % power)", "sd by p (1 - p)"]]
    for one in levels(rows, list(spreads)):
        found = spreads[one.nest]
        share = f"{100 * one.share:.0f} % [{100 * one.share_low:.0f}, {100 * one.share_high:.0f}]"
        lowest = one.name == one.nest.levels[BOTTOM]
        binomial = 100 * found.variances(found.problems, found.samples).evaluation ** 0.5
        tested = ["–"] * 4 if lowest else [f"{one.f:.1f}", f"{one.p_holm:.2g}", one.verdict,
                                           f"{100 * (one.detectable or 0):.2f}"]
        lines.append([one.nest.title, one.name, f"{one.units}", level_words(one), share, *tested,
                      f"{binomial:.2f}" if lowest else "–"])
    return lines


def problems_table(spreads: Mapping[Nest, Spread]) -> list[list[str]]:
    """Header and a line for each nest: what its levels add on 30 problems, on those it was measured on, and on any
    number of them, in points.
    """
    lines = [["after", "level", "sd on 30 problems", "on those measured", "on very many"]]
    for nest, found in spreads.items():
        for name, level in zip(nest.levels[:BOTTOM], ("chain", "training"), strict=True):
            ends = (found.deviation(level, count) for count in (30, found.problems, 10**9))
            lines.append([nest.title, name, *(sd_words(*one) for one in ends)])
    return lines


def protocols_table(rows: Sequence[dict], nests: Sequence[Nest]) -> list[list[str]]:
    """Header and a line for each nest and protocol, from one score of each training over all its evaluations: the mean,
    and the standard deviations of the highest level and of trainings in points. pass@k counts a problem as solved if
    any of a training's answers to it is right. Two greedy evaluations of a model are the same.
    """
    top, middle, _ = nests[0].levels
    lines = [["after", "on hard", "mean", f"sd of {top}s", f"sd of {middle}s, with what sampling adds"]]
    for nest in nests:
        scores, counts, samples = cells(rows, nest)
        units = by_seed(rows, [name for training in nest.arms for name in training]).values()
        greedy = [[accuracy(unit[training[0]], how="greedy") for training in nest.arms] for unit in units]
        solved = f"pass@{samples * scores.shape[2]}"
        for name, values in (("T 0.6", scores.mean(2)), ("greedy", np.array(greedy)),
                             (solved, (counts.sum(2) > 0).mean(2))):
            lines.append([nest.title, name, percent(float(values.mean())), *_of_two_levels(values)])
    return lines


def _of_two_levels(values: np.ndarray) -> list[str]:
    """Standard deviations in points with their intervals that top units and trainings add to `values` (top units,
    trainings): one-way analysis of variance with random effects.
    """
    units, trainings = values.shape
    squares = np.array([trainings * values.mean(1).var(ddof=1), values.var(1, ddof=1).mean()])
    drawn = drawn_expectations(squares.tolist(), (units - 1, units * (trainings - 1)))
    words = []
    for estimate, draws in (((squares[0] - squares[1]) / trainings, (drawn[0] - drawn[1]) / trainings),
                            (squares[1], drawn[1])):
        ends = np.maximum(0.0, [estimate, *np.quantile(draws, (0.025, 0.975))]) ** 0.5
        words.append(sd_words(*ends.tolist()) + (", estimated below 0" if estimate < 0 else ""))
    return words


def retrained_table(rows: Sequence[dict], nests: Sequence[Nest]) -> list[list[str]]:
    """Header and a line for each nest: the mean of the trainings with another seed minus that of the chains' own, over
    chains. Both were made alike, so 0 should lie in 95 % of the intervals.
    """
    lines = [["after", "chains", "another seed minus the chain's own, points"]]
    for nest in nests:
        own, new = cells(rows, nest)[0].mean(2)[:, :2].T
        lines.append([nest.title, f"{len(own)}", points(stats.paired_t(new, own))])
    return lines


def published_line(rows: Sequence[dict], nests: Sequence[Nest]) -> str:
    """How many of the chains' own models are those of the published chains, by fingerprint."""
    models = {(row["seed"], row["name"]): row["model"] for row in chain_rows.published()}
    own = {(row["seed"], nest.name): row["model"] for nest in nests for row in rows if row["name"] == nest.arms[0][0]}
    same = sum(models.get(key) == model for key, model in own.items())
    return f"Of {len(own)} models of the chains' own {same} are the published ones (data/chains.jsonl) to the byte."


def pairs_table(rows: Sequence[dict]) -> list[list[str]]:
    """Header and a line for each comparison of an arm with its rival in `rows` of chains: the standard deviation of its
    differences, and the seeds that see 1 and 2 points with it, with the ends of its interval.
    """
    made = chain_rows.chains(rows)
    lines = [["recipes", "chains", "sd of the difference, points", "seeds for 1 point", "for 2 points"]]
    for name, against in chain_rows.compared(chain_rows.all_names(made)):
        values = chain_rows.paired_accuracies(made, name, against)
        if against not in STAGES and len(values) > 1:
            variance = float(np.subtract(*zip(*values, strict=True)).var(ddof=1))
            one = power.Variances(0.0, variance / 2, 0.0)
            low, high = np.quantile(drawn_expectations([1.0], [len(values) - 1]), (0.025, 0.975))
            lines.append([
                f"{name} and {against}", f"{len(values)}",
                sd_words(*(float(factor * variance)**0.5 for factor in (1.0, low, high))),
                *(str(power.needed(difference, one, True, (low, high))) for difference in (0.01, 0.02))])
    return lines


def seeds_tables(found: Spread, stage: str) -> list[tuple[str, list[list[str]]]]:
    """(title, table): seeds of each recipe for differences of some points, paired and unpaired, by protocol; and the
    smallest difference that some seeds show by the protocol measured.
    """
    by_pairing = []
    titles = {
        True: f"Seeds of each recipe of {stage}, both from the same chains, with stage seeds of their own and no "
              "recipe that gains more from one chain than from another (problems x samples; 80 % power in a t-test at "
              "5 %, for one comparison; in brackets for the ends of the 95 % interval of the variance). A difference "
              "is one on these problems: the chance of others is not in it",
        False: f"Seeds of each recipe of {stage}, each from chains of its own on one base (as above)"}
    for paired, title in titles.items():
        protocols = [(f"{count} x {answers}", found.variances(count, answers), found.factors(paired, count, answers))
                     for count, answers in PROTOCOLS]
        by_pairing.append((title, power.needed_table(protocols, DIFFERENCES, paired)))
    title = (f"The smallest difference of recipes of {stage} that is seen on {found.problems} x {found.samples}, "
             "points (80 % power)")
    return [*by_pairing, (title, power.detectable_table(found.variances(found.problems, found.samples), SEEDS))]


def summary(rows: Sequence[dict], arms: Mapping[str, str], nests: Sequence[Nest]) -> str:
    """All tables in Markdown. Raises UserError with fewer than two seeds that have all arms of a nest."""
    units = ", ".join(sorted({row["unit"] for row in rows}))
    seeds = sorted({row["seed"] for row in rows})
    counts = ", ".join(f"{len(cells(rows, nest)[0])} after {nest.title}" for nest in nests)
    head = f"{len(seeds)} seeds ({units}); with all cells: {counts}."
    if nests[0].of_chains:
        head += f" {published_line(rows, nests)}"
    return "\n\n".join([head, *(f"{title}:\n\n" + "\n".join(markdown_table(table))
                                for title, table in tables(rows, nests))])


def tables(rows: Sequence[dict], nests: Sequence[Nest]) -> list[tuple[str, list[list[str]]]]:
    """(title, table): all that is said of the rows. Raises UserError as `summary` does."""
    spreads = {nest: spread.measured(rows, nest) for nest in nests}
    found = [("Levels (of evaluations as measured, and as p (1 - p) gives it)", levels_table(rows, spreads)),
             ("What a level adds on few and on many problems, points: what is luck with single problems is larger on "
              "30 (evaluations by p (1 - p), which is known more exactly, so the middle may differ from the levels; an "
              "end above 0 that comes from single problems is no test of the level)",
              problems_table(spreads)),
             ("The same by other protocols, one score of each training, points (claims are those of T 0.6)",
              protocols_table(rows, nests))]
    if nests[0].of_chains:
        of_steps = steps.all_steps(rows, nests)
        found += [
            ("Trainings with another seed beside the chains' own", retrained_table(rows, nests)),
            ("Steps of the ladder, differences of the chains' own models, points; of mid-training and of the end the "
             "score by itself, which holds all that a chain has not from base and teacher",
             steps.table([*of_steps.values()])),
            *seeds_tables(spreads[nests[0]], nests[0].title),
            ("Published pairs of the ladder (1,000 problems of `hard` at T 0.6, stages with 4 answers, their rivals "
             "with 4 or 2; the same chains, stage and evaluation seeds)", pairs_table(chain_rows.published())),
            ("The paper's differences (our steps stand in for its seeds: another model, another world, one base)",
             paper_differences.table(of_steps)),
        ]
    return found
