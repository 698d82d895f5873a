"""Shows what experiments found: their rows in data/experiments, a section of docs/results.md and a figure for each, and
README's table of questions. All of it follows from the rows that are committed.

    phi-lab experiment publish --out runs/one_batch
"""

import re
from collections.abc import Callable
from pathlib import Path

from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_rows
from phi_lab.core.formatting import markdown_table
from phi_lab.core.page_parts import fill
from phi_lab.core.paths import ROOT
from phi_lab.experiments import EXPERIMENTS, verdicts
from phi_lab.experiments.design import ONE_CHAIN, Experiment
from phi_lab.report import contrasts, figures_experiments

QUESTIONS = ("<!-- questions: phi-lab experiment publish -->\n", "\n<!-- end of questions -->")


def holds_an_experiment(out: Path) -> bool:
    """Whether a folder is one of `runner.run`, and not one of chains."""
    return (out / "config.json").exists() and "experiment" in read_json(out / "config.json")


def publish(out: Path, root: Path = ROOT, log: Callable[[str], None] = print) -> None:
    """Publish the experiment in the folder `out`: its rows, its figure, its section and README's table.

    Raises UserError for another profile than lab, seeds that are not of the plan or not chains, fewer than two seeds
    with all arms, and pages without their marks.
    """
    config = read_json(out / "config.json", ("experiment", "config"))
    experiment, profile = EXPERIMENTS[config["experiment"]], config["config"]["profile"]
    if profile != "lab":
        raise UserError(f"{out}: made in the profile {profile}; only the profile lab is published")
    rows = contrasts.read(out / f"{experiment.name}.jsonl")
    if others := sorted({row["seed"] for row in rows} - set(experiment.seeds)):
        raise UserError(f"{out}: seeds {', '.join(map(str, others))} are not of the plan: {experiment.name} has "
                        f"{experiment.seeds[0]}-{experiment.seeds[-1]}")
    if any(row["unit"] == ONE_CHAIN for row in rows):
        raise UserError(f"{out}: {ONE_CHAIN}; in the plan a seed is a whole chain: run it with --chains")
    experiment.reading.summary(rows, experiment.arms, experiment.claims)  # raises where there are too few
    results, readme = root / "docs" / "results.md", root / "README.md"
    fill(results, marks(experiment), "")
    fill(readme, QUESTIONS, "")
    write_rows(root / verdicts.RESULTS / f"{experiment.name}.jsonl", rows)
    figures_experiments.save(
        experiment.name, rows, experiment.arms, experiment.claims, root / "docs" / f"{experiment.name}.svg")
    results.write_text(fill(results, marks(experiment), section(experiment, root)), encoding="utf-8")
    readme.write_text(fill(readme, QUESTIONS, questions(root)), encoding="utf-8")
    log(verdicts.in_words(verdicts.row(experiment, root)))


def marks(experiment: Experiment) -> tuple[str, str]:
    """The lines around an experiment's section of docs/results.md."""
    return f"<!-- experiment {experiment.name} -->\n", f"\n<!-- end of {experiment.name} -->"


def command(experiment: Experiment) -> str:
    """What runs an experiment as its file names it."""
    seeds, chains = experiment.seeds, "" if experiment.stage == "base" else " --chains runs/ladder"
    return (f"phi-lab experiment {experiment.name} --seeds {seeds[0]}-{seeds[-1]} --jobs 2{chains} "
            f"--out runs/{experiment.name}")


def section(experiment: Experiment, root: Path = ROOT) -> str:
    """The section of an experiment: its question, command, verdict, figure and tables."""
    top = f"### {experiment.question}\n\n`{command(experiment)}`"
    path = root / verdicts.RESULTS / f"{experiment.name}.jsonl"
    if not path.exists():
        return f"{top}\n\nIt {said(experiment, root)}"
    text = experiment.reading.summary(contrasts.read(path), experiment.arms, experiment.claims)
    figure = f"![{experiment.question}]({experiment.name}.svg)"
    rest = "" if verdicts.whole(verdicts.row(experiment, root)) else (
        " The other seeds of the plan run whatever these show; until then no verdict is final.")
    return f"{top}\n\nFirst claim: {said(experiment, root)}{rest}\n\n{figure}\n\n{text}"


def questions(root: Path = ROOT) -> str:
    """README's table: each question, linked to its section, with its first claim and what was found."""
    lines = [["question", "its first claim", "verdict"]]
    for experiment in EXPERIMENTS.values():
        anchor = re.sub(r"[^\w\- ]", "", experiment.question.lower()).replace(" ", "-")
        claims = len(experiment.contrasts) or 2 * len(experiment.nests)  # of nests: the two levels above evaluation
        found, others = verdicts.row(experiment, root), claims - 1
        counted = "1 more claim is" if others == 1 else f"{others} more claims are"
        more = f" {counted} there." if found["verdict"] and others > 0 else ""
        lines.append([f"[{experiment.question}](docs/results.md#{anchor})", verdicts.claim(experiment),
                      f"{verdicts.result(found)}.{more}"])
    return "\n".join(markdown_table(lines))


def said(experiment: Experiment, root: Path = ROOT) -> str:
    """The first claim and its verdict in a sentence."""
    return verdicts.answer(verdicts.row(experiment, root)) + "."
