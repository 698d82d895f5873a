# %% [markdown]
# # Distillation: ask often, verify everything
#
# **Claim.** A teacher's answer is worth what its verdict is worth: ask several times, check every final answer, learn
# from the right ones, and do not throw the wrong ones away.
#
# **Time**: about 90 seconds in the `lab` profile, 30 in `smoke`, on two CPU cores; nearly all of it is the teacher
# writing.

# %%
import random
from collections import Counter, defaultdict
from statistics import median

from IPython.display import HTML

from phi_lab import verify
from phi_lab.core import stats
from phi_lab.distill import shards
from phi_lab.lab import Lab, checks, tables, widgets
from phi_lab.lab.notebook import style
from phi_lab.report import figures

lab = Lab()
lab.before_after("base", "teacher")

# %% [markdown]
# The teacher is a model like its pupil, only trained longer; in the paper it is DeepSeek-R1 with 671 billion
# parameters [S2]. It is good and not perfect, which is what makes it useful twice.
#
# ## The verifier
#
# No model judges these answers. A program reads the box, or where there is none a last phrase such as "The answer is",
# and compares it as mathematics: 38/24 *is* 19/12. A box inside the thoughts does *not* count. `unfinished`: the
# thoughts never close, or nothing follows them; `unparsed`: there is an answer, and it cannot be read. The paper uses
# Math-Verify and a second look by GPT-4o-mini [S].

# %%
HTML(widgets.verdict_table())

# %%
widgets.verifier()  # with a running kernel: write an answer of your own, try to fool it

# %% [markdown]
# ## Asking the teacher
#
# Every question is asked eight times; so is the paper's, about [S2]. In `lab` all of them are asked here and now. In
# `smoke` a few are; the rest of the rollouts ship with the course, sampled from the same teacher by the run that made
# the checkpoints. The table says which rows are which.

# %%
rollouts = lab.rollouts()
sources = defaultdict(list)
for row in rollouts:
    sources[row["source"]].append(row)
lines = []
for name, rows in sources.items():
    share = sum(row["verdict"] == "right" for row in rows) / len(rows)
    lines.append((name, f"{len(rows):,}", f"{len({row['id'] for row in rows}):,}", tables.percent(share)))
HTML(tables.table("", ("where", "rollouts", "questions", "right"), lines))

# %% [markdown]
# ## The funnel
#
# The paper drew about 10 M rollouts for 1.6 M questions [S2]. What is left after the filters is what stages 1 and 2
# learn from.

# %%
figures.funnel(lab.funnel())

# %% [markdown]
# The largest cut is `distinct`: more than half of the right answers are word for word another one, since the teacher
# repeats itself where a question is easy.
#
# A filter is a choice, and it is never about one thing only. Suppose that long answers are too dear to train on, and
# tighten the limit on length. Which questions lose their answers?

# %%
HTML(widgets.limits_table(rollouts))

# %% [markdown]
# The hard ones: what needs many steps is long. The paper's own sets meet the same question at 16K and 20K tokens [S].

# %%
widgets.filters(rollouts)  # with a running kernel: move a limit, watch the funnel

# %% [markdown]
# Read some. One of every verdict stands here; with a running kernel the control below leafs through all of them.

# %%
HTML(widgets.gallery(rollouts, seed=1))

# %%
widgets.browse(rollouts)  # with a running kernel: choose a verdict, leaf through its rollouts

# %% [markdown]
# Ten million of them cannot be leafed through. What was sampled here lies in Parquet files, and DuckDB answers
# questions in SQL about them, however many they are (`phi-lab query` does so in a terminal). Are wrong answers longer?

# %%
asked = "select verdict, count(*) as rollouts, median(tokens)::int as tokens from rollouts group by all order by 2 desc"
found = shards.query(lab.data() / "rollouts", asked)
HTML(tables.table("", found[0], [row.values() for row in found]))

# %% [markdown]
# ## Where the teacher fails
#
# Its accuracy by the number of operations, with 95 % intervals. Eight answers to one question resemble each other, so
# they do not count as eight independent ones: the interval uses an effective sample size.

# %%
by_level = defaultdict(lambda: defaultdict(list))
for row in rollouts:
    by_level[row["level"]][row["id"]].append(row["verdict"] == "right")
lines = []
for level, questions in sorted(by_level.items()):
    whole = [hits for hits in questions.values() if len(hits) == 8]
    if not whole:  # traces of others come in other numbers
        continue
    low, high = stats.clustered_wilson([sum(hits) for hits in whole], 8)
    share = sum(map(sum, whole)) / (8 * len(whole))
    mixed = sum(0 < sum(hits) < 8 for hits in whole) / len(whole)
    lines.append((level, len(whole), tables.percent(share, (low, high)), tables.percent(mixed)))
HTML(tables.table("", ("operations", "questions", "right, with interval", "right and wrong answers"), lines))

# %% [markdown]
# The last column is the raw material of notebook 04: the share of questions with a right *and* a wrong answer.
#
# ## A script instead of a model?
#
# In this small world a program can write worked solutions, too; it has taught the teacher. Here it answers the same
# questions as often, and the same verifier judges it.

# %%
first = set(list(dict.fromkeys(row["id"] for row in rollouts))[:200])
taught = [row for row in rollouts if row["id"] in first]
lines = []
for name, rows in (("the teacher model", taught), ("the script", lab.scripted(200))):
    answers = defaultdict(set)
    for row in rows:
        answers[row["id"]].add((row["completion"], row["verdict"] == "right"))
    share = sum(row["verdict"] == "right" for row in rows) / len(rows)
    different = sum(map(len, answers.values())) / len(answers)
    mixed = sum(len({right for _, right in some}) == 2 for some in answers.values()) / len(answers)
    lines.append((name, len(answers), tables.percent(share), f"{different:.1f}", tables.percent(mixed)))
HTML(tables.table("", ("who", "questions", "right", "different answers of 8", "right and wrong answers"), lines))

# %% [markdown]
# The script is never wrong. That is its weakness: without a wrong answer there is no pair for notebook 04, no pass rate
# that says which questions are hard, and outside of a small world there is no script at all.
#
# ## Answers differ in length
#
# The teacher learned three ways to work: terse, checking its steps, and going back over slips (where there is nothing
# to check and no slip, an answer is plain columns). So right answers to
# one question differ in length. Notebook 05 needs that: uneven lengths are the first of the paper's three reasons why
# plain RL failed [S].

# %%
figures.lengths(rollouts, by="verdict")

# %%
styled = [{**row, "style": style(row["completion"])} for row in rollouts if row["verdict"] == "right"]
figures.lengths(styled, by="style")

# %%
spread = defaultdict(list)
for row in styled:
    spread[row["id"]].append(row["tokens"])
ratios = [max(tokens) / min(tokens) for tokens in spread.values() if len(tokens) > 1]
print(f"longest over shortest right answer: median {median(ratios):.2f}, over {len(ratios):,} questions")

# %% [markdown]
# ## Exercise: the reward
#
# From notebook 05 on a program, not a person, says what is good. Write it: +1 for a right final answer, −1 for
# everything else [S]. `verify.verify(text, gold).verdict` does the reading.


# %% tags=["exercise"]
def reward(completions, answers):
    """Two lists of equal length, what models wrote and the right answers -> a list of +1.0 and -1.0."""
    return NotImplemented  # your lines


# %%
score = checks.REWARD.use(reward)
some = random.Random(0).sample(rollouts, min(400, len(rollouts)))
values = score([row["completion"] for row in some], [row["answer"] for row in some])
print(
    "reward of 400 rollouts:", dict(Counter(values)), "and by verdict:", dict(Counter(row["verdict"] for row in some))
)

# %% [markdown]
# **A control that must fail.** Judge every answer against *another* question's gold. If the verifier still likes
# them, it is broken. (One or two in a hundred may pass: small numbers are the answer to more than one question.)

# %%
strangers = [row["answer"] for row in some[1:] + some[:1]]
fooled = sum(
    verify.verify(row["completion"], gold).verdict == "right" for row, gold in zip(some, strangers, strict=True)
)
low, high = stats.wilson(fooled, len(some))
print(f"accepted against a stranger's gold: {fooled} of {len(some)}, {tables.percent(fooled / len(some), (low, high))}")

# %% [markdown]
# ## What to remember
#
# - Only the final answer is checked, not the steps. A right answer may have been reached by a wrong way.
# - The filters throw away rollouts, the funnel says how many and why.
# - Wrong answers are kept: they are half of every pair in notebook 04.
#
# ## Three questions
#
# 1. Which filter removed most, and what would training on what it removed have done?
# 2. If the verifier accepted 2 % of wrong answers, which stage would suffer most?
# 3. The teacher's mistakes are not evenly spread over the levels. What does that do to the training set's difficulty?
#
# Next: [02, mid-training](02_mid_training.ipynb)
