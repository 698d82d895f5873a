# %% [markdown]
# # Mid-training: imitate every right answer
#
# **Claim.** Training on many verified chains of thought, packed into rows and repeated for five epochs, turns a model
# that guesses into one that writes its steps down.
#
# **Time**: about 370 seconds in the `lab` profile, 40 in `smoke`, 105 in `lesson`, on two CPU cores.
#
# **Before**: notebooks 00 and 01; what a loss, a gradient and an optimizer step are. Attention is explained where it is
# needed.
#
# **Afterwards** you can pack documents into rows, write the mask that keeps them apart and the loop that trains on
# them, and say what a learning-rate schedule does at its end.

# %%
import torch
from IPython.display import HTML

from phi_lab.core import stats
from phi_lab.core.formatting import percent_interval
from phi_lab.core.paths import SHIPPED
from phi_lab.lab import Lab, checks, looks, packing_leak, pictures, tables
from phi_lab.lab.answers import answer_problems, answer_ten_problems
from phi_lab.model import checkpoints
from phi_lab.problems import benchmarks
from phi_lab.report import figures
from phi_lab.report.ladder_rows import STAGE_TITLES, protocol
from phi_lab.stages import minimal_lm
from phi_lab.stages.packing import (
    IGNORE,
    collate,
    document,
    one_per_row,
    pack_best_fit,
    rows_dataset,
)
from phi_lab.stages.preference_pairs import log_probabilities

lab = Lab()
right = lab.right()
config = lab.config.mid
questions = {row["id"] for row in right}
print(f"{len(right):,} right answers to {len(questions):,} questions")
HTML(tables.rollout(right[0]))

# %% [markdown]
# ## Packing
#
# A document here is a question with its answer. Documents differ in length, rows do not: with one document per row of
# 384 tokens, most tokens are padding. *Packing* puts several documents into one row. Position ids restart at 0 in each
# document, and a block-diagonal attention mask keeps documents from attending to each other; you will write both. Each
# bar below is a row: first with one document in each, then packed.

# %%
all_lengths, room = lab.lengths(right), config.row_length
lengths = all_lengths[:120]
alone = one_per_row(lengths, room)
figures.packing([[lengths[index] for index in row] for row in alone], room)

# %%
packed = pack_best_fit(lengths, room)
figures.packing([[lengths[index] for index in row] for row in packed], room)

# %% [markdown]
# ## Exercise: pack
#
# Use no more rows than the second picture does. The models below are then trained with your packer.

# %%
checks.PACK.card()


# %% tags=["exercise"]
def pack(lengths, row_length):
    """Lengths in tokens -> rows, each a list of indices into `lengths`.

    Each index comes once; what is longer than a row is left out.
    """
    return NotImplemented  # your lines


# %%
packer = checks.PACK.use(pack)
rows = packer(all_lengths, room)
print(f"{len(right):,} answers in {len(rows):,} rows of {room} tokens")
print(f"answers per row: {len(right) / len(rows):.1f}")

# %% [markdown]
# ## Exercise: the positions
#
# A model knows the order of tokens by their positions. When it is used, each question begins at position 0, so in a
# packed row each document has to begin there, too.

# %%
checks.POSITION_IDS.card()


# %% tags=["exercise"]
def position_ids(lengths):
    """Lengths of a row's documents -> the position of each of its tokens, a list."""
    return NotImplemented  # your line


# %%
positions_of = checks.POSITION_IDS.use(position_ids)
first_row = [all_lengths[index] for index in rows[0]]
print(f"the first row: documents of {first_row} tokens")
print(f"its positions end with {positions_of(first_row)[-3:]}")

# %% [markdown]
# ## Exercise: the mask
#
# Attention lets a token look at others; the mask says at which ones. A language model's mask is *causal*: no token sees
# a later one. In a packed row that is not enough, because a document would see its neighbours, which are not there when
# the model is used. The loop below uses the mask that you write here.

# %%
checks.DOCUMENT_MASK.card()


# %% tags=["exercise"]
def document_mask(position_ids):
    """True where token i may look at token j, (rows, tokens, tokens).

    position_ids: (rows, tokens).
    """
    return NotImplemented  # your lines


# %%
may_see = checks.DOCUMENT_MASK.use(document_mask)

# %% [markdown]
# The mask of a row of two documents, of three tokens and of two: a line for each token, a `1` for each token that it
# sees.

# %%
print(may_see(torch.tensor([positions_of([3, 2])]))[0].int().numpy())

# %% [markdown]
# ## What does a token look at?
#
# A head gives each token so far a share of its attention. Much of adding in columns is *copying*: to write `7+8` one
# has to fetch the 7 of 47 and the 8 of 38. The figure shows one head of the last layer of the shipped mid-trained
# model, the one that looks most at an earlier token equal to the one that is written. Each row is a moment of writing
# `7+8=15,4+3+1=8;85`. Does the base, which has seen columns of digits, have such a head, too? (A row that looks
# elsewhere shows that one head does not do all of the copying.)

# %%
question = "Compute 47+38."
thought = "<think>47+38:7+8=15,4+3+1=8;85.</think>\\boxed{85}"
tokenizer = checkpoints.load_tokenizer()
for stage in ("base", "mid"):
    model = checkpoints.load(SHIPPED / stage)
    words, heads = looks.attention(model, tokenizer, question, thought)
    # The places of the columns' digits, and of the 5 of the result.
    written = [words.index(":") + step for step in (1, 3, 8, 10, 17)]
    head = looks.copying_head(words, heads, written)
    share = looks.copied(words, heads[head], written)
    print(f"{stage}, head {head}: {share:.2f} of its attention is on equal tokens")
pictures.attention(words, heads[head], written)

# %%
# With a running kernel: move along the answer, change the head.
looks.attention_slider(words, heads, written[0], head)

# %% [markdown]
# ## Exercise: a rate that falls
#
# The *learning rate* says how far a step goes. At a constant rate the weights oscillate around a minimum; as the rate
# falls they settle.

# %%
checks.RATE_FACTOR.card()


# %% tags=["exercise"]
def rate_factor(step, steps):
    """The factor on the learning rate: 1, and falling linearly in the last fifth.

    step: 0 to steps - 1.
    """
    return NotImplemented  # your line


# %%
factor = checks.RATE_FACTOR.use(rate_factor)

# %% [markdown]
# ## The loop
#
# A few lines train a model: a batch of rows, logits, the loss, the gradient, a step. The loss is the mean of −log of
# the probability that the model gave to each next token, in nats: 0.05 nats is a probability of 95 %. The labels say
# which tokens have a loss (notebook 03); those of the questions have none. `together` makes one batch of several rows,
# and `masked_logits` are the model's logits where each token sees what your mask allows; both are short functions of
# the package. Change what you like and run it again: it trains a copy of the shipped base, for less than a minute.


# %%
def train_here(model, table, steps, mask=may_see, batch_size=8, rate=1e-3):
    """Train `model` in place on `table`, rows of documents.

    Returns the loss of each step, in nats a token.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * factor(step, steps)
        places = range(step * batch_size, (step + 1) * batch_size)
        batch = together([table[place % len(table)] for place in places])
        ids, positions = batch["input_ids"], batch["position_ids"]
        has_loss = batch["labels"] != IGNORE
        logits = minimal_lm.masked_logits(model, ids, positions, mask(positions).bool())
        logprobs = logits[:, :-1].log_softmax(-1)  # the logits at t: about token t + 1
        logprobs = logprobs.gather(2, ids[:, 1:, None])[..., 0]  # of that token itself
        loss = -(logprobs * has_loss[:, 1:]).sum() / has_loss[:, 1:].sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # no step is too long
        optimizer.step()  # the model changes here, and nowhere else
        losses.append(loss.item())
    return losses


# %%
together = collate(tokenizer.pad_token_id)  # rows -> a batch of tensors
few = [
    row
    for row, length in zip(right[:400], all_lengths[:400], strict=True)
    if length <= room
]
# Token ids and labels of each answer, then the packed rows of them.
documents = [document(tokenizer, row["prompt"], row["completion"]) for row in few]
packed = packer([len(ids) for ids, _ in documents], room)
table = rows_dataset(documents, packed, tokenizer.pad_token_id, room)
small = checkpoints.load(SHIPPED / "base")  # the tiny model, at every scale
losses = train_here(small, table, steps=3 if lab.config.profile == "smoke" else 40)
print(f"{len(few)} answers in {len(packed)} rows")
print(f"loss {losses[0]:.2f} at the first step, {losses[-1]:.2f} at the last")
print("it now writes:", answer_ten_problems(small, tokenizer)[0]["completion"][:100])

# %% [markdown]
# **What if documents see each other?** Three short documents in a row: your mask, and one that is causal only.

# %%
second = packing_leak.answered_twice(few)  # its question has another answer, too
near = packing_leak.neighbours_of(second, few)
three = [near[0][1], second, near[1 % len(near)][1]]
packing_leak.figure(packing_leak.packed_row(tokenizer, three), may_see)

# %% [markdown]
# Orange is the leak. By how much does it change the logits of each document in the first row of the loop's table? The
# first document has nothing before it; for the others the difference is the leak.

# %%
batch = together([table[index] for index in range(2)])
ids, positions, labels = batch["input_ids"], batch["position_ids"], batch["labels"]
with torch.no_grad():
    apart = minimal_lm.masked_logits(small, ids, positions, may_see(positions).bool())
    causal = torch.ones(len(ids), ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    leaking = minimal_lm.masked_logits(small, ids, positions, causal)
change = (apart - leaking).abs().amax(-1)[0]
number = minimal_lm.documents_of(positions)[0]
for one in number[labels[0] != IGNORE].unique().tolist():  # so without the padding
    most = change[number == one].max()
    print(f"document {one} of the first row: logits differ by up to {most:.2g}")

# %% [markdown]
# And the loss? The shipped mid-trained model reads one document alone, then behind each of several others in turn.
# **Predict first.** The last line has the very same document before it, so with a leak the answer could be copied word
# for word. Does its loss fall?

# %%
mid = checkpoints.load(SHIPPED / "mid")
HTML(packing_leak.leak_table(mid, tokenizer, near, second, may_see))

# %%
others = {row["prompt"]: row for row in few if row["prompt"] != second["prompt"]}
shelf = [second, *others.values()][:30]
# With a running kernel: choose both documents.
packing_leak.widget(mid, tokenizer, shelf, second, may_see)

# %% [markdown]
# With the mask a question with its answer has the loss that it has alone, to the last digit: packing saves compute and
# changes nothing.
# With the leak the loss is another one, even behind the same document. This model was trained with the mask, so it has
# never had a neighbour, and two documents that both begin at position 0 are mixed up. A model that is trained with the
# leak may learn to use it. Then its loss is lower, and the help is gone when a question stands alone.
#
# **Is the fast path the same?** The fast path is the code of the stage, which you do not see here. It writes no mask:
# transformers builds one from position ids that restart, and the loss is the model's own. On the same two rows:

# %%
with torch.no_grad():
    here = minimal_lm.next_token_loss(apart, ids, labels != IGNORE).item()
    fast = small(
        input_ids=ids, position_ids=positions, labels=labels, use_cache=False
    ).loss.item()
print(f"loss of this page {here:.6f}, of the fast path {fast:.6f} nats a token")
print(f"difference {abs(here - fast):.1e}")

# %% [markdown]
# ## Training: the same, longer
#
# From here `lab.stage("mid")` is that loop on *all* right answers that the filters of notebook 01 left, five times
# over, as in the paper (in a `lesson`: a part of one), with three additions. Its code:
# `phi_lab/stages/mid_training.py`, then `lm_trainer.py` beside it.
#
# *A warm-up.* The rate rises from 0 over the first 2 % of the steps; then it goes as in the loop, and falls in the last
# fifth. Training ends where the schedule ends, so it ends at the same place on every seed. (An earlier version of this
# course stopped when the validation loss had not improved twice. That loss is noisy, so chance decided where training
# ended: docs/log.md.)
#
# *Replay.* A fifth of the tokens is fresh text like that of pretraining. It is there against forgetting;
# `transfer` below says whether it was enough.
#
# *An optimizer.* Muon for matrices and AdamW for the other weights (`phi_lab/stages/muon.py`), at a rate of 4e-3 where
# the loop has 1e-3. Muon orthogonalises each update of a matrix: its singular values become about equal, but for those
# that are almost zero.
#
# The paper, with marks of certainty as in notebook 00: five epochs, learning rate 1e-5, batch 128 [S], diverse data
# [S]; its schedule and its optimizer are unknown [U].

# %%
result = lab.stage("mid", pack=packer)

# %%
figures.loss_curve(result.metrics, "Mid-training")

# %%
evaluations = [row for row in result.metrics if "eval_loss" in row]
if evaluations:
    best, last = min(evaluations, key=lambda row: row["eval_loss"]), evaluations[-1]
    print(f"validation loss at the end: {last['eval_loss']:.3f}")
    print(f"the lowest: {best['eval_loss']:.3f}, at step {best['step']}")
steps = result.metrics[-1]["step"]
print(f"{steps} steps, {result.train_tokens:,} tokens in {result.seconds:.0f} s")

# %% [markdown]
# **The doctor.** After every stage it reads the files that training left and looks for what commonly goes wrong, from a
# learning rate of zero to a loss that stands still. It names numbers, a likely cause, and what to try.

# %%
lab.doctor("mid")

# %% [markdown]
# **Negative control.** Pair each answer with a different question, nearly always of the same level. A model that
# ignores the question would have the same loss; one that reads it must have a higher one.

# %%
# One answer a question: else the next answer might be to the same question.
one_per_question = {row["id"]: row for row in right}
paired = sorted(list(one_per_question.values())[:400], key=lambda row: row["level"])
shuffled = [
    {**row, "prompt": other["prompt"]}
    for row, other in zip(paired, paired[1:] + paired[:1], strict=True)
]
tokens = sum(row["tokens"] for row in paired)
for name, rows in (("the original", paired), ("a mismatched", shuffled)):
    loss = -sum(log_probabilities(*lab.model("mid"), rows)) / tokens
    print(f"an answer after {name} question: {loss:.2f} nats per token")

# %% [markdown]
# ## Before and after

# %%
lab.measure("base", "mid")
lab.ladder("mid")

# %%
lab.before_after("base", "mid")

# %% [markdown]
# ## What was forgotten?
#
# Problems like those of `transfer` were part of pretraining. None of the teacher's answers solves such a problem, but
# the replayed text holds some: with it `transfer` should stay about where it was. Did it? The rows below are from this
# run, and intervals as wide as these cannot say. Over the twelve published chains `transfer` falls by 3.7 points
# [2.8, 4.5] in this stage: the replay was not enough. In the paper GPQA *rose* in it, from 36.9 to 42.6 [S2].

# %%
rows = [
    row
    for row in lab.ladder_rows()
    if (protocol(row), row["arm"]) == ("sampled", "main")
    and row["stage"] in ("base", "mid")
]
lines = [
    (
        row["benchmark"],
        STAGE_TITLES[row["stage"]],
        percent_interval(row["accuracy"], row["ci_low"], row["ci_high"]),
        row["n"],
    )
    for row in sorted(rows, key=lambda row: row["benchmark"])
]
head = ("benchmark", "stage", "right", "samples")
HTML(tables.table("Temperature 0.6, 95 % intervals.", head, lines))

# %% [markdown]
# ## On other seeds
#
# Differences on `hard` in points over the published chains: mid-training against the base. Its control, the base
# pretrained further for the same compute (`mid-control`), is not among the published chains, so the size of the gain is
# all that they show. *pass@8* is the share of problems of which at least one of eight answers is right. *Detectable* is
# the smallest true difference that so many chains would show four times in five. It is corrected for all comparisons,
# so it is stricter than the interval.

# %%
lab.gains("mid")

# %% [markdown]
# ## Is the stage needed, and do small sets hurt?
#
# **What was believed.** The paper fine-tunes its base on the small curated sets LIMO and S1K alone, without this stage:
# MATH-500 falls from 71.8 to 57.8 and 47.0 [S]. It concludes that a small model needs mid-training on much data first.
# But training on a small set is also *short*, and here all answers are written in a form that the base does not know.
# So a control is missing: as short a training on many more answers.
#
# Live, one seed: one copy of the base is trained for 30 steps of the loop above on 64 answers, about ten times over,
# another for 30 steps on 400, less than twice over. The base and both copies answer 100 questions of `easy`, drawn from
# all 500, greedily; it plays the part of MATH-500: the base is right on most of it, without a written step. **Predict
# first**: which of the two copies is worse than the base?

# %%
import random

smoke = lab.config.profile == "smoke"
easy = benchmarks.load("easy")  # the first of them are the easiest
easy = random.Random(0).sample(easy, 20 if smoke else 100)


def right_after(count, steps):
    """How many of `easy` the base gets right after `steps` steps on `count` answers."""
    model = checkpoints.load(SHIPPED / "base")
    if count:
        some = [document(tokenizer, row["prompt"], row["completion"]) for row in drawn]
        some = [pair for pair in some if len(pair[0]) <= room][:count]
        rows = packer([len(ids) for ids, _ in some], room)
        table = rows_dataset(some, rows, tokenizer.pad_token_id, room)
        train_here(model, table, steps)
    found = answer_problems(model, tokenizer, easy)
    return sum(row["verdict"] == "right" for row in found)


steps = 3 if smoke else 30
drawn = random.Random(0).sample(right, min(450, len(right)))  # of all levels
for name, count in (("the base", 0), ("64 answers", 64), ("400 answers", 400)):
    hits = right_after(count, steps)
    share = percent_interval(hits / len(easy), *stats.wilson(hits, len(easy)))
    print(f"{name}: {share} of {len(easy)} questions")

# %% [markdown]
# If both fall equally far, that says nothing about the size of the set: at the floor the two cannot be told apart. It
# shows only that the schedule, which they share, is enough to do harm. The experiment `mid_training` asks the question
# on whole chains: sets from 128 answers up to all of them, with and without mid-training; without it, two sizes also at
# a quarter of the rate, and 512 answers at the best of four lengths of training. The cell shows what it found, or, if
# it has not run, the command that runs it.

# %%
lab.question("mid_training")

# %% [markdown]
# **What is known now**, of this small model. Mid-training and SFT on 2,048 answers end 9 points of `hard` above SFT
# alone on all answers for as many tokens, at T = 0.6; part of that goes with the choice of the 2,048. Greedily no
# difference is seen on `hard`, but 15 points on `easy`. SFT alone on many answers for long reaches 56 % of `hard` (71
# % greedily), from 2 %. Whether *small* sets hurt is still open. On SFT's schedule few and all answers end alike at 0
# % of `easy`: the model opens a thought, most often with a right first result, and does not close it. At a quarter of
# the rate it opens none. On twice the schedule 512 answers still cost 21 points of `easy` (7 greedily), and bring 21
# % of `hard` (35 % greedily). docs/results.md says what else the arms do not share.

# %% [markdown]
# ## Vary this next
#
# - `train_here(..., rate=1e-2)`, on a fresh copy of the base. Expect a loss that jumps and ends higher.
# - `mask=packing_leak.causal`, a mask that is only causal. Expect a different loss. If it is lower, the model is no
#   better: it was helped by text that is not there when it is used.
# - `steps=120`. Expect a lower loss, and more of the steps in what it writes.
#
# ## What to remember
#
# - Packing saves compute: the same answers and the same loss on each, with less padding. The mask keeps them apart.
# - The model changes in one line, `optimizer.step()`. All else decides in which direction.
# - The rate falls to zero at the end. Without that, the last weights are a matter of chance; and if a stage stops
#   early, any further training raises accuracy, and the next stage gets the credit. So the next notebook has a control.
# - What is not trained on is forgotten, so some of it is replayed: look at `transfer`.
#
# ## Three questions
#
# 1. Does training on these answers teach the answer or the process? How would you tell?
# 2. The loss is averaged over tokens. Which answers have the largest weight, and is that what you want?
# 3. Why is the validation set made of other *questions* and not of other answers to the same ones?
#
# <details><summary>Answers</summary>
#
# **1.** Nearly all tokens with a loss belong to the steps, so the process is trained; the answer only ends it.
# Ask questions that were never trained on: whoever knows answers by heart fails there. `hard` has such questions, some
# of them longer than any that was trained on.
#
# **2.** Long ones, in proportion to their tokens: each token counts the same, so an answer of 200 tokens counts as much
# as four of 50. Long answers are those to hard questions, so here it is mostly wanted; a long detour counts more, too.
#
# **3.** Answers to one question share its numbers and results. On other answers to the same questions a model that has
# learned the results by heart would look as good as one that can compute.
#
# </details>
#
# Next: [03, fine-tuning](03_sft.ipynb)
