# %% [markdown]
# # Open questions, and your part
#
# **Claim.** The effect of many parts of the recipe has never been published. A lab that runs in half an hour can
# measure them one by one.
#
# **Time**: about 30 seconds in the `lab` profile, 25 in `smoke`, 25 in `lesson`, on two CPU cores.
#
# **Before**: the other pages, or at least 05 and 06.
#
# **Afterwards** you can turn a question about the recipe into an experiment with a control, and say beforehand which
# result would answer it.

# %%
import torch
from IPython.display import HTML

from phi_lab.core import stats
from phi_lab.core.formatting import percent, percent_interval
from phi_lab.lab import Lab, checks, pictures, tables
from phi_lab.lab.answers import answer_ten_problems
from phi_lab.report import figures
from phi_lab.report.ladder_rows import SHIPPED_START

lab = Lab()

# %% [markdown]
# ## What the paper leaves open
#
# | question | why it is open | what an experiment would compare |
# |---|---|---|
# | Is mid-training necessary? | small sets alone *hurt*: AIME 10.0 → 6.7, 3.0 [S] | sets of 128 to all, both ways |
# | Whose mistakes, and which, in DPO? | choice of wrong answers unknown [U] | teacher's or student's, whole or cut |
# | Annealed or fixed temperature? | no ablation found [I] | 1.0 → 0.6, fixed 1.0, fixed 0.6 |
# | Which of the three RL devices carries the gain? | measured together only [I] | all three, each taken away alone |
# | Pack or not? | a rule, not a result [S2] | both packers in both stages |
# | Does a second teacher change the result? | one teacher [S2] | the script as teacher |
# | What is forgotten, what transfers? | GPQA rose in the paper [S2] | `transfer` after each stage |
# | Is RL's instability capacity or optimization? | small models are *thought* fragile [S] | wider models, lower rates |
#
# The first four are asked by three experiments of this course; two more ask what a difference is worth. Each is a file
# in `phi_lab/experiments/`: arms, measure, seeds and what would count were written down before the first run, and its
# rows are committed once it has run. Notebooks 02 to 06 show them where they belong. So far:

# %%
lab.questions()

# %% [markdown]
# The others are open here, and so is every answer on a larger model. An answer needs enough seeds to see the difference
# that you care about; notebook 06 says how many.
#
# ## A first experiment: does temperature mix groups?
#
# In the paper's first attempt too many groups had no difference. A higher temperature makes more mistakes, so it should
# give more mixed groups. We sample answers of the model before RL to the same questions at both ends of the schedule.
# Plain GRPO learns from every mixed group; rebalancing (notebook 05) also drops those above 50 % right, so the last
# column counts the groups that it keeps.
#
# ## Exercise: groups that teach

# %%
checks.MIXED_SHARE.card()


# %% tags=["exercise"]
def mixed_share(rewards):
    """The share (0 to 1) of groups that hold both.

    rewards: +1 and -1, a tensor of shape (prompts, group).
    """
    return NotImplemented  # your line


# %%
mixed = checks.MIXED_SHARE.use(mixed_share)
prompts = 24 if lab.config.profile == "smoke" else 120
lines, shares = [], []
for temperature in (1.0, 0.6):
    groups = lab.sample_groups("dpo", prompts, temperature)
    hits = [[row["verdict"] == "right" for row in group] for group in groups]
    rewards = 2.0 * torch.tensor(hits, dtype=torch.float32) - 1.0  # +1 and -1
    share = mixed(rewards)
    low, high = stats.wilson(share * prompts, prompts)
    shares.append((f"T = {temperature}", 100 * share, 100 * low, 100 * high))
    right = (rewards > 0).float().mean(1)  # of each group
    kept = ((right > 0) & (right <= 0.5)).float().mean()
    tokens = torch.tensor([[float(row["tokens"]) for row in group] for group in groups])
    spread = float((tokens.std(1) / tokens.mean(1)).mean())
    both = percent_interval(share, low, high)
    cells = (percent(float(right.mean())), both, f"{spread:.2f}", percent(float(kept)))
    lines.append((temperature, *cells))
caption = f"{prompts} training questions with 3 to 7 operations, 8 answers each by the "
caption += "model after Rollout DPO. Spread: of the lengths in a group."
head = ("temperature", "right", "groups with both", "spread", "kept by rebalancing")
HTML(tables.table(caption, head, lines))

# %%
pictures.intervals(shares, "Mixed groups: share with right and wrong answers")

# %%
(_, _, high_t_lower, high_t_upper), (_, _, low_t_lower, low_t_upper) = shares
if high_t_lower > low_t_upper:
    print("the intervals do not touch: the higher temperature gives more mixed groups")
elif low_t_lower > high_t_upper:
    print("the intervals do not touch: the lower temperature gives more mixed groups")
else:
    print("the intervals overlap: no difference shown with this many questions")

# %% [markdown]
# Both temperatures had the same questions, so a paired comparison would give a narrower interval. And the result holds
# for this one model only.
#
# ## The ten problems at two temperatures
#
# The final model, sampled once at 1.0 and once at 0.6.

# %%
model, tokenizer = lab.model("grpo")
answers = [
    answer_ten_problems(model, tokenizer, temperature, seed=lab.seed)
    for temperature in (1.0, 0.6)
]
HTML(tables.side_by_side(("T = 1.0", "T = 0.6"), answers))

# %% [markdown]
# ## This run, before and after all stages

# %%
lab.measure("base", "grpo")
# In `lesson` and `smoke` GRPO started from the shipped model of Rollout DPO.
arms = (("base", "main"), ("dpo", SHIPPED_START), ("grpo", "main"))
rows = [row for row in lab.ladder_rows() if (row["stage"], row["arm"]) in arms]
figures.ladder(rows, paper=False)

# %% [markdown]
# ## Contribute
#
# - A stage is one file in `phi_lab/stages/`, and its main decisions are plain functions. Write another `pair`,
#   `advantage` or `select` and pass it to `lab.stage(...)`; that is already an experiment.
# - Run it and the reference function with the same seeds and the same configuration, each run in a folder of its own:
#   `PHI_LAB_PROFILE=lab PHI_LAB_SEED=1 PHI_LAB_RUN=runs/seed-1 make lab`. Report n, seeds and intervals.
# - Run `make check` before every commit, and `make test` before a pull request: it runs these notebooks, too.
# - A result that says "no difference shown" is welcome. So is a mistake that you found in this course.
#
# ## Vary this next
#
# - `(1.4, 0.6)` instead of `(1.0, 0.6)` in the loop that samples groups (the cell after the figure compares just two).
#   Expect more mixed groups until right answers become rare, then fewer.
# - `lab.sample_groups("mid", ...)` instead of `"dpo"`. Expect more mixed groups: a model that is less certain is wrong
#   more often in part of a group.
#
# ## What to remember
#
# - A ladder shows that a recipe works, not why.
# - An experiment is a question, a control, and a decision, made beforehand, about which result would answer it.
# - The paper's authors later released a related model without RL that scores higher than the paper's on their own four
#   benchmarks [P]. Its architecture is another one, so that does not show RL to be useless [I]. The question is open.
#
# ## Three questions
#
# 1. Which row of the table would you run first, and what result would surprise you?
# 2. How many seeds would you need to see a difference of three points?
# 3. Which claim of this course do you trust least, and how would you check it?
#
# <details><summary>Answers</summary>
#
# **1.** There is no right one. A good answer names a result that you do *not* expect, because only then can the
# experiment teach you something, and the control without which nobody would believe it.
#
# **2.** It depends on how much one chain differs from the next: with a standard deviation s of the paired difference,
# a difference d shows with 80 % power at about n = (2.8 s / d)² chains, and a few more where n is small. The table of
# notebook 06 turns it around: the smallest d that its chains would have shown.
#
# **3.** Start from its rows: those of the chains, the attempts and the experiments are in `data/`, yours in your run
# folder. (Of earlier tuning runs only `docs/log.md` tells; their rows are not kept.) Recompute it, look for the control
# that is missing, or run the chain on a seed that nobody has looked at.
#
# </details>
#
# Back to the [beginning](00_welcome.ipynb)
