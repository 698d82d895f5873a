# %% [markdown]
# # Fine-tuning: few answers, well written, one per row
#
# **Claim.** A compact set of answers, chosen by form, level and difficulty, is worth more than as many tokens of
# answers drawn at random. The paper says of its second stage only that its set is compact but representative; this page
# tests our way to choose. The published chains say whether it holds here; a single run, such as yours, may not show it.
#
# **Time**: about 210 seconds in the `lab` profile, 45 in `smoke`, 105 in `lesson`, on two CPU cores.
#
# **Before**: notebook 02, whose loop is used again.
#
# **Afterwards** you can write labels so that a model learns to answer and to stop, choose a training set and say by
# what, and build the control that shows whether the choice did it.

# %%
import random
from collections import Counter

import torch
import torch.nn.functional as F
from IPython.display import HTML

from phi_lab.core import stats
from phi_lab.core.formatting import percent_interval
from phi_lab.core.paths import SHIPPED
from phi_lab.core.run_folder import arm_name
from phi_lab.lab import Lab, checks, pictures, tables
from phi_lab.lab.answers import answer_problems
from phi_lab.model import chat, checkpoints
from phi_lab.problems import benchmarks, worked_solutions
from phi_lab.report import figures
from phi_lab.report.ladder_rows import model_title, protocol
from phi_lab.stages import sft
from phi_lab.stages.packing import IGNORE, collate, document, rows_dataset
from phi_lab.stages.preference_pairs import log_probabilities

lab = Lab()
right = lab.right()
subset = sft.choose(right, lab.config.sft.documents, lab.seed)

# %% [markdown]
# ## The subset
#
# The paper fine-tunes on a *compact but representative* subset [S]; how it was chosen and how large it was is unknown
# [U]. Ours is chosen by how the answers are written. A terse answer has no plan, and of each operation only the results
# of the columns (`6,9`); nothing in it shows how they were found, and a model trained on such answers learns to guess.
# So at most half of them may enter. Each number of operations gets a fixed share (`LEVEL_SHARES` in
# `phi_lab/stages/sft.py`; that two operations get half of what the others get was never tested). Within it, the subset
# takes first the questions that the teacher fails most often, and of each question up to three answers at random.


# %%
levels = sorted({row["level"] for row in right})


def row_of(name, rows):
    counts, count = Counter(row["level"] for row in rows), len(rows)
    shares = [f"{100 * counts[level] / count:.0f} %" for level in levels]
    rate = sum(row["pass_rate"] for row in rows) / count
    tokens = sum(row["tokens"] for row in rows) / count
    return name, f"{count:,}", *shares, f"{100 * rate:.0f} %", f"{tokens:.0f}"


terse = [row for row in right if not worked_solutions.shows_columns(row["completion"])]
print(f"{100 * len(terse) / len(right):.0f} % of the right answers are terse", end="")
print(f", such as: {terse[-1]['completion']}" if terse else "")
places = (f"level {level}" for level in levels)
head = ("", "answers", *places, "teacher's pass rate", "mean tokens")
caption = "A level is the number of operations."
lines = [row_of("mid-training", right), row_of("fine-tuning", subset)]
HTML(tables.table(caption, head, lines))

# %% [markdown]
# ## Exercise: another choice
#
# The shares by level are one idea. The simplest other one: whatever the teacher fails most often, and nothing else.
# What would such a set look like? The table is the one above, with your set of the same size.

# %%
checks.HARDEST_FIRST.card()


# %% tags=["exercise"]
def hardest_first(rows, count):
    """At most `count` of the right answers.

    rows: dictionaries with "id" (the question) and "pass_rate" (0 to 1).
    """
    return NotImplemented  # your lines


# %%
choose_hardest = checks.HARDEST_FIRST.use(hardest_first)
hardest = choose_hardest(right, len(subset))
lines = [row_of("fine-tuning", subset), row_of("hardest first", hardest)]
HTML(tables.table(caption, head, lines))

# %% [markdown]
# Look at the columns of levels. What might a model that is trained on your set forget? "Vary this next", at the end of
# the page, trains on it.
#
# ## Exercise: do not pack
#
# In the paper stage 1 packs and stage 2 does not, so that the model learns where an answer stops [S2].

# %%
checks.UNPACKED.card()


# %% tags=["exercise"]
def my_one_per_row(lengths, row_length):
    """Lengths in tokens -> rows with a single index each, without what is too long."""
    return NotImplemented  # your line


# %%
unpacked = checks.UNPACKED.use(my_one_per_row)
lengths, room = lab.lengths(subset)[:12], lab.config.sft.row_length
rows = unpacked(lengths, room)
figures.packing([[lengths[index] for index in row] for row in rows], room)

# %% [markdown]
# ## Exercise: the labels
#
# The model reads question and answer; it shall learn to *write* only the answer. So each token has a label: its own id
# where it has a loss, else −100, which PyTorch's cross-entropy leaves out. (Nothing has to be shifted: the loss in the
# loop below compares each label with what the model said one token before.) Without a loss on the stop token nothing
# would ever tell the model to end.

# %%
checks.LABELS.card()


# %% tags=["exercise"]
def labels(prompt, completion, width):
    """The `width` labels of a row, -100 where there is no loss.

    prompt, completion: token ids of a question, and of an answer with its stop token.
    """
    return NotImplemented  # your line


# %%
labels_of = checks.LABELS.use(labels)

# %% [markdown]
# Below, a space stands before each token, and what has a loss is in brackets. The last two tokens are padding.

# %%
tokenizer = checkpoints.load_tokenizer()
shortest = min(subset, key=lambda row: row["tokens"])
question = chat.prompt_ids(tokenizer, shortest["prompt"])
answer = chat.completion_ids(tokenizer, shortest["completion"])
answer += [tokenizer.eos_token_id]
row = question + answer + [tokenizer.pad_token_id] * 2
for token, label in zip(row, labels_of(question, answer, len(row)), strict=True):
    word = tokenizer.decode([token])
    print(f" {word}" if label == IGNORE else f" [{word}]", end="")

# %% [markdown]
# ## The loop, unpacked
#
# Notebook 02's loop without the mask and the falling rate, with one document a row and your labels. Rows of unequal
# length are padded, and padding has no loss. It trains a copy of the shipped mid-trained model, for less than a minute;
# mid-training has seen these answers, so the loss hardly moves. Try other labels as `targets_of`: −100 on the stop
# token, or no −100 at all, and look at what the model then writes: `[row["completion"] for row in
# answer_problems(small, tokenizer, benchmarks.load("hard")[:3])]`.


# %%
def rows_of(rows, targets_of):
    """Token ids and labels, (rows, tokens) each, padded on the right."""
    pairs = [
        (chat.prompt_ids(tokenizer, row["prompt"]),
         chat.completion_ids(tokenizer, row["completion"]) + [tokenizer.eos_token_id])
        for row in rows
    ]
    width = max(len(question + answer) for question, answer in pairs)
    ids = [question + answer for question, answer in pairs]
    ids = [row + [0] * (width - len(row)) for row in ids]
    targets = [list(targets_of(*pair, width)) for pair in pairs]
    return torch.tensor(ids), torch.tensor(targets)


def mean_loss(logits, targets):
    """The mean of -log π over the tokens with a label, in nats."""
    about_next = logits[:, :-1].transpose(1, 2)  # the logits at t: about token t + 1
    return F.cross_entropy(about_next, targets[:, 1:], ignore_index=IGNORE)


# %%


def train_here(model, rows, steps, targets_of=labels_of, batch_size=16, rate=2e-4):
    """Train `model` in place; returns the loss of each step, in nats a token."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    losses = []
    for step in range(steps):
        places = range(step * batch_size, (step + 1) * batch_size)
        batch = [rows[place % len(rows)] for place in places]
        ids, targets = rows_of(batch, targets_of)
        logits = model(input_ids=ids).logits  # causal: no token sees padding after it
        loss = mean_loss(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # no step is too long
        optimizer.step()  # the model changes here, and nowhere else
        losses.append(loss.item())
    return losses


# %%
small = checkpoints.load(SHIPPED / "mid")  # the tiny model, at every scale
few = [row for row in subset if row["tokens"] <= 300]
losses = train_here(small, few, steps=3 if lab.config.profile == "smoke" else 30)
first, last = sum(losses[:3]) / 3, sum(losses[-3:]) / 3
print(f"loss of the first steps {first:.3f}, of the last {last:.3f} nats a token")

# %% [markdown]
# **Why no loss on the question?** Its numbers were drawn at random: nobody can predict such a digit, which costs about
# 2.3 nats (log 10). And this model was never trained to write questions, so its loss on them is higher still. On
# either part:

# %%
def only_questions(question, answer, width):
    """The opposite of SFT's labels: a loss on the question only."""
    return question + [IGNORE] * (width - len(question))


ids, targets = rows_of(few[:32], labels_of)
with torch.no_grad():
    logits = small(input_ids=ids).logits
_, of_questions = rows_of(few[:32], only_questions)
for name, part in (("answers", targets), ("questions", of_questions)):
    tokens = int((part[:, 1:] != IGNORE).sum())
    print(f"{name}: {mean_loss(logits, part):.2f} nats a token, {tokens:,} tokens")

# %% [markdown]
# **Is the fast path the same?** The stage makes labels when it makes documents, and takes the model's own loss. On the
# same 32 answers:

# %%
documents = [document(tokenizer, row["prompt"], row["completion"]) for row in few[:32]]
alone = [[index] for index in range(len(documents))]
table = rows_dataset(documents, alone, tokenizer.pad_token_id, None)
batch = collate(tokenizer.pad_token_id)(list(table))
with torch.no_grad():
    here = mean_loss(logits, targets).item()
    fast = small(**batch, use_cache=False).loss.item()
for name, one in (("on this page", targets), ("in the stage", batch["labels"])):
    print(f"tokens with a loss {name}: {int((one != IGNORE).sum()):,}")
print(f"loss of this page {here:.6f}, of the fast path {fast:.6f} nats a token")
print(f"difference {abs(here - fast):.1e}")

# %% [markdown]
# ## Training: the same, longer
#
# `lab.stage("sft")` is that loop on the whole subset, three times over, with Muon, a learning rate that falls to zero,
# and a little replayed text of pretraining. (A `lesson` takes half of the subset, twice.) Its code is
# `phi_lab/stages/sft.py`.

# %%
result = lab.stage("sft", pack=unpacked)
figures.loss_curve(result.metrics, "Fine-tuning")

# %%
lab.doctor("sft")

# %% [markdown]
# ## Before and after

# %%
lab.measure("mid", "sft")

# %%
lab.before_after("mid", "sft")

# %% [markdown]
# ## Does it stop where it should?
#
# The figure shows the verdicts on `hard` at temperature 0.6. An answer that reaches the limit of tokens is
# `unfinished`; if fine-tuning teaches the model to stop, that share shrinks. Where it is close to zero already after
# mid-training there is nothing left to shrink. (We do not pack here because the paper does not; that it helps is not
# shown.)

# %%
# In `lesson` and `smoke` SFT starts from the shipped mid-training, not from yours.
models = (lab.start("sft"), "sft")
verdicts = {
    model_title(stage): [row["verdict"] for row in lab.answers(stage, "hard", 0.6)]
    for stage in models
}
for name, values in verdicts.items():
    share = 100 * values.count("unfinished") / len(values)
    print(f"{name}: {share:.2f} % of {len(values):,} answers unfinished")
pictures.verdicts(verdicts, "Verdicts on hard, T = 0.6")

# %% [markdown]
# **Negative control.** Answers of the subset, whole and cut in half, each followed by the stop token. A model that
# knows where to stop gives whole answers a high probability and halves almost none. The cell prints the mean
# log-probability of an answer: the further below zero, the less likely.

# %%
whole = subset[:200]
halves = [
    {**row, "completion": row["completion"][: len(row["completion"]) // 2]}
    for row in whole
]
for stage in models:
    for name, rows in (("a whole answer", whole), ("half of one", halves)):
        nats = sum(log_probabilities(*lab.model(stage), rows)) / len(rows)
        print(f"{model_title(stage)}: {name} and stop, {nats:.1f} nats")

# %% [markdown]
# ## Is it the choice, or only more training?
#
# The *control* starts where fine-tuning started and is fine-tuned likewise, with the same falling rate and the same
# compute, on right answers drawn at random. It shows what more training alone would have reached.
#
# ## Exercise: the gain over the control
#
# Two intervals side by side overlap too easily: both include how much problems differ from each other. Both models
# answered the same problems, so subtract first.

# %%
checks.PAIRED_GAIN.card()


# %% tags=["exercise"]
def paired_gain(before, after):
    """The mean gain with its interval, (mean, low, high).

    before, after: the share of right answers (0 to 1) to each problem, in one order.
    """
    return NotImplemented  # your lines


# %%
gain_of = checks.PAIRED_GAIN.use(paired_gain)
lab.control("sft-control")
shares = {}
for model in (models[0], "sft-control", "sft"):
    hits = {}
    for row in lab.answers(model, "hard", 0.6):
        hits.setdefault(row["id"], []).append(row["verdict"] == "right")
    shares[model] = [sum(of_problem) / len(of_problem) for of_problem in hits.values()]
beginnings = {models[0]: model_title(models[0]), "sft-control": "its control"}
for before, name in beginnings.items():
    mean, low, high = (100 * value for value in gain_of(shares[before], shares["sft"]))
    word = "above 0" if low > 0 else "below 0" if high < 0 else "0 is in the interval"
    shown = f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}]"
    print(f"hard, SFT over {name}, on these problems, in this run: {shown}, {word}")

# %%
before = models[0]
titles = {before: model_title(before), "sft-control": "its control", "sft": "SFT"}
shown, lines = (("easy", "sampled"), ("hard", "sampled"), ("hard", "greedy")), []
for model, title in titles.items():
    found = {
        (row["benchmark"], protocol(row)): row
        for row in lab.ladder_rows()
        if arm_name(row["stage"], row["arm"]) == model
    }
    rows = [found[key] for key in shown if key in found]
    cells = [
        percent_interval(row["accuracy"], row["ci_low"], row["ci_high"]) for row in rows
    ]
    lines.append((title, *cells))
head = ("model", "easy, T = 0.6", "hard, T = 0.6", "hard, greedy")
HTML(tables.table("95 % intervals.", head, lines))

# %%
lab.ladder("sft")

# %% [markdown]
# ## On other seeds
#
# One run can be lucky. Below are differences on `hard` in points over the published chains. They say whether the choice
# of answers pays: the stage has earned its place where it is above the stage before *and* above its control. Read
# greedy answers beside T = 0.6. Whether a small set needs mid-training before it is asked in the next section.

# %%
lab.gains("sft")

# %% [markdown]
# ## Do small sets hurt after mid-training?
#
# Notebook 02 trained the base on few answers. Here a model that already knows the form is trained on few. Live, one
# seed: the shipped mid-trained model as it is, after 30 steps of the loop above on 64 answers of all levels, and after
# 30 on 480; each answers 100 questions of `hard`. **Predict first**: which one gets worse, and by how much?

# %%
in_smoke = lab.config.profile == "smoke"
asked = benchmarks.load("hard")[: 20 if in_smoke else 100]
drawn = random.Random(0).sample(few, len(few))  # `few` is sorted by level
for name, count in (("mid-trained", 0), ("64 answers", 64), ("480 answers", 480)):
    model = checkpoints.load(SHIPPED / "mid")
    if count:
        train_here(model, drawn[:count], steps=3 if in_smoke else 30)
    answers = answer_problems(model, tokenizer, asked)
    hits = sum(row["verdict"] == "right" for row in answers)
    share = percent_interval(hits / len(asked), *stats.wilson(hits, len(asked)))
    print(f"{name}: {share} of {len(asked)} questions")

# %% [markdown]
# Thirty steps at a small rate move little, and a hundred questions show only large differences: look at the
# intervals. This loop has a fifth of notebook 02's rate, other batches and another benchmark, so the two live results
# cannot be compared. The experiment has sets from 128 answers to all of them, without and after mid-training, on the
# same schedule.

# %%
lab.question("mid_training")

# %% [markdown]
# **What is known now**, of this small model. After mid-training 2,048 answers are better for `hard` than 512,
# greedily, too; on `easy` they are 5 points worse, which is in no claim. Whether a small set *hurts* then depends on
# the benchmark and on sampling, and is in no claim either. 128 answers cost 5 points of `hard` at T = 0.6 and 14
# greedily, and gain 18 and 17 of `easy`. There fewer answers are terse than before, and nine in ten terse ones are
# wrong. The smaller the set, the more of its questions are those that the teacher often failed.

# %% [markdown]
# ## Vary this next
#
# - A loss on the question, too: `targets_of=lambda q, a, n: q + a + [IGNORE] * (n - len(q + a))` in the call of
#   `train_here`. Expect a higher loss that stays high: the words of a question can be learned, its numbers were drawn
#   at random.
# - `lab.reset("sft")`, then `lab.stage("sft", choose=lambda rows, count, seed: choose_hardest(rows, count))` and
#   `lab.measure("sft")`. Expect `easy` to lose: that set holds fewer questions of one operation. Whether long sums gain
#   has to be measured.
# - `rate=2e-3` in `train_here`, and print `losses[:6]`. Expect them to rise before they fall.
#
# ## What to remember
#
# - Stage 1 is about the number of answers, stage 2 about which answers and how they are written.
# - The labels decide what is learned: the answer and where it ends, not the question.
# - The control has the same start, rate and compute, and another choice. A gain without its control shows little.
# - Compare greedy answers, too: a model that has only become more certain gains at T = 0.6, but not at T = 0.
# - A loss is not an accuracy: the validation set holds all of the teacher's styles, and fine-tuning makes some of them
#   less likely on purpose.
#
# ## Three questions
#
# 1. The subset's answers come from the same teacher as before. What *new* information can they hold?
# 2. The paper's gain here is +13.3 on AIME [S2], four problems of thirty. How sure can one be of that?
# 3. The set leaves out half of the terse answers. What would it teach if it left out half of the written-out ones
#    instead? Pass your function to the stage as `choose=`.
#
# <details><summary>Answers</summary>
#
# **1.** No new answer: mid-training saw them all. New is their weight. Leaving answers out says which way of writing is
# wanted, and the teacher's pass rates say which questions are hard.
#
# **2.** Not very: two equally good models often differ by 4 of 30, too, when each problem is asked once. With k samples
# a problem the noise of sampling falls, but there are still only thirty problems.
#
# **3.** It would teach to write results without columns: shorter answers, more of which are wrong where a sum does not
# fit into one step. Try it: `lab.reset("sft")`, then the stage with your `choose`.
#
# </details>
#
# Next: [04, Rollout DPO](04_rollout_dpo.ipynb)
