"""What a report says first: the accuracies at a glance, and a run in five sentences, each read from its files."""

from collections.abc import Sequence

from phi_lab.core.formatting import percent
from phi_lab.report import html
from phi_lab.report.doctor import Checked, show
from phi_lab.report.ladder_rows import SHIPPED_START, STAGE_TITLES, model_title, protocol, shipped_starts_in
from phi_lab.report.plot_style import BENCHMARKS

SUBTITLE = ("scale", "profile", "seed")  # the keys of config.json that stand under the title
MEANING = {  # of the course's own benchmarks; another set that stands for one of them has its own name instead
    "easy": "one operation", "hard": "three to seven operations",
    "transfer": "puzzles of logic, which no stage trains on",
}
ARMS = {
    "paper": "the paper's pairs", "control": "a rival at equal compute", "own": "the student's own pairs",
    "rft": "rejection fine-tuning", "sft": "the teacher's fresh answers", "coin": "a coin's reward",
}


def arm_title(stage: str, arm: str = "main") -> str:
    """What a model of the ladder is, as HTML."""
    if arm == SHIPPED_START:
        return model_title(f"{stage}-{SHIPPED_START}")
    meaning = f" ({ARMS[arm]})" if arm in ARMS else ""
    return STAGE_TITLES[stage] if arm == "main" else f"{STAGE_TITLES[stage]}, arm “{html.text(arm)}”{meaning}"


def shipped_starts_note(rows: list[dict]) -> str:
    """One sentence: which stages started from a shipped checkpoint, not from the run's own stage before; else ""."""
    names = [STAGE_TITLES[stage] for stage in shipped_starts_in(rows)]
    if not names:
        return ""
    subject = f"{', '.join(names[:-1])} and {names[-1]} start" if names[1:] else f"{names[0]} starts"
    return f"{subject} from the shipped checkpoint of the stage before, not from this run's own."


def sampled_chain(rows: list[dict], benchmark: str) -> list[tuple[tuple[str, str], dict]]:
    """((stage, arm), row) of the models that were trained one from the other, in their order, as sampled on a
    benchmark. What comes before a shipped start is not part of the chain.
    """
    found = {(row["stage"], row["arm"]): row for row in rows
             if (row["benchmark"], protocol(row)) == (benchmark, "sampled")}
    starts, chain = shipped_starts_in(rows), []
    for stage in STAGE_TITLES:
        if (start := (starts.get(stage), SHIPPED_START)) in found:
            chain = [(start, found[start])]
        if (own := (stage, "main")) in found:
            chain.append((own, found[own]))
    return chain


def head(config: dict, rows: list[dict], expected: str | None, checked: Sequence[Checked]) -> str:
    """The title, a tile for each benchmark, and what the run says in sentences.

    expected: the line of `expectation.compare_with_chains`; checked: what the doctor read, of all stages.
    """
    subtitle, names = html.text(" · ".join(f"{key} {config[key]}" for key in SUBTITLE if key in config)), _sets(config)
    tiles = ""
    for benchmark in BENCHMARKS:
        if chain := sampled_chain(rows, benchmark):
            ends = dict.fromkeys((0, len(chain) - 1))  # a single stage is named once
            shares = " → ".join(percent(chain[end][1]["accuracy"]) for end in ends)
            titles = " → ".join(arm_title(*chain[end][0]) for end in ends)
            tiles += (f'<div>{benchmark}<b>{shares}</b><span class="soft">{titles}<br>'
                      f"{html.text(names[benchmark])}</span></div>")
    sentences = "".join(f"<p>{line}</p>" for line in _sentences(rows, names, expected, checked))
    return f'<h1>phi-lab report</h1><p class="soft">{subtitle}</p><div class="tiles">{tiles}</div>{sentences}'


def _sets(config: dict) -> dict[str, str]:
    """What stands behind each benchmark: the small world's questions, or another set's name."""
    settings = config.get("config", {})
    names = settings.get("evaluation", {}).get("benchmarks", ()) if isinstance(settings, dict) else ()
    found = dict(MEANING)
    found.update({name: given or "left out" for name, given in zip(MEANING, names, strict=False) if given != name})
    return found


def _sentences(
    rows: list[dict], names: dict[str, str], expected: str | None, checked: Sequence[Checked]
) -> list[str]:
    lines, chain = [], sampled_chain(rows, "hard")
    if note := shipped_starts_note(rows):
        lines.append(f"Not one chain: {note} The tiles begin where the last of them started.")
    if len(chain) > 1:
        (first, before), (last, after) = chain[0], chain[-1]
        lines.append(
            f"<b>hard</b>, {html.text(names['hard'])}: {_interval(before)} ({arm_title(*first)}), then "
            f"{_interval(after)} ({arm_title(*last)}). The intervals are over problems, of one run."
        )
        gains = [f"{arm_title(*stage)} {100 * (row['accuracy'] - past['accuracy']):+.1f}{_overlap(past, row)}"
                 for (_, past), (stage, row) in zip(chain, chain[1:], strict=False)]
        lines.append(f"Points that each stage adds: {', '.join(gains)}. Where intervals overlap, they cannot tell a "
                     "gain from chance; notebook 06 compares the same problems before and after, which sees more.")
    if expected:
        lines.append(f"Beside other seeds: {html.text(expected)}.")
    if len(other := sampled_chain(rows, "transfer")) > 1:
        change = 100 * (other[-1][1]["accuracy"] - other[0][1]["accuracy"])
        lines.append(f"<b>transfer</b>, {html.text(names['transfer'])}, changes by {change:+.1f} points: how much is "
                     "kept of what the stages do not teach.")
    if checked:
        lines.append(f"The doctor: {html.text(show.summary(checked))}.")
    return lines


def _interval(row: dict) -> str:
    return f"{percent(row['accuracy'])} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"


def _overlap(before: dict, after: dict) -> str:
    apart = after["ci_low"] > before["ci_high"] or after["ci_high"] < before["ci_low"]
    return "" if apart else " (intervals overlap)"
