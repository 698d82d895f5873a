# %% [markdown]
# # The report card: which stages help?
#
# **Claim.** A stage is shown to help when it lies above the stage before *and* above each rival with the same compute,
# over several chains; an honest ladder also shows the stages for which that is not so.
#
# **Time**: about 30 seconds in the `lab` profile, 45 in `smoke`, 30 in `lesson`, on two CPU cores, after the other
# notebooks. Alone it measures all five stages first, which takes three minutes longer (`lab`).
#
# **Before**: notebooks 00 to 05; this page only reads what they left.
#
# **Afterwards** you can compare two models on the same problems, test over chains instead of problems, and say what a
# comparison would have shown if there had been something to show.

# %%
from IPython.display import HTML

from phi_lab.config.schema import STAGES
from phi_lab.core import stats
from phi_lab.core.formatting import percent, percent_interval
from phi_lab.core.paths import SHIPPED
from phi_lab.core.run_folder import arm_name
from phi_lab.lab import Lab, checks, ladder_explorer, pictures, tables, two_stages
from phi_lab.lab.answers import answer_problems
from phi_lab.model import checkpoints
from phi_lab.problems import benchmarks
from phi_lab.report import replications
from phi_lab.report.ladder_rows import (
    SHIPPED_START,
    STAGE_TITLES,
    model_title,
    protocol,
    shipped_starts_in,
)
from phi_lab.report.plot_style import BENCHMARKS

lab = Lab()
lab

# %%
lab.measure(*STAGES)
lab.ladder()

# %% [markdown]
# ## The numbers
#
# Answers are sampled at T = 0.6: several to each problem of `hard`, one to each of the others. Intervals are Wilson's
# at 95 %; where a problem was answered more than once they use the effective number of samples. The columns on the
# right ask what kind of gain it is. If greedy answers and T = 0.3 gain as much, the model knows more; if only T = 0.6
# does, it became more certain of what it knew. pass@k is the chance that at least one of k sampled answers is right, on
# the first problems only and without an interval: if it stays while accuracy rises, right answers became more frequent,
# not possible.

# %%
rows = [row for row in lab.ladder_rows() if row["arm"] in ("main", SHIPPED_START)]
ladder = {
    (arm_name(row["stage"], row["arm"]), row["benchmark"], protocol(row)): row
    for row in rows
}


def cell(stage, benchmark, kind="sampled"):
    row = ladder[stage, benchmark, kind]
    return percent_interval(row["accuracy"], row["ci_low"], row["ci_high"])


lines = []
for stage in dict.fromkeys(name for name, *_ in ladder):
    cells = [cell(stage, name) for name in BENCHMARKS]
    cells += [cell(stage, "hard", kind) for kind in ("cool", "greedy")]
    pass_at_k = percent(ladder[stage, "hard", "pass"]["pass_at_k"])
    lines.append((lab.name(stage), *cells, pass_at_k))
k = ladder["base", "hard", "pass"]["k"]
head = ("stage", *BENCHMARKS, "hard, T = 0.3", "hard, greedy", f"hard, pass@{k}")
HTML(tables.table("", head, lines))

# %% [markdown]
# Four methods follow, each for one question. *Wilson's interval*: how precise is this share? *McNemar's test*: of the
# problems that changed, did more change for the better than chance would do? *The paired t-test*: is the mean of the
# differences, over problems or over chains, more than chance? *Holm's correction*: is it still, given how many
# comparisons we made?
#
# ## Exercise: what changed?
#
# Two models answered the same problems. Their accuracies do not show how many problems *changed* from wrong to right,
# and how many from right to wrong.

# %%
checks.FLIPS.card()


# %% tags=["exercise"]
def flips(before, after):
    """(Gained, lost): how many became "right", how many stopped being "right".

    before, after: verdicts on the same problems.
    """
    return NotImplemented  # your lines


# %%
count_flips = checks.FLIPS.use(flips)
lines = []
for stage in STAGES[1:]:
    start = lab.start(stage)  # the stage before, in `smoke` its shipped model
    before, after = (
        [row["verdict"] for row in lab.answers(name)] for name in (start, stage)
    )
    gained, lost = count_flips(before, after)
    hits = ([verdict == "right" for verdict in one] for one in (before, after))
    step = f"{model_title(start)} → {model_title(stage)}"
    lines.append((step, gained, lost, len(before), f"{stats.mcnemar(*hits):.3g}"))
caption = "Greedy answers to hard. McNemar's test on one seed is about this run only."
HTML(tables.table(caption, ("step", "gained", "lost", "of", "p"), lines))

# %%
gains = []
for stage in STAGES[1:]:
    start = lab.start(stage)
    shares = {}
    for model in (start, stage):
        problems = {}
        for row in lab.answers(model, "hard", 0.6):
            problems.setdefault(row["id"], []).append(row["verdict"] == "right")
        shares[model] = [sum(hits) / len(hits) for hits in problems.values()]
    gain = stats.paired_t(shares[stage], shares[start])
    gains.append((lab.name(stage), 100 * gain.mean, 100 * gain.low, 100 * gain.high))
figure = pictures.intervals(gains, "Gain over the stage before on hard, points", "")
above_zero = [name for name, _, low, high in gains if low > 0]
print("gains whose interval lies above zero:", ", ".join(above_zero) or "none")
figure

# %% [markdown]
# These comparisons are paired: both models answered the same problems, so the intervals are narrower than those of the
# two accuracies suggest. They still cover *problems* only, not seeds: with another seed the whole chain is another one.
#
# **Negative control.** The last model against itself: the even samples of each problem against the odd ones.
# Any difference here is chance.

# %%
problems = {}
for row in lab.answers("grpo", "hard", 0.6):
    problems.setdefault(row["id"], []).append(row["verdict"] == "right")
even = [hits for hits in problems.values() if len(hits) % 2 == 0]
halves = [
    [sum(hits[place::2]) / len(hits[place::2]) for hits in even] for place in (0, 1)
]
change = stats.paired_t(*halves)
mean, low, high = (100 * value for value in (change.mean, change.low, change.high))
print(f"GRPO over GRPO: {mean:+.1f} points [{low:+.1f}, {high:+.1f}]")

# %% [markdown]
# ## Chains
#
# To cover seeds one has to run several chains, each from distillation to GRPO, with *rivals* for every stage but
# mid-training: what else the same compute would have bought from the same start, all sampling counted (`grpo-coin`
# takes twice as much). A chain is *one* observation, so the t-test below has as many observations as there are chains.
# Holm's method corrects for all comparisons of the table together, and beside each stands the smallest difference that
# it would have shown: "no difference shown" means little where that is large. Chains share base and teacher; all that
# comes later is drawn anew. They come with the course (`phi-lab experiment ladder` makes more).

# %%
lab.replications()

# %% [markdown]
# Your run among them, on `hard`. Where in the bundle does it lie, and at which stage do the lines differ most? (In
# `lesson` and `smoke` each stage starts from a shipped model. Then your points are no chain, and are not joined.)

# %%
chains, own = replications.published(), lab.ladder_rows()
ladder_explorer.figure(chains, own)

# %%
HTML(ladder_explorer.place_of_own(chains, own))

# %%
# With a running kernel: seeds, arms, other benchmarks and protocols.
ladder_explorer.widget(chains, own)

# %% [markdown]
# A line that goes up shows nothing yet: each stage has to be above its rivals, over the chains.

# %%
lab.gains()

# %%
lab.means()

# %% [markdown]
# ## What is a difference worth?
#
# **What was believed.** A table of a paper has one number for each model, and the larger one wins. (What the paper's
# authors found when they measured their model again stands at the end of this page.)
#
# Live: the shipped model of the last stage answers 100 questions of `hard` at T = 0.6, five times. Nothing is trained
# in between; only the seed of the sampling changes. **Predict first**: how far apart are five scores on 100 questions,
# and how far on the first 30 of them?

# %%
last, tokenizer = checkpoints.load(SHIPPED / "grpo"), checkpoints.load_tokenizer()
questions = benchmarks.load("hard")[: 20 if lab.config.profile == "smoke" else 100]
scores = {count: [] for count in (len(questions), min(30, len(questions)))}
for seed in range(5):
    found = answer_problems(last, tokenizer, questions, temperature=0.6, seed=seed)
    hits = [row["verdict"] == "right" for row in found]
    for count, shares in scores.items():
        shares.append(sum(hits[:count]) / count)
for count, shares in scores.items():
    print(f"{count} questions: {', '.join(percent(share) for share in shares)}")

# %% [markdown]
# This much comes from sampling alone. Models that were trained with another seed, or from other answers of the teacher,
# also differ in what they have learned. The chains above show the sum of it all; the experiment takes that sum apart:
# several chains, in each of which a stage is trained twice, and each result is measured twice.

# %%
lab.question("variance")

# %% [markdown]
# **What is known now**, of this small model and one base. A score after GRPO on 500 problems, four answers to each, has
# a standard deviation of 0.4 points from the answers that are sampled, 1.2 from the stage's seed and 1.9 [1.0, 3.4]
# from the chain (1.0 [0, 2.2] without the one chain that lies furthest off). On 500 problems more answers help little,
# and seeds of one stage on one chain tell of that chain alone. To be seen four times in five, 1 point between two
# recipes takes some 28 chains with both [16, 71], or 83 for each [49, 215]. If seeds moved the paper's model as they
# move ours, one of its twelve steps would be above two standard deviations, mid-training on MATH-500; or two, if all
# its values have equally many answers (on AIME 2024, too). And twelve chains had not met all that seeds can do: of six
# made later on three bases, two ended mid-training at 40 and 33 %, below all models that this experiment trained
# (`variance_bases` in docs/results.md).
#
# Read it for a plan of your own: two recipes of the last stage that truly differ by 2 points, 6 seeds of each, measured
# on 500 problems with 4 answers to each. How probable is it that a t-test sees the difference? Then change the numbers.
# Which of them helps most, and why do more answers to each problem help so little?

# %%
lab.worth(2, 6, 500, 4)

# %%
from phi_lab.lab import difference_worth

# With a running kernel: how many seeds, problems and samples show your difference.
difference_worth.widget(difference_worth.measured())

# %% [markdown]
# ## The ten problems before and after all stages

# %%
lab.before_after("base", "grpo")

# %% [markdown]
# ## Two stages, one question
#
# Where do two answers part? We give one question to SFT and to GRPO, as they ship: one of the first of `hard` that GRPO
# solves and SFT does not. It was picked for that, so it proves nothing. **Predict first.** Do the answers part at the
# plan, at a digit, or at the last line? All before that place is the same, token for token; both are greedy, so from
# there on each follows its own text.

# %%
shipped = {stage: checkpoints.load(SHIPPED / stage) for stage in STAGES}
tokenizer = checkpoints.load_tokenizer()
pair = {name: shipped[name] for name in ("sft", "grpo")}
problem = two_stages.parting_problem(pair, tokenizer, benchmarks.load("hard")[:40])
HTML(two_stages.shown(pair, tokenizer, problem["prompt"], problem["answer"]))

# %%
# With a running kernel: other stages, your question.
two_stages.widget(shipped, tokenizer, problem, ("sft", "grpo"))

# %%
verdicts = {
    lab.name(stage): [row["verdict"] for row in lab.answers(stage, "hard", 0.6)]
    for stage in STAGES
}
pictures.verdicts(verdicts, "Verdicts on hard, T = 0.6")

# %% [markdown]
# ## What it cost

# %%
lines = []
for stage in STAGES:
    row = ladder[stage, "hard", "sampled"]
    cost = ("–", "–")
    if row["seconds"]:
        cost = f"{row['seconds']:,.0f}", f"{row['train_tokens']:,}"
    lines.append((STAGE_TITLES[stage], lab.origin(stage), *cost))
caption = "The cost of training, without that of measuring"
if shipped_starts_in(rows):
    caption += ", and without that of the shipped models that stages started from"
head = ("stage", "model", "seconds", "tokens trained on")
HTML(tables.table(f"{caption}.", head, lines))

# %% [markdown]
# ## The doctor, once more
#
# What it finds in each stage of this run.

# %%
found = {STAGE_TITLES[stage]: lab.doctor(stage).data for stage in STAGES[1:]}
HTML("".join(f"<h4>{title}</h4>{page}" for title, page in found.items()))

# %% [markdown]
# ## The report
#
# The report shows the whole run on one page, in a file that needs only a browser.

# %%
print("written:", lab.write_report())

# %% [markdown]
# **Beside the paper.** The paper ends at 57.5 on AIME 2024 [P]. The same authors later measured the same model over 64
# samples per problem and report 48.1; on MATH-500 91.2 instead of 94.6, on GPQA Diamond 44.5 instead of 52.0 [P]. No
# cause is given. Even with the largest noise that sampling can give such scores, the gaps on AIME and on GPQA are two
# standard deviations and that on MATH-500 is three [I]. So at least on MATH-500 something other than sampling must
# differ; what it is, is unknown [U]. In that second measurement the model is below DeepSeek-R1-Distill-Qwen-7B on all
# four sets [P].
#
# ## Vary this next
#
# - `lab.answers(model, "easy", 0.6)` in the cell of gains. Expect others: mid-training gains nothing
#   there, SFT more than on `hard`, GRPO little, as little is left.
# - `list(problems.values())[: len(problems) // 2]` instead of `problems.values()` in that cell. Expect intervals about
#   1.4 times as wide.
# - Another seed: `PHI_LAB_PROFILE=lab PHI_LAB_SEED=1 PHI_LAB_RUN=runs/second make lab`, then all notebooks. Expect
#   another ladder of the same shape, or not: that is what chains are for.
#
# ## What to remember
#
# - Which stages help, in the published chains: see the figure and the table of differences. A stage is shown to help
#   where it is above the stage before *and* above each of its rivals. Your run is one more chain, and may look
#   different.
# - `transfer` has to be read beside `hard`: what is gained on one may have been paid for with the other.
# - Look at how many problems were gained and lost, not at the difference alone.
# - An interval over problems does not cover seeds, and a run is one seed.
# - "No difference shown" is a result.
#
# ## Three questions
#
# 1. Which gain of *this* run would you bet on to come back with another seed, and how much?
# 2. pass@k can stay the same while accuracy rises. What has the model learned then?
# 3. You measured `hard` many times in this course. What should you do before you publish a number on it?
#
# <details><summary>Answers</summary>
#
# **1.** One that is large beside the spread of the chains, and no more than their mean: this run was not chosen for
# being typical, and a gain that stands out on one seed is usually smaller on the next.
#
# **2.** To give more often an answer that it could give before: sampling got sharper, and no new problem became
# solvable within k samples.
#
# **3.** Measure once more on problems that no decision has seen. Whoever looks at a benchmark between decisions chooses
# by it, and its number becomes too good. So settings of this course were chosen on validation problems and other seeds.
#
# </details>
#
# Next: [07, scaling up](07_scaling_up.ipynb)
