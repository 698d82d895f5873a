"""Every figure says in words what it shows, and its words reach the page."""

import base64
import inspect

import nbformat
import pytest
from chain_examples import chain_rows
from IPython.core.formatters import DisplayFormatter
from nbconvert import HTMLExporter

from phi_lab.lab import pictures, reward_hacking
from phi_lab.pipeline import notebooks
from phi_lab.report import figures, html, plot_style

FUNNEL = {"questions": 5, "rollouts": 40, "steps": [{"name": "clean", "kept": 30, "removed": 10, "why": "odd"}],
          "verdicts": {"right": 28, "wrong": 12, "timeout": 0}}
LADDER = [{"stage": stage, "arm": arm, "benchmark": "hard", "accuracy": value, "ci_low": value, "ci_high": value,
           "temperature": 0.6, "k": 1, "pass_at_k": None} for stage, arm, value in
          (("base", "main", 0.1), ("mid", "main", 0.55), ("mid", "own", 0.4))]
CHAINS = chain_rows((6, 7, 8), spread=0.0)
LOSSES = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0, "eval_loss": 1.25}]
PAIRS = [{"step": step, "logps/chosen": -10.0 + step, "logps/rejected": -20.0, "rewards/chosen": 0.5,
          "rewards/rejected": 0.1 * step, "rewards/accuracies": 0.75} for step in (1, 2)]
REWARDS = [{"step": step, "reward": step / 10, "temperature": 1.0} for step in (1, 2)]
WORDS = {
    (figures, "funnel"): ((FUNNEL,), "5 questions, 40 rollouts. Left after each filter: clean 30. "
                          "Verdicts: right 28, wrong 12."),
    (figures, "lengths"): (([{"tokens": 10, "verdict": "right"}, {"tokens": 90, "verdict": "wrong"}],),
                           "tokens in the answer. right: 1 answers, median 10 tokens. wrong: 1 answers, median 90"),
    (figures, "packing"): (([[5, 3], [4]], 10), "Rows of 10 tokens, documents as blocks, padding grey. 3 documents in "
                           "2 rows: 60 % used."),
    (figures, "ladder"): ((LADDER,), "hard: base 10.0, mid-training 55.0; hard, arm own: mid-training 40.0. Beside it "
                          "the paper's, base to last stage: MATH-500 71.8 to 94.6"),
    (figures, "replications"): ((CHAINS,), "hard, percent, means of 3 independent chains: base 10.0, mid 50.0,"),
    (figures, "loss_curve"): ((LOSSES, "SFT"), "training loss from 2 at step 10 to 1 at step 20; validation loss from "
                              "1.25 at step 20 to 1.25 at step 20; lowest validation loss 1.250 at step 20."),
    (figures, "dpo_curves"): ((PAIRS,), "log-probability of the chosen side from -9 at step 1 to -8 at step 2; "),
    (figures, "rl_curves"): ((REWARDS,), "Mean reward, −1 to 1 from 0.1 at step 1 to 0.2 at step 2; Zero-variance "
                             "groups (share) not logged"),
    (figures, "temperature_schedule"): ((lambda step, steps: 1 - step / 10, 5), "from 1 at step 0 to 0.6 at step 4; "
                                        "0.80 half-way, at step 2."),
    (pictures, "verdicts"): (({"mid": ["right", "wrong"], "none": []},), "Verdicts: mid 50 % right, 50 % wrong; none "
                             "none."),
    (pictures, "student_likelihood"): (({"right": [-1.0, -20.0]}, -9.0), "right: 2, of which 50 % above -9 nats."),
    (pictures, "curves"): (([{"step": 1, "reward": 0.1}, {"step": 2, "reward": 0.9}], {"reward": "mean reward"}, "Here",
                            ""), "mean reward from 0.1 at step 1 to 0.9 at step 2"),
    (pictures, "attention"): ((["<think>", "7", "+", "7"], [[1, 0, 0, 0], [0, 1, 0, 0], [0.25, 0.75, 0, 0], [0] * 4],
                               [3]), "Attention over 4 tokens. Writing 7 at 3: 0.75 on 7 at 1."),
    (pictures, "token_heat"): (({"chosen": [("7", -0.5), ("8", -2.0)]}, "log π"), "log π. chosen: 2 tokens, -2.5 nats "
                               "in all, lowest -2.0 at 8."),
    (pictures, "temperatures"): (({0.3: {"right": 0.5, "mixed": 0.25, "tokens": 90}},), "right answers, %: 50 at 0.3; "
                                 "groups with both, %: 25 at 0.3; tokens per answer, mean: 90 at 0.3."),
    (pictures, "groups"): (([[1, -1], [-1, -1]], [[1, -1], [0, 0]]), "prompt: 1 of 2, 0 of 2. 2 of 4 answers have"),
    (pictures, "intervals"): (([("x", 1.0, 0.5, 2.0)], "gain"), "gain, with intervals: x 1.0 %, from 0.5 to 2.0."),
    (reward_hacking, "curves"): (([{"arm": "sloppy", "reward": [0.1, 0.9], "strict": [0.1, 0.0]}],),
                                 "sloppy arm, accepted 0.10 to 0.90, strictly right 0.10 to 0.00."),
}


@pytest.mark.parametrize(("module", "name"), list(WORDS))
def test_a_figure_says_its_numbers(module, name):
    arguments, words = WORDS[module, name]
    alt = getattr(module, name)(*arguments).alt
    assert words in alt and "\n" not in alt, alt


def test_every_figure_function_is_above():
    def makes_figures(module):
        functions = inspect.getmembers(module, inspect.isfunction)
        return {(module, name) for name, function in functions if not name.startswith("_")
                and inspect.signature(function).return_annotation in (plot_style.Figure, "plot_style.Figure")}

    assert set().union(*map(makes_figures, (figures, pictures, reward_hacking))) == set(WORDS)


@pytest.mark.parametrize("figure", [
    figures.lengths([]), figures.loss_curve([], "none"), figures.dpo_curves([]), figures.rl_curves([]),
    figures.ladder([]), figures.packing([], 10),
    figures.funnel({"questions": 0, "rollouts": 0, "steps": [], "verdicts": {}}),
])
def test_a_figure_of_nothing_says_so(figure):
    assert len(figure.alt) > 20


def test_the_words_are_on_a_live_page_and_in_the_saved_notebook():
    figure = figures.packing([[5, 3], [4]], 10)
    data, metadata = DisplayFormatter().format(figure)
    data["image/png"] = base64.b64encode(data["image/png"]).decode()  # as a kernel sends it
    output = nbformat.v4.new_output("display_data", data, metadata=metadata)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("figure", outputs=[output])])
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert f'alt="{figure.alt}"' in page and "No description" not in page
    (committed,) = notebooks.clean([output], [])
    assert set(committed.data) == {"image/png", "text/plain"} and committed.metadata["image/png"].alt == figure.alt


def test_the_words_are_on_our_own_page_escaped():
    figure = figures.loss_curve(LOSSES, 'a "title" <b>')
    assert "a &quot;title&quot; &lt;b&gt;, in nats" in html.picture(figure, "x", "caption")
