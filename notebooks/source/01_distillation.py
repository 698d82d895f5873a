# %% [markdown]
# # Distillation: sample often, verify everything
#
# **Claim.** A teacher's answer is worth no more than its verdict: sample several answers to every question, verify
# every final answer, train on the right ones, and do not throw the wrong ones away.
#
# **Time**: about 90 seconds in the `lab` profile, 30 in `smoke`, on two CPU cores; nearly all of it is sampling from
# the teacher.
#
# **Before**: notebook 00. For "One token at a time": what a model's logits are.
#
# **Afterwards** you can write a decoding loop with a cache, a reward that cannot be run as code, and a funnel of
# filters, and say what each filter removes that it was not meant to.

# %%
import random
import time
from collections import Counter, defaultdict
from statistics import median

import torch
from IPython.display import HTML
from transformers import DynamicCache

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
# such as "The answer is", and compares it as mathematics: 38/24 *is* 19/12. A box between `<think>` and `</think>` does
# *not* count. The verdict `unfinished` means that `</think>` is missing, or that nothing follows it; `unparsed` means
# that there is an answer which the program cannot read. The paper uses Math-Verify and GPT-4o-mini as a second judge
# [S].

# %%
HTML(widgets.verdict_table())

# %%
widgets.verifier()  # with a running kernel: write an answer yourself and try to fool the verifier

# %% [markdown]
# ## Sampling from the teacher
#
# We sample eight answers to every question, about as many as the paper [S2]; each is called a *rollout*. In `lab` all
# of them are sampled now. In `smoke` a few are; the others ship with the course, and were sampled from the same
# teacher by the run that made the checkpoints. The table shows how many rows come from where.

# %%
rollouts = lab.rollouts()
sources = defaultdict(list)
for row in rollouts:
    sources[row["source"]].append(row)
lines = []
for name, rows in sources.items():
    share = sum(row["verdict"] == "right" for row in rows) / len(rows)
    lines.append((name, f"{len(rows):,}", f"{len({row['id'] for row in rows}):,}", percent(share)))
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
prompt, drawn = chat.prompt_ids(tokenizer, rollouts[0]["prompt"]), torch.Generator().manual_seed(0)
temperature, limit, stop = 0.8, 384, tokenizer.eos_token_id
cache, unread, completion = DynamicCache(config=model.config), list(prompt), []
with torch.inference_mode():
    while len(completion) < limit and completion[-1:] != [stop]:
        place = cache.get_seq_length()  # tokens whose keys and values are in the cache
        positions = torch.arange(place, place + len(unread))[None]
        logits = model(
            input_ids=torch.tensor([unread], device=model.device), position_ids=positions.to(model.device),
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
    written[name] = minimal_decode.decode(model.cpu(), prompt, 120, {stop}, use_cache=use_cache)
    seconds[name] = time.perf_counter() - started
print("the same tokens:", written["with the cache"] == written["without it"])
print(f"time without the cache: {seconds['without it'] / seconds['with the cache']:.1f} times that with it")

# %% [markdown]
# The course's sampler does the same for many answers at once, each row of a batch with its own cache: that is the fast
# path, and what `lab.rollouts()` used.
#
# ## The funnel
#
# The paper sampled about 10 M rollouts to 1.6 M questions [S2]. A series of filters removes rollouts; stages 1 and 2
# are trained on what is left.

# %%
figures.funnel(lab.funnel())

# %% [markdown]
# The filter `distinct` removes answers that repeat another answer to their question word for word: a teacher repeats
# itself where a question is easy.
#
# A filter often removes more than it was meant to. Suppose that long answers cost too much to train on, and lower the
# limit on length. Which questions lose their answers?

# %%
HTML(widgets.limits_table(rollouts))

# %% [markdown]
# An answer with many steps is long, so a limit on length takes answers from the hard questions first. The paper's
# limits of 16K and 20K tokens raise the same question [S].

# %%
widgets.filters(rollouts)  # with a running kernel: move a limit, watch the funnel

# %% [markdown]
# Here is one rollout of every verdict; with a running kernel the control below pages through more of them.

# %%
HTML(widgets.gallery(rollouts, seed=1))

# %%
widgets.browse(rollouts)  # with a running kernel: choose a verdict, page through its rollouts

# %% [markdown]
# Nobody can read ten million rollouts. Those that were sampled here are in Parquet files, and DuckDB runs SQL queries
# on them, however many there are (so does `phi-lab query` in a terminal). Are wrong answers longer?

# %%
sql = "select verdict, count(*) as rollouts, median(tokens)::int as tokens from rollouts group by all order by 2 desc"
result = shards.query(lab.data().rollouts, sql)
HTML(tables.table("", result[0], [row.values() for row in result]))

# %% [markdown]
# ## Where the teacher fails
#
# The table shows the teacher's accuracy by the number of operations in a question, with 95 % intervals. Eight answers
# to one question are alike, so they do not count as eight independent ones: the interval uses an effective sample size.

# %%
by_level = defaultdict(lambda: defaultdict(list))
for row in rollouts:
    by_level[row["level"]][row["id"]].append(row["verdict"] == "right")
lines = []
for level, questions in sorted(by_level.items()):
    groups = [hits for hits in questions.values() if len(hits) == 8]
    if not groups:  # a public set of traces may hold another number of answers to each question
        continue
    low, high = stats.clustered_wilson([sum(hits) for hits in groups], 8)
    share = sum(map(sum, groups)) / (8 * len(groups))
    mixed = sum(0 < sum(hits) < 8 for hits in groups) / len(groups)
    lines.append((level, len(groups), percent_interval(share, low, high), percent(mixed)))
HTML(tables.table("", ("operations", "questions", "right, with interval", "right and wrong answers"), lines))

# %% [markdown]
# The last column is the share of questions with a right *and* a wrong answer: a pair of the teacher's answers, as the
# paper's Rollout DPO uses them (notebook 04), needs such a question.
#
# ## A script instead of a model?
#
# In this small world a program can write worked solutions, too; the teacher was trained on such solutions. Here the
# program answers the same questions equally often, and the same verifier checks its answers.

# %%
first_ids = set(list(dict.fromkeys(row["id"] for row in rollouts))[:200])
by_model = [row for row in rollouts if row["id"] in first_ids]
lines = []
for name, rows in (("the teacher model", by_model), ("the script", lab.script_rollouts(200))):
    answers = defaultdict(set)
    for row in rows:
        answers[row["id"]].add((row["completion"], row["verdict"] == "right"))
    share = sum(row["verdict"] == "right" for row in rows) / len(rows)
    distinct = sum(map(len, answers.values())) / len(answers)
    mixed = sum(len({right for _, right in group}) == 2 for group in answers.values()) / len(answers)
    lines.append((name, len(answers), percent(share), f"{distinct:.1f}", percent(mixed)))
HTML(tables.table("", ("teacher", "questions", "right", "different answers of 8", "right and wrong answers"), lines))

# %% [markdown]
# The script is never wrong. That is its weakness: without wrong answers there are no preference pairs and no pass rates
# that tell which questions are hard. And outside of a small world no such script exists.
#
# ## Answers differ in length
#
# The teacher writes in three styles: *terse* (results without the columns of digits), *checking* (columns, and a check
# of the result), and *backtracking* (columns, with a slip that is noticed and repaired). A solution with columns that
# shows neither a check nor a slip is called *plain*. So right answers to one question differ in length. Notebook 05
# needs that: answers of uneven length are the first of the paper's three reasons why plain RL failed [S].

# %%
figures.lengths(rollouts, by="verdict")

# %%
styled = [{**row, "style": answer_style(row["completion"])} for row in rollouts if row["verdict"] == "right"]
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
# In notebook 05 a program decides which answers are rewarded. Write it: +1 for a right final answer, −1 for everything
# else [S]. `verify.verify(completion, gold).verdict` extracts and compares the answer.


# %% tags=["exercise"]
def reward(completions, answers):
    """Two lists of equal length, completions and gold answers -> a list of +1.0 and -1.0."""
    return NotImplemented  # your lines


# %%
score = checks.REWARD.use(reward)
sample = random.Random(0).sample(rollouts, min(400, len(rollouts)))
values = score([row["completion"] for row in sample], [row["answer"] for row in sample])
verdicts = Counter(row["verdict"] for row in sample)
print("reward of 400 rollouts:", dict(Counter(values)), "and by verdict:", dict(verdicts))

# %% [markdown]
# **Negative control.** Verify every answer against the gold answer of *another* question. If the verifier still
# accepts them, it is broken. (One or two in a hundred may pass: small numbers answer more than one question.)

# %%
shuffled_gold = [row["answer"] for row in sample[1:] + sample[:1]]
accepted = sum(
    verify.verify(row["completion"], gold).verdict == "right" for row, gold in zip(sample, shuffled_gold, strict=True)
)
share = percent_interval(accepted / len(sample), *stats.wilson(accepted, len(sample)))
print(f"accepted against shuffled gold answers: {accepted} of {len(sample)}, {share}")

# %% [markdown]
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
# 3. The teacher's mistakes are not evenly spread over the levels. What does that do to the training set's difficulty?
#
# <details><summary>Answers</summary>
#
# **1.** Read it off the funnel. Wrong answers would teach mistakes. Repeated ones would teach nothing false, but they
# give a question with few different answers, usually an easy one, more weight.
#
# **2.** RL. In the other stages such an answer is one wrong row among many. RL looks for whatever is paid: it samples
# the mistake that the verifier accepts more and more often (the last part of notebook 05).
#
# **3.** Only right answers are kept, so questions that the teacher often fails have fewer of them, and the set becomes
# easier than the questions were. SFT's choice (notebook 03) works against that: it takes those questions first.
#
# </details>
#
# Next: [02, mid-training](02_mid_training.ipynb)
