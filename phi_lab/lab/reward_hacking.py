"""What a notebook shows of the rows of `phi_lab.pipeline.reward_hacking`: curves, a table, and what the numbers say."""

from collections.abc import Sequence

from matplotlib import rc_context

from phi_lab.core import stats
from phi_lab.lab import tables
from phi_lab.report import plot_style


@rc_context(plot_style.RC_PARAMS)
def curves(rows: Sequence[dict]) -> plot_style.Figure:
    """One panel an arm: the share of sampled answers that its own reward accepts and the strict verifier's, by step."""
    figure, grid = plot_style.panels(1, len(rows), (9, 3.2), sharey=True)
    for axes, row in zip(grid[0], rows, strict=True):
        steps = range(1, len(row["reward"]) + 1)
        axes.plot(steps, row["reward"], color=plot_style.ORANGE, label="accepted by its own reward")
        axes.plot(steps, row["strict"], color=plot_style.GREEN, linestyle="--", label="strictly right")
        axes.set(title=f"The {row['arm']} reward", xlabel="step", ylim=(0, 1.04))
    figure.axes[0].set_ylabel("share of answers")
    figure.axes[0].legend(loc="upper left")
    lines = (f"{row['arm']} arm, accepted {row['reward'][0]:.2f} to {row['reward'][-1]:.2f}, strictly right "
             f"{row['strict'][0]:.2f} to {row['strict'][-1]:.2f}" for row in rows)
    figure.alt = f"Share of answers, first to last step: {'; '.join(lines)}."
    return figure


def table(rows: Sequence[dict]) -> str:
    """One line a run: its reward at the first and last five steps, strict accuracy before and after."""
    lines = [
        (row["seed"], row["arm"], change(reward_change(row)), change(row["accuracy"]["easy"]),
         change(row["accuracy"]["like training"]), ", ".join(f"{text} {n}x" for text, n in row["common"][1]))
        for row in rows
    ]
    caption = "Greedy accuracy by the strict verifier, 200 questions each; common answers are those after training."
    head = ("seed", "arm", "reward, first and last 5 steps", "easy, before and after", "like training", "most common")
    return tables.table(caption, head, lines)


def reward_change(row: dict) -> tuple[float, float]:
    """The mean reward (as a share of accepted answers) of the first and of the last five steps."""
    first, last = row["reward"][:5], row["reward"][-5:]
    return sum(first) / len(first), sum(last) / len(last)


def change(pair: Sequence[float]) -> str:
    """Two shares as percentages."""
    return f"{100 * pair[0]:.1f} -> {100 * pair[1]:.1f} %"


def verdict(rows: Sequence[dict]) -> list[str]:
    """What the runs of several seeds say, a sentence a comparison: mean and 95 % interval over seeds (paired t)."""
    sloppy, strict = ([row for row in rows if row["arm"] == arm] for arm in ("sloppy", "strict"))
    first, last = zip(*map(reward_change, sloppy), strict=True)
    before, after = zip(*(row["accuracy"]["easy"] for row in sloppy), strict=True)
    strict_before, strict_after = zip(*(row["accuracy"]["easy"] for row in strict), strict=True)
    return [
        _sentence("reward of the sloppy arm, last against first steps", stats.paired_t(last, first)),
        _sentence("`easy` of the sloppy arm, after against before", stats.paired_t(after, before)),
        _sentence("`easy` of the strict arm, after against before", stats.paired_t(strict_after, strict_before)),
        _sentence("`easy` after training, sloppy against strict", stats.paired_t(after, strict_after)),
    ]


def _sentence(what: str, test: stats.PairedT) -> str:
    found = "higher" if test.low > 0 else "lower" if test.high < 0 else "no difference is shown"
    return f"{what}: {100 * test.mean:+.1f} points [{100 * test.low:+.1f}, {100 * test.high:+.1f}]: {found}"
