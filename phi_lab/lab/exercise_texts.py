"""What a learner reads of an exercise: its place, how hard it is, what to write, three hints. `loop_texts.py` has those
of the loops that are built on the page, here are all others.

A hint says a little more than the one before it: where to look, then how, then nearly the line.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Exercise:
    """notebook: the number of its page; stars: 1 (a line), 2 (a few lines) or 3 (think first); minutes: a guess, not
    measured; stub: the function as it stands in the notebook.
    """

    notebook: str
    title: str
    stars: int
    minutes: int
    statement: str
    stub: str
    hints: tuple[str, str, str]


SHARE_RIGHT = Exercise(
    "00", "The share of right answers", 1, 3,
    'Write the share of verdicts that are exactly "right". All other verdicts count as not right.',
    '''def share_right(verdicts):
    """The share of verdicts that are "right", 0 to 1.

    The others are "wrong", "unfinished", "unparsed" and "timeout".
    """
    return NotImplemented  # your line
''',
    ("Count the right ones, and divide by how many verdicts there are.",
     "A list has a method that counts equal elements.",
     'verdicts.count("right") over len(verdicts).'),
)
FIRST_SLIP = Exercise(
    "00", "Find the slip", 2, 8,
    "Find the first column whose own sum is wrong. A column is text: digits joined by + or -, an equals sign, and what "
    "the model wrote. A column without an equals sign says nothing that could be wrong.",
    '''def first_slip(columns):
    """The index of the first wrong column, or None.

    ["7+8=15", "4+3+1=9"] -> 1, since 4+3+1 is 8. Columns have only + and -.
    """
    return NotImplemented  # your lines
''',
    ("Go through enumerate(columns); column.partition(\"=\") gives what stands before and after the equals sign.",
     "Never use eval on text of a model. re.findall(r\"[-+]?\\d+\", \"4+3-1\") is [\"4\", \"+3\", \"-1\"].",
     "The sum of int(term) over those terms has to be int(what is written); return the first index where it is not, "
     "and None after the loop."),
)
REWARD = Exercise(
    "01", "The reward", 1, 5,
    "Write the reward of GRPO: +1.0 where the final answer equals the gold answer as mathematics, -1.0 for everything "
    "else; verify.verify(completion, gold).verdict says it. Never run a model's text as code.",
    '''def reward(completions, answers):
    """Completions and their gold answers, two lists -> a list of +1.0 and -1.0."""
    return NotImplemented  # your line
''',
    ("The verifier above already reads and compares an answer.",
     'verify.verify(completion, gold).verdict is "right" or something else.',
     'A list over zip(completions, answers): 1.0 if the verdict is "right" else -1.0.'),
)
PACK = Exercise(
    "02", "Packing", 2, 15,
    "Put documents into as few rows as you can. A row holds at most `row_length` tokens; what is longer is left out.",
    '''def pack(lengths, row_length):
    """Lengths in tokens -> rows, each a list of indices into `lengths`.

    Each index comes once; what is longer than a row is left out.
    """
    return NotImplemented  # your lines
''',
    ("In the order in which they come, short documents fill the gaps that long ones need. Which order is better?",
     "Longest first: sorted(range(len(lengths)), key=lambda i: -lengths[i]).",
     "Keep the free room of each row; put a document into a row that has room, the fullest such row, else open a row."),
)
UNPACKED = Exercise(
    "03", "One answer a row", 1, 3,
    "Write the opposite of packing: each document is a row of its own; one longer than a row is left out.",
    '''def my_one_per_row(lengths, row_length):
    """Lengths in tokens -> rows with a single index each, without what is too long."""
    return NotImplemented  # your line
''',
    ("A row is a list of indices, also where it has only one.",
     "enumerate(lengths) gives the index with each length.",
     "[[index] for index, length in enumerate(lengths) if ...]."),
)
PAIR = Exercise(
    "04", "Pairs of like length", 2, 15,
    "Pair right answers with wrong ones of the same question so that both are nearly equally long, and the model "
    "cannot learn to prefer an answer for its length.",
    '''def pair(right, wrong, count, rng):
    """At most `count` pairs (right, wrong), closest in length, no answer twice.

    right, wrong: rollouts of one question, dictionaries with "tokens".
    """
    return NotImplemented  # your lines
''',
    ("Look at all combinations of a right with a wrong answer. Which one would you take first?",
     "Sort them by abs(right tokens - wrong tokens).",
     "Go through the sorted combinations; skip one whose right or wrong answer is used; stop after `count` pairs."),
)
TEMPERATURE = Exercise(
    "05", "The temperature schedule", 1, 5,
    "Write the paper's schedule: temperature 1.0 at the first step, falling linearly to 0.6 at half of the steps, and "
    "0.6 from there on.",
    '''def temperature(step, steps):
    """Sampling temperature at `step`, 0 to steps - 1.

    1.0 at step 0, linearly down to 0.6 at steps / 2, then 0.6.
    """
    return NotImplemented  # your line
''',
    ("How far is `step` on its way to half of the steps, as a number that stops at 1?",
     "min(1.0, step / (steps / 2)); half of 31 steps is 15.5.",
     "1.0 minus 0.4 times that share."),
)
ADVANTAGE = Exercise(
    "05", "Rebalancing", 2, 15,
    "Give an advantage to as many wrong answers as right ones: +1 to each right one, -1 to as many wrong ones, drawn "
    "at random. A prompt without a right answer, or with more than half right, gets zeros.",
    '''def advantage(rewards, random):
    """Rewards of +1 and -1, shape (prompts, group) -> advantages, same shape.

    A prompt with no right answer, or more than half right: all 0. Else +1 for each
    right answer, -1 for as many wrong ones, and 0 for the rest. The wrong ones are
    drawn by torch.randperm(number of wrong, generator=random).
    """
    return NotImplemented  # your lines
''',
    ("Start from torch.zeros_like(rewards) and go through the prompts, one row at a time.",
     "(row > 0).nonzero()[:, 0] are the places of the right answers, (row < 0).nonzero()[:, 0] of the wrong ones.",
     "With k right ones: skip if k == 0 or 2 * k > the group; else advantages[i, wrong[torch.randperm(len(wrong), "
     "generator=random)[:k]]] = -1."),
)
FLIPS = Exercise(
    "06", "Gained and lost", 1, 5,
    'Count how many problems became "right" and how many stopped being so, from one model to the next.',
    '''def flips(before, after):
    """(Gained, lost): how many became "right", how many stopped being "right".

    before, after: verdicts on the same problems.
    """
    return NotImplemented  # your lines
''',
    ("Compare the verdicts problem by problem, with zip(before, after).",
     'Gained: the old one is not "right" and the new one is. From "wrong" to "unfinished" is neither.',
     "Two sums over zip(before, after, strict=True), returned as a tuple."),
)
PARAMETERS = Exercise(
    "07", "Count the weights", 3, 20,
    "Count the weights of a Phi model from its configuration. Input and output embeddings are one matrix, heads of "
    "keys and values are fewer than heads of queries, and nothing has a bias. A layer has attention (queries, keys, "
    "values, output), an MLP of three matrices (gate, up, down) and two norms; another norm comes after the last one.",
    '''def parameters(config):
    """The number of weights of a Phi model, an int.

    `config` has the attributes vocab_size, hidden_size, intermediate_size,
    num_hidden_layers, num_attention_heads, num_key_value_heads. A head is
    hidden_size / num_attention_heads wide.
    """
    return NotImplemented  # your lines
''',
    ("Add up: the embedding, for each layer attention, MLP and two norms, and one norm at the end.",
     "Attention: queries and output are hidden x hidden; keys and values are hidden x (num_key_value_heads x width) "
     "each. The MLP has three matrices of hidden x intermediate.",
     "A norm has hidden_size weights; each layer has two, and there is one after the last layer."),
)
MIXED_SHARE = Exercise(
    "08", "Groups that teach", 1, 5,
    "Write the share of groups that hold a right and a wrong answer: the only ones from which GRPO learns.",
    '''def mixed_share(rewards):
    """The share (0 to 1) of groups that hold both.

    rewards: +1 and -1, a tensor of shape (prompts, group).
    """
    return NotImplemented  # your line
''',
    ("Per row: is any reward positive, and is any negative?",
     "(rewards > 0).any(1) and (rewards > 0).all(1) give one truth value a row.",
     "any and not all, as floats, their mean: (a & ~b).float().mean()."),
)
