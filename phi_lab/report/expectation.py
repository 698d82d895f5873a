"""A learner's ladder beside the published chains, in one line: is it what was to be expected?

The published chains are repetitions with other seeds of what a learner runs, so a new run should end where one more
chain would: inside their prediction interval (`core.stats.prediction_interval`).
"""

from dataclasses import asdict
from pathlib import Path

from phi_lab.config.presets import LAB
from phi_lab.config.schema import STAGES, RunConfig, config_from_dict, read_config
from phi_lab.core import stats
from phi_lab.core.files import read_json
from phi_lab.core.formatting import percent
from phi_lab.core.run_folder import RunFolder
from phi_lab.report.chain_rows import Chain, chains, published
from phi_lab.report.ladder_rows import STAGE_TITLES, protocol, read_ladder, shipped_starts_in

FREE = ("problems", "engine")  # of an evaluation: they do not move its mean


def compare_with_chains(run: RunFolder) -> str | None:
    """One line: `hard` at the end of a run beside that of the published chains, or the first thing in which it differs
    from them. None where there is nothing to compare: no chains, another scale or profile, an unfinished ladder, or
    one that was measured otherwise. Raises UserError for a damaged file.
    """
    rows = published()
    if not (rows and run.config.is_file() and run.ladder.is_file()):
        return None
    saved = read_config(run.config)
    if "config" not in saved:
        return None  # of a release before there were chains
    config, made, ladder = config_from_dict(saved["config"]), chains(rows), read_ladder(run.ladder)
    own = {row["stage"]: row["accuracy"] for row in ladder
           if (row["arm"], row["benchmark"], protocol(row)) == ("main", "hard", "sampled")}
    part = _measured_part(config, made)
    if (config.scale, config.profile) != ("cpu", "lab") or set(own) != set(STAGES) or part is None:
        return None
    if different := _difference(run, config, rows) or ", ".join(
        f"{STAGE_TITLES[stage]} starts from a shipped checkpoint" for stage in shipped_starts_in(ladder)
    ):
        return f"hard {percent(own['grpo'])}; not comparable with the published chains: {different}"
    intervals = {stage: _interval(made, stage, part) for stage in STAGES}
    ends = [end for chain in made if (end := chain.accuracy("grpo", part=part or None)) is not None]
    low, high = intervals["grpo"]
    line = (f"hard {percent(own['grpo'])}; the {len(ends)} published chains end at {100 * min(ends):.0f} to "
            f"{100 * max(ends):.0f}: ")
    if low <= own["grpo"] <= high:
        return line + "as expected"
    line += f"{'lower' if own['grpo'] < low else 'higher'} than 95 % of new ones would ({100 * low:.0f} to "
    first = next(stage for stage in STAGES if not intervals[stage][0] <= own[stage] <= intervals[stage][1])
    a, b = intervals[first]
    return (f"{line}{100 * high:.0f}). The first stage outside is {STAGE_TITLES[first]}, with {percent(own[first])} "
            f"where {100 * a:.0f} to {100 * b:.0f} was to be expected; see `phi-lab doctor {run.path}`")


def _measured_part(config: RunConfig, made: list[Chain]) -> str | None:
    """The part of the chains' problems that this run was measured on: "" for all of them, "first half" for those of a
    course. None where it was measured in another way.
    """
    ours, courses = asdict(config.evaluation), asdict(LAB.evaluation)
    if any(ours[name] != courses[name] for name in courses if name not in FREE):
        return None
    row = made[0].measured.get(("grpo", "hard", "sampled"))
    if row and row["n"] == config.evaluation.problems * row["k"]:
        return ""
    return "first half" if config.evaluation.problems == LAB.evaluation.problems else None


def _interval(made: list[Chain], stage: str, part: str) -> tuple[float, float]:
    """Where one more chain would lie after this stage; anywhere, where the chains are too few to say."""
    values = [value for chain in made if (value := chain.accuracy(stage, part=part or None)) is not None]
    return stats.prediction_interval(values) if len(values) > 1 else (0.0, 1.0)


def _difference(run: RunFolder, config: RunConfig, rows: list[dict]) -> str | None:
    """The first thing but the seed in which a run differs from the published chains; None where it is one of them."""
    if config.digest() not in {row["config"] for row in rows}:
        setting = first_different_setting(config.row(), LAB.row())
        return f"{setting} differs" if setting else "they were made with other settings than this version has"
    for what, own, theirs in (
        ("base", _weights(run.stage("mid").student), {row["model"] for row in rows if row["name"] == "base"}),
        ("teacher", _weights(run.data.teacher), {row["teacher"] for row in rows if row["teacher"]}),
    ):
        if theirs and own not in theirs:
            return f"its {what} is another one"
    return None


def _weights(path: Path) -> str | None:
    return read_json(path, ("weights",))["weights"] if path.is_file() else None


def first_different_setting(settings: dict, others: dict) -> str | None:
    """The name, such as "mid.epochs", of the first training setting that differs; None where all are equal."""
    for name, value in settings.items():
        if name == "evaluation" or value == others.get(name):
            continue
        if isinstance(value, dict) and isinstance(others.get(name), dict):
            return f"{name}.{first_different_setting(value, others[name])}"
        return name
    return None
