# %% [markdown]
# # Rollout DPO: learning from right and wrong answers
#
# **Claim.** A pair of a right and a wrong answer says where they differ, which right answers alone do not. Whether a
# model learns more from that has to be tested. This page does it with wrong answers from two sources, the student (our
# stage) and the teacher (the paper's), and compares it with a control at the same compute: fine-tuning on the right
# side alone.
#
# **Time**: about 365 seconds in the `lab` profile, 40 in `smoke`, 195 in `lesson`, on two CPU cores.
#
# **Before**: notebooks 02 (the loop) and 03 (the labels); logarithms of probabilities.
#
# **Afterwards** you can write the DPO loss with its log-probabilities, its mask and its reference; choose pairs; and
# read from two log-probabilities what training did.

# %%
import copy
import math
import random
from collections import defaultdict

import torch
from IPython.display import HTML

from phi_lab.core import stats
from phi_lab.core.formatting import percent_interval
from phi_lab.core.paths import SHIPPED
from phi_lab.core.run_folder import arm_name
from phi_lab.lab import Lab, checks, fast_path, looks, pictures, tables
from phi_lab.lab.answers import answer_style
from phi_lab.model import checkpoints
from phi_lab.problems import step_check
from phi_lab.report import figures
from phi_lab.report.ladder_rows import model_title, protocol
from phi_lab.stages import minimal_dpo, preference_pairs

lab = Lab()
in_lab, on_cpu = lab.config.profile != "smoke", lab.config.scale == "cpu"
# In `lesson` and `smoke` DPO starts from the shipped model of SFT, not from yours.
start = lab.start("dpo")
groups = lab.sample_groups(start, prompts=80 if in_lab else 24, temperature=0.8)

# %%
sides = []  # of each question with both kinds of answers: its right and its wrong ones
for group in groups:
    rights, wrongs = (
        [row for row in group if row["verdict"] == kind] for kind in ("right", "wrong")
    )
    if rights and wrongs:
        sides.append((rights, wrongs))
print(f"{len(groups)} questions, 8 answers each by the student")
print(f"questions with a right and a wrong answer: {len(sides)}")

# %% [markdown]
# ## A pair
#
# A *preference pair* is two answers to the same question: y⁺, verified right (*chosen*), and y⁻, verified wrong
# (*rejected*). DPO raises the log-probability of the first against that of the second, both relative to the model
# before this stage. The loss of a pair, to be made small:
#
# $$-\log \sigma\Big(\beta\big[\log\tfrac{\pi(y^+)}{\pi_{\rm ref}(y^+)} -
# \log\tfrac{\pi(y^-)}{\pi_{\rm ref}(y^-)}\big]\Big)$$
#
# π is the model in training (the *policy*), π_ref a frozen copy of the model after stage 2, σ the logistic function,
# and the bracket is the *margin*: by how much more the right answer has risen than the wrong one. β sets how large the
# margin has to be before the loss is close to zero: a small β lets π move further from π_ref. The paper: both answers
# by the teacher, learning rate 5e-7, one epoch [S2]; β unknown [U]. Here β is 0.1, and both answers are the
# *student's*, sampled from the model after stage 2. Only the verifier says which are right.

# %%
rights, wrongs = max(sides, key=lambda pair: min(map(len, pair)))
pairs = preference_pairs.pair_closest_length(rights, wrongs, 1, random.Random(0))
chosen, rejected = pairs[0]
HTML(tables.rollout(chosen) + "<hr>" + tables.rollout(rejected))

# %% [markdown]
# This is the pair of its question that is closest in length; a figure further down has the lengths of all. Where do
# the two differ? Below is each token's log-probability under the model before this stage. Look for tokens that cost
# nothing, because they follow from what stands there, and for the first one that gives the wrong answer away: what
# follows may be right given that slip. DPO's loss holds the *sum* over all of them.

# %%
folder = lab.folder(start) if on_cpu else SHIPPED / "sft"  # tiny, at every scale
small, reference = checkpoints.load(folder), checkpoints.load(folder)
tokenizer = checkpoints.load_tokenizer(folder)
one_pair = {
    "prompt": chosen["prompt"],
    "chosen": chosen["completion"],
    "rejected": rejected["completion"],
}
tokens = looks.pair_tokens(small, reference, tokenizer, one_pair)
heat = {
    side: [(word, logprob) for word, logprob, _ in row[:300]]
    for side, row in tokens.items()
}
pictures.token_heat(heat, "log π, nats")

# %% [markdown]
# ## Where does an answer go wrong?
#
# In this small world that can be known: what each step has to say follows from the question and the steps before it.
# Below are wrong answers of the student, cut after their first wrong step, which has a ✗: a step that does not follow
# from the question and what stands before it, though its own sum may be right. Everything before it is right, and
# DPO's rejected side lowers the probability of that, too; the chosen side has to make up for it.

# %%
lines = []
for row in [wrongs[0] for _, wrongs in sides if wrongs[0]["problem"].steps][:6]:
    text = row["completion"]
    place = step_check.first_wrong_step(row["problem"], text)
    place = len(text) if place is None else place
    lines.append((row["prompt"], text, place, step_check.step_at(text, place)))
HTML(tables.wrong_steps(lines))

# %% [markdown]
# ## Exercise: which mistakes?
#
# DPO cannot make a model avoid what it would never write. How probable is each wrong answer *under the student*? Its
# own it did write. The teacher's may be very unlikely: then the student may prefer the right answer of such a pair even
# before training. How many of the teacher's are to the right of the line in the picture below, likely enough that there
# is something to unlearn? (Our stage takes the student's own wrong answers, which need no such filter.)

# %%
checks.PLAUSIBLE.card()


# %% tags=["exercise"]
def plausible(wrong, logprobs, max_nll):
    """Those of the wrong answers that are likely enough.

    logprobs: log pi(answer) of each, in nats; max_nll: the limit, in nats.
    """
    return NotImplemented  # your line


# %%
likely = checks.PLAUSIBLE.use(plausible)
teachers_right, teachers_wrong = lab.right(), lab.wrong()
both = {row["id"] for row in teachers_right} & {row["id"] for row in teachers_wrong}
teachers_wrong_to_both = [row for row in teachers_wrong if row["id"] in both]
model, tokenizer = lab.model(start)
own_wrong = [row for _, wrongs in sides for row in wrongs]
logprobs = {
    name: preference_pairs.log_probabilities(model, tokenizer, rows)
    for name, rows in (
        ("the teacher's right answers", teachers_right[:500]),
        ("the teacher's wrong answers", teachers_wrong_to_both),
        ("the student's wrong answers", own_wrong),
    )
}
limit = lab.config.dpo.max_student_nll
print(f"likely enough: at least exp(-{limit:g}) = {math.exp(-limit):.4f}")
wrong_ones = {"the teacher's": teachers_wrong_to_both, "the student's": own_wrong}
for name, rows in wrong_ones.items():
    kept = likely(rows, logprobs[f"{name} wrong answers"], limit)
    print(f"{name} wrong answers: {len(rows):,}, likely enough: {len(kept):,}")
pictures.student_likelihood(logprobs, -limit)

# %% [markdown]
# ## Exercise: which right answer?
#
# If the wrong answers are longer than the right ones, the pairs teach "be short" before they teach arithmetic. So pair
# answers that are close in length; `rng` decides between pairs that are equally close. How the paper chose its pairs is
# unknown [U].

# %%
checks.PAIR.card()


# %% tags=["exercise"]
def pair(right, wrong, count, rng):
    """At most `count` pairs (right, wrong), closest in length, no answer twice.

    right, wrong: rollouts of one question, dictionaries with "tokens".
    """
    return NotImplemented  # your lines


# %%
pairing = checks.PAIR.use(pair)
rng, gaps = random.Random(0), []  # the differences of two lengths
for rights, wrongs in sides:
    closest = pairing(rights, wrongs, 2, rng)
    by_chance = [(rng.choice(rights), rng.choice(wrongs)) for _ in range(2)]
    for name, chosen_ones in (("closest in length", closest), ("at random", by_chance)):
        gaps += [
            {"tokens": abs(a["tokens"] - b["tokens"]), "pairing": name}
            for a, b in chosen_ones
        ]
label = "difference in length between the two answers of a pair, tokens"
figures.lengths(gaps, by="pairing", things="pairs", label=label)

# %% [markdown]
# ## Exercise: the log-probability of an answer
#
# All that DPO knows of a model is four numbers a pair: the log-probability of either answer, by the model in training
# and by its frozen copy. The mask leaves the question and the padding out, as the labels of notebook 03 do.

# %%
checks.SEQUENCE_LOGPROB.card()


# %% tags=["exercise"]
def sequence_logprob(logits, ids, mask):
    """The log-probability of each row's answer, (rows,), in nats.

    logits: (rows, tokens, vocabulary). ids, mask: (rows, tokens); the mask is 1 on
    the answer, 0 on question and padding.
    """
    return NotImplemented  # your lines


# %%
logprob_of_rows = checks.SEQUENCE_LOGPROB.use(sequence_logprob)


def answer_logprobs(model, ids, mask):
    """log π(answer | question) of each row, in nats; ids, mask: (rows, tokens)."""
    return logprob_of_rows(model(input_ids=ids).logits, ids, mask)


# %% [markdown]
# ## Exercise: the loss of DPO
#
# The four numbers become one. It is the formula at the top of this page; the loop below then trains with yours.

# %%
checks.DPO_LOSS.card()


# %% tags=["exercise"]
def dpo_loss(policy, reference, beta):
    """The loss of all pairs, one number.

    policy, reference: log-probabilities, each a pair of tensors (chosen, rejected) of
    shape (pairs,).
    """
    return NotImplemented  # your lines


# %%
loss_of_pairs = checks.DPO_LOSS.use(dpo_loss)

# %% [markdown]
# ## The loop
#
# A batch holds all chosen answers, then all rejected ones, so that each model reads it once.


# %%
def preference_loss(policy, reference, beta=0.1):
    """The mean loss of the pairs.

    policy, reference: log-probabilities of all chosen answers, then of all rejected
    ones, (2 x pairs,).
    """
    return loss_of_pairs(policy.chunk(2), reference.chunk(2), beta)


def train_here(model, pairs, steps, batch_size=16, rate=3e-5):
    """Train `model` in place on pairs; returns a row a step.

    chosen, rejected: the mean of log π / π_ref, in nats.
    """
    reference = copy.deepcopy(model).requires_grad_(False)  # the frozen copy
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    rows = []
    for step in range(steps):
        few = [pairs[(step * batch_size + i) % len(pairs)] for i in range(batch_size)]
        ids, mask = minimal_dpo.to_rows(tokenizer, few)  # chosen answers, then rejected
        policy = answer_logprobs(model, ids, mask)
        before = answer_logprobs(reference, ids, mask)
        loss = preference_loss(policy, before)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # the policy changes here, and nowhere else
        chosen, rejected = (side.mean().item() for side in (policy - before).chunk(2))
        row = {"step": step + 1, "loss": loss.item()}
        rows.append({**row, "chosen": chosen, "rejected": rejected})
    return rows


# %%
tokenizer = checkpoints.load_tokenizer(folder)
pairs = [
    {
        "prompt": good["prompt"],
        "chosen": good["completion"],
        "rejected": bad["completion"],
    }
    for rights, wrongs in sides
    for good, bad in pairing(rights, wrongs, 4, rng)
]
rows = train_here(small, pairs, steps=15 if in_lab else 2)
first, last = rows[0]["loss"], rows[-1]["loss"]
print(f"{len(pairs)} pairs; loss {first:.4f} at the first step (ln 2 = 0.6931)")
print(f"loss {last:.4f} at the last step")
names = {"chosen": "right answers", "rejected": "wrong answers"}
pictures.curves(rows, names, "Against the model before", "nats")

# %% [markdown]
# At the first step model and copy are the same, so every ratio is 1, the margin 0, and the loss ln 2; yet there is a
# gradient, since the copy is a constant and the model is not.
#
# **What does β do?** Here is the pair from the top of the page again, now as what training *changed*: log π/π_ref of
# each token, blue where it became likelier. The table has the loss of this one pair, and by how much the loss falls
# with each nat of margin (its gradient). It is β·σ(−β·margin): at a small margin a large β pushes hardest, and it is
# the first to stop as the margin grows.

# %%
tokens = looks.pair_tokens(small, reference, tokenizer, one_pair)
changes = {
    side: [(word, now - before) for word, now, before in row[:300]]
    for side, row in tokens.items()
}
pictures.token_heat(changes, "log π/π_ref after the loop, nats")

# %%
HTML(looks.beta_table(tokens))

# %%
looks.beta_slider(tokens)  # with a running kernel: move β

# %% [markdown]
# **Is the fast path the same?** The stage takes TRL's loss. On the first four pairs, with the model that was just
# trained:

# %%
ids, mask = minimal_dpo.to_rows(tokenizer, pairs[:4])
with torch.no_grad():
    policy = answer_logprobs(small, ids, mask)
    here = preference_loss(policy, answer_logprobs(reference, ids, mask)).item()
fast = fast_path.dpo_loss(small, reference, tokenizer, pairs[:4], beta=0.1)
print(f"loss of this page {here:.6f}, of TRL {fast:.6f}")
print(f"difference {abs(here - fast):.1e}")

# %% [markdown]
# ## Training: the same, longer
#
# `lab.stage("dpo")` asks the student more questions, makes pairs with your function, and goes through them `epochs`
# times. It differs from the loop above mainly in its loss and its optimizer. DPO's loss depends on the margin alone:
# nothing in it keeps right answers likely, and with large steps it ruins a model. So the stage adds SFT's loss of the
# right answer, with the weight `sft_weight` (arXiv 2404.19733). And its optimizer is Muon, at ten times the rate that
# AdamW has in `dpo-paper` below. Together they gained on the student's own pairs, and not on the teacher's (entry 93 of
# `docs/log.md` has what was tried). The stage's code is `phi_lab/stages/rollout_dpo.py`. (At a GPU scale the stage is
# the paper's: the teacher's pairs, and DPO's loss alone.)

# %%
result = lab.stage("dpo", pair=pairing)
figures.dpo_curves(result.metrics)

# %%
lab.doctor("dpo")

# %% [markdown]
# DPO's loss depends on the *difference* only, so training may lower both sides as long as the wrong one falls further.
# The curves on the left jump because every step has other pairs. The *rewards* (β times the log-ratio to the model
# before DPO) compare each pair with that model, so they show what training changed.

# %%
logged = [row for row in result.metrics if "rewards/chosen" in row]
late = logged[-max(1, len(logged) // 5) :]
chosen_gain, rejected_gain = (
    sum(row[f"rewards/{side}"] for row in late) / len(late) / lab.config.dpo.beta
    for side in ("chosen", "rejected")
)
print("last fifth of training, against the model before it:")
print(f"right answers {chosen_gain:+.2f} nats, wrong ones {rejected_gain:+.2f} nats")
if chosen_gain <= rejected_gain:
    print("the margin did not grow: too few steps, or nothing to learn from the pairs")
elif abs(chosen_gain) < 0.1 and rejected_gain < 0:
    print("right answers kept their probability, wrong ones lost some: the margin grew")
elif chosen_gain < 0:
    print("both lost probability, wrong answers more: the margin grew all the same")
elif rejected_gain < 0:
    print("right answers gained probability, wrong ones lost some: the margin grew")
else:
    print("both gained probability, the right answers more")

# %% [markdown]
# **Negative control.** In how many pairs did the first answer gain more than the second? In pairs of a right and a
# wrong answer it should be most. In pairs of two *right* answers to one question, drawn at random, it should be about
# half, with 50 % inside its interval. The
# questions are those at the top of this page, drawn apart from the stage's; one pair each, since two pairs of one
# question are not independent.


# %%
def gain(rows):
    before, after = (
        preference_pairs.log_probabilities(*lab.model(stage), rows)
        for stage in (start, "dpo")
    )
    return [new - old for old, new in zip(before, after, strict=True)]


all_rights = [[row for row in group if row["verdict"] == "right"] for group in groups]
kinds = {
    "right and wrong": [(rng.choice(rights), rng.choice(bad)) for rights, bad in sides],
    "two right ones": [rng.sample(one, 2) for one in all_rights if len(one) > 1],
}
for name, kind in kinds.items():
    if not kind:
        continue
    firsts, seconds = (gain(rows) for rows in zip(*kind, strict=True))
    both = zip(firsts, seconds, strict=True)
    moved = [first > second for first, second in both if first != second]
    hits, count = sum(moved), max(1, len(moved))
    share = percent_interval(hits / count, *stats.wilson(hits, count))
    print(f"{name}: the first gained more in {share} of {len(moved)} pairs")

# %% [markdown]
# ## Before and after

# %%
lab.measure("sft", "dpo")
lab.ladder("dpo")

# %%
lab.before_after("sft", "dpo")

# %%
verdicts = {
    model_title(stage): [row["verdict"] for row in lab.answers(stage, "hard", 0.6)]
    for stage in (start, "dpo")
}
pictures.verdicts(verdicts, "Verdicts on hard, T = 0.6")

# %% [markdown]
# **Another thing to compare.** The style of the answers (notebook 01) may change more than how often they are right:

# %%
STYLES, lines = ("terse", "plain", "checking", "backtracking"), []
for stage in (start, "dpo"):
    rows = lab.answers(stage, "hard", 0.6)
    styles = [answer_style(row["completion"]) for row in rows]
    length = sum(len(row["completion"]) for row in rows) / len(rows)
    shares = [f"{100 * styles.count(name) / len(styles):.0f} %" for name in STYLES]
    lines.append((model_title(stage), *shares, f"{length:.0f}"))
HTML(tables.table("", ("", *STYLES, "characters per answer"), lines))

# %% [markdown]
# ## As in the paper: the teacher's pairs
#
# An *arm* is a variant of a stage; these start from the same model. The paper pairs the *teacher's* answers
# (off-policy): right over wrong, to questions where it gave both. The arm `dpo-paper` has those pairs and DPO's loss
# alone, with AdamW at a tenth of the rate. The control of our stage is `dpo-control`: fine-tuning on the *chosen* side
# alone, for the same compute, sampling included. It has the right answers and never sees the wrong ones: the claim at
# the top of this page is shown only where the stage is above it. `lab.control("dpo-control")` trains it here; the
# published chains have it.

# %%
lab.paper_dpo(pair=pairing)

# %%
names = {
    start: model_title(start),
    "dpo": "Rollout DPO, the student's pairs",
    "dpo-paper": "the teacher's pairs",
    "dpo-control": "SFT on the chosen side",
}
found = defaultdict(dict)
for row in lab.ladder_rows():
    if row["benchmark"] == "hard":
        shown = percent_interval(row["accuracy"], row["ci_low"], row["ci_high"])
        found[arm_name(row["stage"], row["arm"])][protocol(row)] = shown
kinds = {"sampled": "T = 0.6", "cool": "T = 0.3", "greedy": "greedy"}
lines = [
    (title, *(found[name].get(kind, "–") for kind in kinds))
    for name, title in names.items()
    if name in found
]
head = ("model", *kinds.values())
HTML(tables.table("hard, right answers with 95 % intervals.", head, lines))

# %% [markdown]
# ## On other seeds
#
# Differences on `hard` in points over the published chains: either arm against what it started from, and the stage
# against its control.

# %%
lab.gains("dpo")

# %% [markdown]
# ## One batch, ten uses
#
# **What was believed.** The paper makes pairs of what its *teacher* got right and wrong [S2]: it believes that the
# teacher's mistakes are worth learning from. Whether wrong answers help at all, whose they must be, and whether both
# sides of a pair have to answer *one* question is disputed.
#
# Live, one seed: the loop above on the pairs of half of the questions, and on the same pairs with a wrong side from
# another question. In such a pair the answers part at the first step, so nothing shows where a solution goes wrong; all
# that it can teach is which answer belongs to the question. (It also differs more in length.) Both models are measured
# on one pair from each question of the other half, which neither has seen. **Predict first**: which of the two moves
# right and wrong answers further apart?

# %%
half = len(sides) // 2
of_first_half = {rights[0]["prompt"] for rights, _ in sides[:half]}
seen = [one for one in pairs if one["prompt"] in of_first_half]
unseen = list({one["prompt"]: one for one in pairs if one not in seen}.values())
middle = len(seen) // 2
others = seen[middle:] + seen[:middle]  # nearly all of another question
mixed_up = [
    {**one, "rejected": other["rejected"]}
    for one, other in zip(seen, others, strict=True)
]
untrained = checkpoints.load(folder)
ids, mask = minimal_dpo.to_rows(tokenizer, unseen)
for name, some in (("its own question", seen), ("another question", mixed_up)):
    trained = copy.deepcopy(untrained)
    train_here(trained, some, steps=15 if in_lab else 2)
    with torch.no_grad():
        after = answer_logprobs(trained, ids, mask)
        change = after - answer_logprobs(untrained, ids, mask)
    good, bad = change.chunk(2)
    hits, count = int((good > bad).sum()), len(good)
    share = percent_interval(hits / count, *stats.wilson(hits, count))
    print(f"wrong side of {name}:")
    print(f"  right {good.mean():+.2f}, wrong {bad.mean():+.2f} nats")
    print(f"  the right one gained more in {share} of {count} pairs")

# %% [markdown]
# On so few pairs, after so few steps, only a large difference would show. And log-probabilities are not accuracy. The
# experiment puts one verified batch to ten uses at equal compute and measures what each is worth. Among them are the
# paper's pairs, own pairs, pairs cut at the first wrong step, right answers alone, the teacher's score of each token,
# GRPO, and GRPO with a coin toss as reward. For comparison there is the student without training, sampled at T = 0.3.

# %%
lab.question("one_batch")

# %% [markdown]
# **What is known now**, of this small model and these recipes. SFT on the student's own right answers gets the most out
# of the batch: more than DPO on the pairs that these answers came from, and more than GRPO. The paper's pairs gain at T
# = 0.6, but the student without training has more at T = 0.3. A wrong side that answers the *same* question is worth
# something; that it must be the *student's* is not shown. Pairs cut at the first wrong step end far below whole ones.
# It does not follow that wrong answers are useless: the rates differ, and the course's own DPO, which holds the right
# side by SFT's loss, is not shown to differ from its rival. docs/results.md says what else the arms do not share.

# %% [markdown]
# ## Vary this next
#
# - `beta=2.0` in `preference_loss`. Expect the loss to fall further: the same margin counts twenty times as much. (The
#   cell that compares with the fast path then differs, as it has β 0.1.)
# - Right answers as `rejected`, wrong ones as `chosen`, in the cell that makes `pairs`. Expect the curves to change
#   places: the loss does not know what is right.
# - Pairs at random: after the exercise's check, which wants the closest pairs, a new cell with `pairing = lambda r, w,
#   count, rng: list(zip(r, rng.sample(w, len(w))))[:count]` and `lab.reset("dpo")`; then the cells from `lab.stage` on.
#   Expect the mean length of answers to move, whichever way the pairs happen to lean.
#
# ## What to remember
#
# - The policy changes in one line, and the loss knows four numbers a pair. It depends only on a difference: watch the
#   log-probabilities, not only the loss.
# - A model can unlearn only what it would write. Whether it therefore matters whose mistakes the pairs hold is a
#   question for accuracy, not for log-probabilities: `one_batch` asks it.
# - The control has the same right answers. Only what a stage gains over it can be due to the wrong ones.
# - "Not shown" is not "does not": the table says how large a gain would have been seen.
# - The paper's gain here: +6.7 AIME, +4.3 MATH-500, +0.7 GPQA [S2]. The authors' earlier report gives 90.4 and not
#   93.6 on MATH-500 after this stage [P]; the reason is unknown [U].
#
# ## Three questions
#
# 1. What do the policy, the reference and the pair do in DPO? What goes wrong without each?
# 2. If both log-probabilities fall, where does the probability go?
# 3. The student's own pairs have to be sampled again for every student. What would that cost at the paper's size?
#
# <details><summary>Answers</summary>
#
# **1.** The policy is what is trained. The reference says what counts as a change: without it the loss would pay for
# differences in length and style that were there before. The pair says in which direction: with wrong answers of
# *another* question the policy would learn to tell which answer fits the question, which it can do already.
#
# **2.** To answers that are in no pair: probabilities of all answers sum to one, and the loss says nothing about the
# others. They may be better or worse. That is why the ladder is measured on sampled answers, not on pairs.
#
# **3.** Millions of answers as long as the teacher's, from the student: notebook 07's plan has the arithmetic of
# sampling. The teacher's answers exist already and can be used for every student.
#
# </details>
#
# Next: [05, GRPO](05_grpo.ipynb)
