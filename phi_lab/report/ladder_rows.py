"""What a row of ladder.json measures: its stage's title, its protocol, and the checkpoint its stage started from.

Each stage of a run is trained from the run's own model of the stage before. A stage can also start from a *shipped*
checkpoint (in the profile smoke each does). Rows of the arm `SHIPPED_START` then measure that checkpoint, so that a
figure or a table compares the stage with what it started from, and not with a model it never saw.
"""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from phi_lab.core.files import read_table

STAGE_TITLES = {
    "base": "base", "mid": "mid-training", "sft": "SFT", "dpo": "Rollout DPO", "grpo": "GRPO",
}
# What else could have been done for the same compute, from the same start: a rung counts when it beats each of these.
# The arm "dpo-paper" is held against SFT, from which both arms of Rollout DPO start. The arms without mid-training are
# held against each other: is it the small set, its length, or the short schedule?
RIVALS = {
    "mid": ("mid-control",), "sft": ("sft-control",), "dpo": ("dpo-control",), "dpo-paper": ("sft",),
    "grpo": ("grpo-rft", "grpo-sft", "grpo-coin"), "sft-limo": ("sft-all", "sft-short"), "sft-limo-best": ("sft-all",),
}
SHIPPED_START = "shipped"  # the arm of rows that measure a shipped checkpoint from which the next stage started


def read_ladder(path: Path) -> list[dict]:
    """The rows of ladder.json. Raises UserError for a damaged file."""
    needed = ("stage", "arm", "benchmark", "temperature", "k", "n", "accuracy", "ci_low", "ci_high", "pass_at_k")
    return read_table(path, needed, "delete it to have it measured again, from the saved answers")


def protocol(row: dict) -> str:
    """How a row was measured: "sampled" (the primary metric), "cool" (at a lower temperature), "greedy", or "pass"
    (pass@k). Rows of release 0.1, which has no "cool", do not say it.
    """
    if "protocol" in row:
        return row["protocol"]
    if row["pass_at_k"] is not None:
        return "pass"
    return "sampled" if row["temperature"] > 0 else "greedy"


def model_title(name: str) -> str:
    """The title of a stage's model, of a shipped start such as "mid-shipped", or of any other model (its name)."""
    stage = name.removesuffix(f"-{SHIPPED_START}")
    return f"shipped {STAGE_TITLES[stage]}" if stage != name else STAGE_TITLES.get(name, name)


def shipped_starts(names: Iterable[str]) -> dict[str, str]:
    """{stage: the stage before} for the stages that started from a shipped checkpoint.

    `names` are the models that were measured; "mid-shipped" among them says that SFT started from the shipped "mid".
    """
    following = dict(pairwise(STAGE_TITLES))
    shipped = {name.removesuffix(f"-{SHIPPED_START}") for name in names if name.endswith(f"-{SHIPPED_START}")}
    return {following[stage]: stage for stage in STAGE_TITLES if stage in shipped}


def shipped_starts_in(rows: Iterable[dict]) -> dict[str, str]:
    """`shipped_starts` of the rows of ladder.json."""
    return shipped_starts({f"{row['stage']}-{row['arm']}" for row in rows})
