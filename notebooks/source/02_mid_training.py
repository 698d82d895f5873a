# %% [markdown]
# # Mid-training: copy until nothing improves
#
# **Claim.** Many verified chains of thought, packed tightly and repeated until the validation loss stands still, turn
# a model that blurts into one that writes columns.
#
# **Time**: about 300 seconds in the `lab` profile, 40 in `smoke`, on two CPU cores.

# %%
from IPython.display import HTML

from phi_lab.lab import Lab, checks, tables
from phi_lab.report import figures
from phi_lab.report.ladder_rows import STAGE_TITLES, protocol
from phi_lab.stages.language_modeling import one_per_row, pack_best_fit
from phi_lab.stages.rollout_dpo import log_probabilities

lab = Lab()
right = lab.right()
config = lab.config.mid
print(f"{len(right):,} right answers to {len({row['id'] for row in right}):,} questions")
print(right[0]["prompt"], right[0]["completion"], sep="\n")

# %% [markdown]
# ## Packing
#
# Answers differ in length, and a batch is a rectangle. One answer a row wastes most of it on padding; *packing* puts
# several into one row. Positions start again at every answer, and attention does not look across the border, so
# neighbours never see each other.

# %%
lengths = lab.lengths(right)[:120]
room = config.row_length
figures.packing([[lengths[index] for index in row] for row in one_per_row(lengths, room)], room)

# %%
figures.packing([[lengths[index] for index in row] for row in pack_best_fit(lengths, room)], room)

# %% [markdown]
# ## Exercise: pack
#
# Write a packer that needs as few rows as *best fit decreasing*: take the longest answer first and put it into the
# fullest row that still has room. Yours then trains the model below.


# %% tags=["exercise"]
def pack(lengths, row_length):
    """Lengths in tokens -> rows, each a list of indices into `lengths`. Each once; longer than a row: left out."""
    return NotImplemented  # your lines


# %%
packer = checks.PACK.use(pack)
rows = packer(lab.lengths(right), room)
print(f"{len(right):,} answers in {len(rows):,} rows of {room} tokens: {len(right) / len(rows):.1f} answers a row")

# %% [markdown]
# ## Training
#
# Next-token prediction, on the answers only, at a constant learning rate until the loss on *unseen* questions has
# stopped improving. Then the rate falls to zero over a few more steps, the *cooldown*: at a constant rate the weights
# jump about their goal, and the cooldown lets them settle (the sharp last drop in the curve below). So the model stops
# at a plateau and not at a step that somebody chose. That matters: a ladder bought by stopping early proves nothing.
# (The paper: five epochs, learning rate 1e-5, batch 128 [S], feeding until a validation set stops improving [S]; the
# rate's course is unknown [U].) The optimizer is Muon for matrices and AdamW for the rest (`phi_lab/stages/muon.py`):
# here 300 of its steps were worth 700 of AdamW's. What the paper used is unknown [U].
#
# Losses are in nats a token, that is minus the natural logarithm of a probability: 0.05 nats are a probability of 95 %.

# %%
result = lab.stage("mid", pack=packer)

# %%
figures.loss_curve(result.metrics, "Mid-training")

# %%
held = [row for row in result.metrics if "eval_loss" in row]
best, last = min(held, key=lambda row: row["eval_loss"]), result.metrics[-1]
why = "its limit of steps" if last["step"] >= config.steps else "a plateau: the validation loss stopped improving"
print(f"best validation loss {best['eval_loss']:.3f} nats a token, at step {best['step']}")
print(f"ended at step {last['step']}, by {why}; {result.train_tokens:,} tokens in {result.seconds:.0f} s")

# %% [markdown]
# **A control that must fail.** Give every answer to a stranger's question, one with as many operations. A model that
# only knows what answers look like would not mind; one that reads the question should.

# %%
one_each = {row["id"]: row for row in right}  # answers to one question stand together: those would be no strangers
some = sorted(list(one_each.values())[:400], key=lambda row: row["level"])
strangers = [{**row, "prompt": other["prompt"]} for row, other in zip(some, some[1:] + some[:1], strict=True)]
tokens = sum(row["tokens"] for row in some)
for name, rows in (("its own", some), ("a stranger's", strangers)):
    loss = -sum(log_probabilities(*lab.model("mid"), rows)) / tokens
    print(f"an answer after {name} question: {loss:.2f} nats a token")

# %% [markdown]
# ## Before and after

# %%
lab.measure("base", "mid")
lab.ladder("mid")

# %%
lab.before_after("base", "mid")

# %% [markdown]
# ## What was paid
#
# `transfer` was part of pretraining and nobody trained it since. In the paper GPQA *rose* here, from 36.9 to 42.6
# [S2]; a model of this size has no such luck to spare. The rows below are this run's.

# %%
main = [row for row in lab.rungs() if protocol(row) == "sampled" and row["arm"] == "main"]
rows = [row for row in main if row["stage"] in ("base", "mid")]
lines = [
    (
        row["benchmark"],
        STAGE_TITLES[row["stage"]],
        tables.percent(row["accuracy"], (row["ci_low"], row["ci_high"])),
        row["n"],
    )
    for row in sorted(rows, key=lambda row: row["benchmark"])
]
HTML(tables.table("Temperature 0.6, 95 % intervals.", ("benchmark", "stage", "right", "samples"), lines))

# %% [markdown]
# ## On other seeds
#
# What mid-training brings on `hard`, in points, over the chains published with the course. Its control is the base,
# pretrained further for as much compute.

# %%
lab.gains("mid")

# %% [markdown]
# ## What to remember
#
# - Packing is about money, not about learning: the same answers, fewer empty squares.
# - The plateau is the yardstick: more of the same at this rate no longer seems to help. Two evaluations without
#   progress can also be chance: on one and the same seed this rule ended the published run after 1,125 steps, and a
#   later one after 675, with its loss still falling (docs/results.md). What more of the same at a falling rate would
#   still bring is shown beside the next stage, as its control.
# - What is not rehearsed is forgotten: look at `transfer`.
#
# ## Three questions
#
# 1. Packed rows hold several answers. What would go wrong if they could see each other?
# 2. The loss is averaged over tokens. Which answers weigh most, and is that what you want?
# 3. Why is the validation set made of other *questions* and not of other answers to the same ones?
#
# Next: [03, fine-tuning](03_sft.ipynb)
