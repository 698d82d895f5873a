# %% [markdown]
# # The report card: which rungs are real?
#
# **Claim.** A rung counts when its interval says so, and an honest ladder shows the rungs that do not.
#
# **Time**: about 25 seconds in the `lab` profile, 30 in `smoke`, on two CPU cores, after the other notebooks. Alone
# it measures all five stages first, which takes three minutes longer.

# %%
from IPython.display import HTML

from phi_lab.config.schema import STAGES
from phi_lab.core import stats
from phi_lab.core.run_folder import arm_name
from phi_lab.lab import Lab, checks, pictures, tables
from phi_lab.report.ladder_rows import SHIPPED_START, STAGE_TITLES, model_title, protocol, shipped_starts_in
from phi_lab.report.plot_style import BENCHMARKS

lab = Lab()
lab

# %%
lab.measure(*STAGES)
lab.ladder()

# %% [markdown]
# ## The numbers
#
# Sampled at T = 0.6: four answers a problem on `hard`, one on the others. Intervals are Wilson's at 95 %; where a
# problem was answered more than once they use the effective number of samples. The last column is the chance that at
# least one of k sampled answers is right, on the first 200 problems and without an interval.

# %%
rows = [row for row in lab.rungs() if row["arm"] in ("main", SHIPPED_START)]
found = {(arm_name(row["stage"], row["arm"]), row["benchmark"], protocol(row)): row for row in rows}


def cell(stage, benchmark, kind="sampled"):
    row = found[stage, benchmark, kind]
    return tables.percent(row["accuracy"], (row["ci_low"], row["ci_high"]))


lines = [
    (lab.name(stage), *(cell(stage, name) for name in BENCHMARKS), cell(stage, "hard", "greedy"),
     tables.percent(found[stage, "hard", "pass"]["pass_at_k"]))
    for stage in dict.fromkeys(name for name, *_ in found)
]
k = found["base", "hard", "pass"]["k"]
HTML(tables.table("", ("stage", *BENCHMARKS, "hard, greedy", f"hard, pass@{k}"), lines))

# %% [markdown]
# ## Exercise: what changed?
#
# Two models answered the same problems. Accuracy says how many are right; it hides how many *changed*. Count both
# directions.


# %% tags=["exercise"]
def flips(before, after):
    """Two lists of verdicts on the same problems -> (gained, lost): became "right", stopped being "right"."""
    return NotImplemented  # your lines


# %%
count_flips = checks.FLIPS.use(flips)
lines = []
for two in STAGES[1:]:
    one = lab.start(two)  # the stage before, in `smoke` its shipped model
    before, after = ([row["verdict"] for row in lab.answers(stage)] for stage in (one, two))
    gained, lost = count_flips(before, after)
    p = stats.mcnemar([verdict == "right" for verdict in before], [verdict == "right" for verdict in after])
    lines.append((f"{model_title(one)} → {model_title(two)}", gained, lost, len(before), f"{p:.3g}"))
HTML(tables.table("Greedy answers to hard. McNemar's test on one seed describes this run, not the recipe.",
                  ("step", "gained", "lost", "of", "p"), lines))

# %%
rises = []
for two in STAGES[1:]:
    one = lab.start(two)
    share = {stage: [] for stage in (one, two)}
    for stage in share:
        problems = {}
        for row in lab.answers(stage, "hard", 0.6):
            problems.setdefault(row["id"], []).append(row["verdict"] == "right")
        share[stage] = [sum(hits) / len(hits) for hits in problems.values()]
    change = stats.paired_t(share[two], share[one])
    rises.append((lab.name(two), 100 * change.mean, 100 * change.low, 100 * change.high))
figure = pictures.intervals(rises, "Gain over the stage before on hard, points", "")
clear = [name for name, _, low, high in rises if low > 0]
print("rungs whose interval lies above zero:", ", ".join(clear) or "none")
figure

# %% [markdown]
# Each problem is its own control here, so these intervals are narrower than those of two points of the ladder would
# let one expect. They still cover *problems* only, not seeds: another seed is another run of the whole chain.
#
# **A control that must fail.** The last model against itself: the even samples of a problem against the odd ones. What
# is above zero here is chance.

# %%
problems = {}
for row in lab.answers("grpo", "hard", 0.6):
    problems.setdefault(row["id"], []).append(row["verdict"] == "right")
halves = [
    [sum(hits[place::2]) / len(hits[place::2]) for hits in problems.values() if len(hits) % 2 == 0] for place in (0, 1)
]
change = stats.paired_t(*halves)
print(f"GRPO over GRPO: {100 * change.mean:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}]")

# %% [markdown]
# ## Independent chains
#
# The answer to "another seed" is to run other seeds, each from distillation to GRPO, and every stage's control beside
# it: the stage before, trained on for the same compute. GRPO has a second one, the same model trained on as in SFT,
# because to go on with Rollout DPO for that long ruins it. A chain is *one* observation, so the t-test below has as
# many as there are chains. They come with the course (`phi-lab experiment ladder` makes more).

# %%
lab.chains()

# %%
lab.gains()

# %%
lab.means()

# %% [markdown]
# ## The ten problems, from the first stage to the last

# %%
lab.before_after("base", "grpo")

# %%
said = {lab.name(stage): [row["verdict"] for row in lab.answers(stage, "hard", 0.6)] for stage in STAGES}
pictures.verdicts(said, "Verdicts on hard, T = 0.6")

# %% [markdown]
# ## What it cost

# %%
lines = []
for stage in STAGES:
    row = found[stage, "hard", "sampled"]
    cost = (f"{row['seconds']:,.0f}", f"{row['train_tokens']:,}") if row["seconds"] else ("–", "–")
    lines.append((STAGE_TITLES[stage], lab.origin(stage), *cost))
shipped = " and without what made the shipped models that stages started from" if shipped_starts_in(rows) else ""
head = ("stage", "model", "seconds", "tokens trained on")
HTML(tables.table(f"Training alone, without measuring{shipped}.", head, lines))

# %% [markdown]
# ## The report
#
# One page for the whole run, which needs nothing but a browser.

# %%
print("written:", lab.write_report())

# %% [markdown]
# **Beside the paper.** The paper ends at 57.5 on AIME 2024 [P]. The same authors later measured the same model over
# 64 samples a problem and found 48.1; on MATH-500 91.2 instead of 94.6, on GPQA Diamond 44.5 instead of 52.0 [P]. No
# cause is given. On AIME's thirty problems chance alone can make such a gap. On MATH-500 and GPQA it is too large for
# chance [I], so something in the protocol differs; what is unknown [U]. In that second run the model lies below
# DeepSeek-R1-Distill-Qwen-7B on all four sets [P].
#
# ## What to remember
#
# - Which rungs are real, then? Over the six published chains mid-training, SFT and GRPO are, over the stage before.
#   Rollout DPO is not shown. SFT beats its control clearly. GRPO's first control is ruined, and the second, SFT again,
#   nearly as good. Your own run is one more chain, and may look otherwise.
# - `transfer` fell where the paper's GPQA rose. That part of the ladder does not have the paper's shape.
# - Look at gains and losses, not at the difference alone.
# - An interval over problems does not cover seeds, and a run is one seed.
# - "No difference shown" is a result.
#
# ## Three questions
#
# 1. Which rung of *this* run would you bet on, and how much, on another seed?
# 2. pass@k can stand still while accuracy rises. What has the model learned then?
# 3. You looked at `hard` nine times in this course. What should you do before you publish a number on it?
#
# Next: [07, scaling up](07_scaling_up.ipynb)
