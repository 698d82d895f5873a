# %% [markdown]
# # GRPO: learning from sampled answers
#
# **Claim.** A model can learn from answers that it samples itself, with no other signal than right or wrong, as long as
# groups hold both. This page measures how much it learns, and compares that with three rivals: two have the
# same compute, the third, a coin for a verifier, twice as much.
#
# **Time**: about 315 seconds in the `lab` profile, 75 in `smoke`, 195 in `lesson`, on two CPU cores.
#
# **Before**: notebooks 02 to 04; what a softmax at a temperature is.
#
# **Afterwards** you can write GRPO on one page, say why a ratio of 1 has a gradient, compare its baseline with PPO's
# critic, test a policy-gradient loop with rewards whose effect is known, and recognise a hacked reward.

# %%
import inspect
from functools import partial

import torch
from IPython.display import HTML

from phi_lab import sampling
from phi_lab.core import stats
from phi_lab.core.files import read_rows
from phi_lab.core.formatting import percent
from phi_lab.core.paths import SHIPPED
from phi_lab.lab import Lab, checks, fast_path, looks, pictures, probes, tables, widgets
from phi_lab.lab import reward_hacking as pages
from phi_lab.model import checkpoints
from phi_lab.pipeline import reward_hacking
from phi_lab.problems import arithmetic
from phi_lab.report import figures
from phi_lab.stages import grpo, minimal_grpo, minimal_ppo

lab = Lab()
config, in_lab = lab.config.grpo, lab.config.profile != "smoke"
print(f"{config.steps} steps of {config.prompts_per_step} questions")
print(f"{config.group_size} answers to each question")
print(f"learning rate {config.learning_rate}")

# %% [markdown]
# In notebook 04 the model learned once from pairs of its own answers. Now it answers anew before every step: it samples
# a *group* of answers to each question, a program rewards each with +1 or −1, and answers with a higher reward than the
# rest of their group become more likely. The loss, to be made small:
#
# $$-\frac{1}{\sum_i |y_i|}\sum_i\sum_t \min\big(r_{it}A_i,\ \mathrm{clip}(r_{it},1-\epsilon,1+\epsilon)\,A_i\big),
# \qquad r_{it}=\frac{\pi(y_{it})}{\pi_{\rm old}(y_{it})}$$
#
# $A_i$ is the *advantage* of answer $y_i$, the same for each of its tokens: in plain GRPO (reward − mean of its group)
# / standard deviation of its group; the loop below uses ±1 or 0 (`balanced`). $|y_i|$ is the number of tokens of an
# answer, and ε how far r may move from 1 before it is clipped. The sums run over the answers with an advantage. Here
# every batch is used for one update, so r is 1 and nothing is ever clipped, and there is no KL term, which would hold
# the model near its start (whether the paper has one is unknown [U]). The optimizer of the stage is Muon again.
#
# The stage asks questions with one to seven operations (the loop that we write asks three to seven). No worked answer
# of the teacher has six or seven: what improves there was not imitated.
#
# The paper's first attempt failed for three reasons [S], and the authors added a device against each [S2]:
#
# | what went wrong | device | in `phi_lab/stages/grpo.py` |
# |---|---|---|
# | answers to one prompt differ in length | prompts with answers alike in length (off here) | `select_uniform_length` |
# | all right or all wrong: no difference, no gradient | oversample hard prompts, then balance | `rebalance` |
# | training needs a high temperature, evaluation a low one | 1.0 → 0.6 over half of the steps | `anneal` |
#
# ## Temperature: high, then low
#
# A high temperature makes sampled answers more diverse. Here the model before RL answers the same questions, eight
# times each, at four temperatures. Look at the middle panel: only groups with right *and* wrong answers will teach
# anything.

# %%
# In `lesson` and `smoke` GRPO starts from the shipped Rollout DPO, not from yours.
start = lab.start("grpo")
questions = 16 if in_lab else 4
sampled = {
    heat: lab.sample_groups(start, prompts=questions, temperature=heat)
    for heat in (0.3, 0.6, 1.0, 1.4)
}
pictures.temperatures({heat: looks.outcome(groups) for heat, groups in sampled.items()})

# %%
# With a running kernel: read the answers of each temperature.
looks.temperature_slider(sampled)

# %% [markdown]
# Where does the difference come from? The table takes one of the answers at the place where the model was least certain
# which *digit* comes, and shows how probable the likeliest tokens are at other temperatures. Low temperatures sharpen
# the distribution, high ones flatten it.

# %%
one = sampled[1.0][0][0]
HTML(widgets.temperature_table(*lab.model(start), one["prompt"], one["completion"]))

# %% [markdown]
# ## Exercise: the schedule

# %%
checks.TEMPERATURE.card()


# %% tags=["exercise"]
def temperature(step, steps):
    """Sampling temperature at `step`, 0 to steps - 1.

    1.0 at step 0, linearly down to 0.6 at steps / 2, then 0.6.
    """
    return NotImplemented  # your line


# %%
schedule = checks.TEMPERATURE.use(temperature)
figures.temperature_schedule(schedule, max(30, config.steps))

# %%
widgets.schedule()  # with a running kernel: other schedules

# %% [markdown]
# ## Groups that give a gradient
#
# An answer is good or bad only beside others: the group is the baseline.
#
# ## Exercise: the group is the baseline

# %%
checks.GROUP_ADVANTAGE.card()


# %% tags=["exercise"]
def group_advantage(rewards):
    """Rewards, (prompts, group) -> advantages, same shape."""
    return NotImplemented  # your lines


# %%
plain = checks.GROUP_ADVANTAGE.use(group_advantage)
for group in ("--------", "+-------", "++++----", "+++++++-"):
    values = plain(torch.tensor([[1.0 if sign == "+" else -1.0 for sign in group]]))[0]
    print(group, " ".join(f"{value:+.2f}" for value in values))

# %% [markdown]
# A rare right answer gets a large advantage, a rare wrong one as well, and a group *without a difference*, all right or
# all wrong, gets none. *Rebalancing* keeps k = min(right, wrong, half of the group) answers of each side, and drops
# prompts that are, for example, more than 50 % right already [S2]. The table compares both. (Its column of plain GRPO
# has the sample's standard deviation, with n − 1, as TRL does: four right of eight give ±0.94 there, and ±1 by your
# function.) Dropping costs answers that plain GRPO would learn from, such as five right of eight. The paper gives its
# reason, to train on what is hard, and we found no measurement of dropping alone; we measured rebalancing as a whole
# (`rl_devices`, below).

# %%
kinds = ("--------", "+-------", "+++-----", "++++----", "+++++---", "++++++++")
HTML(widgets.rebalancing_table(kinds))

# %%
widgets.rebalancing()  # with a running kernel: tick the right ones

# %% [markdown]
# ## Exercise: rebalancing

# %%
checks.ADVANTAGE.card()


# %% tags=["exercise"]
def advantage(rewards, random):
    """Rewards of +1 and -1, shape (prompts, group) -> advantages, same shape.

    A prompt with no right answer, or more than half right: all 0. Else +1 for each
    right answer, -1 for as many wrong ones, and 0 for the rest. The wrong ones are
    drawn by torch.randperm(number of wrong, generator=random).
    """
    return NotImplemented  # your lines


# %%
balanced = checks.ADVANTAGE.use(advantage)

# %% [markdown]
# Real groups of the model before RL, at temperature 1.0: on the left the sampled answers, on the right those with an
# advantage. Where the right side is empty, no group is mixed, or every mixed group is more than half right and is
# dropped: such a batch has no gradient at all.

# %%
groups = sampled[1.0]
signs = torch.tensor(
    [[1.0 if row["verdict"] == "right" else -1.0 for row in group] for group in groups]
)
advantages = balanced(signs, torch.Generator().manual_seed(0))
pictures.groups(signs.tolist(), advantages.tolist())

# %% [markdown]
# **Negative control.** Groups without a difference must give no gradient, whichever function computes the
# advantages.

# %%
same = torch.tensor([[1.0] * 8, [-1.0] * 8])
rebalanced = balanced(same, torch.Generator())
for name, values in (("plain GRPO", plain(same)), ("rebalanced", rebalanced)):
    print(f"{name}, sum of |advantage| without a difference: {values.abs().sum():.1f}")

# %% [markdown]
# ## Exercise: the policy gradient
#
# From advantages to a loss. π_old is the model that wrote the answers, π_new the one in training.

# %%
checks.POLICY_GRADIENT.card()


# %% tags=["exercise"]
def policy_gradient_loss(new, old, advantages):
    """The loss, one number.

    new, old: log-probabilities of the sampled tokens under the model now, and under
    the one that sampled them. They and the advantages have the shape (tokens,).
    """
    return NotImplemented  # your line


# %%
gradient_loss = checks.POLICY_GRADIENT.use(policy_gradient_loss)

# %% [markdown]
# **Why does a ratio of 1 have a gradient?** On answers that were just sampled, `collect` gives their token ids with a
# mask (1 where a token was sampled), the log-probabilities under the model that sampled them, and your advantages. Old
# and new model are the same, so every ratio is 1, and the loss is minus the mean advantage, whatever the tokens are:

# %%
small = checkpoints.load(SHIPPED / "mid")  # the tiny model, at every scale
tokenizer = checkpoints.load_tokenizer()
problems = arithmetic.sample_problems(  # by a seed that nothing else uses
    256, seed=lab.seed + 71_000, levels=arithmetic.HARD_LEVELS
)
limit = config.max_new_tokens
params = sampling.SamplingParams(n=8, temperature=1.0, max_tokens=limit, seed=99)
batch, rewards = minimal_grpo.collect(
    small, tokenizer, problems[-4:], params, grpo.verified,
    lambda rewards, random: plain(rewards),
)
new, is_sampled = minimal_grpo.token_logprobs(small, batch.ids, 1.0), batch.mask == 1
of_tokens = batch.advantages.expand_as(new)  # each token has its answer's advantage
ratios = (new - batch.old).exp()[is_sampled]
loss = gradient_loss(new[is_sampled], batch.old[is_sampled], of_tokens[is_sampled])
loss.backward()
norm = sum(weight.grad.square().sum() for weight in small.parameters()).sqrt()
print(f"ratios from {ratios.min():.4f} to {ratios.max():.4f}")
print(f"loss {loss.item():.4f}; norm of the gradient {norm:.2f}")
print(f"minus the mean advantage: {-of_tokens[is_sampled].mean():.4f}")

# %% [markdown]
# `old` is a constant and `new` is not. The gradient of exp(new − old) is the ratio times the gradient of `new`, and at
# ratio 1 that is the gradient of log π itself. A loss is a number whose *gradient* is wanted; its value says little.
#
# ## Exercise: the clip
#
# At a second update on the same answers ratios are no longer 1, and nothing keeps them near it. PPO's clip stops
# pushing where a ratio has moved far enough.

# %%
checks.CLIPPED.card()


# %% tags=["exercise"]
def clipped(ratio, advantages, epsilon):
    """ratio, advantages: (tokens,) -> the objective of each token, (tokens,)."""
    return NotImplemented  # your line


# %%
objective = checks.CLIPPED.use(clipped)
moved = torch.tensor([0.2, 0.5, 0.9, 1.0, 1.1, 1.5, 3.0])
lines = []
for name, sign in (("right token, A = +1", 1), ("wrong token, A = −1", -1)):
    values = objective(moved, sign * torch.ones_like(moved), 0.2)
    lines.append((name, *(f"{value:+.1f}" for value in values)))
head = ("ratio", *(f"{ratio:.1f}" for ratio in moved))
HTML(tables.table("The objective with ε = 0.2; A is the advantage.", head, lines))

# %% [markdown]
# Where the objective does not change with the ratio there is no gradient. A right token is pushed up to 1.2 times its
# probability, a wrong one down to 0.8 times; a token that moved the wrong way is always pulled back.
#
# ## Exercise: the mean
#
# A loss for each token has to become one number, and answers have unequal lengths. The first GRPO took the mean over
# answers (arXiv 2402.03300), TRL's default and this course take the mean over tokens (arXiv 2503.14476).

# %%
checks.TWO_MEANS.card()


# %% tags=["exercise"]
def two_means(losses, mask):
    """(The mean over tokens, the mean over answers).

    losses, mask: (answers, tokens); the mask is 1 on an answer's tokens, 0 elsewhere.
    """
    return NotImplemented  # your lines


# %%
means = checks.TWO_MEANS.use(two_means)
# 1 on the tokens of right answers:
right = (rewards.view(-1, 1) > 0).float().expand_as(batch.mask)
by_tokens, by_answers = means(right, batch.mask)
print(f"of these answers' tokens {percent(float(by_tokens))} belong to right answers")
print(f"of the answers {percent(float(by_answers))} are right")
print("the difference is that of their lengths")

# %% [markdown]
# ## A group, live
#
# One question, eight answers, one step. **Predict first.** The step makes right answers more probable and the others
# less. Which change is the largest? An answer that the model almost always gives has little room to rise.

# %%
from phi_lab.lab import group_live

asked = problems[:8] if in_lab else problems[:3]
live_groups = [
    group_live.sample_group(
        small, tokenizer, problem, max_new_tokens=config.max_new_tokens,
        advantage=lambda rewards, random: plain(rewards),
    )
    for problem in asked
]
mixed = next((one for one in live_groups if any(one.advantages)), live_groups[0])
HTML(group_live.shown(mixed, group_live.take_steps(small, mixed)))

# %%
# With a running kernel: another step, other questions.
group_live.widget(small, live_groups, mixed)

# %% [markdown]
# Improbable wrong answers move furthest. A change of x nats multiplies an answer's probability by e to the power x.
# Answers share their tokens, so an answer may also move against its own advantage: it is pulled along by the others. A
# second step in the widget is one on the *same* answers; the loop below never takes one, as it samples anew.
#
# ## GRPO in one sitting
#
# Sample, verify, advantage, log-probabilities, clipped loss, mean, step: all of GRPO, with your functions. It trains a
# copy of the shipped mid-trained model, for less than a minute. The temperature divides the logits in the loss, too:
# answers were drawn from *that* distribution, and at another temperature no ratio would be 1 although the model is the
# same.


# %%
def loss_here(model, batch, heat, epsilon=0.2):
    """GRPO's loss of a batch of answers that were sampled at temperature `heat`."""
    new = minimal_grpo.token_logprobs(model, batch.ids, heat)
    is_sampled = batch.mask == 1
    ratio, of_tokens = (new - batch.old).exp(), batch.advantages.expand_as(new)
    each = -objective(ratio[is_sampled], of_tokens[is_sampled], epsilon)
    losses = torch.zeros_like(new).masked_scatter(is_sampled, each)
    by_tokens, by_answers = means(losses, batch.mask)
    return by_tokens  # or by_answers


# %%
def train_here(model, problems, steps, prompts=8, size=8, heat=1.0, rate=3e-4):
    """Train `model` in place on its own answers; returns a row a step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    rows, limit = [], config.max_new_tokens
    for step in range(steps):
        asked = [problems[(step * prompts + i) % len(problems)] for i in range(prompts)]
        params = sampling.SamplingParams(
            n=size, temperature=heat, max_tokens=limit, seed=step
        )
        batch, rewards = minimal_grpo.collect(
            model, tokenizer, asked, params, grpo.verified, balanced
        )
        kept = batch.advantages[:, 0] != 0  # the other answers have no gradient
        row = {"step": step + 1, "reward": rewards.mean().item()}
        rows.append({**row, "kept": kept.float().mean().item()})
        if not kept.any():
            continue
        used = minimal_grpo.Batch(
            batch.ids[kept], batch.mask[kept], batch.old[kept], batch.advantages[kept]
        )
        loss = loss_here(model, used, heat)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # no step is too long
        optimizer.step()  # the policy changes here, and nowhere else
    return rows


# %%
size = {"steps": 10, "prompts": 8} if in_lab else {"steps": 2, "prompts": 4}
rows = train_here(small, problems, **size)
names = {"reward": "mean reward", "kept": "share with an advantage"}
pictures.curves(rows, names, "GRPO on this page", "")

# %% [markdown]
# Each step asks other questions, so over a few steps the curve jumps by chance; the stage below trains longer.
#
# **Does TRL compute the same loss?** The stage uses TRL's. The next cell compares both on the batch of the exercise on
# the policy gradient. The model has been trained since it wrote that batch, so ratios differ from 1 and the clip has
# something to do.

# %%
with torch.no_grad():
    moved = minimal_grpo.token_logprobs(small, batch.ids, 1.0) - batch.old
    now = moved.exp()[is_sampled]
    here = loss_here(small, batch, 1.0).item()
fast = fast_path.grpo_loss(small, tokenizer, batch, 1.0)
print(f"ratios from {now.min():.2f} to {now.max():.2f}")
print(f"loss of this page {here:.6f}, of TRL {fast:.6f}")
print(f"difference {abs(here - fast):.1e}")

# %% [markdown]
# ## PPO's critic beside GRPO's group
#
# An advantage is reward minus a *baseline*: better than what? GRPO measures its baseline, the mean of the group. PPO
# learns one: a *critic*, a second network that predicts the reward from the tokens up to now. A baseline that looks
# only at the question and the tokens *before* the one that is judged does not change the expected gradient, and a good
# one takes away variance. (The mean of a group includes the answer itself, so for GRPO this holds only roughly.) The
# figure compares both on the same answers, while the critic learns and the policy stays as it is.

# %%
steps, prompts = (10 if in_lab else 2), 4
compared = minimal_ppo.compare(
    checkpoints.load(SHIPPED / "mid"), tokenizer, problems, steps=steps,
    prompts_per_step=prompts, max_new_tokens=config.max_new_tokens,
    on_step=lambda row: None,
)
names = {
    "reward_variance": "reward",
    "group_variance": "reward − the group's mean",
    "critic_variance": "reward − the critic's value",
}
pictures.curves(compared, names, "Variance of the advantage over sampled tokens", "")

# %%
seconds = {
    name: sum(row[f"{name}_seconds"] for row in compared)
    for name in ("sampling", "group", "critic")
}
names = {"group": "the means of the groups", "critic": "asking and training the critic"}
for name, title in names.items():
    share = percent(seconds[name] / seconds["sampling"])
    print(f"{title}: {share} of the time of sampling")

# %% [markdown]
# A group knows at once how hard a question is, and that costs eight samples of it. A critic has to learn that (where
# its curve lies on the reward's, it has not learned anything useful yet), costs a second model, and gives each token a
# baseline of its own from a single answer.
#
# ## Probes: is it the loop or the model?
#
# "My reward is flat" has many causes. Before one blames the model, one gives the loop rewards whose effect is known:
# each probe trains a copy of the base for a moment to answer one question with random digits, and then rewards
# something simple. What each must show stands in the table; a loop that fails one is wrong. With credit for the last
# digit only, the digit before it, the carry, has no advantage and is right by chance only: the share of right answers
# in that row stays far below that of the row above.

# %%
base, few = checkpoints.load(SHIPPED / "base"), {} if in_lab else {"steps": 2}
norms = probes.constant_reward(base, tokenizer)
one = probes.one_token(base, tokenizer, **few)
long = probes.length(base, tokenizer, **few)
carry = probes.carry(base, tokenizer, **few)
seeds = {} if in_lab else {"seeds": range(2), **few}
coin = probes.coin(base, tokenizer, **seeds)


# %%
def from_to(rows, key, unit):
    first, last = rows[0][key], rows[-1][key]
    return f"{first:.2f} {unit}, then {last:.2f}"


changes = [100 * (after - before) for before, after in coin]
mean = sum(changes) / len(changes)
before, both, last = (percent(share) for share in carry.values())
lines = [
    ("the same for all", "no gradient", f"norm {norms['with baseline']:.2f}"),
    ("the same, no baseline", "a gradient", f"norm {norms['without baseline']:.2f}"),
    ("for a 7 in the answer", "learned", from_to(one, "reward", "reward")),
    ("for length", "length moves", from_to(long, "mean_length", "tokens")),
    ("for 15 = 7+8, both digits", "learned", f"{before} right, then {both}"),
    ("the same, credit for the last digit only", "no carry", f"{last} right"),
    (f"a coin, {len(coin)} seeds", "no gain in the mean", f"{mean:+.0f} points"),
    ("of these seeds", "spread", f"{min(changes):+.0f} to {max(changes):+.0f} points"),
]
head = ("reward", "must be", "seen")
HTML(tables.table("In `smoke` probes train for two steps only.", head, lines))

# %% [markdown]
# A reward drawn by a coin says nothing about the answer, and yet single seeds can move far: its noise moves the policy
# at random, sometimes towards the right answer. Whoever shows only the best of several runs shows a gain. `grpo-coin`,
# one of GRPO's rivals at the end of this page, asks it of the whole stage. Its toss is one for each *answer*. A toss
# for each text would be no noise: equal answers of a group would have equal rewards, and rebalancing, which drops
# groups with more than half "right", would keep those in which the frequent answer lost.
#
# ## Failures, on purpose
#
# If you have caused a failure yourself, you will recognise it when nobody knows its cause. Each takes up to a minute,
# from shipped checkpoints. **Predict first**, for each cause: does the reward rise, fall or stay? The length of the
# answers? The number of right ones? With a running kernel, write it down below and run one. The table below has all of
# them (in `lesson` two, to save time).

# %%
from phi_lab.lab import break_it, failures

sft, examples = checkpoints.load(SHIPPED / "sft"), problems[:50]
short = {} if in_lab else {"steps": 3}
causes = {
    "a rate 100 times too high": (failures.collapse, sft),
    "reward for length": (failures.paid_by_length, sft),
    "a coin's reward": (failures.by_coin, sft),
    "24 tokens an answer": (failures.cut_short, sft),
    "questions that are too hard": (failures.too_hard, base),
}
runs = {
    name: partial(fail, model, tokenizer, examples, **short)
    for name, (fail, model) in causes.items()
}
break_it.widget(runs)

# %%
two = ["a rate 100 times too high", "24 tokens an answer"]
in_table = two if lab.config.profile == "lesson" else list(runs)
gallery = {name: runs[name]() for name in in_table}
HTML(break_it.gallery_table(gallery))

# %% [markdown]
# A rate far too high ruins the model: gibberish up to the token limit. Where length is paid for, the reward should rise
# as in a healthy run (in `smoke` the steps are too few); only the right answers before and after say what was learned.
# So log accuracy too, where the reward is something else. A coin teaches nothing and moves the weights all the same: in
# the twelve published chains `grpo-coin` loses 1.4 to 7.4 points on `hard` (against `dpo`), 3.7 [2.4, 4.9] in the mean.
# The doctor reads curves, and a coin's look like noise: above it names the coin because an accuracy is logged beside
# the reward; without one it says "the reward is flat" of eleven of the twelve, after 64 steps. Too few tokens and
# questions that are too hard may look alike in their reward, and need different remedies: read the answers. Right
# answers are counted on few questions, so a change of ten points may be chance. With 24 tokens the model is as good as
# before, if it may finish (right answers are counted at 256 tokens).
#
# ## Training: the same, longer
#
# `lab.stage("grpo")` is the loop above with Muon, your schedule of temperatures, and more steps of new questions. Its
# code is `phi_lab/stages/grpo.py`; `grpo_trainer.py` beside it is the glue to TRL.
#
# At a GPU scale prompts are chosen before the first step. One answer is sampled for each candidate, and three more if
# it is wrong. A prompt qualifies if at least one and at most half of its answers are right. Of these, the share
# `keep_fraction` whose answers are most alike in length is used: answers of very unequal length made the paper's first
# runs unstable [S]. Here it is off (`probe_rollouts` is 0): the search took two thirds of the compute, and what it
# found was solved within a few steps (`docs/log.md`, entry 92).

# %%
result = lab.stage("grpo", advantage=balanced, temperature=schedule)
figures.rl_curves(result.metrics)

# %%
lab.doctor("grpo")

# %% [markdown]
# Where it says `zero-variance`, it is right: a student that solves most questions has few groups left with a
# difference, and only these teach. Harder questions, or a choice of prompts, would be the remedy.

# %%
steps = [row for row in result.metrics if "zero_variance_share" in row]
first, last = steps[0], steps[-1]
names = {
    "reward": "mean reward",
    "zero_variance_share": "share of groups without a difference",
    "kept_share": "share of answers with an advantage",
    "mean_length": "tokens per answer",
}
for key, name in names.items():
    print(f"{name}: {first[key]:.2f} at the first step, {last[key]:.2f} at the last")

# %% [markdown]
# The temperature falls during training, so part of any rise in reward comes from the lower temperature and not from
# learning. The benchmark does not have that flaw: it is sampled at 0.6 before and after.
#
# ## Before and after
#
# McNemar's test, two cells further on, looks only at the problems that changed: by chance alone, how often would gained
# and lost differ by so many? Notebook 06 explains it.

# %%
lab.measure("dpo", "grpo")
lab.ladder("grpo")

# %%
lab.before_after("dpo", "grpo")

# %%
before, after = (
    [row["verdict"] == "right" for row in lab.answers(stage)]
    for stage in (start, "grpo")
)
gained = sum(b > a for a, b in zip(before, after, strict=True))
lost = sum(a > b for a, b in zip(before, after, strict=True))
print(f"greedy on hard: {gained} gained, {lost} lost of {len(before)}")
print(f"McNemar's test: p = {stats.mcnemar(before, after):.3f}")
print("this is one seed: it describes two models and does not prove a recipe")

# %% [markdown]
# ## On other seeds
#
# Differences on `hard` in points over the published chains. GRPO has three rivals with the same compute, all sampling
# counted (the coin takes twice as much). *Rejection fine-tuning* (`grpo-rft`) samples as GRPO does and fine-tunes on
# its own right answers to questions that it mostly fails, in rounds: does GRPO need the wrong answers? *Fresh answers
# of the teacher* (`grpo-sft`): does it need answers of its own? *A coin as reward* (`grpo-coin`): does it need a
# verifier at all? `lab.control("grpo-rft")` trains one here. Look also at T = 0.3, greedy answers and pass@8: a gain at
# T = 0.6 alone could be had from a cooler sampler. The stage has earned its place where it is above the stage before
# *and* above each rival. Being above a rival alone may only mean that the rival got worse.

# %%
lab.gains("grpo")

# %% [markdown]
# ## Which of the three devices does RL need?
#
# **What was believed.** All three devices are needed, since the paper uses all three. It adds them together, and we
# found no run of it without one of them [I], so nobody can say which of them carries the gain, or whether plain GRPO
# would have been as good at the same compute.
#
# Live, on the groups from the top of the page: how many answers do plain GRPO and rebalancing train on, at four
# temperatures? Plain GRPO trains on all answers of groups that hold both verdicts, so its column is also the share of
# groups that DAPO would keep, which samples on until it has enough of them. (Sixteen questions: small differences are
# chance.)

# %%
ways = {"plain GRPO": plain, "rebalanced": lambda r: balanced(r, torch.Generator())}
lines = []
for heat, groups in sampled.items():
    hits = [[row["verdict"] == "right" for row in group] for group in groups]
    rewards = 2 * torch.tensor(hits).float() - 1
    used = [(way(rewards) != 0).float().mean().item() for way in ways.values()]
    lines.append((heat, *(percent(share) for share in used)))
head = ("temperature", *ways)
HTML(tables.table("The share of answers with an advantage.", head, lines))

# %% [markdown]
# More answers are not more learning. The experiment takes away one device at a time, at about equal compute, and adds
# plain GRPO, DAPO's filter, Dr. GRPO and a coin. It starts from SFT, not from Rollout DPO as this page does: after
# Rollout DPO few groups hold both verdicts.

# %%
lab.question("rl_devices")

# %% [markdown]
# **What is known now**, of this small model and of short trainings. That the three devices together are worth more than
# plain GRPO is not shown. A hot beginning is worth more than a cold one, but 1.0 throughout is not shown to differ from
# the falling temperature. To choose no prompts is better than to choose them at their cost, and DAPO's filled steps
# lose to plain GRPO at about equal compute. GRPO gains over the student, but less than the student itself gains by
# being sampled at T = 0.3 (GRPO's own answers at T = 0.3 were not measured; greedily it lies 1.8 points above the
# student). docs/results.md says what the arms do not share, such as the number of updates.

# %% [markdown]
# ## Reward hacking: a verifier that accepts too much
#
# A policy learns whatever the verifier rewards. This verifier reads the last box, and accepts it if its text is part
# of the right answer or the right answer is part of it: someone wanted to forgive "15 apples" for 15.

# %%
print(inspect.getsource(reward_hacking.sloppy))

# %% [markdown]
# Two runs of plain GRPO start from the base, which answers in a box without thinking. They differ in the reward only:
# the sloppy verifier, or the strict one of this course.
#
# **Predict first.** Which answer would you give to every question if you were paid by `sloppy`? Does a model that
# answers so still solve `easy`, on which it was not trained?

# %%
hacking = reward_hacking.CONFIGS[lab.config.profile]
seeds = range(lab.seed, lab.seed + 1)
live = reward_hacking.run(lab.run.path / "hacking", seeds, hacking)
pages.curves(live)

# %% [markdown]
# Find the exploit in the answers to questions like those of training, after training. Green lines above are what the
# strict verifier says of the same sampled answers; the policy never sees it in the sloppy arm.

# %%
pairs = zip(*(row["examples"] for row in live), strict=True)
lines = [
    (one["prompt"], one["answer"], one["completion"], other["completion"])
    for one, other in pairs
]
HTML(tables.table("", ("question", "answer", "sloppy arm", "strict arm"), lines))

# %% [markdown]
# The exploit that the published runs found is an empty box: an empty text is part of every answer. One run proves
# little. The published ones are three seeds of 40 steps, all that were run with these settings; the learning rate was
# chosen on another seed. What changes in the strict arm comes from this learning rate and from training on other
# questions; only the difference between the arms is the sloppy verifier's.

# %%
published = read_rows(reward_hacking.PUBLISHED)
print("\n".join(pages.verdict(published)))
HTML(pages.table(published))

# %% [markdown]
# ## Vary this next
#
# - `return by_answers` in `loss_here`. Expect the comparison with TRL to differ. Over many steps the mean over answers
#   lets long wrong ones off lightly.
# - `heat=0.3` in the call `train_here(small, ...)`. Run the cell that begins with `small = ` first, so that training
#   starts from the shipped model again. Expect fewer answers with an advantage: a certain model gives groups of one
#   kind.
# - `rate=3e-3` in the same place. Expect the reward to fall within a few steps; compare with the first line of the
#   failures.
#
# ## What to remember
#
# - The policy changes in one line; everything before it decides which of its own answers become more likely.
# - A group without a difference gives no gradient. The choice of prompts addresses that. The falling temperature works
#   against it: a model that is more certain gives fewer mixed groups. So does rebalancing, in one way: it leaves out
#   groups with more right answers than wrong ones.
# - If as many right as wrong answers are kept, the group's mean reward is 0 and its standard deviation 1, so GRPO's
#   formula gives advantages of plus and minus one [I] (0.94 in the table, where it divides by n − 1 instead of n).
# - A gain has to be judged by what the same compute would have bought otherwise. Unlike fresh answers of a teacher,
#   GRPO and rejection fine-tuning need no teacher, only a verifier.
# - Test a loop with a reward whose effect you know before you trust it with one that you do not.
# - A policy learns the verifier, not the task. Its own reward cannot show that it is hacked; a second judgement of the
#   same answers can, and so can reading them.
# - The paper measured the three devices and RL together (+7.5 AIME, +1.0 MATH-500 [S2]). How much each device adds is
#   unknown [U].
#
# ## Three questions
#
# 1. Dropping prompts above 50 % moves training to hard questions. What may that do to `easy`?
# 2. Where does GRPO get its baseline, where does PPO, and what does each cost?
# 3. Why must the log-probabilities be computed at the temperature at which the answers were sampled?
#
# <details><summary>Answers</summary>
#
# **1.** `easy` asks for one operation. Most such questions are solved already, so their groups are dropped and nothing
# keeps `easy` where it was. It may fall if the weights that it needs are moved, or rise if steps that both share get
# better. So it is measured.
#
# **2.** GRPO from the other answers to the same question: the mean reward of the group, which costs sampling each
# question several times. PPO from a second network, the critic, which has to be trained and held in memory, and then
# judges every token of a single answer.
#
# **3.** They are the probabilities with which the tokens were drawn. At another temperature the ratio of new to old is
# not 1 for the unchanged model: the gradient would be weighted, and clipped, for a difference that does not exist.
#
# </details>
#
# Next: [06, the report card](06_report_card.ipynb)
