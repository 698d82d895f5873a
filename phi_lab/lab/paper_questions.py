"""What an experiment on one of the paper's questions found, for a notebook: its committed rows as a sentence, a figure
and a table.
"""

from pathlib import Path

from phi_lab.core.errors import UserError
from phi_lab.core.paths import ROOT
from phi_lab.experiments import EXPERIMENTS, verdicts
from phi_lab.lab import tables
from phi_lab.report import contrasts, figures_experiments
from phi_lab.report.html import text


def found(name: str, root: Path = ROOT) -> str:
    """The question, its verdict, figure, and the claims with what each would have shown, as HTML; where the experiment
    has not run, the question and the command.

    Raises UserError for an unknown experiment and for a damaged file of results.
    """
    if name not in EXPERIMENTS:
        raise UserError(f"unknown experiment {name!r}: choose one of {', '.join(EXPERIMENTS)}")
    experiment, answer = EXPERIMENTS[name], verdicts.row(EXPERIMENTS[name], root)
    top = f"<p><b>{text(experiment.question)}</b></p>"
    if answer["verdict"] is None:
        return f"{top}<p>It has not run yet: <code>phi-lab experiment {name} --out runs/{name}</code></p>"
    rows = contrasts.read(root / verdicts.RESULTS / f"{name}.jsonl")
    figure = figures_experiments.FIGURES[name](rows, experiment.arms, experiment.claims)
    said = verdicts.in_words(answer).splitlines()[-1].strip()
    return f"{top}<p>{text(said)}</p>{figure._repr_html_()}{_claims(name, rows)}"


def _claims(name: str, rows: list[dict]) -> str:
    """The claims in the order in which they were written down; nested ones stand in the figure alone."""
    experiment = EXPERIMENTS[name]
    if not experiment.contrasts:
        return ""
    lines = [(one.contrast.question, f"{one.contrast.name} − {one.contrast.against}, {one.contrast.benchmark}",
              contrasts.points(one.effect), f"{one.p_holm:.2g}", f"{100 * one.detectable:.1f}", one.verdict)
             for one in contrasts.compare(rows, experiment.contrasts)]
    head = ("claim", "arms", "points [95 %]", "p, Holm", "detectable", "verdict")
    return tables.table("Detectable: the smallest true difference that so many seeds would show four times in five.",
                        head, lines)
