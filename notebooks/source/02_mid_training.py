# %% [markdown]
# # Mid-training: imitate until nothing improves
#
# **Claim.** Training on many verified chains of thought, packed into rows and repeated until the validation loss stops
# improving, turns a model that guesses into one that writes its steps down.
#
# **Time**: about 300 seconds in the `lab` profile, 40 in `smoke`, on two CPU cores.

# %%
from IPython.display import HTML

from phi_lab.core.formatting import percent_interval
from phi_lab.lab import Lab, checks, tables
from phi_lab.report import figures
from phi_lab.report.ladder_rows import STAGE_TITLES, protocol
from phi_lab.stages.packing import one_per_row, pack_best_fit
from phi_lab.stages.preference_pairs import log_probabilities

lab = Lab()
right = lab.right()
config = lab.config.mid
print(f"{len(right):,} right answers to {len({row['id'] for row in right}):,} questions")
print(right[0]["prompt"], right[0]["completion"], sep="\n")

# %% [markdown]
# ## Packing
#
# A document here is a question with its answer. Documents differ in length, rows do not: with one document per row of
# 320 tokens, most tokens are padding. *Packing* puts several documents into one row. Position ids restart at 0 in each
# document, and a block-diagonal attention mask keeps documents from attending to each other.

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
# fullest row that still has room. The model below is then trained with your packer.


# %% tags=["exercise"]
def pack(lengths, row_length):
    """Lengths in tokens -> rows, each a list of indices into `lengths`. Each index once, longer ones left out."""
    return NotImplemented  # your lines


# %%
packer = checks.PACK.use(pack)
rows = packer(lab.lengths(right), room)
print(f"{len(right):,} answers in {len(rows):,} rows of {room} tokens: {len(right) / len(rows):.1f} answers per row")

# %% [markdown]
# ## Training
#
# The model learns to predict the next token, of the answers only, at a constant learning rate until the loss on
# *unseen* questions stops improving. Then the rate falls to zero over a few more steps, the *cooldown*: at a constant
# rate the weights oscillate around a minimum, and the cooldown lets them settle (the sharp last drop in the curve
# below). So training stops at a plateau and not at a step that we chose. That matters: if a stage stops
# early, any further training raises accuracy, and the next stage gets the credit. (The paper, with marks of certainty
# as in notebook 00: five epochs, learning rate
# 1e-5, batch 128 [S], until a validation set stops improving [S]; its learning-rate schedule is unknown [U].) The
# optimizer is Muon for matrices and AdamW for the other weights (`phi_lab/stages/muon.py`): in pretraining 300 steps
# with Muon reached the loss of 700 with AdamW. What the paper used is unknown [U].
#
# Losses are in nats per token: minus the natural logarithm of a probability. A loss of 0.05 nats is a probability of
# 95 %.

# %%
result = lab.stage("mid", pack=packer)

# %%
figures.loss_curve(result.metrics, "Mid-training")

# %%
evaluations = [row for row in result.metrics if "eval_loss" in row]
best, last = min(evaluations, key=lambda row: row["eval_loss"]), result.metrics[-1]
at_limit = last["step"] >= config.steps
reason = "the limit of steps was reached" if at_limit else "the validation loss had stopped improving"
print(f"best validation loss {best['eval_loss']:.3f} nats per token, at step {best['step']}")
print(f"ended at step {last['step']}, since {reason}; {result.train_tokens:,} tokens in {result.seconds:.0f} s")

# %% [markdown]
# **Negative control.** Pair each answer with a different question, nearly always of the same level. A model that
# ignores the question would have the same loss; one that reads it must have a higher one.

# %%
one_per_question = {row["id"]: row for row in right}  # else the next answer might be to the same question
paired = sorted(list(one_per_question.values())[:400], key=lambda row: row["level"])
shuffled = [{**row, "prompt": other["prompt"]} for row, other in zip(paired, paired[1:] + paired[:1], strict=True)]
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
# ## What was forgotten
#
# Problems like those of `transfer` were part of pretraining, and have not been trained on since. In the paper GPQA
# *rose* in this stage, from 36.9 to 42.6 [S2]; a model of our size has no capacity to spare. The rows below are from
# this run.

# %%
main = [row for row in lab.ladder_rows() if protocol(row) == "sampled" and row["arm"] == "main"]
rows = [row for row in main if row["stage"] in ("base", "mid")]
lines = [
    (
        row["benchmark"],
        STAGE_TITLES[row["stage"]],
        percent_interval(row["accuracy"], row["ci_low"], row["ci_high"]),
        row["n"],
    )
    for row in sorted(rows, key=lambda row: row["benchmark"])
]
HTML(tables.table("Temperature 0.6, 95 % intervals.", ("benchmark", "stage", "right", "samples"), lines))

# %% [markdown]
# ## On other seeds
#
# Gain in points on `hard`, over the published chains: mid-training minus base, and mid-training minus its control (the
# base, pretrained further for the same compute).

# %%
lab.gains("mid")

# %% [markdown]
# ## What to remember
#
# - Packing saves compute: the same answers and the same loss on each, with less padding. A batch holds more answers.
# - The stage ends at a plateau, where more training at this rate no longer seems to help. Two evaluations without
#   progress can also be chance: with the same seed this rule ended the published run after 1,125 steps, and a later
#   one after 675, with its loss still falling (docs/results.md). How much accuracy the same training with a
#   decaying learning rate would still add is measured in the next notebook: it is the control of SFT.
# - What is not trained on is forgotten: look at `transfer`.
#
# ## Three questions
#
# 1. Packed rows hold several answers. What would go wrong if they could see each other?
# 2. The loss is averaged over tokens. Which answers have the largest weight, and is that what you want?
# 3. Why is the validation set made of other *questions* and not of other answers to the same ones?
#
# Next: [03, fine-tuning](03_sft.ipynb)
