# %% [markdown]
# # Fine-tuning: few answers, well written, one per row
#
# **Claim.** Training on a compact set of answers, chosen by how they are written, improves accuracy more than
# continuing mid-training for the same compute with the same falling learning rate. This holds in the mean of six
# published chains; a single run, such as yours, may not show it.
#
# **Time**: about 190 seconds in the `lab` profile, 45 in `smoke`, on two CPU cores.

# %%
from collections import Counter

from IPython.display import HTML

from phi_lab.core.formatting import percent_interval
from phi_lab.core.run_folder import arm_name
from phi_lab.lab import Lab, checks, pictures, tables
from phi_lab.problems import worked_solutions
from phi_lab.report import figures
from phi_lab.report.ladder_rows import model_title, protocol
from phi_lab.stages import sft
from phi_lab.stages.preference_pairs import log_probabilities

lab = Lab()
right = lab.right()
subset = sft.choose(right, lab.config.sft.documents, lab.seed)

# %% [markdown]
# ## The subset
#
# The paper fine-tunes on a *compact but representative* subset [S]; how it was chosen and how large it was is unknown
# [U]. Ours is chosen by how the answers are written. A terse answer holds results only; if it is right, it is right by
# luck, and a model trained on such answers learns to guess. So the subset takes only half of them. (Without any terse
# answers this stage ends higher, and the next one, which unlearns them, has nothing left to improve.) Questions with 1,
# 2, 3 and 4 operations are in the ratio 2 : 1 : 2 : 2. Of each kind the subset takes first the questions that the
# teacher fails most often, and of each question up to three answers at random.


# %%
def row_of(name, rows):
    levels, count = Counter(row["level"] for row in rows), len(rows)
    shares = [f"{100 * levels[level] / count:.0f} %" for level in (1, 2, 3, 4)]
    rate = sum(row["pass_rate"] for row in rows) / count
    return name, f"{count:,}", *shares, f"{100 * rate:.0f} %", f"{sum(row['tokens'] for row in rows) / count:.0f}"


terse = [row for row in right if not worked_solutions.shows_columns(row["completion"])]
print(f"{100 * len(terse) / len(right):.0f} % of the right answers are terse, such as: {terse[-1]['completion']}")
head = ("", "answers", "1 operation", "2", "3", "4", "teacher's pass rate", "mean tokens")
HTML(tables.table("", head, [row_of("mid-training", right), row_of("fine-tuning", subset)]))

# %% [markdown]
# ## Exercise: do not pack
#
# This is the simplest packer. In the paper stage 1 packs and stage 2 does not, so that the model learns where an answer
# stops [S2].


# %% tags=["exercise"]
def my_one_per_row(lengths, row_length):
    """Lengths in tokens -> rows with a single index each; what is longer than a row is left out."""
    return NotImplemented  # your line


# %%
unpacked = checks.UNPACKED.use(my_one_per_row)
lengths = lab.lengths(subset)[:12]
figures.packing(
    [[lengths[index] for index in row] for row in unpacked(lengths, lab.config.sft.row_length)],
    lab.config.sft.row_length,
)

# %% [markdown]
# ## Training

# %%
result = lab.stage("sft", pack=unpacked)
figures.loss_curve(result.metrics, "Fine-tuning")

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
# `unfinished`; if fine-tuning teaches the model to stop, that share shrinks. (In the published run the share was close
# to zero already after mid-training. We do not pack here because the paper does not; that it helps is not shown.)

# %%
steps = (lab.start("sft"), "sft")  # in `smoke` SFT starts from the shipped model of mid-training, not from this page's
verdicts = {model_title(stage): [row["verdict"] for row in lab.answers(stage, "hard", 0.6)] for stage in steps}
for name, values in verdicts.items():
    print(f"{name}: {100 * values.count('unfinished') / len(values):.2f} % of {len(values):,} answers unfinished")
pictures.verdicts(verdicts, "Verdicts on hard, T = 0.6")

# %% [markdown]
# **Negative control.** The same answers cut in half, followed by the stop token. A model that knows where to
# stop gives whole answers a high probability and halves almost none.

# %%
whole = subset[:200]
halves = [{**row, "completion": row["completion"][: len(row["completion"]) // 2]} for row in whole]
for stage in steps:
    full, cut = (sum(log_probabilities(*lab.model(stage), rows)) / len(rows) for rows in (whole, halves))
    print(f"{model_title(stage)}: a whole answer and stop {full:.1f} nats, half of one and stop {cut:.1f} nats")

# %% [markdown]
# ## Is it the choice, or only more training?
#
# The *control* starts where fine-tuning started and is fine-tuned likewise: the same learning rate, which falls to zero,
# and the same compute, on right answers drawn at random. It shows what more training alone would have reached.

# %%
lab.control("sft-control")
lines = []
for model, title in ((steps[0], model_title(steps[0])), ("sft-control", "its control"), ("sft", "SFT")):
    cells = [
        percent_interval(row["accuracy"], row["ci_low"], row["ci_high"])
        for benchmark in ("easy", "hard")
        for row in lab.ladder_rows()
        if (row["benchmark"], protocol(row)) == (benchmark, "sampled")
        and arm_name(row["stage"], row["arm"]) == model
    ]
    lines.append((title, *cells))
HTML(tables.table("Temperature 0.6, 95 % intervals.", ("model", "easy", "hard"), lines))

# %%
lab.ladder("sft")

# %% [markdown]
# ## On other seeds

# %%
lab.gains("sft")

# %% [markdown]
# ## What to remember
#
# - Stage 1 is about the number of answers, stage 2 about which answers and how they are written.
# - Much of this stage's gain comes from more training at a falling rate, which the control has too. The control does
#   not have the choice of answers. A gain without its control shows little.
# - Compare the greedy answers in the report as well: in the published run the control's were nearly as good (89
#   against 90 %), its *sampled* ones seven points worse, as in the mean of six chains. Yours may differ in both.
# - A loss is not an accuracy: in the published run the control's validation loss was the lower one. The validation set
#   holds all of the teacher's styles, and fine-tuning makes some of them less likely.
# - Among questions with the same number of operations the hard ones come first; single operations stay in the set on
#   purpose, for `easy`.
#
# ## Three questions
#
# 1. The subset's answers come from the same teacher as before. What *new* information can they hold?
# 2. The paper's gain here is +13.3 on AIME [S2], four problems of thirty. How sure can one be of that?
# 3. The set leaves out half of the terse answers. What would it teach if it left out half of the written-out ones
#    instead? Pass your function to the stage as `choose=`.
#
# Next: [04, Rollout DPO](04_rollout_dpo.ipynb)
