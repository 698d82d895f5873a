"""What each experiment found, from the rows that are committed: `phi-lab experiment --list`."""

from pathlib import Path

from phi_lab.core.paths import ROOT
from phi_lab.experiments import EXPERIMENTS
from phi_lab.experiments.design import Experiment
from phi_lab.report import contrasts
from phi_lab.report.contrasts import Contrast

RESULTS = "data/experiments"  # NAME.jsonl: the rows of a finished run, out/NAME.jsonl


def listing(root: Path = ROOT) -> list[dict]:
    """Each experiment in a row. Raises UserError for a damaged file of results."""
    return [row(experiment, root) for experiment in EXPERIMENTS.values()]


def row(experiment: Experiment, root: Path = ROOT) -> dict:
    """name, question, arms, seeds (those with rows, else those planned), and of the primary claim: verdict
    ("supported", "not supported", "no difference shown"), p_value (Holm over all claims), effect, ci (95 %) and
    detectable (the smallest effect seen with 80 % power at Holm's strictest level), in points; None before a run. The
    effect of nested arms is the standard deviation that the highest level adds to a score. greedy: in words, the effect
    of greedy answers, which no claim is about; None for nested arms.
    results_file: where its rows are, below `root`; None where it has not run.
    """
    path = root / RESULTS / f"{experiment.name}.jsonl"
    found = {"name": experiment.name, "question": experiment.question, "arms": list(experiment.arms),
             "seeds": list(experiment.seeds), "verdict": None, "p_value": None, "effect": None, "ci": None,
             "detectable": None, "greedy": None, "results_file": None}
    if not path.exists():
        return found
    rows = contrasts.read(path)
    primary = experiment.reading.primary(rows, experiment.claims)
    return {
        **found, "seeds": sorted({one["seed"] for one in rows}), "verdict": primary.verdict,
        "p_value": primary.p_holm, "effect": 100 * primary.effect, "ci": [100 * primary.low, 100 * primary.high],
        "detectable": 100 * primary.detectable, "greedy": primary.greedy and contrasts.points(primary.greedy),
        "results_file": path.relative_to(root).as_posix(),
    }


def whole(found: dict) -> bool:
    """Whether a row of `listing` has as many seeds as were planned."""
    return len(found["seeds"]) >= len(EXPERIMENTS[found["name"]].seeds)


def claim(experiment: Experiment) -> str:
    """An experiment's first claim, with what its arms are: for a page that does not list them."""
    first, arms = experiment.claims[0], experiment.arms
    if not isinstance(first, Contrast):
        return first.words
    return (f"{arms[first.name]} ({first.name}) {first.direction} {arms[first.against]} ({first.against}) on "
            f"{first.benchmark}")


def result(found: dict) -> str:
    """What a row of `listing` says of the experiment's first claim: verdict and numbers; and that seeds of the plan are
    missing, if some are.
    """
    count, planned = len(found["seeds"]), len(EXPERIMENTS[found["name"]].seeds)
    if found["verdict"] is None:
        return f"has not run; planned: {planned} seeds"
    seeds = f"{count} seeds" if whole(found) else f"{count} of {planned} planned seeds so far"
    (low, high), first = found["ci"], EXPERIMENTS[found["name"]].claims[0]
    if isinstance(first, Contrast):
        effect, size = f"{found['effect']:+.1f} points [{low:+.1f}, {high:+.1f}]", "difference"
        effect += f" (greedily {found['greedy']})" if found["greedy"] else ""
    else:
        size = "standard deviation"
        effect = f"{first.levels[0]}s add a {size} of {found['effect']:.1f} points [{low:.1f}, {high:.1f}]"
    return (f"{found['verdict']}, {effect}, p = {found['p_value']:.2g} after Holm, {seeds}; "
            f"a true {size} of {found['detectable']:.1f} points would be found four times in five")


def answer(found: dict) -> str:
    """The first claim of a row of `listing` by the names of its arms, and what was found."""
    claimed = "" if found["verdict"] is None else f"{EXPERIMENTS[found['name']].claims[0].words}: "
    return claimed + result(found)


def in_words(found: dict) -> str:
    """A row of `listing` in a few lines for a terminal."""
    arms = f"{len(found['arms'])} arms: {', '.join(found['arms'])}"
    return f"{found['name']}: {found['question']}\n  {arms}\n  {answer(found)}"
