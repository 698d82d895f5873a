# %% [markdown]
# # Distillation: sample often, verify everything
#
# **Claim.** *Distillation* trains a small model on what a larger one writes: here its steps, not only its answers. A
# teacher's answer is worth no more than its verdict: sample several answers to every question, verify every final
# answer, train on the right ones, and do not throw the wrong ones away.
#
# **Time**: about 70 seconds in the `lab` profile, 30 in `smoke`, 25 in `lesson`, on two CPU cores; nearly all of it is
# sampling from the teacher.
#
# **Before**: notebook 00. For "One token at a time": what a model's logits are.
#
# **Afterwards** you can write a decoding loop with a cache, a reward that never runs a model's text as code, a filter
# and an interval, and say what each filter removes that it was not meant to.

# %%
import random
import time
from collections import Counter, defaultdict
from statistics import median

import torch
from IPython.display import HTML
from transformers import AttentionInterface, DynamicCache

from phi_lab import verify
from phi_lab.core import stats
from phi_lab.core.formatting import percent, percent_interval
from phi_lab.distill import shards
from phi_lab.lab import Lab, checks, tables, widgets
from phi_lab.lab.answers import answer_style
from phi_lab.model import chat
from phi_lab.report import figures
from phi_lab.sampling import minimal_decode

lab = Lab()
lab.before_after("base", "teacher")

# %% [markdown]
# The teacher is a wider model than its student: 2.2 million parameters, trained from random weights on worked solutions
# and on text of pretraining; in the paper the teacher is DeepSeek-R1 with 671 billion parameters [S2]. Neither is
# always right. Both kinds of answers help: the right ones are the training data of notebooks 02 and 03, and wrong ones
# are needed in notebook 04. No worked solution that it was trained on has more than five operations, and it is asked
# for none.
#
# ## The verifier
#
# No model judges these answers. A program extracts the content of `\boxed{}`, or where there is none the last phrase
# such as "The answer is", and compares it with the *gold* answer, the known right one, as mathematics: 38/24 *is*
# 19/12. A box between `<think>` and `</think>` does *not* count. The verdict `unfinished` means that `</think>` is
# missing, or that nothing follows it; `unparsed` means that there is an answer which the program cannot read, and
# `timeout` that the comparison took too long. The paper uses Math-Verify and GPT-4o-mini as a second judge [S].

# %%
HTML(widgets.verdict_table())

# %%
# With a running kernel: write an answer yourself and try to fool the verifier.
widgets.verifier()

# %% [markdown]
# ## Sampling from the teacher
#
# We sample eight answers to every question, about as many as the paper [S2]; each is called a *rollout*. In `lab` all
# of them are sampled now. In `lesson` and `smoke` some are; the others ship with the course, and were sampled from the
# same teacher by the run that made the checkpoints. The table shows how many rows come from where.

# %%
rollouts = lab.rollouts()
sources = defaultdict(list)
for row in rollouts:
    sources[row["source"]].append(row)
lines = []
for name, rows in sources.items():
    share = sum(row["verdict"] == "right" for row in rows) / len(rows)
    questions = {row["id"] for row in rows}
    lines.append((name, f"{len(rows):,}", f"{len(questions):,}", percent(share)))
HTML(tables.table("", ("where", "rollouts", "questions", "right"), lines))

# %% [markdown]
# ## One token at a time
#
# How does a model answer? It reads the question, its last logits say how probable each next token is, one token is
# drawn, and the model reads that one. It need not read the text again: a token's *keys and values* depend only on what
# stands before it, so they are computed once and kept in a cache. Change the temperature, or the seed, and run the cell
# again.

# %%
writer = "base" if lab.has_no_model("teacher") else "teacher"
model, tokenizer = lab.model(writer)
prompt = chat.prompt_ids(tokenizer, rollouts[0]["prompt"])
drawn = torch.Generator().manual_seed(0)
# As in distillation: the temperature, and the most tokens that an answer may have.
temperature, limit, stop = 0.8, 384, tokenizer.eos_token_id
cache, unread, completion = DynamicCache(config=model.config), list(prompt), []
with torch.inference_mode():
    while len(completion) < limit and completion[-1:] != [stop]:
        place = cache.get_seq_length()  # tokens whose keys and values are in the cache
        positions = torch.arange(place, place + len(unread))[None]
        logits = model(
            input_ids=torch.tensor([unread], device=model.device),
            position_ids=positions.to(model.device),
            past_key_values=cache,
        ).logits[0, -1].float().cpu()
        probabilities = (logits / temperature).softmax(-1)
        completion.append(int(torch.multinomial(probabilities, 1, generator=drawn)))
        unread = completion[-1:]  # all that the model has not read yet
print(rollouts[0]["prompt"], tokenizer.decode(completion), sep="\n")

# %% [markdown]
# **Is the cache only faster?** `minimal_decode.decode` is that loop as a function. Without the cache every token sends
# the whole text through the model again; greedily, both must write the same tokens.

# %%
seconds, written = {}, {}
for name, use_cache in (("with the cache", True), ("without it", False)):
    started = time.perf_counter()
    written[name] = minimal_decode.decode(
        model.cpu(), prompt, 120, {stop}, use_cache=use_cache
    )
    seconds[name] = time.perf_counter() - started
print("the same tokens:", written["with the cache"] == written["without it"])
ratio = seconds["without it"] / seconds["with the cache"]
print(f"time without the cache: {ratio:.1f} times that with it")

# %% [markdown]
# ## Exercise: one step with a cache
#
# What is in the cache, and who reads it? Each layer has several *heads* of attention. In each of them a token has a
# query, a key and a value, three vectors that the model computes. Attention compares a token's query with the keys of
# all tokens so far, and reads most from the values of those that match best.

# %%
checks.CACHE_STEP.card()


# %% tags=["exercise"]
def cache_step(query, key, value, keys, values):
    """(What the new token reads, the longer keys, the longer values).

    query, key, value: those of the new token, each (width,).
    keys, values: those of all tokens before it, each (tokens, width).
    """
    return NotImplemented  # your lines


# %%
one_step = checks.CACHE_STEP.use(cache_step)

# %% [markdown]
# Now the model answers with it, without any attention and any cache but yours. `by_hand` takes the place of attention
# in every layer; where several heads share keys and values each keeps them for itself, so that it stays readable.


# %%
def by_hand(layer, query, key, value, mask, **settings):
    """Attention of one layer for one new token.

    query, key, value: (1, heads, 1, width).
    """
    heads, read = query.shape[1], []
    for head in range(heads):
        group = head * key.shape[1] // heads  # of heads that share keys and values
        nothing = key[0, group, :0], value[0, group, :0]  # before the first token
        keys, values = so_far.get((layer.layer_idx, head), nothing)
        one, keys, values = one_step(
            query[0, head, 0], key[0, group, 0], value[0, group, 0], keys, values
        )
        so_far[layer.layer_idx, head] = keys, values
        read.append(one)
    return torch.stack(read)[None, None], None


# %%
so_far, text, wanted = {}, list(prompt), written["with the cache"][:40]
AttentionInterface.register("by hand", by_hand)
model.set_attn_implementation("by hand")
with torch.inference_mode():
    for place in range(len(prompt) + len(wanted) - 1):
        token, position = torch.tensor([[text[place]]]), torch.tensor([[place]])
        output = model(input_ids=token, position_ids=position, use_cache=False)
        if place == len(text) - 1:  # the question is read: write
            text.append(int(output.logits[0, -1].argmax()))
print(tokenizer.decode(text[len(prompt) :]))
print("the same tokens:", text[len(prompt) :] == wanted)
keys, _ = so_far[0, 0]
print(f"in the cache: {len(so_far)} heads, keys of {len(keys)} tokens in each")

# %% [markdown]
# The course's sampler does the same for many answers at once, each row of a batch with its own cache: that is the fast
# path, and what `lab.rollouts()` used.
#
# ## The funnel
#
# The paper has about 10 M rollouts to 1.6 M questions, traces of public sets among them [S2]. A series of filters, the
# *funnel*, removes rollouts; stages 1 and 2 are trained on what is left. Each bar is what one filter leaves; its pale
# part is what it removes.

# %%
figures.funnel(lab.funnel())

# %% [markdown]
# What does each filter look for? Most remove nothing here; on text from the web they would. Ask of each what the model
# would have learned from the rollouts that it removed.

# %%
steps = [step for step in lab.funnel()["steps"] if step["why"]]
lines = [(step["name"], step["why"], f"{step['removed']:,}") for step in steps]
HTML(tables.table("", ("filter", "why", "removed"), lines))

# %% [markdown]
# A filter often removes more than it was meant to. Suppose that long answers cost too much to train on, and lower the
# limit on length. Which questions lose their answers?

# %%
HTML(widgets.limits_table(rollouts))

# %% [markdown]
# An answer with many steps is long, so a limit on length takes answers from the hard questions first. But most
# questions have a terse answer, too, and it is short: how many questions are lost altogether depends on the limit. The
# paper's limits of 16K and 20K tokens raise the same question [S].

# %%
widgets.filters(rollouts)  # with a running kernel: move a limit, watch the funnel

# %% [markdown]
# Here is one rollout of every verdict, laid out as in notebook 00. In the wrong one, look for the first line that does
# not follow from the one above it. (If it is a bare answer without lines, there is nothing to look at: the filter
# *worked* removes such answers.)

# %%
HTML(widgets.gallery(rollouts, seed=1))

# %%
# With a running kernel: choose a verdict, page through its rollouts.
widgets.browse(rollouts)

# %% [markdown]
# Nobody can read ten million rollouts. Those that were sampled here are in Parquet files, and DuckDB runs SQL queries
# on them, however many there are (so does `phi-lab query` in a terminal). Are wrong answers longer?

# %%
sql = (
    "select verdict, count(*) as rollouts, median(tokens)::int as tokens from rollouts "
    "group by all order by 2 desc"
)
result = shards.query(lab.data().rollouts, sql)
HTML(tables.table("", result[0], [row.values() for row in result]))

# %% [markdown]
# ## Exercise: a filter by pass rate
#
# A question's *pass rate* is the share of its answers that are right: it says how hard the question is for the teacher.
# Where it is 0 there is nothing to imitate; where it is 1 there is no wrong answer to compare with.

# %%
checks.KEEP_QUESTIONS.card()


# %% tags=["exercise"]
def keep_questions(rollouts, low, high):
    """The set of questions whose share of "right" is from low to high.

    rollouts: pairs (question, verdict).
    """
    return NotImplemented  # your lines


# %%
keep = checks.KEEP_QUESTIONS.use(keep_questions)
verdicts = [(row["id"], row["verdict"]) for row in rollouts]
operations = {row["id"]: row["level"] for row in rollouts}
lines = []
limits = {
    "all": (0, 1),
    "never right": (0, 0),
    "at most half right": (0, 1 / 2),
    "always right": (1, 1),
}
for name, (low, high) in limits.items():
    kept = set(keep(verdicts, low, high))
    levels = [operations[question] for question in kept]
    mean = f"{sum(levels) / len(levels):.2f}" if levels else "–"
    lines.append((name, f"{len(kept):,}", mean))
HTML(tables.table("", ("questions", "how many", "operations, mean"), lines))

# %% [markdown]
# ## Exercise: an interval for a share
#
# A share of few answers is a rough guess. Its interval says how rough: it holds all true shares under which what was
# seen would be no surprise.

# %%
checks.WILSON.card()


# %% tags=["exercise"]
def wilson(right, n):
    """How many of n answers are right -> the share's 95 % interval, (low, high)."""
    return NotImplemented  # your lines


# %%
interval = checks.WILSON.use(wilson)
for correct, count in ((0, 20), (10, 20), (100, 200)):
    shown = percent_interval(correct / count, *interval(correct, count))
    print(f"{correct} of {count} right: {shown}")

# %% [markdown]
# ## Where the teacher fails
#
# The table shows the teacher's accuracy by the number of operations in a question, with your 95 % intervals. Eight
# answers to one question are alike, so they do not count as eight independent ones: the interval is that of an
# *effective* number of answers, which is smaller.

# %%
mixed_questions = set(keep(verdicts, 1 / 8, 7 / 8))
by_level = defaultdict(lambda: defaultdict(list))
for row in rollouts:
    by_level[row["level"]][row["id"]].append(row["verdict"] == "right")
lines = []
for level, questions in sorted(by_level.items()):
    groups = {question: hits for question, hits in questions.items() if len(hits) == 8}
    if not groups:  # a public set may hold another number of answers to each question
        continue
    share = sum(map(sum, groups.values())) / (8 * len(groups))
    effective = stats.effective_samples([sum(hits) for hits in groups.values()], 8)
    low, high = interval(share * effective, effective)
    mixed = len(mixed_questions & groups.keys()) / len(groups)
    with_interval = percent_interval(share, low, high)
    lines.append((level, len(groups), with_interval, percent(mixed)))
head = ("operations", "questions", "right, with interval", "right and wrong answers")
HTML(tables.table("", head, lines))

# %% [markdown]
# The last column is your filter's: questions with a right *and* a wrong answer, one to seven of eight right. A pair of
# the teacher's answers, as the paper's Rollout DPO uses them (notebook 04), needs such a question.
#
# ## A script instead of a model?
#
# In this small world a program can write worked solutions, too; the teacher was trained on such solutions. Here the
# program answers the same questions equally often, and the same verifier checks its answers.

# %%
first_ids = set(list(dict.fromkeys(row["id"] for row in rollouts))[:200])
by_model = [row for row in rollouts if row["id"] in first_ids]
by_script = lab.script_rollouts(200)
lines = []
for name, rows in (("the teacher model", by_model), ("the script", by_script)):
    answers = defaultdict(set)
    for row in rows:
        answers[row["id"]].add((row["completion"], row["verdict"] == "right"))
    share = sum(row["verdict"] == "right" for row in rows) / len(rows)
    distinct = sum(map(len, answers.values())) / len(answers)
    both = sum(len({right for _, right in group}) == 2 for group in answers.values())
    mixed = percent(both / len(answers))
    lines.append((name, len(answers), percent(share), f"{distinct:.1f}", mixed))
head = ("teacher", "questions", "right", "different of 8", "right and wrong")
HTML(tables.table("", head, lines))

# %% [markdown]
# The script is never wrong. That is its weakness: without wrong answers there are no preference pairs and no pass rates
# that tell which questions are hard. And outside of a small world no such script exists.
#
# ## Answers differ in length
#
# The teacher writes in four styles: *terse* (the results alone, or only what each column gives), *checking* (columns,
# and a check of the result), *backtracking* (columns, with a slip that is noticed and repaired), and *plain* (columns,
# with neither). So right answers to one question differ in length. Notebook 05 needs that: answers of uneven length
# are the first of the paper's three reasons why plain RL failed [S]. The figures show lengths by verdict, then those
# of the right answers by style.

# %%
figures.lengths(rollouts, by="verdict")

# %%
styled = [
    {**row, "style": answer_style(row["completion"])}
    for row in rollouts
    if row["verdict"] == "right"
]
figures.lengths(styled, by="style")

# %%
spread = defaultdict(list)
for row in styled:
    spread[row["id"]].append(row["tokens"])
ratios = [max(tokens) / min(tokens) for tokens in spread.values() if len(tokens) > 1]
print(f"questions with several right answers: {len(ratios):,}")
print(f"their longest over their shortest: median {median(ratios):.2f}")

# %% [markdown]
# ## Exercise: the reward
#
# In notebook 05 a program decides which answers are rewarded: +1 for a right final answer, −1 for everything else [S].

# %%
checks.REWARD.card()


# %% tags=["exercise"]
def reward(completions, answers):
    """Completions and their gold answers, two lists -> a list of +1.0 and -1.0."""
    return NotImplemented  # your line


# %%
score = checks.REWARD.use(reward)
sample = random.Random(0).sample(rollouts, min(400, len(rollouts)))
values = score([row["completion"] for row in sample], [row["answer"] for row in sample])
verdicts = Counter(row["verdict"] for row in sample)
print(f"reward of {len(sample)} rollouts:", dict(Counter(values)))
print("and by verdict:", dict(verdicts))

# %% [markdown]
# **Negative control.** Verify every answer against the gold answer of *another* question. If the verifier still
# accepts them, it is broken. (One or two in a hundred may pass: small numbers answer more than one question.)

# %%
shuffled_gold = [row["answer"] for row in sample[1:] + sample[:1]]
accepted = sum(
    verify.verify(row["completion"], gold).verdict == "right"
    for row, gold in zip(sample, shuffled_gold, strict=True)
)
share = percent_interval(accepted / len(sample), *interval(accepted, len(sample)))
print(f"accepted against shuffled gold answers: {accepted} of {len(sample)}, {share}")

# %% [markdown]
# ## Vary this next
#
# - In "One token at a time", `temperature = 0.2` with `manual_seed(0)`, `(1)` and `(2)`. Expect nearly the same answer
#   each time; at 1.5, three different ones, and slips.
# - The negative control with `sample[7:] + sample[:7]`. Expect as few accepted as before: any shift mismatches.
# - `widgets.limits_table(rollouts, (120, 90, 60))`. Expect the share of hard questions to fall with the limit.
#
# ## What to remember
#
# - Only the final answer is verified, not the steps. A right answer may follow from wrong steps.
# - The filters remove rollouts; the funnel shows how many and why.
# - Wrong answers are saved: they are half of every preference pair in notebook 04.
# - Decoding is a loop of one token; the cache makes it fast and does not change it.
#
# ## Three questions
#
# 1. Which filter removed most, and what would have happened if its rollouts had been used for training?
# 2. If the verifier accepted 2 % of wrong answers, which stage would suffer most?
# 3. Are the teacher's mistakes evenly spread over the levels (numbers of operations)? If it failed mostly on long
#    questions, what would that do to the training set's difficulty?
#
# <details><summary>Answers</summary>
#
# **1.** Read it off the funnel. Wrong answers would teach mistakes. Repeated ones would teach nothing false, but they
# give a question with few different answers, usually an easy one, more weight.
#
# **2.** RL. In the other stages such an answer is one wrong row among many. RL looks for whatever is rewarded: more and
# more often it samples the mistake that the verifier accepts (the last part of notebook 05).
#
# **3.** The table of levels says it. Only right answers are kept, so questions that a teacher often fails have fewer
# of them, and the set becomes easier than the questions were. SFT's choice (notebook 03) works against that: it takes
# those questions first.
#
# </details>
#
# Next: [02, mid-training](02_mid_training.ipynb)
