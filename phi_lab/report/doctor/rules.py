"""All rules, in the order in which they are reported. To add one, write a function and name it here."""

from collections.abc import Callable, Sequence

from phi_lab.report.doctor import answers, pairs, reinforcement, training
from phi_lab.report.doctor.finding import Finding

Rule = Callable[[Sequence[dict]], Finding | None]

TRAINING_RULES: list[Rule] = [
    training.not_finite, training.learning_rate_zero, training.no_gradient, training.gradient_spike,
    training.evaluation_loss_rises,
]
DPO_RULES: list[Rule] = [training.loss_at_ln2, training.both_sides_fall]
REINFORCEMENT_RULES: list[Rule] = [
    reinforcement.zero_variance, reinforcement.no_stop, reinforcement.truncation, reinforcement.length_drift,
    reinforcement.entropy_collapse, reinforcement.entropy_explosion, reinforcement.flat_reward,
    reinforcement.reward_hacking, reinforcement.sampler_mismatch, reinforcement.kl_blow_up,
]
FORM_RULES: list[Rule] = [answers.no_stop, answers.truncation, answers.unparsed, answers.repetition]
GROUP_RULES: list[Rule] = [answers.all_wrong, answers.zero_variance, answers.leaked_answers]
PAIR_RULES: list[Rule] = [pairs.margin_by_length, pairs.duplicate_pairs, pairs.leaked_answers]


def check_metrics(rows: Sequence[dict]) -> list[Finding]:
    """What a training log shows: rows of metrics.jsonl, or of `log_history` in TRL's trainer_state.json."""
    rules = TRAINING_RULES + DPO_RULES
    if any("reward" in row for row in rows):
        rules = TRAINING_RULES + REINFORCEMENT_RULES
    return apply(rules, rows)


def check_rollouts(rows: Sequence[dict]) -> list[Finding]:
    """What sampled answers show: rows with completion, and prompt, answer, verdict, finish_reason where known."""
    return apply(FORM_RULES + GROUP_RULES, [as_texts(row) for row in rows if "completion" in row])


def check_pairs(rows: Sequence[dict]) -> list[Finding]:
    """What preference pairs show: rows with prompt, chosen, rejected, as texts or as TRL's messages."""
    return apply(PAIR_RULES, [as_texts(row) for row in rows if "chosen" in row and "rejected" in row])


def apply(rules: Sequence[Rule], rows: Sequence[dict]) -> list[Finding]:
    """The findings of some rules, in their order."""
    return [finding for rule in rules if (finding := rule(rows))]


def as_texts(row: dict) -> dict:
    """A row of TRL whose conversations (lists of messages) are texts; a missing prompt is ""."""

    def text(value: object) -> str:
        if isinstance(value, list):
            return "\n".join(str(message.get("content", "")) for message in value if isinstance(message, dict))
        return str(value)

    sides = {name: text(row[name]) for name in ("chosen", "rejected", "completion") if name in row}
    return {**row, "prompt": text(row.get("prompt", "")), **sides}


def all_rules() -> list[tuple[str, Callable]]:
    """(what it reads, rule) of every rule, for the list that `phi-lab doctor --rules` prints."""
    groups = (
        ("any log", TRAINING_RULES), ("log of DPO", DPO_RULES), ("log of GRPO", REINFORCEMENT_RULES),
        ("answers", FORM_RULES + GROUP_RULES), ("pairs", PAIR_RULES), ("tokenizer", [pairs.template_without_stop]),
    )
    return [(reads, rule) for reads, rules in groups for rule in rules]
