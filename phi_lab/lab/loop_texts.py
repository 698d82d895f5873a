"""Exercises of what the pages build: filter, interval, cache, masks, losses (the others: `exercise_texts.py`)."""

from phi_lab.lab.exercise_texts import Exercise

KEEP_QUESTIONS = Exercise(
    "01", "A filter by pass rate", 1, 8,
    "Keep the questions whose share of right rollouts is at least `low` and at most `high`. All rollouts of a question "
    "count, also those without an answer.",
    '''def keep_questions(rollouts, low, high):
    """The set of questions whose share of "right" is from low to high.

    rollouts: pairs (question, verdict).
    """
    return NotImplemented  # your lines
''',
    ("A share belongs to a question, so collect each question's verdicts first.",
     "A dictionary from the question to a list of its verdicts; dict.setdefault or defaultdict(list).",
     'low <= verdicts.count("right") / len(verdicts) <= high, with both ends included.'),
)
WILSON = Exercise(
    "01", "An interval for a share", 2, 10,
    "Write Wilson's 95 % interval for `right` of `n` independent answers. The middle is "
    "(p + z*z / (2*n)) / (1 + z*z / n), and half the width is z / (1 + z*z / n) * sqrt(p*(1 - p) / n + z*z / (4*n*n)), "
    "with z = 1.96 and p = right / n.",
    '''def wilson(right, n):
    """How many of n answers are right -> the share's 95 % interval, (low, high)."""
    return NotImplemented  # your lines
''',
    ("The formula is in the text above; write it in two lines, middle and half.",
     "z * z / (2 * n) is not z * z / 2 * n: mind the brackets. The last term is z * z / (4 * n * n).",
     "Return (middle - half, middle + half). With 0 of 20 right the low end is 0, and the high end 0.161."),
)
CACHE_STEP = Exercise(
    "01", "One step with a key-value cache", 2, 12,
    "Write one step of attention (one head) with a cache: append the new token's key and value, let its query read "
    "from all values so far, weighted by softmax(keys . query / sqrt(width)).",
    '''def cache_step(query, key, value, keys, values):
    """(What the new token reads, the longer keys, the longer values).

    query, key, value: those of the new token, each (width,).
    keys, values: those of all tokens before it, each (tokens, width).
    """
    return NotImplemented  # your lines
''',
    ("A token sees itself, so append first and read afterwards.",
     "torch.cat([keys, key[None]]) is one row longer. keys @ query is one number for each token.",
     "weights = (keys @ query / len(query) ** 0.5).softmax(0); what is read is weights @ values."),
)
POSITION_IDS = Exercise(
    "02", "The positions of a packed row", 1, 4,
    "A packed row holds several documents, one after the other. Write the position of each of its tokens: every "
    "document counts from 0, as it would alone.",
    '''def position_ids(lengths):
    """Lengths of a row's documents -> the position of each of its tokens, a list."""
    return NotImplemented  # your line
''',
    ("Lengths [3, 2] give [0, 1, 2, 0, 1].",
     "range(length) are the positions of one document.",
     "A list with two loops: [position for length in lengths for position in ...]."),
)
RATE_FACTOR = Exercise(
    "02", "A rate that falls at the end", 1, 6,
    "Write the factor on the learning rate: 1 for most of training, and in the last fifth of the steps a straight line "
    "down, which would reach 0 at step `steps`, one after the last.",
    '''def rate_factor(step, steps):
    """The factor on the learning rate: 1, and falling linearly in the last fifth.

    step: 0 to steps - 1.
    """
    return NotImplemented  # your line
''',
    ("How many steps are left at `step`, and how long is the last fifth?",
     "The line is (steps - step) / (steps / 5): it is 1 where the last fifth begins, and larger before.",
     "min(1.0, that line)."),
)
DOCUMENT_MASK = Exercise(
    "02", "Packing's mask", 2, 12,
    "Several documents share a row. Say which token may look at which: only at itself and at earlier ones, and only in "
    "its own document. A document begins wherever the position is 0.",
    '''def document_mask(position_ids):
    """True where token i may look at token j, (rows, tokens, tokens).

    position_ids: (rows, tokens).
    """
    return NotImplemented  # your lines
''',
    ("Number the documents: two tokens are in the same one if no 0 stands between them.",
     "(position_ids == 0).cumsum(1) counts the documents that have begun. Compare it with itself: d[:, :, None] and "
     "d[:, None, :].",
     "Not later: torch.ones(tokens, tokens, dtype=torch.bool).tril(). Both conditions, joined by &."),
)
LABELS = Exercise(
    "03", "The labels of fine-tuning", 1, 8,
    "A row is a question, an answer and padding. Give every token its label: -100 (no loss) on question and padding, "
    "the token itself on the answer. The answer's last token is the stop token.",
    '''def labels(prompt, completion, width):
    """The `width` labels of a row, -100 where there is no loss.

    prompt, completion: token ids of a question, and of an answer with its stop token.
    """
    return NotImplemented  # your line
''',
    ("Three parts, in this order: question, answer, padding.",
     "The stop token belongs to the answer: what has no loss is never learned, and it has to learn to end.",
     "[-100] * len(prompt) + list(completion) + [-100] * what is left of width."),
)
HARDEST_FIRST = Exercise(
    "03", "The hardest questions first", 2, 12,
    "Choose at most `count` answers: those to the questions that the teacher fails most often come first, and no "
    "question gives more than three.",
    '''def hardest_first(rows, count):
    """At most `count` of the right answers.

    rows: dictionaries with "id" (the question) and "pass_rate" (0 to 1).
    """
    return NotImplemented  # your lines
''',
    ("A low pass rate is a hard question: sort by it.",
     "Count how many answers of each question are taken already; a Counter of ids does it.",
     "for row in sorted(rows, key=lambda row: row[\"pass_rate\"]): take it if fewer than three of its id are taken; "
     "stop at `count`."),
)
PAIRED_GAIN = Exercise(
    "03", "A gain with its interval", 2, 10,
    "Two models answered the same problems. Write the mean of the differences and its 95 % interval: mean +- 1.96 * s "
    "/ sqrt(n), where s is the standard deviation of the n differences (divided by n - 1).",
    '''def paired_gain(before, after):
    """The mean gain with its interval, (mean, low, high).

    before, after: the share of right answers (0 to 1) to each problem, in one order.
    """
    return NotImplemented  # your lines
''',
    ("Subtract first, problem by problem: how hard a problem is then drops out.",
     "statistics.mean and statistics.stdev (which divides by n - 1) of the differences.",
     "half = 1.96 * stdev(gains) / len(gains) ** 0.5; return mean, mean - half, mean + half."),
)
PLAUSIBLE = Exercise(
    "04", "Mistakes that the student might make", 1, 5,
    "Keep the wrong answers that the student itself writes at least once in exp(max_nll) times. Their log-probability "
    "under the student is given; nll is its negative.",
    '''def plausible(wrong, logprobs, max_nll):
    """Those of the wrong answers that are likely enough.

    logprobs: log pi(answer) of each, in nats; max_nll: the limit, in nats.
    """
    return NotImplemented  # your line
''',
    ("Once in exp(6) times is a probability of exp(-6), a log-probability of -6.",
     "Likelier answers have a *higher* log-probability, nearer to 0.",
     "A list over zip(wrong, logprobs), of those with logprob >= -max_nll."),
)
SEQUENCE_LOGPROB = Exercise(
    "04", "The log-probability of an answer", 2, 12,
    "Write log pi(answer | question) of each row. Each token's log-probability comes from the logits at the token "
    "before it; the answer's is the sum over the tokens whose mask is 1.",
    '''def sequence_logprob(logits, ids, mask):
    """The log-probability of each row's answer, (rows,), in nats.

    logits: (rows, tokens, vocabulary). ids, mask: (rows, tokens); the mask is 1 on
    the answer, 0 on question and padding.
    """
    return NotImplemented  # your lines
''',
    ("The logits at t are about token t + 1: leave out the last logits, and the first token and its mask.",
     "logits.log_softmax(-1).gather(2, ids[..., None])[..., 0] takes each token's own out of the vocabulary.",
     "(logprobs * mask[:, 1:]).sum(1): a sum, because probabilities of tokens multiply."),
)
DPO_LOSS = Exercise(
    "04", "The loss of DPO", 3, 15,
    "Write DPO's loss: -log sigmoid(beta * ((chosen's log pi - log ref) - (rejected's log pi - log ref))), averaged "
    "over the pairs. log pi is the policy's log-probability of a whole answer, log ref that of its start.",
    '''def dpo_loss(policy, reference, beta):
    """The loss of all pairs, one number.

    policy, reference: log-probabilities, each a pair of tensors (chosen, rejected) of
    shape (pairs,).
    """
    return NotImplemented  # your lines
''',
    ("How much likelier has each answer become since the start? A difference of log-probabilities says it.",
     "The margin is the chosen one's rise minus the rejected one's. beta belongs inside of the sigmoid.",
     "torch.nn.functional.logsigmoid(beta * margin), with a minus before it and .mean() behind it."),
)
GROUP_ADVANTAGE = Exercise(
    "05", "The group is the baseline", 1, 8,
    "Write GRPO's advantage: (reward - mean of its group) / standard deviation of its group (divided by n, not n - 1). "
    "Where all rewards of a group are equal the advantage is 0.",
    '''def group_advantage(rewards):
    """Rewards, (prompts, group) -> advantages, same shape."""
    return NotImplemented  # your lines
''',
    ("A group is a row: mean and standard deviation along dimension 1.",
     "keepdim=True keeps the shape (prompts, 1), so that it can be subtracted. correction=0 divides by n.",
     "0 / 0 is nan, and one nan spoils every weight: divide by 1 where the standard deviation is 0."),
)
POLICY_GRADIENT = Exercise(
    "05", "The policy gradient", 2, 10,
    "Write the loss -ratio * advantage, averaged over the tokens, with ratio = pi_new / pi_old. Only log-probabilities "
    "are given. At the first step the ratio is 1, and there still is a gradient.",
    '''def policy_gradient_loss(new, old, advantages):
    """The loss, one number.

    new, old: log-probabilities of the sampled tokens under the model now, and under
    the one that sampled them. They and the advantages have the shape (tokens,).
    """
    return NotImplemented  # your line
''',
    ("What is pi_new / pi_old, if you have log pi_new and log pi_old?",
     "exp(new - old). Do not detach `new`: its gradient is what is wanted.",
     "-((new - old).exp() * advantages).mean()."),
)
CLIPPED = Exercise(
    "05", "The clip", 3, 15,
    "Write PPO's objective for each token: the smaller of ratio * advantage and clip(ratio, 1 - epsilon, 1 + epsilon) "
    "* advantage. It is to be made large, so there is no minus.",
    '''def clipped(ratio, advantages, epsilon):
    """ratio, advantages: (tokens,) -> the objective of each token, (tokens,)."""
    return NotImplemented  # your line
''',
    ("Why the smaller one? Think of a wrong token (advantage -1) whose ratio has risen to 3.",
     "Clip the ratio, not the product: ratio.clamp(1 - epsilon, 1 + epsilon).",
     "torch.min of both products, element by element."),
)
TWO_MEANS = Exercise(
    "05", "Mean over tokens, or over answers", 2, 10,
    "Losses of several answers have to become one number. Write both ways: the mean over all tokens, in which a long "
    "answer counts more; and the mean over answers of each answer's own mean, in which its tokens count less.",
    '''def two_means(losses, mask):
    """(The mean over tokens, the mean over answers).

    losses, mask: (answers, tokens); the mask is 1 on an answer's tokens, 0 elsewhere.
    """
    return NotImplemented  # your lines
''',
    ("(losses * mask).sum(1) and mask.sum(1) are each answer's sum and its number of tokens.",
     "Mean of tokens: sum of all sums over the number of all tokens.",
     "Mean of answers: divide each sum by its own number of tokens, then .mean()."),
)
