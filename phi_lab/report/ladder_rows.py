"""What a row of ladder.json measures: its stage's title, its protocol, and the checkpoint its stage started from.

Each stage of a run is trained from the run's own model of the stage before. A stage can also start from a *shipped*
checkpoint (in the profile smoke each does). Rows of the arm `SHIPPED_START` then measure that checkpoint, so that a
figure or a table compares the stage with what it started from, and not with a model it never saw.
"""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from phi_lab.core.errors import UserError
from phi_lab.core.files import read_table, require_kinds
from phi_lab.core.formatting import one_line

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
KINDS = {
    "stage": str, "arm": str, "benchmark": str, "protocol": str, "temperature": float, "k": int, "n": int,
    "accuracy": float, "ci_low": float, "ci_high": float, "parts": dict, "seconds": float, "train_tokens": float,
    "forward_tokens": float, "peak_rss_mb": float,
}
SHIPPED_START = "shipped"  # the arm of rows that measure a shipped checkpoint from which the next stage started


def read_ladder(path: Path) -> list[dict]:
    """The rows of ladder.json. Raises UserError for a damaged file, also for a field of another type."""
    needed = ("stage", "arm", "benchmark", "temperature", "k", "n", "accuracy", "ci_low", "ci_high", "pass_at_k")
    fix = "delete it to have it measured again, from the saved answers"
    rows = read_table(path, needed, fix)
    require_kinds(path, rows, KINDS, fix, of="row")
    require_kinds(path, [row for row in rows if row["pass_at_k"] is not None], {"pass_at_k": float}, fix, of="row")
    require_shares(path, rows, ("accuracy", "ci_low", "ci_high"), fix)
    for number, row in enumerate(rows, 1):
        if row["stage"] not in STAGE_TITLES:
            raise UserError(f"{path}, row {number}: no stage {one_line(row['stage'], 60)!r}; {fix}")
        if row["k"] < 1 or row["n"] < 1:
            raise UserError(f"{path}, row {number}: 'k' and 'n' must be at least 1; {fix}")
    return rows


def require_shares(path: Path, rows: Iterable[dict], names: Iterable[str], fix: str) -> None:
    """Raises UserError, naming row and field, where a number of a file is no share between 0 and 1."""
    for number, row in enumerate(rows, 1):
        for name in names:
            if not 0 <= row[name] <= 1:
                raise UserError(f"{path}, row {number}: {name!r} must be between 0 and 1; {fix}")


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
