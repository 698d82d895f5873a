# %% [markdown]
# # Scaling up: what changes and what does not
#
# **Claim.** From this laptop to the paper's 128 GPUs the code path is meant to stay the same: numbers change,
# functions do not.
#
# **Time**: about 20 seconds in the `lab` profile, 25 in `smoke`, on two CPU cores.
#
# **Plainly:** at the GPU scales (`lora`, `qlora`, `full`) the chain has run with the tiny model on a CPU, in the tests.
# With Phi-4-mini only the speed and memory of training were measured, on one GPU (docs/performance.md); its ladder was
# not climbed.

# %%
import torch
from IPython.display import HTML
from transformers import AutoModelForCausalLM

from phi_lab.config import paper, presets, schema
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.lab import Lab, checks, tables, widgets
from phi_lab.lab.notebook import ask_ten
from phi_lab.model import checkpoints, shapes
from phi_lab.stages.language_modeling import collate, document

lab = Lab()
try:  # a GPU scale needs a distilled set of its own first, and says so
    Lab("lora")
except UserError as error:
    print(error)

# %% [markdown]
# ## The dial
#
# Every number of every stage at each scale, beside the paper's. The names are those of `phi_lab/config/presets.py`, which says
# what each one means and in which unit; 0 is off. "–" means that nobody there has such a number, "unknown" that no
# source gives the paper's; the marks are explained in notebook 00, sections are those of arXiv 2504.21233 by our notes,
# and K is read as 1,024 [I].
#
# Three things that a table cannot say. Mid-training packs its rows and SFT does not, here as there. With `patience` the
# rate is constant until validation stalls and then falls over `cooldown` steps, so mid-training's `schedule` and
# `warmup` have no say with us, and `steps` is a limit. And ten million rollouts to 1.6 million questions are about six
# each: sets that brought answers of R1's were used as they were, so it was not asked eight times everywhere [I].

# %%
TITLES = {
    "distillation": "Distillation",
    "mid": "Mid-training",
    "sft": "SFT",
    "dpo": "Rollout DPO",
    "grpo": "GRPO",
    "evaluation": "Evaluation after each stage",
    "hardware": "The machine, for every stage",
}
scales = {name: presets.run_config(name) for name in schema.SCALES}
page = ""
for part, title in TITLES.items():
    rows = paper.comparison_table(part, scales.values())
    page += f"<h3>{title}</h3>" + tables.table("", ("number", *scales, "the paper", "source"), rows)
HTML(page)

# %% [markdown]
# ## The same class of model
#
# The tiny model and Phi-4-mini are the same `Phi3ForCausalLM`: grouped-query attention, tied embeddings, rotary
# position on three quarters of a head. On PyTorch's *meta* device a model has shapes and no memory, so we can build
# all 3.8 billion parameters here and count.

# %%
with torch.device("meta"):
    big = AutoModelForCausalLM.from_config(shapes.phi_config("phi-4-mini"))
counted = sum(weight.numel() for weight in big.parameters())
small = sum(weight.numel() for weight in lab.model("base")[0].parameters())
print(f"phi-4-mini: {counted:,} parameters; published: 3,836,021,760; equal: {counted == 3_836_021_760}")
print(f"phi-nano:   {small:,} parameters, {counted / small:,.0f} times fewer")

# %% [markdown]
# ## Exercise: count without building
#
# Derive the number from the configuration alone. One row of `embedding` a vocabulary entry (shared with the output),
# and in each layer: queries, keys and values in one matrix, the attention's output, three matrices of the MLP, two
# norms; one norm at the end. No biases.


# %% tags=["exercise"]
def parameters(config):
    """`config` has the attributes vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads,
    num_key_value_heads; a head is hidden_size / num_attention_heads wide -> the number of weights, an int."""
    return NotImplemented  # your lines


# %%
count_weights = checks.PARAMETERS.use(parameters)
print(f"{count_weights(shapes.phi_config('phi-4-mini')):,}")

# %% [markdown]
# ## What the paper's run took
#
# The model card: 128 H100 for 2 days, 150 B tokens [P]. Training costs about 6 FLOP a parameter and token.

# %%
flop = 6 * counted * 150e9
hours = 128 * 48
rate = flop / (hours * 3600)
print(f"6 x {counted / 1e9:.3f} B x 150 B = {flop:.2e} FLOP over {hours:,} GPU-hours = {rate / 1e12:.0f} TFLOP/s a GPU")
print(f"that is {100 * rate / 989e12:.0f} % of an H100's 989 TFLOP/s in BF16 (dense, by its data sheet)")
print(f"steps of 128 rows of 16,384 tokens: {150e9 / (128 * 16384):,.0f}")
rungs = [row for row in lab.rungs() if row["seconds"]] if lab.run.ladder.exists() else []
tokens = {row["stage"]: (row["train_tokens"], row["seconds"]) for row in rungs}
if "mid" in tokens:
    here, seconds = tokens["mid"]
    print(f"mid-training in this folder: {here:,} tokens, {6 * small * here:.1e} FLOP in {seconds:,.0f} s")

# %% [markdown]
# If mid-training alone took the two days it ran at that share of the peak. Attention, which 6 FLOP a parameter leaves
# out, adds up to two fifths at rows of 16,384. The plan below assumes 35 % and fits all four stages into about the same
# time. So what the two days held cannot be read off this; only the teacher's ten million answers are surely not in it
# [I].
#
# ## Plan it before renting it
#
# `phi-lab plan` does that arithmetic for every stage and adds up the memory. Its speed in training, 35 % of the peak,
# was measured with Phi-4-mini's shape and random weights on one H200, at rows of 2,048 and of 16,384; LoRA's and
# QLoRA's, 25.5 and 20.5 %, likewise (docs/performance.md). What several GPUs lose to each other is not in it, so read
# the hours as the least that it takes. Its speed in sampling is an assumption; money is in dollars, at a guessed price
# an hour. Batches, lengths, rates and epochs are the paper's where they are known. Each GPU takes an even share of
# every batch, so their number has to divide all of them (128).

# %%
print(widgets.plan_text("full", "h100", 128))

# %%
widgets.planner()  # with a running kernel: other cards, how many, other scales

# %% [markdown]
# **Laptop to cluster in five steps.** 1. This notebook, on the CPU. 2. `phi-lab plan --scale qlora --gpu rtx4090`: what
# one card at home would take. 3. The same with `lora` and a rented card. 4. `full` on two cards of 80 GB: weights,
# gradients and Adam's moments alone are 61 GB. 5. `full` on a cluster, where only `--gpus` changes, up to 128. What
# steps 2 and 3 run is `phi-lab run --scale qlora --data SET`, on a set from `phi-lab distill`; nobody has run it with
# Phi-4-mini yet. In steps 4 and 5 each stage is launched by torchrun, from a notebook as well: `PHI_LAB_PROCESSES=2
# jupyter lab` trains notebook 02's model in two processes of this computer, and a test does just that. Several GPUs
# are not tried. `docs/scaling.md` has the lines for Slurm.
#
# ## Adapters: LoRA and QLoRA, one real step each
#
# On one GPU of 80 GB or less all 3.8 B parameters are hard to train. LoRA freezes them and trains two thin matrices
# beside each; QLoRA also keeps the frozen ones in four bits (NF4). Both work on the tiny model on this CPU: one step on
# the same 16 answers, loss before and after.


# %%
def one_step(adapter):
    """One optimiser step on 16 right answers: (model, loss before, loss after, trained parameters, bytes)."""
    torch.manual_seed(0)
    model = checkpoints.load(paths.SHIPPED / "base", schema.HardwareConfig(adapter=adapter))
    tokenizer = checkpoints.load_tokenizer()
    rows = [document(tokenizer, row["prompt"], row["completion"]) for row in read_rows(lab.data() / "right.jsonl")[:16]]
    columns = [{"input_ids": ids, "labels": labels, "position_ids": list(range(len(ids)))} for ids, labels in rows]
    batch = collate(tokenizer.pad_token_id)(columns)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    before = model(**batch).loss
    before.backward()
    optimiser.step()
    with torch.no_grad():
        after = model(**batch).loss
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return model, before.item(), after.item(), sum(weight.numel() for weight in trained), size


# %%
steps = {name: one_step(adapter) for name, adapter in (("all weights", None), ("LoRA", "lora"), ("QLoRA", "qlora"))}
lines = [
    (name, f"{count:,}", f"{size / 1e6:.2f} MB", f"{before:.3f}", f"{after:.3f}")
    for name, (_, before, after, count, size) in steps.items()
]
HTML(tables.table("", ("what trains", "trained parameters", "weights in memory", "loss before", "loss after"), lines))

# %% [markdown]
# **Before and after one LoRA step.** The ten problems once more. One step on sixteen answers should change little,
# and it cannot teach arithmetic.

# %%
tokenizer = checkpoints.load_tokenizer()
before = ask_ten(checkpoints.load(paths.SHIPPED / "base"), tokenizer)
after = ask_ten(steps["LoRA"][0].merge_and_unload(), tokenizer)
same = sum(one["completion"] == two["completion"] for one, two in zip(before, after, strict=True))
print(f"{same} of 10 answers are the same, word for word")
HTML(tables.side_by_side(("base", "base + one LoRA step"), (before, after)))

# %% [markdown]
# ## What to remember
#
# - A stage reads its numbers from one place; the scale is that place.
# - 128 cards for two days: the arithmetic of a training run fits on the back of an envelope, and it is worth doing.
# - An adapter makes the *memory* small. The answers still have to be written, token by token.
#
# ## Three questions
#
# 1. An answer of 25,000 tokens needs about 3.1 GiB of key-value cache [I]. How many fit beside the weights on an 80
#    GB GPU?
# 2. Learning rate 1e-5 there, hundreds of times that here (table above). Name two reasons. (One is the optimizer.)
# 3. Where would QLoRA's rounding hurt first: mid-training, or RL?
#
# Next: [08, open questions](08_open_questions.ipynb)
