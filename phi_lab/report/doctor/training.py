"""Rules over the log of any trainer, and over that of DPO. Each says where its threshold comes from.

A rule takes the rows of metrics.jsonl, or of `log_history` in a trainer_state.json, and returns a `Finding` or None.
"""

import math
import statistics
from collections.abc import Sequence

from phi_lab.report.doctor.finding import MIN_ROWS, Finding, first_third, is_number, last_third, series

LN2 = math.log(2)  # DPO's loss, -log sigmoid(margin), at a margin of 0
SPIKE, OFTEN = 100, 10  # times the median: once; or in a twentieth of the steps, and three times
SPIKES = 1 / 20  # Healthy runs have up to 56 times the median once, and ten times in up to 1 of 28 (docs/doctor.md)
OVERFIT = 0.05  # of the best evaluation loss. Convention; early stopping's own thresholds are smaller
STUCK = 0.003  # nats from ln 2: a mean margin of 0.006, 0.06 nats at beta 0.1. Convention
MOVED = 0.1  # a mean margin, at which the loss of DPO alone is 0.64
FALL = 0.1  # of the implicit reward: one nat at beta 0.1. Convention ...
SHARED = 0.5  # ... and of the margin: then most of what moves is a fall of both. Convention


def not_finite(rows: Sequence[dict]) -> Finding | None:
    """A loss, gradient norm or KL that is NaN or infinite, even once."""
    for row in rows:
        for name in ("loss", "grad_norm", "kl", "eval_loss"):
            if is_number(row.get(name)) and not math.isfinite(row[name]):
                return Finding(
                    "not-finite", f"{name} is {row[name]} at step {row.get('step', '?')}",
                    "From this step on the weights are, or may be, NaN: nothing after it can be used.",
                    "A learning rate that is too high, float16 where bfloat16 is needed, or a row without a single "
                    "token that counts (a division by zero).",
                    "Look at the batch of this step; then halve the learning rate, train in bfloat16, and go on from a "
                    "checkpoint before it.",
                )
    return None


def learning_rate_zero(rows: Sequence[dict]) -> Finding | None:
    """A learning rate of exactly 0 in more than half of the logged steps. A warm-up begins, and a decay ends, there."""
    rates = series(rows, "learning_rate")
    zeros = sum(rate == 0 for rate in rates)
    if len(rates) < 3 or zeros * 2 <= len(rates):
        return None
    return Finding(
        "learning-rate-zero", f"learning rate 0 in {zeros} of {len(rates)} logged steps",
        "The weights do not move in these steps, whatever the gradient is.",
        "A schedule that is shorter than the training (a max_steps of another run), a warm-up longer than the run, or "
        "a rate that rounds to 0.",
        "Print the schedule at the first, the middle and the last step; resume with the same max_steps as before.",
    )


def no_gradient(rows: Sequence[dict]) -> Finding | None:
    """A gradient norm of exactly 0 in at least half of the logged steps, though groups of rewards differ."""
    norms, equal = series(rows, "grad_norm"), series(rows, "zero_variance_share", "frac_reward_zero_std")
    zeros = sum(norm == 0 for norm in norms)
    if len(norms) < 3 or zeros * 2 < len(norms) or (equal and last_third(equal) > 0.5):
        return None  # groups without variance explain it: `zero_variance`
    return Finding(
        "no-gradient", f"gradient norm exactly 0 in {zeros} of {len(norms)} logged steps",
        "Nothing is learned in these steps.",
        "All labels are masked (a template without an assistant part, or a prompt that fills the whole row), all "
        "parameters are frozen, or all advantages are 0.",
        "Count the labels that are not -100 in one batch, and the parameters with requires_grad.",
    )


def gradient_spike(rows: Sequence[dict]) -> Finding | None:
    """A gradient norm above a hundred times its median, or above ten times in a twentieth of the logged steps and at
    least three, the first tenth of a run aside. Loggers write it before clipping.
    """
    named = [(row.get("step"), norm) for row in rows for norm in series([row], "grad_norm")]
    if len(named) < 10:
        return None
    median = statistics.median(norm for _, norm in named if norm > 0) if any(norm for _, norm in named) else 0.0
    later = named[max(2, len(named) // 10) :]
    step, most = max(later, key=lambda pair: pair[1])
    often = sum(norm > OFTEN * median for _, norm in later)
    if not median or most <= SPIKE * median and often < max(3, SPIKES * len(later)):
        return None
    return Finding(
        "gradient-spike", f"gradient norm {most:.3g} at step {step}, {most / median:.0f} times its median {median:.3g}",
        "One batch outweighs all others. Clipping bounds the step's length, not its direction.",
        "A learning rate that is too high, a broken row (an endless or garbled answer), or a batch with few tokens "
        "that count.",
        "Read the rows of that batch; then lower the learning rate, lengthen the warm-up, or clip at a lower norm.",
    )


def evaluation_loss_rises(rows: Sequence[dict]) -> Finding | None:
    """An evaluation loss that ends more than 5 % above its best, while the training loss still falls."""
    evaluated, trained = series(rows, "eval_loss"), series(rows, "loss")
    if len(evaluated) < 3 or len(trained) < 3 or series(rows, "rewards/margins", "reward"):
        return None
    best = min(evaluated)
    if evaluated[-1] <= (1 + OVERFIT) * best or last_third(trained) >= first_third(trained):
        return None
    number = 1 + evaluated.index(best)
    return Finding(
        "evaluation-loss-rises",
        f"evaluation loss {best:.3g} at evaluation {number} of {len(evaluated)}, {evaluated[-1]:.3g} at the last; "
        f"training loss {first_third(trained):.3g} → {last_third(trained):.3g}",
        "The model learns these rows by heart: it overfits.",
        "Too many epochs over too few different rows, or a learning rate that is too high for them.",
        "Keep the best checkpoint (load_best_model_at_end), train for fewer epochs, or add rows.",
    )


# ------------------------------------------------------------------ DPO


def loss_at_ln2(rows: Sequence[dict]) -> Finding | None:
    """A DPO loss that is still ln 2 over the last third of at least six logged steps, and a margin that is still 0:
    with another loss added to it (`DPOConfig.sft_weight`) a logged loss may be anything.
    """
    losses, margins = (series([row for row in rows if "rewards/margins" in row], name)
                       for name in ("loss", "rewards/margins"))
    if len(losses) < MIN_ROWS or abs(last_third(losses) - LN2) >= STUCK or abs(last_third(margins)) >= MOVED:
        return None
    return Finding(
        "loss-at-ln2", f"loss {last_third(losses):.4f} over the last third of {len(losses)} logged steps; ln 2 is "
        f"{LN2:.4f}",
        "The margin between chosen and rejected is still about 0: the policy is where the reference model is.",
        "A learning rate that is too low (or an adapter that is not trained), chosen and rejected answers that are "
        "nearly the same text, or labels that are random.",
        "Raise the learning rate tenfold for 20 steps; if the loss does not move on a single repeated batch, the pairs "
        "or the trained parameters are wrong.",
    )


def both_sides_fall(rows: Sequence[dict]) -> Finding | None:
    """Chosen answers, too, lose log-probability, at least half as much as the margin gains. Source of the effect:
    arXiv 2402.13228 and 2410.08847 (likelihood displacement). A smaller fall is usual, and is not reported.
    """
    chosen, rejected = series(rows, "rewards/chosen"), series(rows, "rewards/rejected")
    if len(chosen) < 4 or len(rejected) < 4:
        return None
    good, bad = last_third(chosen), last_third(rejected)
    if good > -FALL or bad >= 0 or -good < SHARED * (good - bad):
        return None
    return Finding(
        "both-sides-fall", f"implicit reward of chosen answers {good:+.2f}, of rejected ones {bad:+.2f}, margin "
        f"{good - bad:+.2f} (β times nats, over the last third)",
        "The model becomes less sure of right answers, too; their probability goes to texts that are in no pair.",
        "Pairs that differ in few tokens, answers that the model would not write itself (off-policy), or a learning "
        "rate that is too high.",
        "Sample the pairs from the model itself, lower the learning rate, or add the chosen answers' log-likelihood to "
        "the loss (in TRL loss_type [\"sigmoid\", \"sft\"]).",
    )
