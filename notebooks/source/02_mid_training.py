# %% [markdown]
# # Mid-training: imitate all right answers
#
# **Claim.** Training on many verified chains of thought, packed into rows and repeated for five epochs, turns a model
# that guesses into one that writes its steps down.
#
# **Time**: about 300 seconds in the `lab` profile, 40 in `smoke`, on two CPU cores.
#
# **Before**: notebooks 00 and 01; what a loss, a gradient and an optimizer step are. Attention is explained where it is
# needed.
#
# **Afterwards** you can pack documents into rows, write the mask that keeps them apart and the loop that trains on
# them, and say what a learning-rate schedule does at its end.

# %%
import torch
from IPython.display import HTML

from phi_lab.core.formatting import percent_interval
from phi_lab.core.paths import SHIPPED
from phi_lab.lab import Lab, checks, tables
from phi_lab.lab.answers import answer_ten_problems
from phi_lab.model import checkpoints
from phi_lab.report import figures
from phi_lab.report.ladder_rows import STAGE_TITLES, protocol
from phi_lab.stages import minimal_lm
from phi_lab.stages.packing import IGNORE, collate, document, one_per_row, pack_best_fit, rows_dataset
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
# 384 tokens, most tokens are padding. *Packing* puts several documents into one row. Position ids restart at 0 in each
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
# Need as few rows as the second picture. The models below are then trained with your packer.

# %%
checks.PACK.card()


# %% tags=["exercise"]
def pack(lengths, row_length):
    """Lengths in tokens -> rows, each a list of indices into `lengths`. Each index once, longer ones left out."""
    return NotImplemented  # your lines


# %%
packer = checks.PACK.use(pack)
rows = packer(lab.lengths(right), room)
print(f"{len(right):,} answers in {len(rows):,} rows of {room} tokens: {len(right) / len(rows):.1f} answers per row")

# %% [markdown]
# ## Exercise: the mask
#
# Attention lets a token look at others; the mask says at which. A language model's is *causal*: at none that comes
# later. In a packed row that is not enough, because a document would see its neighbours, which are not there when the
# model is used. The mask that you write here is the one of the loop below.

# %%
checks.DOCUMENT_MASK.card()


# %% tags=["exercise"]
def document_mask(position_ids):
    """Positions, (rows, tokens) -> True where token i may look at token j, (rows, tokens, tokens)."""
    return NotImplemented  # your lines


# %%
may_see = checks.DOCUMENT_MASK.use(document_mask)

# %% [markdown]
# The mask of a row of two documents, of three tokens and of two: a line for each token, a `1` for each token that it
# sees.

# %%
print(may_see(torch.tensor([[0, 1, 2, 0, 1]]))[0].int().numpy())

# %% [markdown]
# ## The loop
#
# Ten lines train a model: a batch of rows, its logits, the loss, the gradient, a step. The loss is the mean of −log of
# the probability that the model gave to each next token, in nats: 0.05 nats is a probability of 95 %. The labels say
# which tokens have a loss (notebook 03); those of the questions have none. Change what you like and run it again: it
# trains a copy of the shipped base, for less than a minute.


# %%
def train_here(model, table, steps, mask=may_see, batch_size=8, rate=1e-3):
    """Train `model` in place on `table`, rows of documents; returns the loss of each step, in nats a token."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0), []
    for step in range(steps):
        batch = together([table[(step * batch_size + i) % len(table)] for i in range(batch_size)])
        ids, positions, has_loss = batch["input_ids"], batch["position_ids"], batch["labels"] != IGNORE
        logits = minimal_lm.masked_logits(model, ids, positions, mask(positions).bool())
        logprobs = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]  # logits at t: about token t + 1
        loss = -(logprobs * has_loss[:, 1:]).sum() / has_loss[:, 1:].sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()  # the model changes here, and nowhere else
        losses.append(loss.item())
    return losses


# %%
tokenizer = checkpoints.load_tokenizer()
together = collate(tokenizer.pad_token_id)
few = [row for row, length in zip(right[:400], lab.lengths(right[:400]), strict=True) if length <= room]
documents = [document(tokenizer, row["prompt"], row["completion"]) for row in few]
packed = packer([len(ids) for ids, _ in documents], room)
table = rows_dataset(documents, packed, tokenizer.pad_token_id, room)
small = checkpoints.load(SHIPPED / "base")  # the tiny model, at every scale
losses = train_here(small, table, steps=40 if lab.config.profile == "lab" else 3)
print(f"{len(few)} answers in {len(packed)} rows; loss {losses[0]:.2f} at the first step, {losses[-1]:.2f} at the last")
print("it now writes:", answer_ten_problems(small, tokenizer)[0]["completion"][:100])

# %% [markdown]
# **What if documents see each other?** The same rows with a mask that is causal only. By how much do the logits of each
# document change? The first of a row has nobody before it; for the others the difference is the leak.

# %%
batch = together([table[index] for index in range(2)])
ids, positions, labels = batch["input_ids"], batch["position_ids"], batch["labels"]
with torch.no_grad():
    apart = minimal_lm.masked_logits(small, ids, positions, may_see(positions).bool())
    causal = torch.ones(len(ids), ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    leaking = minimal_lm.masked_logits(small, ids, positions, causal)
change = (apart - leaking).abs().amax(-1)[0]
number = minimal_lm.documents_of(positions)[0]
for one in number[labels[0] != IGNORE].unique().tolist():  # so without the padding, which counts as a document
    print(f"document {one} of the first row: logits differ by up to {change[number == one].max():.2g}")

# %% [markdown]
# **Is the fast path the same?** The stage writes no mask: transformers builds it from the position ids that restart,
# and the loss is the model's own. On the same two rows:

# %%
with torch.no_grad():
    here = minimal_lm.next_token_loss(apart, ids, labels != IGNORE).item()
    fast = small(input_ids=ids, position_ids=positions, labels=labels, use_cache=False).loss.item()
print(f"loss of this page {here:.6f}, of the fast path {fast:.6f} nats a token, difference {abs(here - fast):.1e}")

# %% [markdown]
# ## Training: the same, longer
#
# From here `lab.stage("mid")` is that loop on *all* right answers, five times over, as in the paper, with three
# additions.
#
# *A schedule.* The learning rate is constant and falls to zero in the last fifth of the steps. At a constant rate the
# weights oscillate around a minimum; as the rate falls they settle. Training ends where the schedule ends, so it ends
# at the same place on every seed. (An earlier version of this course stopped when the validation loss had not improved
# twice. That loss is noisy, so chance decided where training ended, and with it every rung above: docs/log.md.)
#
# *Replay.* A fifth of the tokens is fresh text like that of pretraining. What is never shown again is forgotten.
#
# *An optimizer.* Muon for matrices and AdamW for the other weights (`phi_lab/stages/muon.py`).
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
    print(f"validation loss at the end {last['eval_loss']:.3f}, lowest {best['eval_loss']:.3f} at step {best['step']}")
print(f"{result.metrics[-1]['step']} steps, {result.train_tokens:,} tokens in {result.seconds:.0f} s")

# %% [markdown]
# **The doctor.** After every stage it reads the files that training left and looks for what commonly goes wrong, from a
# learning rate of zero to a loss that stands still. It names numbers, a likely cause, and what to try.

# %%
lab.doctor("mid")

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
# ## What was forgotten?
#
# Problems like those of `transfer` were part of pretraining. No right answer of the teacher is to one, but replayed
# text has some: with it `transfer` should stay where it was. In the paper GPQA *rose* in this stage, from 36.9 to 42.6
# [S2]. The rows below are from this run; compare the intervals of base and mid-training.

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
# Differences on `hard` in points over the published chains: mid-training against the base, and against its control, the
# base pretrained further for the same compute.

# %%
lab.gains("mid")

# %% [markdown]
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
# 1. Packed rows hold several answers. What would go wrong if they could see each other?
# 2. The loss is averaged over tokens. Which answers have the largest weight, and is that what you want?
# 3. Why is the validation set made of other *questions* and not of other answers to the same ones?
#
# <details><summary>Answers</summary>
#
# **1.** A document would be predicted with the help of text that has nothing to do with it, and which is not there when
# the model is used: the loss in training would be of another task. The cell on the leak shows that logits do change.
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
