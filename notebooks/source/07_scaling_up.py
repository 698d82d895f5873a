# %% [markdown]
# # Scaling up: what changes and what does not
#
# **Claim.** From this laptop to the paper's 128 GPUs the code path is meant to stay the same: the configuration
# changes, the functions do not.
#
# **Time**: about 15 seconds in the `lab` profile, 25 in `smoke`, 25 in `lesson`, on two CPU cores.
#
# **Before**: notebook 02 for what a stage is; nothing here needs a GPU.
#
# **Afterwards** you can count a model's parameters from its configuration, estimate the hours, memory and money of a
# training run, and say what an adapter saves and what it does not.
#
# **What has been tried:** at the GPU scales (`lora`, `qlora`, `full`) all stages have run with the tiny model on a CPU,
# in the tests, and a few steps of each with SmolLM2 (below). With Phi-4-mini only the speed and memory of training were
# measured, on one GPU (docs/performance.md); no stage was trained to its end.

# %%
import torch
from IPython.display import HTML
from transformers import AutoModelForCausalLM

from phi_lab.config import paper, presets, schema
from phi_lab.core import stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.core.paths import DATA, SHIPPED
from phi_lab.lab import Lab, checks, tables, widgets
from phi_lab.lab.answers import answer_ten_problems
from phi_lab.model import checkpoints, shapes
from phi_lab.stages.packing import collate, document

lab = Lab()
try:  # a GPU scale first needs a set distilled for it: the error says how to make one
    Lab("lora")
except UserError as error:
    print(error)

# %% [markdown]
# ## The configuration
#
# Every setting of every stage at each scale, beside the paper's. The names are those of `phi_lab/config/schema.py`,
# which says what each one means and in which unit; 0 is off. "–" means that this setting does not exist there,
# "unknown" that no source gives the paper's value. The marks are explained in notebook 00, sections are those of arXiv
# 2504.21233 from memory, unchecked, and K is read as 1,024 [I].
#
# Three things are not in the table. Mid-training packs its rows and SFT does not, here and in the paper. Where `epochs`
# is not 0 it says how long training is, and `steps` is a limit; the rate `warmup_stable_decay` is constant until the
# last `decay_ratio` of the steps, in which it falls to zero. And ten million rollouts to 1.6 million questions are
# about six each: public sets that came with R1's answers were used as they were, so not every question has eight [I].

# %%
TITLES = {
    "distillation": "Distillation",
    "mid": "Mid-training",
    "sft": "SFT",
    "dpo": "Rollout DPO",
    "grpo": "GRPO",
    "evaluation": "Evaluation after each stage",
    "hardware": "Hardware, for every stage",
}
scales = {name: presets.run_config(name) for name in schema.SCALES}
page = ""
for part, title in TITLES.items():
    rows = paper.comparison_table(part, scales.values())
    head = ("setting", *scales, "the paper", "source")
    page += f"<h3>{title}</h3>" + tables.table("", head, rows)
HTML(page)

# %% [markdown]
# ## The same class of model
#
# The tiny model and Phi-4-mini are both a `Phi3ForCausalLM`: grouped-query attention, tied embeddings, rotary position
# embeddings on three quarters of each head. On PyTorch's *meta* device a model has shapes and takes no memory, so we
# can build all 3.8 billion parameters here and count them.

# %%
with torch.device("meta"):
    big = AutoModelForCausalLM.from_config(shapes.phi_config("phi-4-mini"))
counted = sum(weight.numel() for weight in big.parameters())
small = sum(weight.numel() for weight in lab.model("base")[0].parameters())
published = 3_836_021_760
print(f"phi-4-mini: {counted:,} parameters")
print(f"published:  {published:,}, equal: {counted == published}")
print(f"phi-nano:   {small:,} parameters, {counted / small:,.0f} times fewer")

# %% [markdown]
# ## Exercise: count without building
#
# Nothing has to be built to know the number: the configuration says it.

# %%
checks.PARAMETERS.card()


# %% tags=["exercise"]
def parameters(config):
    """The number of weights of a Phi model, an int.

    `config` has the attributes vocab_size, hidden_size, intermediate_size,
    num_hidden_layers, num_attention_heads, num_key_value_heads. A head is
    hidden_size / num_attention_heads wide.
    """
    return NotImplemented  # your lines


# %%
count_weights = checks.PARAMETERS.use(parameters)
print(f"{count_weights(shapes.phi_config('phi-4-mini')):,}")

# %% [markdown]
# ## What the paper's run took
#
# The model card says 128 H100 for 2 days, 150 B tokens [P]. Training costs about 6 FLOP per parameter and token.

# %%
flop = 6 * counted * 150e9
hours = 128 * 48
rate = flop / (hours * 3600)
peak = 989e12  # of an H100 in BF16 (dense, by its data sheet), FLOP/s
print(f"6 x {counted / 1e9:.3f} B x 150 B = {flop:.2e} FLOP in {hours:,} GPU-hours")
print(f"per GPU {rate / 1e12:.0f} TFLOP/s, {100 * rate / peak:.0f} % of an H100's peak")
print(f"steps of 128 rows of 16,384 tokens: {150e9 / (128 * 16384):,.0f}")
trained = [row for row in lab.ladder_rows() if row["seconds"]]
tokens = {row["stage"]: (row["train_tokens"], row["seconds"]) for row in trained}
if "mid" in tokens:
    here, seconds = tokens["mid"]
    print(f"mid-training in this folder: {here:,} tokens in {seconds:,.0f} s")
    print(f"that is {6 * small * here:.1e} FLOP")

# %% [markdown]
# If mid-training alone took the two days, it ran at that share of the peak. Attention, which the 6 FLOP per parameter
# leave out, adds up to two fifths at rows of 16,384 tokens. The plan below assumes 35 % and fits all four stages into
# about the same time. So this arithmetic does not show which stages ran in the two days; only the sampling of the
# teacher's ten million answers is surely not included [I].
#
# ## Plan before you rent
#
# `phi-lab plan` does that arithmetic for every stage and adds up the memory. Its speed in training, 35 % of the peak,
# was measured with Phi-4-mini's shape and random weights on one H200, at rows of 2,048 and of 16,384 tokens; the speeds
# of LoRA and QLoRA, 25.5 and 20.5 %, likewise (docs/performance.md). Communication between GPUs is not included, so
# the hours are a lower bound. The speed in sampling is an assumption; costs are in dollars, at a guessed price per
# hour. Batches, lengths, rates and epochs are the paper's where they are known. Every batch is divided evenly among the
# GPUs, so their number has to divide the batch size (128).

# %%
print(widgets.plan_text("full", "h100", 128))

# %%
widgets.planner()  # with a running kernel: other cards, how many, other scales

# %% [markdown]
# **From laptop to cluster in five steps.** 1. This notebook, on the CPU. 2. `phi-lab plan --scale qlora --gpu rtx4090`:
# the time and memory for one GPU at home. 3. The same with `--scale lora` and a rented GPU. 4. `full` on two GPUs of 80
# GB, `phi-lab plan --scale full --gpu h100 --gpus 2`: weights, gradients and Adam's moments alone are 61 GB. 5. The
# same on a cluster, where only `--gpus` changes, up to 128. Training in steps 2 and 3 is `phi-lab run --scale qlora
# --data SET --out RUN` (or `--scale lora`), where SET is a folder that `phi-lab distill` made; it has not been run with
# Phi-4-mini yet. In steps 4 and 5 each stage is launched by torchrun, also from a notebook: `PHI_LAB_PROCESSES=2
# jupyter lab` trains notebook 02's model in two processes of this computer, and a test does the same. Several GPUs have
# not been tried. `docs/scaling.md` has the commands for Slurm.
#
# ## Adapters: LoRA and QLoRA, one real step each
#
# On one GPU of 80 GB or less all 3.8 B parameters are hard to train. LoRA freezes them and trains two low-rank matrices
# beside each weight matrix; QLoRA also stores the frozen weights in four bits (NF4). Both work with the tiny model on
# this CPU: one step on the same 16 answers, with the loss before and after.


# %%
def one_step(adapter):
    """One optimizer step on 16 right answers.

    Returns (model, loss before, loss after, trained parameters, bytes of the weights).
    """
    torch.manual_seed(0)
    model = checkpoints.load(SHIPPED / "base", schema.HardwareConfig(adapter=adapter))
    tokenizer = checkpoints.load_tokenizer()
    rows = []
    for row in lab.right()[:16]:
        ids, labels = document(tokenizer, row["prompt"], row["completion"])
        places = list(range(len(ids)))
        rows.append({"input_ids": ids, "labels": labels, "position_ids": places})
    batch = collate(tokenizer.pad_token_id)(rows)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    before = model(**batch).loss
    before.backward()
    optimizer.step()
    with torch.no_grad():
        after = model(**batch).loss
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    count = sum(weight.numel() for weight in trained)
    return model, before.item(), after.item(), count, size


# %%
adapters = {"all weights": None, "LoRA": "lora", "QLoRA": "qlora"}
steps = {name: one_step(adapter) for name, adapter in adapters.items()}
lines = [
    (name, f"{count:,}", f"{size / 1e6:.2f} MB", f"{before:.3f}", f"{after:.3f}")
    for name, (_, before, after, count, size) in steps.items()
]
head = ("what trains", "parameters", "weights in memory", "loss before", "loss after")
HTML(tables.table("", head, lines))

# %% [markdown]
# **Before and after one LoRA step.** The ten problems once more. One step on sixteen answers should change little; it
# cannot teach arithmetic.

# %%
tokenizer = checkpoints.load_tokenizer()
before = answer_ten_problems(checkpoints.load(SHIPPED / "base"), tokenizer)
after = answer_ten_problems(steps["LoRA"][0].merge_and_unload(), tokenizer)
both = zip(before, after, strict=True)
same = sum(old["completion"] == new["completion"] for old, new in both)
print(f"{same} of 10 answers are the same, word for word")
HTML(tables.side_by_side(("base", "base + one LoRA step"), (before, after)))

# %% [markdown]
# ## A real model on this processor
#
# Between phi-nano and Phi-4-mini lies something that a laptop can hold: SmolLM2-135M-Instruct, a real, pretrained model
# of 135 million weights (here in the four bits of a package, unpacked to float32, so no number below is SmolLM2's own).
# `phi-lab run --scale lora --profile smoke --model FOLDER --data SET --out RUN` trains adapters of it in the same
# stages, a few steps each. This was recorded, 51 minutes on two cores beside other work; nothing is trained now. The
# data are solutions of two GPT-3 models, each with and without a verifier, to *test* questions of GSM8K
# (openai/grade-school-math, MIT), so GSM8K could not be measured with such a model. The questions of the measurement
# are of MATH-500. `scripts/record_laptop_run.py` has the commands.

# %%
recorded = read_rows(DATA / "smollm2" / "stages.jsonl")
names = {
    "loss": "loss",
    "eval_loss": "on held-out answers",
    "rewards/margins": "margin",
    "reward": "reward",
}
lines = []
for row in recorded:
    logged = [f"{names[key]} {value:.2f}" for key, value in row["logged"].items()]
    low, high = stats.wilson(row["right"], row["of"])
    right = f"{row['right']} of {row['of']} [{100 * low:.0f}, {100 * high:.0f} %]"
    took = f"{row['seconds']} s" if row["seconds"] else "–"
    tokens = f"{row['train_tokens']:,}"
    lines.append((row["stage"], took, tokens, ", ".join(logged) or "–", right))
head = ("stage", "training", "tokens trained on", "last logged", "MATH-500")
caption = "Losses in nats a token, of DPO in nats a pair; the margin is β times nats."
HTML(tables.table(caption, head, lines))

# %% [markdown]
# Read it line by line. *Mid-training* and *SFT* lower the loss on held-out answers: it was 1.27 after three steps of
# mid-training (not in the table), 1.16 at its end and 1.12 after SFT. That is real learning, on a laptop, in 19
# minutes. *Rollout DPO* ends where it began, at ln 2 = 0.69: two steps at a small rate. *GRPO* sampled for nine
# minutes, and in its last step every reward was −1: no answer was right, so no group was mixed, and there was no
# gradient (notebook 05; the few tokens are filler, as a trainer has to train on something). A model must get some
# answers right before it can learn from itself; so the stages that imitate come first [I]. And eight questions say
# nothing about accuracy: look at the intervals.
#
# Here are the greedy answers to one question, before and after all stages. It asks for the polar coordinates of the
# point (0, 3).

# %%
for row in (recorded[0], recorded[-1]):
    print(f"--- {row['stage']}: {row['verdict']}\n{row['answer']}\n")

# %% [markdown]
# ## Vary this next
#
# - The planner with `full` and one card. Expect a line that names what does not fit.
# - `big.config.num_hidden_layers *= 2`, then `count_weights(big.config)`. Expect less than twice the weights: the
#   embedding is counted once.
#
# ## What to remember
#
# - A stage reads all its settings from one configuration; the scale chooses which.
# - 128 GPUs for two days: the cost of a training run can be estimated in a few lines, and that is worth doing.
# - An adapter reduces the *memory* for training. Answers still have to be sampled token by token.
#
# ## Three questions
#
# 1. An answer of 25,000 tokens needs about 3.05 GiB of key-value cache [I]. How many fit beside the weights on an 80
#    GB GPU?
# 2. The paper's learning rate is 1e-5, ours hundreds of times that (table above). Name two reasons.
# 3. Where would QLoRA's rounding hurt first: mid-training, or RL?
#
# <details><summary>Answers</summary>
#
# **1.** The weights take 3.8 billion times two bytes, about 7.2 GiB in BF16. In the 67 GiB that are left of 74.5
# GiB (80 GB), about 22 such answers fit at once, if nothing else is needed.
#
# **2.** Size: with larger and more weights the same rate changes the output more, so large models take smaller rates.
# (Muon is no reason: ours is scaled so that its steps are about as large as AdamW's at the same rate.) Also, ours
# starts from a model that has to learn nearly everything here, theirs from one that can answer.
#
# **3.** RL, probably: it works with log-probabilities of its own samples, and where the sampler rounds otherwise than
# the trainer does, the gradient is that of another distribution than the one sampled. (With one update a batch TRL
# takes the trainer's own log-probabilities for the old ones: ratios are 1, and nothing shows it.) Mid-training only
# needs a gradient of about the right direction. It has not been measured here [U].
#
# </details>
#
# Next: [08, open questions](08_open_questions.ipynb)
