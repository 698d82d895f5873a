"""Rules over the log of reinforcement learning (GRPO, RLOO): rows that have a column `reward`.

A rule takes the rows of a log and returns a `Finding` or None. Names of columns are this project's, then TRL's.
"""

import statistics
from collections.abc import Sequence

from phi_lab.report.doctor.finding import (
    MIN_ROWS,
    Finding,
    at_last_temperature,
    first_third,
    is_number,
    last_third,
    mean,
    series,
)

EQUAL_GROUPS = 0.8  # of all groups. Convention: the batch that counts is then a fifth of what was sampled
TRUNCATED = 0.25  # of all answers. Convention; DAPO (arXiv 2503.14476, section 3.4) shows what truncation does
NEVER_STOPS = 0.95  # of all answers, at every logged step. Convention
GROWTH, SHRINKAGE = 2.0, 0.6  # times the first third's length. Convention
FLAT_STEPS = 50  # logged steps after which a reward should have moved by more than its noise. Convention
COLLAPSE = 0.2  # of the first third's entropy. Convention; arXiv 2505.22617 shows falls to a tenth and less
EXPLOSION = 3.0  # times the first third's entropy ...
NATS = 0.5  # ... and at least this much a token: every second token is in doubt. Convention
GAIN = 0.1  # of the reward, whose unit is usually a right answer. Convention
MISMATCH = 0.05  # nats a token: bfloat16 rounds by 0.01 to 0.02 (as MAX_LOGPROB_GAP of the stage GRPO)
RATIO = 0.1  # a mean importance ratio is 1; as above, for sequences of one token
CLIPPED = 0.2  # of all tokens. Convention: PPO clips some hundredths at several updates a batch, none at one
KL = 1.0  # nats a token. Convention: usual values lie below 0.1, and TRL's estimator grows exponentially above 1
ACCURACY = ("accuracy", "acc", "correct")  # a column of a log whose name contains one of these is an accuracy


def zero_variance(rows: Sequence[dict]) -> Finding | None:
    """Groups whose rewards are all equal: at least 80 % of them over the last third. Where a log only says which share
    of the answers has an advantage (`kept_share`), steps without any: at least 80 %.
    """
    shares, what = series(rows, "zero_variance_share", "frac_reward_zero_std"), "of the groups all rewards are equal"
    if not shares:
        shares = [float(kept == 0) for kept in series(rows, "kept_share")]
        what = "of the steps no answer has an advantage"
    if len(shares) < 3 or (share := last_third(shares)) < EQUAL_GROUPS:
        return None
    reward = last_third(series(rows, "reward") or [0.0])
    cause = "All answers of a group are equally good or bad for this reward: questions too hard, too easy, or a reward "
    cause += "that reads nothing from these answers (a format that the model does not write)."
    if reward > 0.8:
        cause = "The questions are too easy: the model solves nearly all of them."
    elif reward > 0.5:
        cause = "Most questions are solved by every answer of their group, and the others by none: little is left to "
        cause += "learn from these questions."
    elif reward < -0.8 or abs(reward) < 0.02:
        cause = "No answer is rewarded: the questions are too hard, or the reward cannot read the answers (its format, "
        cause += "or answers that are cut off)."
    return Finding(
        "zero-variance", f"in {share:.0%} {what}, mean reward {reward:.2f} (last third of {len(shares)} steps)",
        "A group without a difference has no advantage and no gradient; most of what is sampled teaches nothing.",
        cause,
        "Read ten answers with their rewards first. Then choose questions of which the model solves some and misses "
        "some, take larger groups, or begin from a model that was fine-tuned on this format.",
    )


def truncation(rows: Sequence[dict]) -> Finding | None:
    """Answers that end at the token limit: at least 25 % over the last third."""
    shares = series(rows, "completions/clipped_ratio")
    if len(shares) < 3 or (share := last_third(shares)) < TRUNCATED or min(shares) >= NEVER_STOPS:
        return None
    return Finding(
        "truncation", f"{share:.0%} of the answers reach the token limit, at first {first_third(shares):.0%} (last and "
        "first third)",
        "A cut answer has no final answer and counts as wrong, however good it was: length is punished, not error.",
        "max_completion_length is too short for this model, or the model has begun to repeat itself or to ramble.",
        "Read five cut answers. If they are on the way, raise the limit or leave them out of the loss "
        "(mask_truncated_completions); if they loop, go back to an earlier checkpoint with a lower learning rate.",
    )


def no_stop(rows: Sequence[dict]) -> Finding | None:
    """Nearly no answer ends with a stop token, from the first logged step on."""
    shares = series(rows, "completions/clipped_ratio")
    if len(shares) < 3 or min(shares) < NEVER_STOPS:
        return None
    return Finding(
        "no-stop", f"at least {min(shares):.0%} of the answers reach the token limit at every logged step",
        "The model does not end its turn: it has answered and goes on, or has never learned to stop.",
        "A base model, a stop token that was masked in fine-tuning (a padding token equal to it), or a chat template "
        "that ends a turn with another token than the tokenizer's eos_token.",
        "Compare the last token of a training row with eos_token and generation_config's eos_token_id; fine-tune with "
        "the stop token in the loss.",
    )


def length_drift(rows: Sequence[dict]) -> Finding | None:
    """Answers that become twice as long without more reward, or shrink to 60 % without more accuracy in the log."""
    lengths, rewards = series(rows, "mean_length", "completions/mean_length"), series(rows, "reward")
    if len(lengths) < MIN_ROWS or not rewards:
        return None
    before, after = first_third(lengths), last_third(lengths)
    gained = last_third(rewards) - first_third(rewards)
    seen = f"mean length {before:.0f} → {after:.0f} tokens, mean reward {first_third(rewards):.2f} → "
    seen += f"{last_third(rewards):.2f} (first and last third of {len(lengths)} steps)"
    if after >= GROWTH * before and gained < GAIN:
        return Finding(
            "length-drift", seen, "Answers grow without earning more: the length is not reasoning.",
            "A loss that is averaged over each answer (long wrong ones are then punished less a token), a reward "
            "that favours length, or a model that has begun to repeat itself.",
            "Read the longest answers; normalise the loss over tokens (loss_type dapo or dr_grpo), and lower the "
            "learning rate.",
        )
    _, accuracies = _accuracy(rows)
    if after <= SHRINKAGE * before and not (accuracies and last_third(accuracies) > first_third(accuracies)):
        return Finding(
            "length-drift", seen, "Answers shrink: the model may have stopped writing out its reasoning.",
            "A reward that can be had without reasoning, or one that punishes length.",
            "Measure accuracy on held-out questions with an independent verifier, before and after; read ten answers.",
        )
    return None


def entropy_collapse(rows: Sequence[dict]) -> Finding | None:
    """Entropy that falls to a fifth of its start, at one temperature."""
    entropies = series(at_last_temperature(rows), "entropy")
    if len(entropies) < MIN_ROWS or not first_third(entropies):
        return None
    if last_third(entropies) > COLLAPSE * first_third(entropies):
        return None
    return Finding(
        "entropy-collapse", f"entropy {first_third(entropies):.3g} → {last_third(entropies):.3g} nats a token",
        "The model writes the same answer again and again: groups become equal, and nothing new is tried.",
        "Many updates on few questions, a learning rate that is too high, or a clip range that holds rare tokens down.",
        "Sample at a higher temperature, widen the upper clip range (epsilon_high, DAPO's 0.28), take more questions, "
        "or stop earlier.",
    )


def entropy_explosion(rows: Sequence[dict]) -> Finding | None:
    """Entropy that triples, to at least half a nat a token, at one temperature."""
    entropies = series(at_last_temperature(rows), "entropy")
    if len(entropies) < MIN_ROWS or last_third(entropies) < max(NATS, EXPLOSION * first_third(entropies)):
        return None
    return Finding(
        "entropy-explosion", f"entropy {first_third(entropies):.3g} → {last_third(entropies):.3g} nats a token",
        "The model becomes unsure of every token: its answers turn into noise.",
        "A learning rate that is too high, an entropy bonus that is too large, or a reward that is noise.",
        "Read ten answers of the last step; go back to a checkpoint before the rise with a third of the learning rate.",
    )


def flat_reward(rows: Sequence[dict]) -> Finding | None:
    """A reward that has not moved by two standard errors in 50 logged steps, though most groups differ within."""
    rewards, equal = series(rows, "reward"), series(rows, "zero_variance_share", "frac_reward_zero_std")
    if len(rewards) < FLAT_STEPS or (equal and mean(equal) >= 0.5):
        return None  # groups without variance explain it: `zero_variance`
    gained = last_third(rewards) - first_third(rewards)
    error = statistics.stdev(rewards) * (2 / (len(rewards) // 3)) ** 0.5
    if abs(gained) > 2 * error:
        return None
    return Finding(
        "flat-reward", f"mean reward {first_third(rewards):.3f} → {last_third(rewards):.3f} (first and last third of "
        f"{len(rewards)} steps), a change within its noise (± {2 * error:.3f})",
        "Groups differ, and yet what is rewarded does not become more frequent.",
        "A learning rate that is too low, a reward that does not depend on the answer (noise), or questions that "
        "change so much that steps cannot be compared.",
        "Train on 16 fixed questions until the reward rises: if it does not with ten times the learning rate, the "
        "reward or the advantage is wrong.",
    )


def reward_hacking(rows: Sequence[dict]) -> Finding | None:
    """A reward that rises while an accuracy in the same log does not: its gain is below a tenth of the reward's."""
    name, accuracies = _accuracy(rows)
    rewards = series(rows, "reward")
    if len(accuracies) < MIN_ROWS or len(rewards) < MIN_ROWS:
        return None
    gained, learned = (last_third(values) - first_third(values) for values in (rewards, accuracies))
    if gained < GAIN or learned > gained / 10:
        return None
    return hacking(
        f"reward {first_third(rewards):.2f} → {last_third(rewards):.2f}, {name} {first_third(accuracies):.2f} → "
        f"{last_third(accuracies):.2f}"
    )


def hacking(seen: str) -> Finding:
    """The finding of a reward that rises without accuracy; also for a run whose benchmark falls."""
    return Finding(
        "reward-hacking", seen, "The reward is earned without right answers: what it measures is not what is wanted.",
        "A verifier that accepts too much (a part of the answer, an empty box), or a second reward (format, length) "
        "that is easier to earn.",
        "Read the twenty best rewarded answers; make the verifier fail closed, and lower the weight of the other "
        "rewards.",
    )


def sampler_mismatch(rows: Sequence[dict]) -> Finding | None:
    """Sampler and trainer that do not give the same probabilities: by their log-probabilities, by the mean importance
    ratio, or by the share of tokens that are clipped.
    """
    gaps = series(rows, "sampling/sampling_logp_difference/mean")
    ratios = series(rows, "sampling/importance_sampling_ratio/mean")
    clipped = series(rows, "clip_ratio/region_mean", "clip_ratio")
    if gaps and mean(gaps) >= MISMATCH:
        seen = f"sampler and trainer differ by {mean(gaps):.3f} nats a token on average (rounding: 0.01 to 0.02)"
    elif ratios and abs(mean(ratios) - 1) >= RATIO:
        seen = f"mean importance ratio between trainer and sampler {mean(ratios):.2f}; it should be 1"
    elif clipped and last_third(clipped) >= CLIPPED:
        seen = f"{last_third(clipped):.0%} of the tokens have a ratio outside the clip range"
    else:
        return None
    return Finding(
        "sampler-mismatch", seen,
        "The samples come from another distribution than the one that is trained: the gradient is biased.",
        "Weights that the sampler has not received yet, another temperature, chat template or position scaling "
        "(LongRoPE) in one of them, an adapter merged twice, or too many updates on one batch.",
        "Score one sampled answer with both, token by token, at step 0: they must agree. Then take one update a batch, "
        "and synchronise weights at every step.",
    )


def kl_blow_up(rows: Sequence[dict]) -> Finding | None:
    """A KL divergence from the reference model of 1 nat a token or more over the last third."""
    values = series(rows, "kl")
    if len(values) < 3 or last_third(values) < KL:
        return None
    return Finding(
        "kl-blow-up", f"KL to the reference model {first_third(values):.3g} → {last_third(values):.3g} nats a token",
        "The policy has left its reference: what it could do before may be lost, and the KL term dominates the loss.",
        "A learning rate that is too high, a beta that is too low, or one batch whose ratio exploded (the estimator is "
        "exponential).",
        "Go back to the checkpoint before the rise; halve the learning rate, or raise beta.",
    )


def _accuracy(rows: Sequence[dict]) -> tuple[str, list[float]]:
    """The name and values of the column of a log that is an accuracy; ("", []) where there is none."""
    names = {name: None for row in rows for name, value in row.items() if is_number(value)}
    for name in names:
        if any(word in name.lower() for word in ACCURACY) and "token" not in name and not name.endswith("/std"):
            return name, series(rows, name)
    return "", []
