# %% [markdown]
# # GRPO: learning from sampled answers
#
# **Claim.** A model can improve by training on answers that it samples itself, with no other signal than right or
# wrong, as long as each group holds both and accuracy is not at its limit. In the published run `hard` rises by three
# points, as it does in the mean of six chains. Greedy answers do not improve: the model learned to sample its right
# answers more often.
#
# **Time**: about 185 seconds in the `lab` profile, 55 in `smoke`, on two CPU cores.

# %%
import inspect

import torch
from IPython.display import HTML

from phi_lab.core import stats
from phi_lab.core.files import read_rows
from phi_lab.lab import Lab, checks, pictures, tables, widgets
from phi_lab.lab import reward_hacking as pages
from phi_lab.pipeline import reward_hacking
from phi_lab.report import figures
from phi_lab.stages import grpo

lab = Lab()
config = lab.config.grpo
print(f"{config.steps} steps of {config.prompts_per_step} questions x {config.group_size} answers")
print(f"learning rate {config.learning_rate}")

# %% [markdown]
# So far the model imitated and compared answers of others. Now it samples a *group* of answers to each question, a
# program rewards each with +1 or −1, and answers with a higher reward than the rest of their group become more likely:
#
# $$-\frac{1}{\sum_i |y_i|}\sum_i\sum_t \min\big(r_{it}A_i,\ \mathrm{clip}(r_{it},1-\epsilon,1+\epsilon)\,A_i\big),
# \qquad r_{it}=\frac{\pi(y_{it})}{\pi_{\rm old}(y_{it})}$$
#
# $A_i$ is the *advantage* of answer $y_i$, the same for each of its tokens; the sums run over the answers with an
# advantage. Here every batch is used for one update, so r is 1 and nothing is ever clipped, and there is no KL term
# (whether the paper has one is unknown [U]). The optimizer is Muon again.
#
# The paper's first attempt failed for three reasons [S], and the authors added a device against each [S2]:
#
# | what went wrong | device | here |
# |---|---|---|
# | answers to one prompt differ in length | keep prompts whose answers are alike in length | `select_uniform_length` |
# | all right or all wrong: no difference, no gradient | oversample hard prompts, then balance | `rebalance` |
# | training needs a high temperature, evaluation a low one | 1.0 → 0.6 over half of the steps | `anneal` |
#
# ## Temperature: high, then low
#
# A high temperature makes sampled answers more diverse. The table takes one answer of the model before RL, at the token
# where its distribution had the largest entropy, and shows how probable the likeliest tokens are at other temperatures.

# %%
start = lab.start("grpo")  # in `smoke` the shipped model of Rollout DPO, not this folder's
(rollout,) = lab.sample_groups(start, prompts=1, temperature=1.0, size=1)[0]
HTML(widgets.temperature_table(*lab.model(start), rollout["prompt"], rollout["completion"]))


# %% tags=["exercise"]
def temperature(step, steps):
    """Sampling temperature at `step` (0 to steps - 1): 1.0 at 0, linearly down to 0.6 at steps / 2, then 0.6."""
    return NotImplemented  # your line


# %%
schedule = checks.TEMPERATURE.use(temperature)
figures.temperature_schedule(schedule, max(30, config.steps))

# %%
widgets.schedule()  # with a running kernel: other schedules

# %% [markdown]
# ## Groups that give a gradient
#
# Plain GRPO computes the advantage of an answer as (reward − mean) / standard deviation of its group. Where all are
# right or all wrong that is zero over zero, and set to zero. Rebalancing keeps k = min(right, wrong, half of the group)
# answers of each side, and drops prompts that are, for example, more than 50 % right already [S2].

# %%
HTML(widgets.rebalancing_table(("--------", "+-------", "+++-----", "++++----", "+++++---", "++++++++")))

# %%
widgets.rebalancing()  # with a running kernel: tick the right ones


# %% tags=["exercise"]
def advantage(rewards, random):
    """Rewards of +1 and -1, shape (prompts, group) -> advantages, same shape. A prompt with no right answer, or more
    than half right: all 0. Else +1 for each right answer, -1 for as many wrong ones, drawn by
    torch.randperm(number of wrong, generator=random), and 0 for the rest."""
    return NotImplemented  # your lines


# %%
balanced = checks.ADVANTAGE.use(advantage)

# %% [markdown]
# Real groups of the model before RL, at temperature 1.0: on the left the sampled answers, on the right those with an
# advantage.

# %%
groups = lab.sample_groups(start, prompts=16, temperature=1.0)
rewards = torch.tensor([[1.0 if row["verdict"] == "right" else -1.0 for row in group] for group in groups])
advantages = balanced(rewards, torch.Generator().manual_seed(0))
pictures.groups(rewards.tolist(), advantages.tolist())

# %% [markdown]
# **Negative control.** Groups without a difference must give no gradient, whichever function computes the
# advantages.

# %%
same = torch.tensor([[1.0] * 8, [-1.0] * 8])
for name, function in (("plain GRPO", grpo.group_normalised), ("rebalanced", balanced)):
    print(f"{name}, sum of |advantage| without a difference: {function(same, torch.Generator()).abs().sum():.1f}")

# %% [markdown]
# ## Training
#
# Prompts are chosen before the first step, by difficulty and by length. One answer is sampled to each candidate prompt;
# if it is wrong, three more. Of the prompts with at least one right answer and at most half of them right, the 60 %
# whose answers are most alike in length are used.

# %%
result = lab.stage("grpo", advantage=balanced, temperature=schedule)
figures.rl_curves(result.metrics)

# %%
steps = [row for row in result.metrics if "zero_variance_share" in row]
first, last = steps[0], steps[-1]
for key, name in (("reward", "mean reward"), ("zero_variance_share", "share of groups without a difference"),
                  ("kept_share", "share of answers with an advantage"), ("mean_length", "tokens per answer")):
    print(f"{name}: {first[key]:.2f} at the first step, {last[key]:.2f} at the last")

# %% [markdown]
# The temperature falls during training, so part of any rise in reward comes from the lower temperature and not from
# learning. The benchmark does not have that flaw: it is sampled at 0.6 before and after.
#
# ## Before and after

# %%
lab.measure("dpo", "grpo")
lab.ladder("grpo")

# %%
lab.before_after("dpo", "grpo")

# %%
before, after = ([row["verdict"] == "right" for row in lab.answers(stage)] for stage in (start, "grpo"))
gained = sum(b > a for a, b in zip(before, after, strict=True))
lost = sum(a > b for a, b in zip(before, after, strict=True))
print(f"greedy on hard: {gained} gained, {lost} lost of {len(before)}; McNemar p = {stats.mcnemar(before, after):.3f}")
print("this is one seed: it describes two models and does not prove a recipe")

# %% [markdown]
# ## On other seeds
#
# GRPO has two controls here, both for the same compute: Rollout DPO continued, which ruins the model when it trains for
# that long, and the model after Rollout DPO trained further on SFT's data. The second is harder to beat.

# %%
lab.gains("grpo")

# %% [markdown]
# ## Reward hacking: a verifier that accepts too much
#
# A policy learns whatever the verifier pays for. This verifier reads the last box, and accepts it if its text is part
# of the right answer or the right answer is part of it: someone wanted to forgive "15 apples" for 15.

# %%
print(inspect.getsource(reward_hacking.sloppy))

# %% [markdown]
# Two runs of plain GRPO start from the base, which answers in a box without thinking, and is right on few questions of
# three or four operations. They differ in the reward only: the sloppy verifier, or the strict one of this course.
#
# **Predict first.** Which answer would you give to every question if you were paid by `sloppy`? Does a model that
# answers so still solve `easy`, on which it was not trained?

# %%
hacking = reward_hacking.CONFIGS[lab.config.profile]
live = reward_hacking.run(lab.run.path / "hacking", range(lab.seed, lab.seed + 1), hacking)
pages.curves(live)

# %% [markdown]
# Find the exploit in the answers to questions like those of training, after training. Green lines above are what the
# strict verifier says of the same sampled answers; the policy never sees it in the sloppy arm.

# %%
pairs = zip(*(row["examples"] for row in live), strict=True)
lines = [(one["prompt"], one["answer"], one["completion"], other["completion"]) for one, other in pairs]
HTML(tables.table("", ("question", "answer", "sloppy arm", "strict arm"), lines))

# %% [markdown]
# One run proves little. The published ones are three seeds of 40 steps, all that were run with these settings; the
# learning rate was chosen on another seed. What changes in the strict arm comes from this learning rate and from
# training on other questions; only the difference between the arms is the sloppy verifier's.

# %%
published = read_rows(reward_hacking.PUBLISHED)
print("\n".join(pages.verdict(published)))
HTML(pages.table(published))

# %% [markdown]
# ## What to remember
#
# - A group without a difference gives no gradient. The choice of prompts and rebalancing address that. The falling
#   temperature works against it: as the model gets better and more certain, fewer groups are mixed and fewer answers
#   have an advantage (above). So most of the learning happens early.
# - If as many right as wrong answers are kept, the group's mean reward is 0 and its standard deviation 1, so GRPO's
#   formula gives advantages of plus and minus one [I] (0.94 in the table, where it divides by n − 1 instead of n).
# - Training on more of the teacher's answers for the same compute improves accuracy nearly as much: GRPO is ahead on
#   four of the six published chains, which may be chance. But GRPO needs no teacher.
# - A policy learns the verifier, not the task. Its own reward cannot show that it is hacked; a second judgement of the
#   same answers can, and so can reading them.
# - The paper measured the three devices and RL together (+7.5 AIME, +1.0 MATH-500 [S2]). How much each device adds is
#   unknown [U].
#
# ## Three questions
#
# 1. Dropping prompts above 50 % moves training to hard questions. What may that do to `easy`?
# 2. The choice by length drops prompts that have both a short and a long solution. What is lost?
# 3. Why must the log-probabilities be computed at the temperature at which the answers were sampled?
#
# Next: [06, the report card](06_report_card.ipynb)
