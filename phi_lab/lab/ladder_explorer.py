"""The published chains as lines, with a run of one's own among them: choose seeds, arms, benchmark and protocol.

    own = lab.ladder_rows()
    ladder_explorer.figure(replications.published(), own)   # all seeds, no arms, hard, sampled
    ladder_explorer.widget(replications.published(), own)   # with a running kernel

A chain is one seed from distillation to GRPO. A line is its five stages; an arm, what else the same compute would have
bought, is a mark beside the stage that it stands for. A course measures on the first half of the chains' problems, so
beside such a run the chains' numbers are those of this half.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import mean

import ipywidgets
from matplotlib import rc_context
from matplotlib.axes import Axes

from phi_lab.config.schema import STAGES
from phi_lab.core.run_folder import arm_name
from phi_lab.lab import tables
from phi_lab.report import plot_style
from phi_lab.report.chain_rows import Chain, all_names, chains
from phi_lab.report.ladder_rows import STAGE_TITLES, protocol, shipped_starts_in
from phi_lab.report.plot_style import BENCHMARKS

PROTOCOLS = {"sampled": "sampled, T = 0.6", "cool": "sampled, T = 0.3", "greedy": "greedy", "pass": "pass@k"}
OWN = "your run"
MARKERS = "D^vXP*ph"  # of arms


def own_chain(rows: Sequence[dict]) -> Chain:
    """A run's rows of ladder.json as a chain; a shipped start ("mid-shipped") is an arm of it, no rung."""
    chain = Chain(seed=-1)  # no published chain has such a seed
    for row in rows:
        chain.measured[arm_name(row["stage"], row["arm"]), row["benchmark"], protocol(row)] = {"parts": {}, **row}
    return chain


def choices(rows: Sequence[dict]) -> tuple[list[int], list[str]]:
    """(seeds, arms) of the published rows; the stages themselves are no arms."""
    made = chains(rows)
    return [chain.seed for chain in made], [name for name in all_names(made) if name not in STAGES]


def shared_part(made: Sequence[Chain], own: Chain, benchmark: str, kind: str) -> str | None:
    """The part of a benchmark's problems that a run shares with the chains: "first half" where it has half as many,
    None for all of them.
    """
    def problems(chain: Chain) -> set[float]:
        return {row["n"] / row["k"] for key, row in chain.measured.items() if key[1:] == (benchmark, kind)}

    theirs = {count for chain in made for count in problems(chain)}
    mine = problems(own)
    return "first half" if mine and theirs == {2 * count for count in mine} else None


@rc_context(plot_style.RC_PARAMS)
def figure(
    rows: Sequence[dict], own: Sequence[dict] = (), seeds: Sequence[int] | None = None, arms: Sequence[str] = (),
    benchmark: str = "hard", kind: str = "sampled",
) -> plot_style.Figure:
    """Accuracy in percent after each stage, a thin line for each chain, and a thick one for one's own run.

    rows: of chains.jsonl; own: of ladder.json; seeds: which chains (None: all); kind: one of PROTOCOLS. What was not
    measured is left out, and the figure says so where nothing is left. A run whose stages started from shipped
    checkpoints is no chain, so its points are not joined.
    """
    shown = [chain for chain in chains(rows) if seeds is None or chain.seed in seeds]
    mine = own_chain(own)
    part = shared_part(shown, mine, benchmark, kind)
    lines = [(f"seed {chain.seed}", chain, part) for chain in shown] + ([(OWN, mine, None)] if own else [])
    drawn, ((axes,),) = plot_style.panels(1, 1, (9.5, 4.6))
    title = _title(f"Right answers on {benchmark}", kind, part)
    axes.set_title(title)
    colour, ends, words = BENCHMARKS[benchmark][0], [], []
    for name, chain, of in lines:
        points = _stages(chain, benchmark, kind, of)
        if not points:
            continue
        thick = name == OWN
        style = {"color": plot_style.INK if thick else colour, "linewidth": 2.8 if thick else 1.2,
                 "linestyle": "none" if thick and shipped_starts_in(own) else "-", "marker": "o",
                 "markersize": 7 if thick else 3.5, "alpha": 1.0 if thick else 0.55, "zorder": 3 + thick}
        axes.plot(*zip(*points, strict=True), **style)
        ends.append((points[-1][1], f"{name} {points[-1][1]:.1f}", plot_style.INK if thick else plot_style.SOFT))
        words.append(f"{name} " + ", ".join(f"{value:.1f}" for _, value in points))
    words += _arms(axes, lines, arms, benchmark, kind)
    if not words:
        plot_style.empty(axes, f"{benchmark} was not measured so, or no chain is chosen")
        drawn.alt = f"Nothing to show: no chosen chain has {benchmark}, {PROTOCOLS[kind]}."
        return drawn
    axes.set_xticks(range(len(STAGES)), [STAGE_TITLES[stage] for stage in STAGES])
    last = sum(arm.startswith(STAGES[-1]) for arm in arms)
    axes.set(ylabel="right answers, %", xlim=(-0.25, len(STAGES) - 1 + 0.15 + 0.09 * last))
    low, high = axes.get_ylim()
    heights = plot_style.spread([end[0] for end in ends], (high - low) / 22, high)
    for (_, label, ink), y in zip(ends, heights, strict=True):
        axes.annotate(label, (1.01, y), xycoords=("axes fraction", "data"), va="center", color=ink, fontsize=9,
                      fontweight="bold" if label.startswith(OWN) else "normal", annotation_clip=False)
    drawn.alt = (f"{title}, percent after {', '.join(STAGE_TITLES.values())}: "
                 f"{'; '.join(words)}.")
    return drawn


def _title(what: str, kind: str, part: str | None) -> str:
    """What a figure or a table shows, by which protocol, and on which problems unless on all."""
    return f"{what}, {PROTOCOLS[kind]}{f', {part} of the problems' if part else ''}"


def _stages(chain: Chain, benchmark: str, kind: str, part: str | None) -> list[tuple[float, float]]:
    """(place, percent) of each stage of a chain that was measured so."""
    found = [(place, chain.accuracy(stage, benchmark, kind, part)) for place, stage in enumerate(STAGES)]
    return [(float(place), 100 * share) for place, share in found if share is not None]


def _arms(
    axes: Axes, lines: Sequence[tuple[str, Chain, str | None]], arms: Sequence[str], benchmark: str, kind: str
) -> list[str]:
    """Marks of the arms, right of the stage that each stands for; in words the mean of each."""
    words = []
    beside: Counter[str] = Counter()  # arms of a stage so far
    for number, arm in enumerate(arms):
        stage = arm.partition("-")[0]
        beside[stage] += 1
        x = STAGES.index(stage) + 0.09 * beside[stage]
        values = [(name, 100 * share) for name, chain, part in lines
                  if (share := chain.accuracy(arm, benchmark, kind, part)) is not None]
        for place, (name, value) in enumerate(values):
            axes.plot([x], [value], MARKERS[number % len(MARKERS)], markersize=7 if name == OWN else 5.5,
                      markerfacecolor=plot_style.INK if name == OWN else plot_style.PAGE, zorder=4,
                      color=plot_style.SERIES[number % len(plot_style.SERIES)], linestyle="none",
                      label=arm if not place else None)
        if values:
            words.append(f"{arm} in the mean {mean(value for _, value in values):.1f}")
    if words:
        axes.legend(loc="lower right", fontsize=9)
    return words


def place_of_own(
    rows: Sequence[dict], own: Sequence[dict], seeds: Sequence[int] | None = None, benchmark: str = "hard",
    kind: str = "sampled",
) -> str:
    """A table: for each stage, one's own percent, the chosen chains' lowest, mean and highest, and where it stands; on
    the same problems.
    """
    shown, mine = [chain for chain in chains(rows) if seeds is None or chain.seed in seeds], own_chain(own)
    part, lines = shared_part(shown, mine, benchmark, kind), []
    for stage in STAGES:
        values = [100 * share for chain in shown if (share := chain.accuracy(stage, benchmark, kind, part)) is not None]
        share = mine.accuracy(stage, benchmark, kind)
        if not values:
            continue
        here = "–" if share is None else f"{100 * share:.1f}"
        above = "–" if share is None else f"above {sum(100 * share > value for value in values)} of {len(values)}"
        spread = (f"{value:.1f}" for value in (min(values), mean(values), max(values)))
        lines.append((STAGE_TITLES[stage], here, *spread, above))
    head = ("stage", OWN, "lowest chain", "mean", "highest", "your run stands")
    return tables.table(f"{_title(f'Percent right on {benchmark}', kind, part)}.", head, lines) if lines else ""


def widget(rows: Sequence[dict], own: Sequence[dict] = ()) -> ipywidgets.Widget:
    """Tick seeds and arms, choose a benchmark and a protocol."""
    seeds, arms = choices(rows)
    seed_boxes = {seed: _tick(f"seed {seed}", True) for seed in seeds}
    arm_boxes = {arm: _tick(arm, False) for arm in arms}
    mine = _tick(OWN, bool(own))
    benchmark = ipywidgets.Dropdown(options=list(BENCHMARKS), value="hard", description="benchmark")
    kind = ipywidgets.Dropdown(options=[(title, name) for name, title in PROTOCOLS.items()], description="protocol")
    view = ipywidgets.HTML()

    def ticked(boxes: dict) -> list:
        return [name for name, box in boxes.items() if box.value]

    def show(*_) -> None:
        chosen, here = ticked(seed_boxes), own if mine.value else ()
        view.value = (figure(rows, here, chosen, ticked(arm_boxes), benchmark.value, kind.value)._repr_html_()
                      + place_of_own(rows, here, chosen, benchmark.value, kind.value))

    return _observed(show, [*seed_boxes.values(), mine], list(arm_boxes.values()), [benchmark, kind], view)


def _tick(name: str, value: bool) -> ipywidgets.Checkbox:
    return ipywidgets.Checkbox(value, description=name, indent=False, layout=ipywidgets.Layout(width="9em"))


def _observed(show: Callable, *parts: list | ipywidgets.Widget) -> ipywidgets.Widget:
    """Rows of controls over a view, redrawn whenever one of them changes."""
    *rows, view = parts
    for control in (control for row in rows for control in row):
        control.observe(show, "value")
    show()
    wrapped = ipywidgets.Layout(flex_flow="row wrap")
    return ipywidgets.VBox([*(ipywidgets.Box(row, layout=wrapped) for row in rows), view])
