r"""Rules over preference pairs (`prompt`, `chosen`, `rejected`), and over the tokenizer that a model is saved with."""

import re
from collections import Counter
from collections.abc import Sequence

from phi_lab.report.doctor.answers import leak
from phi_lab.report.doctor.finding import Finding, mean

BY_LENGTH = 0.8  # of all pairs. Convention; the effect: arXiv 2403.19159 and 2310.03716
DUPLICATES = 0.05  # of all pairs. Convention
EQUAL_SIDES = 0.01  # of all pairs. Convention: each is a pair with a gradient of exactly 0
MIN_PAIRS = 20  # fewer say nothing
BOX = re.compile(r"\\boxed\s*\{([^{}]*)\}")


def margin_by_length(rows: Sequence[dict]) -> Finding | None:
    """The longer answer is chosen in at least 80 % of the pairs, or in at most 20 %. Lengths are in characters."""
    if len(rows) < MIN_PAIRS:
        return None
    lengths = [(len(row["chosen"]), len(row["rejected"])) for row in rows]
    longer = mean([0.5 if good == bad else float(good > bad) for good, bad in lengths])
    if 1 - BY_LENGTH < longer < BY_LENGTH:
        return None
    good, bad = (mean(side) for side in zip(*lengths, strict=True))
    name = "longer" if longer > 0.5 else "shorter"
    return Finding(
        "margin-by-length", f"the {name} answer is chosen in {max(longer, 1 - longer):.0%} of {len(rows)} pairs (mean "
        f"{good:.0f} characters chosen, {bad:.0f} rejected)",
        f"“Be {name}” separates these pairs: the margin can grow without anything else being learned.",
        "Wrong answers that ramble or are cut off, or judges that prefer long ones.",
        "Pair answers of like length (`pair_closest_length` of the stage Rollout DPO), leave out truncated ones, or "
        "normalise by length.",
    )


def duplicate_pairs(rows: Sequence[dict]) -> Finding | None:
    """Pairs that stand in the set again (at least 5 %), or whose two sides are the same text (at least 1 %)."""
    counts = Counter((row["prompt"], row.get("prefix"), row["chosen"], row["rejected"]) for row in rows)
    again, equal = len(rows) - len(counts), sum(row["chosen"].strip() == row["rejected"].strip() for row in rows)
    if len(rows) < MIN_PAIRS or (again < DUPLICATES * len(rows) and equal < EQUAL_SIDES * len(rows)):
        return None
    return Finding(
        "duplicate-pairs", f"of {len(rows)} pairs {again} repeat another, and {equal} have the same text on both sides",
        "A repeated pair is trained on several times an epoch; a pair of equal sides has no gradient.",
        "Answers were paired with replacement, a set was joined with itself, or sampling was nearly greedy.",
        "Use each answer once, and remove equal pairs before training.",
    )


def leaked_answers(rows: Sequence[dict]) -> Finding | None:
    r"""Prompts that state the answer in the chosen side's last \boxed{}: at least 1 %, and two."""
    boxes = {row["prompt"]: BOX.findall(row["chosen"]) for row in rows}
    return leak({prompt: found[-1] for prompt, found in boxes.items() if found and found[-1].strip()})


# ------------------------------------------------------------------ the tokenizer


def template_without_stop(tokenizer: dict) -> Finding | None:
    """A chat template that writes none of the tokens at which sampling stops.

    tokenizer: {"template": text, "stop_tokens": [texts]}.
    """
    template, stops = tokenizer["template"], tokenizer["stop_tokens"]
    if not template or not stops or "eos_token" in template or any(stop in template for stop in stops):
        return None
    return Finding(
        "template-without-stop", f"the chat template writes none of the stop tokens ({', '.join(stops)})",
        "A model that is trained in this template never sees the token at which sampling stops, and will not write it.",
        "The template is of another model, or the tokenizer's eos_token is that of the base model.",
        "Set eos_token to the token that ends a turn in the template, and generation_config's eos_token_id with it.",
    )
