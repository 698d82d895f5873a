# %% [markdown]
# # GRPO: learning from one's own attempts
#
# **Claim.** A model can improve on its own answers, with nothing but right or wrong to go by, as long as each group
# holds both and there is something left to gain. In the published run `hard` rises by three points, and so it does in
# the mean of six chains. Its greedy answers do not gain: what was learned there is surer sampling.
#
# **Time**: about 140 seconds in the `lab` profile, 45 in `smoke`, on two CPU cores.

# %%
import torch
from IPython.display import HTML

from phi_lab.core import stats
from phi_lab.lab import Lab, checks, pictures, widgets
from phi_lab.report import figures
from phi_lab.stages import grpo

lab = Lab()
config = lab.config.grpo
print(f"{config.steps} steps of {config.prompts_per_step} questions x {config.group_size} answers")
print(f"learning rate {config.learning_rate}")

# %% [markdown]
# So far the model copied and compared. Now it answers each question several times, a program says +1 or −1, and what
# did better than the rest of its group becomes likelier:
#
# $$-\frac{1}{\sum_i |y_i|}\sum_i\sum_t \min\big(r_{it}A_i,\ \mathrm{clip}(r_{it},1-\epsilon,1+\epsilon)\,A_i\big),
# \qquad r_{it}=\frac{\pi(y_{it})}{\pi_{\rm old}(y_{it})}$$
#
# $A_i$ is the *advantage* of answer $y_i$, the same for each of its tokens; the sums run over the answers that count.
# Here every batch is used for one update, so r is 1 and nothing is ever clipped, and there is no KL term (whether the
# paper has one is unknown [U]). The optimizer is Muon again.
#
# The paper's first attempt failed for three reasons [S], and each got a device [S2]:
#
# | what went wrong | device | here |
# |---|---|---|
# | answers to one prompt differ in length | keep prompts whose answers are alike in length | `select_uniform_length` |
# | all right or all wrong: no difference, no gradient | oversample hard prompts, then balance | `rebalance` |
# | training wants hot sampling, evaluation cool | temperature 1.0 → 0.6 over half the steps | `anneal` |
#
# ## Temperature: hot, then cool
#
# Hot sampling spreads the bets. The table asks the model before RL where, in one of its own answers, it was least
# certain, and what it would have written there at other temperatures.

# %%
start = lab.start("grpo")  # in `smoke` the shipped model of Rollout DPO, not this folder's
(said,) = lab.groups(start, prompts=1, temperature=1.0, size=1)[0]
HTML(widgets.heat_table(*lab.model(start), said["prompt"], said["completion"]))


# %% tags=["exercise"]
def temperature(step, steps):
    """Sampling temperature at `step` (0 to steps - 1): 1.0 at 0, straight down to 0.6 at steps / 2, then 0.6."""
    return NotImplemented  # your line


# %%
schedule = checks.TEMPERATURE.use(temperature)
figures.temperature_schedule(schedule, max(30, config.steps))

# %%
widgets.schedule()  # with a running kernel: other schedules

# %% [markdown]
# ## Groups that can teach
#
# Plain GRPO scores an answer by (reward − mean) / standard deviation of its group. Where all are right or all wrong
# that is zero over zero, and counts as zero. Rebalancing keeps k = min(right, wrong, half) of each side and drops
# prompts that are, for example, more than 50 % right already [S2].

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
# Real groups of the model before RL, at temperature 1.0: on the left what was sampled, on the right what counts.

# %%
groups = lab.groups(start, prompts=16, temperature=1.0)
rewards = torch.tensor([[1.0 if row["verdict"] == "right" else -1.0 for row in group] for group in groups])
kept = balanced(rewards, torch.Generator().manual_seed(0))
pictures.groups(rewards.tolist(), kept.tolist())

# %% [markdown]
# **A control that must fail.** Groups without a difference must give no gradient, whichever function scores them.

# %%
same = torch.tensor([[1.0] * 8, [-1.0] * 8])
for name, function in (("plain GRPO", grpo.group_normalised), ("rebalanced", balanced)):
    print(f"{name}, sum of |advantage| without a difference: {function(same, torch.Generator()).abs().sum():.1f}")

# %% [markdown]
# ## Training
#
# The length device works before the first step, and so does the choice of hard prompts: each candidate is asked once,
# those that fail are asked three times more, and of those with at least one right answer and at most half of them right
# the 60 % stay whose answers are most alike in length.

# %%
result = lab.stage("grpo", advantage=balanced, temperature=schedule)
figures.rl_curves(result.metrics)

# %%
steps = [row for row in result.metrics if "zero_variance_share" in row]
first, last = steps[0], steps[-1]
for key, name in (("reward", "mean reward"), ("zero_variance_share", "share of groups without a difference"),
                  ("kept_share", "share of answers that counted"), ("mean_length", "tokens an answer")):
    print(f"{name}: {first[key]:.2f} at the first step, {last[key]:.2f} at the last")

# %% [markdown]
# The temperature falls during the run, so part of any rise in reward is cooler sampling and no learning. The
# benchmark, sampled at 0.6 before and after, does not have that flaw.
#
# ## Before and after

# %%
lab.measure("dpo", "grpo")
lab.ladder("grpo")

# %%
lab.before_after("dpo", "grpo")

# %%
before, after = ([row["verdict"] == "right" for row in lab.answers(stage)] for stage in (start, "grpo"))
gained, lost = (
    sum(b > a for a, b in zip(before, after, strict=True)),
    sum(a > b for a, b in zip(before, after, strict=True)),
)
print(f"greedy on hard: {gained} gained, {lost} lost of {len(before)}; McNemar p = {stats.mcnemar(before, after):.3f}")
print("one seed: this describes two models, it does not prove a recipe")

# %% [markdown]
# ## On other seeds
#
# GRPO has two controls here: Rollout DPO continued, which that much compute ruins, and the same model trained on as in
# SFT. The second is the one that is hard to beat.

# %%
lab.gains("grpo")

# %% [markdown]
# ## What to remember
#
# - No difference in a group, no gradient. The choice of prompts and rebalancing are about that. Cooling works against
#   it: as the model gets better and surer fewer groups are mixed, and fewer answers count (above). So most of the
#   learning happens early.
# - With as many right as wrong answers kept, the group's mean is 0 and its standard deviation 1: GRPO's own
#   advantages, plus and minus one [I] (the table's 0.94 divides by n − 1 instead of n).
# - More of the teacher's answers for the same compute bring nearly as much: GRPO is ahead on four of the six published
#   chains, which chance could do, too. What it does not need is a teacher that knows the answers.
# - The paper measured the three devices and RL together (+7.5 AIME, +1.0 MATH-500 [S2]). Which device carries it is
#   unknown [U].
#
# ## Three questions
#
# 1. Dropping prompts above 50 % moves training to hard questions. What may that do to `easy`?
# 2. Prompts with one short and one long way to the answer are dropped by the length device. What is lost?
# 3. Why must the log-probabilities be computed at the temperature that was sampled from?
#
# Next: [06, the report card](06_report_card.ipynb)
