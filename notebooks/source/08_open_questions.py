# %% [markdown]
# # Open questions, and your part
#
# **Claim.** Much of the recipe was never taken apart in public. A lab that runs in half an hour can take it apart.
#
# **Time**: about 55 seconds in the `lab` profile, 25 in `smoke`, on two CPU cores.

# %%
import torch
from IPython.display import HTML

from phi_lab.core import stats
from phi_lab.lab import Lab, checks, pictures, tables
from phi_lab.lab.notebook import ask_ten
from phi_lab.report import figures
from phi_lab.report.ladder_rows import SHIPPED_START

lab = Lab()

# %% [markdown]
# ## What the paper leaves open
#
# | question | why it is open | what an experiment would compare |
# |---|---|---|
# | Is mid-training necessary? | small sets alone *hurt*: AIME 10.0 → 6.7, 3.0 [S] | with and without stage 1 |
# | Near misses or random mistakes in DPO? | choice of wrong answers unknown [U] | what the pupil might say, random |
# | Annealed or fixed temperature? | no ablation found [I] | 1.0 → 0.6, fixed 1.0, fixed 0.6 |
# | Which of the three RL devices carries the gain? | measured together only [I] | all eight combinations |
# | Pack or not? | a rule, not a result [S2] | both packers in both stages |
# | Does a second teacher change the result? | one teacher [S2] | the script as teacher |
# | What is forgotten, what transfers? | GPQA rose in the paper [S2] | `transfer` after each stage |
# | Is RL's instability capacity or optimisation? | small models are *thought* fragile [S] | wider models, lower rates |
#
# None of these is answered in this release. Each is to become one file, one command and one figure, on at least six
# seeds.
#
# ## A first one, live: does temperature mix groups?
#
# The pilot's complaint was groups without a difference. Hotter sampling makes more mistakes, so it should mix more
# groups. We ask the model before RL the same questions at both ends of the schedule. Plain GRPO learns from every group
# that is mixed; rebalancing (notebook 05) also drops those above 50 % right, so the last column counts what is left to
# it.


# %% tags=["exercise"]
def mixed_share(rewards):
    """Rewards, a tensor of shape (prompts, group) of +1 and -1 -> the share (0 to 1) of groups that hold both."""
    return NotImplemented  # your line


# %%
mixed = checks.MIXED_SHARE.use(mixed_share)
prompts = 120 if lab.config.profile == "lab" else 24
lines, shares = [], []
for heat in (1.0, 0.6):
    groups = lab.groups("dpo", prompts, heat)
    rewards = torch.tensor([[1.0 if row["verdict"] == "right" else -1.0 for row in group] for group in groups])
    share = mixed(rewards)
    low, high = stats.wilson(share * prompts, prompts)
    shares.append((f"T = {heat}", 100 * share, 100 * low, 100 * high))
    right = float((rewards > 0).float().mean())
    tokens = torch.tensor([[float(row["tokens"]) for row in group] for group in groups])
    spread = float((tokens.std(1) / tokens.mean(1)).mean())
    left = ((rewards > 0).any(1) & ((rewards > 0).float().mean(1) <= 0.5)).float().mean()
    cells = tables.percent(right), tables.percent(share, (low, high)), tables.percent(float(left))
    lines.append((heat, *cells[:2], f"{spread:.2f}", cells[2]))
HTML(tables.table(f"{prompts} training questions with 3 and 4 operations, 8 answers each, the model after Rollout DPO.",
                  ("temperature", "right", "groups with both", "spread of lengths in a group", "left by rebalancing"),
                  lines))

# %%
pictures.intervals(shares, "Mixed groups: share with right and wrong answers")

# %%
(_, hot, hot_low, hot_high), (_, cool, cool_low, cool_high) = shares
if hot_low > cool_high:
    print("the intervals do not touch: on this model, hotter sampling mixes more groups")
elif cool_low > hot_high:
    print("the intervals do not touch: on this model, cooler sampling mixes more groups")
else:
    print("the intervals overlap: no difference shown with this many questions")

# %% [markdown]
# The same questions were asked at both temperatures, so a paired comparison would be sharper. And one model is one
# model.
#
# ## The ten problems, hot and cool
#
# The final model, sampled once at 1.0 and once at 0.6.

# %%
model, tokenizer = lab.model("grpo")
HTML(
    tables.side_by_side(("T = 1.0", "T = 0.6"), [ask_ten(model, tokenizer, heat, seed=lab.seed) for heat in (1.0, 0.6)])
)

# %% [markdown]
# ## Where this run stands

# %%
lab.measure("base", "grpo")
shown = (("base", "main"), ("dpo", SHIPPED_START), ("grpo", "main"))  # what GRPO started from, if that is no chain
figures.ladder([row for row in lab.rungs() if (row["stage"], row["arm"]) in shown], paper=False)

# %% [markdown]
# ## Contribute
#
# - A stage is one file in `phi_lab/stages/`, with its teachable parts as plain functions. Write another `pair`,
#   `advantage` or `select` and pass it to `lab.stage(...)`; that is already an experiment.
# - Run it on other seeds, each in a folder of its own (`PHI_LAB_SEED=1 PHI_LAB_RUN=runs/seed-1`), beside the
#   reference, with the same numbers. Report n, seeds and intervals.
# - `make check` before every commit, `make test` before a pull request: it runs these notebooks, too.
# - A result that says "no difference shown" is welcome. So is a mistake you found in this course.
#
# ## What to remember
#
# - A ladder shows that a recipe works, not why.
# - An experiment is a question, a control, and the decision what would count, made beforehand.
# - The paper's authors later released a sibling without RL that scores higher on their own four benchmarks [P]. Its
#   architecture is another one, so that does not show RL to be useless [I]. Open means open.
#
# ## Three questions
#
# 1. Which row of the table would you run first, and what result would surprise you?
# 2. How many seeds would you need to see a difference of three points?
# 3. What in this course would you trust least, and how would you check it?
#
# Back to the [beginning](00_welcome.ipynb)
