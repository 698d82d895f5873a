"""Every figure: the numbers that went in are the heights, lengths and labels that came out."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from phi_lab.report import figures, figures_ladder, plot_style


def ladder_row(stage, benchmark, accuracy, arm="main", temperature=0.6, pass_at_k=None):
    return {
        "stage": stage, "arm": arm, "benchmark": benchmark, "n": 100, "accuracy": accuracy,
        "correct": round(100 * accuracy), "ci_low": accuracy - 0.05, "ci_high": accuracy + 0.03,
        "temperature": temperature, "k": 1, "pass_at_k": pass_at_k, "seconds": 10,
        "train_tokens": 1000, "peak_rss_mb": 900, "seed": 0,
    }


LADDER = [
    ladder_row("mid", "hard", 0.55), ladder_row("base", "hard", 0.10), ladder_row("grpo", "hard", 0.80),
    ladder_row("base", "easy", 0.70), ladder_row("mid", "easy", 0.90), ladder_row("grpo", "easy", 0.95),
    ladder_row("base", "hard", 0.99, temperature=0.0), ladder_row("base", "hard", 0.98, pass_at_k=0.5),
    ladder_row("mid", "hard", 0.45, arm="own"),
]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_ladder_draws_sampled_rows_in_order_with_their_intervals():
    axes = figures.ladder(LADDER).axes[0]
    bars = {container.get_label(): container for container in axes.containers}
    assert set(bars) == {"easy", "hard", "hard, arm own"}
    line, _, (whiskers,) = bars["hard"].lines
    assert list(line.get_ydata()) == pytest.approx([10, 55, 80])
    assert [round(x) for x in line.get_xdata()] == [0, 1, 2]
    ends = [segment[:, 1] for segment in whiskers.get_segments()]
    assert np.allclose(ends, [[5, 13], [50, 58], [75, 83]])
    assert list(bars["hard, arm own"].lines[0].get_ydata()) == pytest.approx([45])
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["base", "mid-training", "GRPO"]
    assert {"easy 95.0 %", "hard 80.0 %", "own"} <= set(texts(axes))


def test_a_stage_that_started_from_a_shipped_checkpoint_is_joined_to_that_and_to_nothing_else():
    rows = [
        ladder_row("base", "hard", 0.0), ladder_row("mid", "hard", 0.1), ladder_row("sft", "hard", 0.6),
        ladder_row("dpo", "hard", 0.7),
    ]
    chain = figures.ladder(rows, paper=False).axes[0]
    assert [len(line.get_xdata()) for line in chain.lines if line.get_linestyle() == "-"] == [4]
    axes = figures.ladder([*rows, ladder_row("mid", "hard", 0.65, arm="shipped")], paper=False).axes[0]
    bars = [container for container in axes.containers if container.get_label() == "hard"]
    assert [list(bar.lines[0].get_ydata()) for bar in bars] == [pytest.approx([0, 10]), pytest.approx([60, 70])]
    (broken,) = [line for line in axes.lines if "shipped" in str(line.get_label())]
    assert list(broken.get_ydata()) == pytest.approx([65, 60]) and broken.get_linestyle() == "--"
    assert 1 < broken.get_xdata()[0] < broken.get_xdata()[1] == pytest.approx(2, abs=0.1)
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["base", "mid-training", "SFT\nstarts from\nshipped mid", "Rollout DPO"]
    assert "from a shipped checkpoint" in axes.get_title(loc="left") != chain.get_title(loc="left")


def test_every_mark_of_the_ladder_lies_within_its_axes():
    """Also where the last stage has arms, and more of them than the stages before."""
    rows = [ladder_row(stage, "hard", 0.5) for stage in ("base", "mid", "sft", "dpo")]
    rows += [ladder_row("sft", "hard", 0.4) | {"arm": "control"}]
    rows += [ladder_row("dpo", "hard", 0.4) | {"arm": arm} for arm in ("control", "own", "paper")]
    axes = figures.ladder(rows).axes[0]
    marks = {container.get_label(): list(container.lines[0].get_xdata()) for container in axes.containers}
    assert max(x for one in marks.values() for x in one) < axes.get_xlim()[1] - 0.1
    assert marks["hard, arm control"] == pytest.approx([2.22, 3.22])  # first of its stage, both times
    (own,), (paper,) = marks["hard, arm own"], marks["hard, arm paper"]
    assert 3.22 < own < paper < 3.5


def test_ladder_with_the_paper_without_it_and_with_nothing():
    paper = figures.ladder(LADDER).axes[1]
    drawn = [list(line.get_ydata()) for line in paper.lines]
    assert drawn == [list(values) for _, values in figures_ladder.PAPER.values()]
    assert "AIME 2024 57.5 %" in texts(paper)
    assert len(figures.ladder(LADDER, paper=False).axes) == 1
    assert "nothing measured yet" in texts(figures.ladder([]).axes[0])


def test_ladder_bears_an_accuracy_rounded_out_of_its_interval():
    row = ladder_row("base", "easy", 1.0) | {"ci_high": 0.9999}
    assert figures.ladder([row])


def test_ladder_labels_keep_apart():
    rows = [ladder_row("base", name, 0.5 + i / 100) for i, name in enumerate(plot_style.BENCHMARKS)]
    heights = [t.xy[1] for t in figures.ladder(rows, paper=False).axes[0].texts]
    assert np.diff(sorted(heights)).min() > 6


FUNNEL = {
    "questions": 50,
    "rollouts": 400,
    "steps": [
        {"name": "right", "kept": 300, "removed": 100, "why": "wrong, $10 off_by_one"},
        {"name": "unique", "kept": 290, "removed": 10, "why": "a copy"},
    ],
    "verdicts": {"right": 300, "wrong": 90, "unfinished": 0, "unparsed": 10, "timeout": 0},
}


def test_funnel_has_a_bar_a_step_and_a_piece_a_verdict():
    axes, bar = figures.funnel(FUNNEL).axes
    assert [p.get_width() for p in axes.patches] == [400, 300, 290, 0, 100, 10]
    assert [p.get_x() for p in axes.patches[3:]] == [400, 300, 290]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["sampled", "right", "unique"]
    assert any("$10 off_by_one" in text for text in texts(axes))
    assert axes.get_title(loc="left") == "50 questions, 400 rollouts"
    assert [p.get_width() for p in bar.patches] == [300, 90, 10]
    assert [p.get_x() for p in bar.patches] == [0, 300, 390]
    legend = [text.get_text() for text in bar.get_legend().get_texts()]
    assert legend == ["right 300", "wrong 90", "unparsed 10"]


def test_funnel_of_nothing():
    empty = {"questions": 0, "rollouts": 0, "steps": [], "verdicts": {}}
    assert figures.funnel(empty).axes[0].patches[0].get_width() == 0


def test_lengths_counts_every_answer_in_its_own_panel():
    rows = [{"tokens": n, "verdict": "right", "style": "terse"} for n in (10, 20, 30, 30)]
    rows += [{"tokens": 90, "verdict": "wrong", "style": "checking"}]
    figure = figures.lengths(rows)
    assert [sum(p.get_height() for p in axes.patches) for axes in figure.axes] == [4, 1]
    assert figure.axes[0].get_title(loc="left") == "right: 4 answers, median 25 tokens"
    assert list(figure.axes[0].lines[0].get_xdata()) == [25, 25]
    assert to_hex(figure.axes[1].patches[0].get_facecolor()) == plot_style.VERDICTS["wrong"]
    titles = [axes.get_title(loc="left") for axes in figures.lengths(rows, by="style").axes]
    assert [title.split(":")[0] for title in titles] == ["checking", "terse"]
    assert texts(figures.lengths([]).axes[0]) == ["no rollouts"]


def test_loss_curve_marks_best_and_stop():
    rows = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}, {"step": 20, "eval_loss": 1.2}]
    rows += [{"step": 30, "loss": 0.9}, {"step": 30, "eval_loss": 1.3}, {"step": 40, "loss": None}]
    axes = figures.loss_curve(rows, "Mid-training").axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["training"].get_ydata()) == [2.0, 1.0, 0.9]
    assert list(lines["validation"].get_xdata()) == [20, 30]
    assert list(lines["best: 1.200 at 20"].get_ydata()) == [1.2]
    assert "stopped at step 30" in texts(axes)
    assert axes.get_title(loc="left") == "Mid-training"
    assert "mathdefault" not in plot_style.to_svg(figures.loss_curve(rows, "Mid-training"), "x")  # a formula, shown raw
    assert "no loss was logged" in texts(figures.loss_curve([], "none").axes[0])


def test_the_loss_has_ticks_on_either_axis():
    """Below a decade a logarithmic axis has one tick or none."""
    for values, scale in (((0.06, 0.04), "linear"), ((2.0, 0.05), "log")):
        axes = figures.loss_curve([{"step": n, "loss": value} for n, value in enumerate(values)], "x").axes[0]
        axes.figure.canvas.draw()
        low, high = axes.get_ylim()
        shown = [label.get_text() for label in axes.get_yticklabels(which="both") if label.get_text()
                 and low <= label.get_position()[1] <= high]
        assert axes.get_yscale() == scale and len(shown) >= 3


def test_long_curves_are_smoothed_over_their_raw_values():
    noisy = [{"step": s, "loss": 1.0 + 0.5 * (-1) ** s} for s in range(300)]
    raw, smooth = figures.loss_curve(noisy, "x").axes[0].lines[:2]
    assert list(raw.get_ydata()) == [row["loss"] for row in noisy]
    assert len(smooth.get_ydata()) == 300
    assert np.abs(np.array(smooth.get_ydata())[20:-20] - 1).max() < 0.06


def test_dpo_curves_show_both_sides_and_their_difference():
    rows = [
        {
            "step": s, "logps/chosen": -10.0 + s, "logps/rejected": -20.0 - s,
            "rewards/chosen": 0.5 * s, "rewards/rejected": -0.25 * s, "rewards/accuracies": 0.75,
        }
        for s in (1, 2, 3)
    ]
    first, second, third = figures.dpo_curves([*rows, {"step": 3, "eval_loss": 1.0}]).axes
    sides = {line.get_label(): list(line.get_ydata()) for line in first.lines}
    assert sides == {"chosen": [-9, -8, -7], "rejected": [-21, -22, -23]}
    assert list(second.lines[0].get_ydata()) == [0.75, 1.5, 2.25]
    assert list(third.lines[0].get_ydata()) == [0.75] * 3
    assert all("not logged" in texts(axes) for axes in figures.dpo_curves([]).axes)


def test_rl_curves_have_a_panel_a_measure():
    keys = ("reward", "zero_variance_share", "kept_share", "mean_length", "entropy", "temperature")
    rows = [{"step": s} | {key: i + s / 10 for i, key in enumerate(keys)} for s in range(4)]
    panels = figures.rl_curves(rows).axes
    for index, axes in enumerate(panels):
        assert list(axes.lines[0].get_ydata()) == pytest.approx([index + s / 10 for s in range(4)])
    assert panels[5].get_title(loc="left") == "Sampling temperature"
    without = figures.rl_curves([{"step": 1, "reward": 0.5, "entropy": float("nan")}]).axes
    assert [bool(texts(axes)) for axes in without] == [False, True, True, True, True, True]


def test_packing_draws_documents_end_to_end():
    axes = figures.packing([[5, 3], [4]], row_length=10).axes[0]
    assert [p.get_width() for p in axes.patches] == [10, 5, 3, 10, 4]
    assert [p.get_x() for p in axes.patches] == [0, 0, 5, 0, 0]
    documents = [to_hex(axes.patches[i].get_facecolor()) for i in (1, 2, 4)]
    assert len({*documents, plot_style.LINE}) == 4
    assert axes.get_title(loc="left") == "3 documents in 2 rows: 60 % used"
    many = figures.packing([[5]] * 30, row_length=10).axes[0]
    assert len(many.patches) == 48 and "the first 24 drawn" in many.get_title(loc="left")
    assert "0 documents" in figures.packing([], row_length=10).axes[0].get_title(loc="left")
    with pytest.raises(ValueError):
        figures.packing([[6, 5]], row_length=10)


def test_temperature_schedule_draws_the_function():
    def cooling(step, steps):
        return max(0.6, 1 - 0.8 * step / steps)

    axes = figures.temperature_schedule(cooling, 11).axes[0]
    assert list(axes.lines[0].get_ydata()) == [cooling(step, 11) for step in range(11)]
    assert "half-way" in texts(axes)


def test_figures_show_themselves_sharply_and_leave_no_trace():
    before = dict(matplotlib.rcParams)
    image, size = figures.funnel(FUNNEL)._repr_png_()
    assert dict(matplotlib.rcParams) == before
    assert image.startswith(b"\x89PNG")
    width = int.from_bytes(image[16:20], "big")
    assert width == pytest.approx(2 * size["width"], abs=2)


def test_svg_is_sound_themed_unique_and_the_same_twice():
    hostile = FUNNEL | {"steps": [FUNNEL["steps"][0] | {"why": "</svg><script>alert(1)</script>&"}]}
    first, second = (plot_style.to_svg(figures.funnel(hostile), "one") for _ in range(2))
    assert first == second
    root = ElementTree.fromstring(first)
    assert "script" not in {element.tag.split("}")[-1] for element in root.iter()}
    assert "var(--ink)" in first and plot_style.INK not in first
    ids = {element.get("id") for element in root.iter()} - {None}
    assert ids and all(name.startswith("one-") for name in ids)
    for target in re.findall(r'(?:url\(#|href="#)([^)"]+)', first):
        assert target in ids
    assert "</svg><script>" in "".join(root.itertext())  # as text, which is what it is


@pytest.mark.parametrize(("heights", "placed"), [
    ([], []), ([5.0], [5.0]), ([1.0, 9.0], [1.0, 9.0]), ([5.0, 5.0], [4.5, 5.5]),
    ([10.0, 10.0, 10.0, 30.0], [9.0, 10.0, 11.0, 30.0]),
    ([3.0, 1.0, 2.8], [3.4, 1.0, 2.4]),  # by height, whatever their order
    ([1.0, 1.0, 2.0], [1 / 3, 4 / 3, 7 / 3]),  # the third is pushed by the first two
])
def test_labels_keep_apart_and_move_as_little_as_possible(heights, placed):
    assert plot_style.spread(heights, 1.0) == pytest.approx(placed)


def test_many_labels_of_the_same_height_do_not_overlap():
    placed = plot_style.spread([80.0 + 0.01 * one for one in range(30)], 4.0)
    assert all(above - below > 4 - 1e-6 for below, above in itertools.pairwise(placed))
    assert sum(placed) / 30 == pytest.approx(80.145)


def test_no_label_stands_above_the_axes():
    """Pushed down from the top, those below it make room, and one that is far enough away stays."""
    assert plot_style.spread([9.0, 9.0, 9.4, 2.0], 1.0, top=9.5) == pytest.approx([7.5, 8.5, 9.5, 2.0])
    assert plot_style.spread([5.0, 5.0], 1.0, top=9.5) == pytest.approx([4.5, 5.5])
