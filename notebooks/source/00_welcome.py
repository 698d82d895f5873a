# %% [markdown]
# # Welcome: a small model learns to reason, here
#
# **Claim.** A model of under a million parameters cannot give the result of a long sum at once, but it can compute it
# step by step, and it can be trained to write those steps: first by imitating right answers, then by comparing right
# with wrong ones, then by trying for itself.
#
# **Time**: about 20 seconds in the `lab` profile, 20 in `smoke`, 15 in `lesson`, on two CPU cores. No network, no
# account, no GPU; `phi-lab doctor --machine` says whether this computer will do.
#
# **Before**: Python, and what a neural network is. Each page names what it builds on; terms are in docs/glossary.md.
#
# **Afterwards** you can read what the model writes and find a slip in it, name the four stages and what each learns
# from, read an accuracy with its interval, and say what a stage's gain has to be compared with.
#
# ## One problem, before anything else
#
# The model at the end of the course answers a question. It writes one line, in a notation that it learned; `show` lays
# the line out as one adds on paper.

# %%
from IPython.display import HTML, display

from phi_lab.core.formatting import percent
from phi_lab.core.paths import SHIPPED
from phi_lab.lab import Lab, checks, tables
from phi_lab.lab.answers import answer, answer_ten_problems
from phi_lab.lab.tables import show
from phi_lab.model import checkpoints, shapes
from phi_lab.problems import benchmarks

# Every number is from 1 to 99, results of steps too: the model has never seen others.
question = "Compute 47+38-12."
model, tokenizer = checkpoints.load(SHIPPED / "grpo"), checkpoints.load_tokenizer()
show(answer(model, tokenizer, question))

# %% [markdown]
# First comes the *plan*, what is to be done. Each further line is one operation. Ones: 7+8=15, so 5 stays and 1 is
# carried. Tens: 4+3+1=8. The result is 85, and −12 is left to do. When nothing is left comes the answer, in a box.
#
# Now open "as the model wrote it" below the table. A full stop ends the plan and each step; `:` begins the columns, `;`
# the result, and what follows the result is left to do. In a division `9/5=1r4` is 1, remainder 4; a digit alone in its
# column is just copied. Everything that a step needs stands just before it, so that even so small a model can follow.
#
# There are three other ways to write, and you will meet them all. *Terse* answers leave out the plan, and the sums of
# the columns: `15,8` is what each column gives. *Checking* ones undo a step to see whether it was right. *Backtracking*
# ones notice a slip and mend it; it is struck out below.

# %%
styles = {
    "terse": "<think>47+38:15,8;85.85-12:3,7;73.</think>\\boxed{73}",
    "checking": "<think>47+38:7+8=15,4+3+1=8;85.check 85-38:15-8=7,8-3-1=4;47 ok.85."
    "</think>\\boxed{85}",
    "backtracking": "<think>47+38:7+8=14 no 7+8=15,4+3+1=8;85.</think>\\boxed{85}",
}
for name, thought in styles.items():
    display(HTML(f"<b>{name}</b>"), show(thought))

# %% [markdown]
# ## Exercise: find the slip
#
# Each exercise has a card with three hints and the solution, folded; a *stub*, which is a function without a body; and
# a check. Fill in the stub, then run its cell and the check. If you leave it as it is, the notebook says so and goes on
# with the reference solution. If your solution is right, the notebook uses yours.

# %%
checks.FIRST_SLIP.card()


# %% tags=["exercise"]
def first_slip(columns):
    """The index of the first wrong column, or None.

    ["7+8=15", "4+3+1=9"] -> 1, since 4+3+1 is 8. Columns have only + and -.
    """
    return NotImplemented  # your lines


# %%
find_slip = checks.FIRST_SLIP.use(first_slip)

# %% [markdown]
# Three wrong answers. In each step your function puts a ✗ at the first column whose own sum is wrong. One answer has no
# such column. What is wrong with it?

# %%
wrong_answers = (
    ("47+38,-12.47+38:7+8=16,4+3+1=8;86,-12.86-12:6-2=4,8-1=7;74.", 74),
    ("85-37,+6.85-37:15-7=8,8-3-1=5;58,+6.58+6:8+6=14,5+1=6;64.", 64),
    ("47+38,-12.47+38:7+8=15,4+3=7;75,-12.75-12:5-2=3,7-1=6;63.", 63),
)
for steps, result in wrong_answers:
    thought = f"<think>{steps}</think>\\boxed{{{result}}}"
    display(show(thought, find_slip=find_slip))

# %% [markdown]
# <details><summary>What is wrong with it</summary>
#
# In the last one every column is right by itself, but the 1 of 15 was not carried. To see such a slip you have to
# compare a column with the one before it. The *verifier* of this course reads no columns at all: it compares the final
# answer, and so it finds all three.
#
# </details>
#
# ## What this course is
#
# These nine notebooks follow the recipe of *Phi-4-Mini-Reasoning* (Microsoft, arXiv 2504.21233), which turned a
# 3.8-billion-parameter model that guesses into one that reasons. You will run every stage of it yourself, on a model
# 4,500 times smaller. Every number about a model is measured by its cell, or marked as shipped with the course, and
# accuracies come with a 95 % interval: the range in which the true accuracy plausibly lies. The output that a cell
# shows before you run it is that of the published run; yours will differ.
#
# **Three profiles.** `make lab` opens a `lesson`: a page is made to take two to three minutes, and each stage starts
# from the shipped *checkpoint* (the saved weights) of the stage before it, so it shows what one stage does, not what
# all of them add up to. `PHI_LAB_PROFILE=lab make lab` trains the whole recipe, each stage from your own model. `smoke`
# takes a few steps per stage, to try a cell. A stage that is finished is not trained again, even if you have changed
# your function in the meantime: `lab.reset("mid")` deletes it and every stage after it (`lab` is made by the next
# cell).
#
# **One setting for the hardware.** `SCALE` below says for which model and hardware the cells run. "cpu" is the small
# world on two cores, and the text of these pages is about it unless it names another scale. "lora", "qlora" and "full"
# train Phi-4-mini itself (notebook 07) with the same cells; the later notebooks use the folder that this one opens.

# %%
SCALE = None  # "cpu", "lora", "qlora", "full"; None: what PHI_LAB_SCALE says, or "cpu"
lab = Lab(SCALE)
lab

# %% [markdown]
# ## The recipe
#
# A map of what is to come; the notebook in the last column explains the words of its row.
#
# | | stage | in the paper | here | notebook |
# |---|---|---|---|---|
# | 0 | distillation | 1.6 M questions, up to 8 answers by DeepSeek-R1 to each [S2] | a tiny teacher | 01 |
# | 1 | mid-training | every right answer, packed, five epochs [S] | what filters leave; some pretraining text | 02 |
# | 2 | fine-tuning (SFT) | a compact subset, not packed [S2] | the same | 03 |
# | 3 | Rollout DPO | right answers preferred over the same teacher's wrong ones [S2] | the student's own | 04 |
# | 4 | RL | GRPO, +1 or −1 [S], three stabilisers [S2] | two of the three | 05 |
#
# *How sure we are of the paper's numbers:* **[S2]** two independent secondary sources agree, **[S]** one says so;
# later **[P]** read in another document by the authors, **[I]** our own arithmetic, **[U]** unknown. We could not read
# the paper's full text when we wrote this course, and a course about evidence should say so.
#
# ## The small world
#
# Three sets of problems that are never used for training stand in for the paper's three benchmarks. An *operation* is
# one `+`, `−`, `×` or `÷`. `easy` has one, `hard` three to seven. The teacher's answers, on which stages 1 and 2 train,
# are to questions with one to five operations: nobody works out six or seven for our model. `transfer` asks for logic
# and not for arithmetic.

# %%
stand_ins = {"easy": "MATH-500", "hard": "AIME 2024", "transfer": "GPQA Diamond"}
rows = [
    (name, original, problem["prompt"], problem["answer"])
    for name, original in stand_ins.items()
    for problem in benchmarks.load(name)[:2]
]
HTML(
    tables.table(
        f"The first {lab.config.evaluation.problems:,} of each are used here.",
        ("benchmark", "stands in for", "a problem", "answer"), rows,
    )
)

# %% [markdown]
# ## Where we start, and where we are going
#
# The *base* model was pretrained on a great many short answers, so it writes a number at once. Beside it is the model
# at the end of the course, as it ships. The same ten hard problems come back in every notebook.

# %%
lab.before_after("base", "grpo")

# %% [markdown]
# ## Measuring the base
#
# Phi-4-Mini began with easy problems mostly right and hard ones mostly wrong (71.8 % on MATH-500, 10.0 % on AIME 2024
# [P]), and our base was pretrained to be in that state. Here and in all later notebooks we sample at temperature 0.6,
# several answers to each hard problem, and save every answer, right or wrong, in the run folder. The *temperature* (T)
# says how much chance there is in the choice of a token: at 0 it is always the likeliest one (*greedy* answers). Later
# pages also measure greedy answers and cooler sampling (T = 0.3): a gain that a cooler sampler gives as well is not
# new knowledge. The left panel of the figure is ours, with 95 % intervals, the right one the paper's.

# %%
lab.measure("base")
lab.ladder("base")

# %% [markdown]
# **Negative control.** That is a measurement whose outcome is known beforehand, most often that there is no effect.
# Here it is the same network with random weights, on the ten problems: what it gets right, a model gets right without
# having learned anything.

# %%
_, tokenizer = lab.model("base")
answers = answer_ten_problems(shapes.build("phi-nano", len(tokenizer), 0), tokenizer)
hits = sum(row["verdict"] == "right" for row in answers)
print(f"random weights: {hits} of {len(answers)} right")
print("it writes:", answers[0]["completion"][:60])

# %% [markdown]
# We call accuracy after each stage the *ladder*. The right panel above is the paper's [S2]: each of its four stages
# improves accuracy. By notebook 06 the intervals in the left panel will say whether ours has the same shape. The right
# panel has no intervals. AIME 2024 has 30 problems, so one problem is 3.3 points.
#
# One run proves little, because another seed gives another ladder. So the whole recipe has to be run with other seeds;
# we call one such run, from distillation to GRPO, a *chain*. Each stage but mid-training is compared with its
# *controls*: what else the same compute would have bought from the same start, such as SFT on more answers. Notebook 06
# shows the chains that are published with the course; what you run in the `lab` profile is one more.
#
# ## Exercise: the share of right answers
#
# The number that everything else is measured by. A *verdict* is what the verifier says of one answer; notebook 01
# explains the five words.

# %%
checks.SHARE_RIGHT.card()


# %% tags=["exercise"]
def share_right(verdicts):
    """The share of verdicts that are "right", 0 to 1.

    The others are "wrong", "unfinished", "unparsed" and "timeout".
    """
    return NotImplemented  # your line


# %%
right_share = checks.SHARE_RIGHT.use(share_right)
verdicts = [row["verdict"] for row in lab.answers("base", "hard", temperature=0.6)]
print(f"{len(verdicts):,} sampled answers to hard problems")
print(f"{percent(right_share(verdicts))} of them right")

# %% [markdown]
# ## Vary this next
#
# - `question = "Compute 99+1."` in the first code cell. Expect a wrong answer: no training question has a number, or a
#   result, above 99.
# - `SHIPPED / "base"` instead of `SHIPPED / "grpo"` in that cell. Expect an answer without a thought: the base writes a
#   number at once.
# - A longer sum, such as `"Compute (84-57+36)/3."`. Expect the same kinds of line, only more of them.
#
# ## What to remember
#
# - A thought is a plan, steps with columns, and what is left to do; `show` lays it out.
# - The four stages: imitate many answers, imitate a few good ones, compare right with wrong, try.
# - An accuracy means little without its interval.
# - The base was pretrained on questions with bare answers, and on columns of digits without a question, but never on a
#   question with its columns before the answer.
#
# ## Three questions
#
# 1. Why would a *larger* model need fewer written steps for the same sum?
# 2. `hard` counts an answer that never ends as not right. When would that be unfair?
# 3. What would convince you that a stage had no effect?
#
# <details><summary>Answers</summary>
#
# **1.** Each token passes through a fixed number of layers, so a model can do only so much between one written token
# and the next. More layers, and wider ones, do more of the sum inside; what does not fit has to be written down.
#
# **2.** Where the limit of tokens is shorter than a right answer would be: then it measures length, not reasoning. So
# the limit lies above the longest worked solution, and the share of `unfinished` answers is shown beside.
#
# **3.** An interval around zero that is *narrow*: it has to exclude every gain that you would care about. "No
# difference shown" with a wide interval only says that too little was measured; so the table of notebook 06 says how
# large a gain would have been seen.
#
# </details>
#
# Next: [01, where answers come from](01_distillation.ipynb)
