"""The paper's values, each with its source, and a table that compares them with every scale's.

Source: arXiv 2504.21233, as collected from second-hand notes where its text could not be read; each value says where it
is from. The numbers of its sections are from memory, unchecked.
"""

from collections.abc import Iterable
from dataclasses import fields
from math import isinf
from typing import NamedTuple

from phi_lab.config.schema import STAGES, HardwareConfig, RunConfig


class PaperValue(NamedTuple):
    """A value of the paper (None: unknown) and its source: a section of arXiv 2504.21233, with a mark of certainty.

    The marks are explained in notebook 00.
    """

    value: object
    source: str


UNKNOWN = PaperValue(None, "[U]")
REPORT = "[P] an earlier report, arXiv 2503.01743; the paper's own [U]"
PAPER = {  # by this project's names of settings, where it has the setting; K is read as 1,024 [I]
    "distillation": {
        "questions": PaperValue(1_600_000, "section 3, data [S2]"),
        "rollouts": PaperValue(10_000_000, "section 3, data [S2]"),
        "samples": PaperValue(8, "about; model card [P], [S2]"), "teacher": PaperValue("DeepSeek-R1", "[S2]"),
        "problems": PaperValue(None, "[U]; more than a million, model card [P]"), "decontaminate_against": UNKNOWN,
    },
    "mid": {
        "row_length": PaperValue(16384, "section 3.1 [S]"), "batch_size": PaperValue(128, "section 3.1 [S]"),
        "learning_rate": PaperValue(1e-5, "section 3.1 [S]"), "epochs": PaperValue(5, "section 3.1 [S]"),
        "steps": PaperValue(71_500, "[I] 150 B tokens, model card [P], in steps of 128 x 16,384"),
        "warmup_ratio": PaperValue(0.1, "section 3.1 [S]"), "packed": PaperValue(True, "section 3.1 [S2]"),
        "lr_schedule": UNKNOWN, "weight_decay": UNKNOWN,
    },
    "sft": {
        "row_length": PaperValue(20480, "section 3.2 [S]"), "batch_size": PaperValue(128, "section 3.2 [S]"),
        "learning_rate": PaperValue(1e-5, "section 3.2 [S]"), "epochs": PaperValue(5, "section 3.2 [S]"),
        "documents": PaperValue(200_000, REPORT), "warmup_ratio": PaperValue(0.1, "from memory, unchecked"),
        "packed": PaperValue(False, "section 3.2 [S2]"), "lr_schedule": UNKNOWN, "weight_decay": UNKNOWN,
    },
    "dpo": {
        "max_tokens": PaperValue(16384, "section 3.3 [S]"), "batch_size": UNKNOWN,
        "max_pairs": PaperValue(300_000, REPORT), "learning_rate": PaperValue(5e-7, "section 3.3 [S2]"),
        "epochs": PaperValue(1, "section 3.3 [S2]"), "pairs": PaperValue("teacher", "section 3.3 [S2]"),
        "sft_weight": PaperValue(0.0, "section 3.3 [S]"), "beta": UNKNOWN, "max_student_nll": UNKNOWN,
        "pairs_per_question": UNKNOWN,
    },
    "grpo": {
        "max_new_tokens": PaperValue(25600, "section 3.4 [S]"), "learning_rate": PaperValue(5e-7, "section 3.4 [S]"),
        "temperature_start": PaperValue(1.0, "section 3.4 [S2]"),
        "temperature_end": PaperValue(0.6, "section 3.4 [S2]"), "anneal_fraction": PaperValue(0.5, "section 3.4 [S2]"),
        "steps": UNKNOWN, "prompts_per_step": UNKNOWN, "group_size": UNKNOWN, "candidate_prompts": UNKNOWN,
        "probe_rollouts": UNKNOWN, "keep_fraction": UNKNOWN, "epsilon": UNKNOWN, "lr_schedule": UNKNOWN,
    },
    "evaluation": {
        "benchmarks": PaperValue(("math500", "aime24", "gpqa-diamond"), "[P]"), "samples": UNKNOWN,
        "temperature": PaperValue(None, "[U]; the model card's example has 0.8 [P]"),
        "max_new_tokens": PaperValue(None, "[U]; the model card's example has 32,768 [P]"),
    },
    "hardware": {"optimizer": UNKNOWN},
}


def comparison_table(part: str, scales: Iterable[RunConfig]) -> list[tuple[str, ...]]:
    """The settings of one part of a run as text, one row each: name, one cell a scale, the paper's value, its source.

    part: a key of PAPER; "hardware" covers all stages. A setting that is off by default and in every scale has no row
    unless the paper has it; "–" means that there is no such setting.
    """
    scales, theirs, rows = list(scales), PAPER[part], []
    for field in fields(HardwareConfig if part == "hardware" else getattr(scales[0], part)):
        if field.name == "hardware":
            continue
        values = [[getattr(one, field.name) for one in _holders(config, part)] for config in scales]
        off = not field.default and all(value == field.default for several in values for value in several)
        if off and field.name not in theirs:
            continue
        rows.append((field.name, *map(_cell, values)))
    known = {row[0] for row in rows}
    rows += [(name, *("–" for _ in scales)) for name in theirs if name not in known]
    nothing = PaperValue("–", "")
    found = [(row, theirs.get(row[0], nothing)) for row in rows]
    return [
        (name.replace("_", " "), *cells, "unknown" if value is None else _shown(value), source)
        for (name, *cells), (value, source) in found
    ]


def _holders(config: RunConfig, part: str) -> list:
    """The configs that hold a part's settings: one, or the hardware of each stage."""
    return [getattr(config, name).hardware for name in STAGES[1:]] if part == "hardware" else [getattr(config, part)]


def _cell(values: list) -> str:
    """The text of one value, or of one for each stage, with the stages named where they differ."""
    if len(set(values)) == 1:
        return _shown(values[0])
    stages = {value: [name for name, one in zip(STAGES[1:], values, strict=True) if one == value] for value in values}
    return "; ".join(f"{_shown(value)} ({', '.join(names)})" for value, names in stages.items())


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float) and isinf(value):
        return "no limit"
    return ", ".join(value) or "none" if isinstance(value, tuple) else value if isinstance(value, str) else f"{value:,}"
