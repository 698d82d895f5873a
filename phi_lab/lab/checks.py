"""The checks of the exercises in the notebooks, one for each: `checks.PACK.use(pack)`.

Each finds what is wrong with an attempt and names a counter-example. Every check is itself tested: its reference
passes, and plausible wrong answers fail (tests/lab/test_checks.py). The result gets another name than the attempt, so
that the cell can be run again:

    from phi_lab.lab import checks; packer = checks.PACK.use(pack)
"""

import numbers
from collections.abc import Callable

from phi_lab.lab import exercise_texts, loop_texts
from phi_lab.lab.checks_choices import hardest_first_fault, paired_gain_fault, plausible_fault, rate_factor_fault
from phi_lab.lab.checks_grpo import advantage_fault, mixed_share_fault, temperature_fault
from phi_lab.lab.checks_losses import (
    clipped_fault,
    dpo_loss_fault,
    group_advantage_fault,
    policy_gradient_fault,
    sequence_logprob_fault,
    two_means_fault,
)
from phi_lab.lab.checks_masks import cache_step_fault, document_mask_fault, labels_fault, position_ids_fault
from phi_lab.lab.checks_training import keep_questions_fault, one_per_row_fault, pack_fault, pair_fault, wilson_fault
from phi_lab.lab.grading import Check, StubUnchanged, call_attempt, shown
from phi_lab.model import shapes

RAN: list[str] = []  # an attempt at `reward` that runs the code in a model's answer leaves a mark here


def share_right_fault(attempt: Callable, reference: Callable) -> str | None:
    for verdicts in (["right", "wrong"], ["right", "unfinished", "wrong", "unparsed"], ["right"] * 3, ["wrong"],
                     ["right", "not right"]):
        wanted, got = reference(verdicts), call_attempt(attempt, list(verdicts))
        if not abs(got - wanted) <= 1e-9:
            return f'share_right({verdicts}) gave {shown(got)}, and {wanted:.2f} of them are exactly "right"'


def first_slip_fault(attempt: Callable, reference: Callable) -> str | None:
    for columns in (["7+8=15", "4+3+1=9"], ["7+8=16", "4+3+1=8"], ["7+8=16", "4+3+1=9"], ["12-7=6", "5-2-1=2"],
                    ["15-8=7", "5-2-1=2"], ["6", "5+2=8"], ["15", "8"], ["7+8=15", "4+3+1=8"], ["9+8+1=18", "1"],
                    ["0+8=8", "5+4=9"]):
        got, wanted = attempt(list(columns)), reference(columns)
        if got is NotImplemented:
            raise StubUnchanged
        if got != wanted or isinstance(got, bool):
            if wanted is None:
                return f"first_slip({columns}) gave {shown(got)}, and no column is wrong: it should be None"
            return f"first_slip({columns}) gave {shown(got)}, and the first wrong one is {columns[wanted]}: {wanted}"


def reward_fault(attempt: Callable, reference: Callable) -> str | None:
    # Both are Python code that gives 15, and no mathematics: the verifier must refuse them unread.
    leaves_mark, harmless = "__import__('phi_lab').lab.checks.RAN.append('!!') or 15", "(lambda _: 15)('!!')"
    cases = (
        ("<think>7+8=15.</think>\\boxed{15}", "15", "right"),
        ("<think>7+8=16.</think>\\boxed{16}", "15", "wrong"),
        ("<think>…38/24.</think>\\boxed{38/24}", "19/12", "right: 38/24 is 19/12"),
        ("<think>7+8=15.</think>\\boxed{150}", "15", "wrong: the answer is what stands in the box, all of it"),
        ("<think>7+8=15.15.15.15", "15", "unfinished: nothing was answered"),
        ("<think>\\boxed{16}? No, 7+8=15.</think>\\boxed{15}", "15", "right: a box inside the thoughts does not count"),
        ("<think>\\boxed{15}? No, 7+8=16.</think>\\boxed{16}", "15", "wrong: a box inside the thoughts does not count"),
        ("<think>7+8=15, \\boxed{15}.", "15", "unfinished: the thoughts never end, and a box inside does not count"),
        ("\\boxed{15}", "15", "right: an answer without thoughts counts"),
        (f"<think>7+8=?</think>\\boxed{{{harmless}}}", "15", "wrong: Python code is no number, and must not be run"),
        (f"<think>7+8=?</think>\\boxed{{{leaves_mark}}}", "15", "wrong: Python code is no number, and must not be run"),
    )
    RAN.clear()
    got = call_attempt(attempt, [case[0] for case in cases], [case[1] for case in cases])
    if RAN:
        return (
            f"the answer {cases[-1][0]} was run as Python code: a model that is trained on this reward could learn to "
            "write code that gives itself +1, or that deletes your files"
        )
    if len(got) != len(cases):
        return f"{len(cases)} answers went in and {len(got)} rewards came out"
    for (completion, gold, why), value in zip(cases, got, strict=True):
        wanted = 1.0 if why.startswith("right") else -1.0
        if value != wanted:
            return (
                f"the answer {completion} to a problem with gold {gold} got {shown(value)}, not {wanted:+.0f} ({why})"
            )


def flips_fault(attempt: Callable, reference: Callable) -> str | None:
    for before, after in ((["wrong", "right", "wrong"], ["right", "wrong", "right"]), (["right"] * 3, ["right"] * 3),
                          (["unfinished", "right", "unparsed"], ["wrong", "unparsed", "right"])):
        got, wanted = tuple(call_attempt(attempt, list(before), list(after))), reference(before, after)
        if got != wanted:
            return f"flips({before}, {after}) gave {got}: {wanted[0]} gained and {wanted[1]} lost"


def parameters_fault(attempt: Callable, reference: Callable) -> str | None:
    for name in ("phi-nano", "phi-4-mini"):
        config = shapes.phi_config(name)
        got, wanted = call_attempt(attempt, config), reference(config)
        if not isinstance(got, numbers.Integral):
            return f"for {name} it gave {shown(got)} ({type(got).__name__}): a count is an int; // divides so"
        if got != wanted:
            return f"for {name} it gave {got:,}, and a count of the weights gives {wanted:,}: {got - wanted:+,}"


HERE, STAGES = "phi_lab.lab.exercises", "phi_lab.stages"
SHARE_RIGHT = Check("share_right", f"{HERE}:share_right", share_right_fault, exercise_texts.SHARE_RIGHT)
FIRST_SLIP = Check("first_slip", f"{HERE}:first_slip", first_slip_fault, exercise_texts.FIRST_SLIP)
REWARD = Check("reward", f"{STAGES}.grpo:verified", reward_fault, exercise_texts.REWARD)
KEEP_QUESTIONS = Check("keep_questions", f"{HERE}:keep_questions", keep_questions_fault, loop_texts.KEEP_QUESTIONS)
WILSON = Check("wilson", "phi_lab.core.stats:wilson", wilson_fault, loop_texts.WILSON)
CACHE_STEP = Check("cache_step", f"{HERE}:cache_step", cache_step_fault, loop_texts.CACHE_STEP)
PACK = Check("pack", f"{STAGES}.packing:pack_best_fit", pack_fault, exercise_texts.PACK)
POSITION_IDS = Check("position_ids", f"{HERE}:position_ids", position_ids_fault, loop_texts.POSITION_IDS)
DOCUMENT_MASK = Check("document_mask", f"{STAGES}.minimal_lm:document_mask", document_mask_fault,
                      loop_texts.DOCUMENT_MASK)
RATE_FACTOR = Check("rate_factor", f"{HERE}:rate_factor", rate_factor_fault, loop_texts.RATE_FACTOR)
HARDEST_FIRST = Check("hardest_first", f"{HERE}:hardest_first", hardest_first_fault, loop_texts.HARDEST_FIRST)
UNPACKED = Check("one_per_row", f"{STAGES}.packing:one_per_row", one_per_row_fault, exercise_texts.UNPACKED)
LABELS = Check("labels", f"{HERE}:labels", labels_fault, loop_texts.LABELS)
PAIRED_GAIN = Check("paired_gain", f"{HERE}:paired_gain", paired_gain_fault, loop_texts.PAIRED_GAIN)
PLAUSIBLE = Check("plausible", f"{HERE}:plausible", plausible_fault, loop_texts.PLAUSIBLE)
PAIR = Check("pair", f"{STAGES}.preference_pairs:pair_closest_length", pair_fault, exercise_texts.PAIR)
SEQUENCE_LOGPROB = Check("sequence_logprob", f"{HERE}:sequence_logprob", sequence_logprob_fault,
                         loop_texts.SEQUENCE_LOGPROB)
DPO_LOSS = Check("dpo_loss", f"{HERE}:dpo_loss", dpo_loss_fault, loop_texts.DPO_LOSS)
TEMPERATURE = Check("temperature", f"{HERE}:temperature", temperature_fault, exercise_texts.TEMPERATURE)
GROUP_ADVANTAGE = Check("group_advantage", f"{HERE}:group_advantage", group_advantage_fault,
                        loop_texts.GROUP_ADVANTAGE)
ADVANTAGE = Check("advantage", f"{STAGES}.grpo:rebalance", advantage_fault, exercise_texts.ADVANTAGE)
POLICY_GRADIENT = Check("policy_gradient_loss", f"{HERE}:policy_gradient_loss", policy_gradient_fault,
                        loop_texts.POLICY_GRADIENT)
CLIPPED = Check("clipped", f"{HERE}:clipped", clipped_fault, loop_texts.CLIPPED)
TWO_MEANS = Check("two_means", f"{HERE}:two_means", two_means_fault, loop_texts.TWO_MEANS)
FLIPS = Check("flips", f"{HERE}:flips", flips_fault, exercise_texts.FLIPS)
PARAMETERS = Check("parameters", f"{HERE}:count_parameters", parameters_fault, exercise_texts.PARAMETERS)
MIXED_SHARE = Check("mixed_share", f"{HERE}:mixed_share", mixed_share_fault, exercise_texts.MIXED_SHARE)
ALL = (  # in the order of the course
    SHARE_RIGHT, FIRST_SLIP, REWARD, KEEP_QUESTIONS, WILSON, CACHE_STEP, PACK, POSITION_IDS, DOCUMENT_MASK, RATE_FACTOR,
    HARDEST_FIRST, UNPACKED, LABELS, PAIRED_GAIN, PLAUSIBLE, PAIR, SEQUENCE_LOGPROB, DPO_LOSS, TEMPERATURE,
    GROUP_ADVANTAGE, ADVANTAGE, POLICY_GRADIENT, CLIPPED, TWO_MEANS, FLIPS, PARAMETERS, MIXED_SHARE,
)
