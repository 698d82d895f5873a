# %% [markdown]
# # Welcome: a small model learns to reason, here
#
# **Claim.** A model of under a million parameters cannot do a long sum in its head, but it can on paper, and it can
# be taught to use paper: first by copying, then by comparing, then by trying.
#
# **Time**: about 30 seconds in the `lab` profile, 20 in `smoke`, on two CPU cores. No network, no account, no GPU.
#
# These nine notebooks follow the recipe of *Phi-4-Mini-Reasoning* (Microsoft, arXiv 2504.21233), which turned a
# 3.8-billion-parameter model that guesses into one that reasons. You will run every stage of it yourself, on a model
# 4,500 times smaller. Nothing here is canned: every number of a model is measured by its cell, or marked as shipped
# with the course, and accuracies come with a 95 % interval. What stands below a cell before you run it is the output of
# the published run; yours will differ.
#
# **Two profiles.** `lab` trains for real. `PHI_LAB_PROFILE=smoke make lab` opens the same notebooks with a few steps a
# stage, to try a cell. A stage that has run is found again and not repeated, also when you have changed your function
# meanwhile: `lab.again("mid")` forgets it and what came after.
#
# **One dial.** `SCALE` below says for which model and hardware the cells run. "cpu" is the small world on two cores,
# and it is what the text of these pages tells of wherever it names no other. "lora", "qlora" and "full" train
# Phi-4-mini itself (notebook 07), by the same cells; the later notebooks follow the folder that this one opens.

# %%
from IPython.display import HTML

from phi_lab.lab import Lab, checks, tables
from phi_lab.lab.notebook import ask_ten
from phi_lab.model import shapes
from phi_lab.problems import benchmarks

SCALE = None  # "cpu", "lora", "qlora" or "full"; None: what PHI_LAB_SCALE says, or "cpu"
lab = Lab(SCALE)
lab

# %% [markdown]
# ## The recipe
#
# | | stage | in the paper | here | notebook |
# |---|---|---|---|---|
# | 0 | distillation | 1.6 M questions, about 8 answers of DeepSeek-R1 to each [S2] | a tiny teacher | 01 |
# | 1 | mid-training | all right answers, packed, until validation stops improving [S] | the same | 02 |
# | 2 | fine-tuning (SFT) | a compact subset, not packed [S2] | the same | 03 |
# | 3 | Rollout DPO | right answers preferred over wrong ones of the same teacher [S2] | the same | 04 |
# | 4 | RL | GRPO, +1 or −1, three stabilisers [S2] | the same | 05 |
#
# *How sure we are of the paper's figures:* **[V]** read in the paper, **[P]** read in another document of its
# authors, **[S]** from second-hand notes, **[S2]** two independent notes agree, **[I]** our own arithmetic, **[U]**
# unknown. The paper's full text could not be read when this course was written, and a course about evidence should
# say so.
#
# ## The small world
#
# Three sets of problems that nobody trains on play the parts of the paper's three benchmarks.

# %%
parts = {"easy": "MATH-500", "hard": "AIME 2024", "transfer": "GPQA Diamond"}
rows = [
    (name, part, problem["prompt"], problem["answer"])
    for name, part in parts.items()
    for problem in benchmarks.load(name)[:2]
]
HTML(
    tables.table(
        "1,000 problems each; the first 500 are asked.", ("benchmark", "plays the part of", "a problem", "answer"), rows
    )
)

# %% [markdown]
# ## Where we start, and where we are going
#
# First the *base*: it has read a great many short answers and blurts out a number. Beside it the model at the end of
# the course, as it ships. The same ten hard problems will come back in every notebook.

# %%
lab.before_after("base", "grpo")

# %% [markdown]
# ## Measuring the base
#
# Easy problems at once, hard ones hardly: the state in which Phi-4-Mini began (71.8 % on MATH-500, 10.0 % on AIME
# 2024 [P]). We sample at temperature 0.6, as in all that follows, each hard problem four times, and keep every single
# answer, right or wrong, in the run folder.

# %%
lab.measure("base")
lab.ladder("base")

# %% [markdown]
# **A control that must fail.** The same network with random weights, asked the ten problems. Whatever it gets right, a
# model gets without having learned anything.

# %%
_, tokenizer = lab.model("base")
found = ask_ten(shapes.build("phi-nano", len(tokenizer), 0), tokenizer)
print(f"random weights: {sum(row['verdict'] == 'right' for row in found)} of {len(found)} right")
print("it writes:", found[0]["completion"][:60])

# %% [markdown]
# The right panel is the paper's ladder [S2]: four stages, four rungs. By notebook 06 the left panel should have the
# same shape; whether it does is for the intervals to say. Note what the right panel lacks: intervals. AIME 2024 has
# 30 problems, so one problem is 3.3 points.
#
# One climb proves little: another seed is another climb. So the whole recipe is to be run on independent seeds, and
# beside every stage stands its *control*, the stage before trained on for the same compute. What is published of these
# chains comes with the course; what you run from here on is one more.

# %%
lab.chains()

# %% [markdown]
# ## An exercise, to see how exercises work here
#
# Fill in the stub, run both cells. If you leave it, the notebook says so and goes on; a right answer of yours is what
# it then uses.


# %% tags=["exercise"]
def share_right(verdicts):
    """The share of verdicts that are "right", 0 to 1. The others are "wrong", "unfinished", "unparsed", "timeout"."""
    return NotImplemented  # your line


# %%
right_share = checks.SHARE_RIGHT.use(share_right)
verdicts = [row["verdict"] for row in lab.answers("base", "hard", temperature=0.6)]
print(f"{len(verdicts):,} sampled answers to hard problems, {100 * right_share(verdicts):.1f} % of them right")

# %% [markdown]
# ## What to remember
#
# - Four stages: imitate much, imitate well, compare, try.
# - A number without its interval is half a number.
# - The base is not stupid. It has read answers, and it has read columns of digits, but never one before the other.
#
# ## Three questions
#
# 1. Why would a *larger* model need less paper for the same sum?
# 2. `hard` counts an answer that never ends as not right. When would that be unfair?
# 3. What would you have to see to believe that a stage did nothing?
#
# Next: [01, where answers come from](01_distillation.ipynb)
