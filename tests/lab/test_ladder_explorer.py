"""The ladder explorer: which lines are drawn, what they say, and what the ticks change."""

import pytest

from phi_lab.lab import ladder_explorer
from phi_lab.lab.ladder_explorer import OWN
from phi_lab.report.chain_rows import published

STAGES = ("base", "mid", "sft", "dpo", "grpo")


def measured(stage, arm, accuracy, benchmark="hard", kind="sampled"):
    return {"stage": stage, "arm": arm, "benchmark": benchmark, "protocol": kind, "accuracy": accuracy, "k": 1,
            "pass_at_k": accuracy + 0.1 if kind == "pass" else None, "parts": {}, "temperature": 0.6, "n": 100}


def row(seed, name, accuracy):
    stage, _, arm = name.partition("-")
    kinds = [measured(stage, arm or "main", accuracy), measured(stage, arm or "main", accuracy, kind="pass"),
             measured(stage, arm or "main", 0.9, benchmark="easy")]
    return {"seed": seed, "name": name, "measurements": kinds}


ROWS = [row(seed, name, 0.1 * place + 0.01 * seed) for seed in (6, 7) for place, name in enumerate(STAGES, 1)]
ROWS += [row(6, "grpo-rft", 0.55), row(7, "grpo-rft", 0.45), row(6, "sft-control", 0.2)]
RUN = [measured(stage, "main", 0.15 * place) for place, stage in enumerate(STAGES, 1)]
RUN += [measured("grpo", "rft", 0.6)]


def drawn(figure):
    """(y values) of each line with more than one point."""
    return [list(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_ydata()) > 1]


def test_a_line_for_each_seed_and_one_for_one_s_own_run():
    figure = ladder_explorer.figure(ROWS, RUN)
    assert drawn(figure) == [pytest.approx(values) for values in (
        [16, 26, 36, 46, 56], [17, 27, 37, 47, 57], [15, 30, 45, 60, 75])]
    assert f"{OWN} 15.0, 30.0, 45.0, 60.0, 75.0" in figure.alt and "seed 7 17.0" in figure.alt
    assert "grpo-rft" not in figure.alt


def test_seeds_and_arms_are_chosen():
    figure = ladder_explorer.figure(ROWS, RUN, seeds=[7], arms=["grpo-rft", "sft-control"])
    assert len(drawn(figure)) == 2 and "seed 6" not in figure.alt
    assert "grpo-rft in the mean 52.5" in figure.alt, "of seed 7 and the run"
    assert "sft-control" not in figure.alt, "seed 7 has none"
    points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines if len(line.get_ydata()) == 1]
    assert points == [pytest.approx((4.09, 45)), pytest.approx((4.09, 60))]


def test_benchmark_and_protocol_are_chosen():
    assert drawn(ladder_explorer.figure(ROWS, RUN, benchmark="easy")) == [pytest.approx([90] * 5)] * 2, "not in the run"
    assert drawn(ladder_explorer.figure(ROWS, kind="pass"))[0] == pytest.approx([26, 36, 46, 56, 66])
    nothing = ladder_explorer.figure(ROWS, RUN, kind="cool")
    assert nothing.alt.startswith("Nothing to show") and not drawn(nothing)
    assert ladder_explorer.figure(ROWS, seeds=[]).alt.startswith("Nothing to show")


def test_a_run_of_half_the_problems_stands_beside_that_half_of_the_chains():
    """On the whole seed 6 ends at 56 %, on the first half at 60 %: a run with 58 % is below it, not above."""
    chains = [{**one, "measurements": [
        {**each, "parts": {"first half": [round(50 * each["accuracy"]) + 2, 50]} if each["benchmark"] == "hard" else {}}
        for each in one["measurements"]]} for one in ROWS]
    run = [{**one, "n": 50, "accuracy": 0.58} for one in RUN]
    figure = ladder_explorer.figure(chains, run, seeds=[6])
    assert drawn(figure)[0][-1] == pytest.approx(60)
    assert "first half of the problems" in figure.alt
    table = ladder_explorer.place_of_own(chains, run, seeds=[6])
    assert "first half" in table and "60.0" in table and "above 0 of 1" in table.split("GRPO")[1]
    assert "above 1 of 1" in ladder_explorer.place_of_own(chains, [{**one, "n": 100} for one in run], seeds=[6])


def test_a_run_of_separate_stages_is_not_joined():
    """In the profile smoke each stage starts from a shipped checkpoint, whose rows are no rung."""
    shipped = [*RUN, measured("mid", "shipped", 0.99)]
    line = ladder_explorer.figure([], shipped).axes[0].lines[0]
    assert line.get_linestyle() == "None" and max(line.get_ydata()) == pytest.approx(75)
    assert ladder_explorer.figure([], RUN).axes[0].lines[0].get_linestyle() == "-"


def test_where_the_run_stands():
    page = ladder_explorer.place_of_own(ROWS, RUN)
    lines = [[cell.rpartition(">")[2] for cell in line.split("</td>")[:-1]] for line in page.split("<tr>")[2:]]
    assert lines[0] == ["base", "15.0", "16.0", "16.5", "17.0", "above 0 of 2"]
    assert lines[-1] == ["GRPO", "75.0", "56.0", "56.5", "57.0", "above 2 of 2"]
    assert ladder_explorer.place_of_own(ROWS, []).count("–") == 10
    assert ladder_explorer.place_of_own(ROWS, RUN, seeds=[]) == ""


def test_the_ticks_redraw():
    box = ladder_explorer.widget(ROWS, RUN)
    (seeds, arms, choice), view = (part.children for part in box.children[:3]), box.children[3]
    assert [one.description for one in seeds] == ["seed 6", "seed 7", OWN]
    assert [one.description for one in arms] == ["grpo-rft", "sft-control"]
    twin = ladder_explorer.figure(ROWS, RUN)._repr_html_() + ladder_explorer.place_of_own(ROWS, RUN)
    assert view.value == twin, "the first state is the static twin's"
    for control, value, said in ((seeds[0], False, "above 1 of 1"), (arms[0], True, "grpo-rft in the mean"),
                                 (seeds[2], False, "–"), (choice[0], "easy", "90.0"), (choice[1], "cool", "Nothing")):
        before = view.value
        control.value = value
        assert view.value != before and said in view.value


def test_the_published_chains_can_be_explored():
    rows = published()
    seeds, arms = ladder_explorer.choices(rows)
    assert len(seeds) > 1 and "grpo-rft" in arms and not set(arms) & set(STAGES)
    figure = ladder_explorer.figure(rows, arms=arms)
    assert len(drawn(figure)) == len(seeds)
