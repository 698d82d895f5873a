"""The values of every stage at each scale: cpu (profiles lab and smoke), lora, qlora and full."""

from dataclasses import replace

from phi_lab.config.schema import (
    PROFILES,
    SCALES,
    STAGES,
    Distillation,
    Evaluation,
    Hardware,
    Numbers,
    Preference,
    Reinforcement,
    Training,
)
from phi_lab.core.errors import UserError

BASE = Training(
    learning_rate=8e-3, batch=8, row_length=256, steps=3800, documents=145_000, warmup=0.05, evaluate_every=200
)
TEACHER = Training(
    learning_rate=4e-3, batch=8, row_length=320, steps=1600, documents=53_000, warmup=0.05, evaluate_every=200
)
LAB = Numbers(
    scale="cpu", profile="lab", model="phi-nano",
    distillation=Distillation(questions=2000, validation_questions=100, temperature=0.8),
    mid=Training(learning_rate=4e-3, batch=8, row_length=320, steps=1500, evaluate_every=75, patience=2, cooldown=75),
    sft=Training(learning_rate=2e-3, batch=32, row_length=320, steps=160, documents=2048),
    dpo=Preference(learning_rate=1.5e-4, batch=32, pairs=1280, own_questions=320, hardware=Hardware(rows=4)),
    grpo=Reinforcement(learning_rate=6e-4, steps=24, prompts=32, group=8, candidates=4000),
    evaluation=Evaluation(problems=500),
)  # fmt: skip
SMOKE = replace(
    LAB, profile="smoke",
    distillation=replace(LAB.distillation, questions=24, validation_questions=8, shipped=1300),
    mid=replace(LAB.mid, steps=12, evaluate_every=6, patience=2, cooldown=3, learning_rate=2e-4),
    sft=replace(LAB.sft, steps=6, documents=96, batch=16),
    dpo=replace(LAB.dpo, pairs=48, batch=16, own_questions=24),
    grpo=replace(LAB.grpo, steps=3, prompts=8, candidates=96),
    evaluation=Evaluation(problems=20, samples=2, pass_problems=10, pass_samples=4),
)  # fmt: skip
# On GPUs: Phi-4-mini. What the paper says stands in PAPER and is taken as it is at the scale "full". What is unknown
# there is ours: 128 prompts a step, so that 128 GPUs can share them, as they share the paper's batches. So is
# everything that an adapter changes: a tenfold rate, as in arXiv 2106.09685 (table 11), and a small batch.
FULL = Numbers(
    scale="full", profile="lab", model="microsoft/Phi-4-mini-instruct",
    distillation=Distillation(questions=1_600_000, validation_questions=2000, max_new_tokens=16384,
                              problems="openr1-math", answers="traces", keep_clear_of=("math500", "aime24")),
    mid=Training(learning_rate=1e-5, batch=128, row_length=16384, steps=71_500, evaluate_every=1000, patience=2,
                 cooldown=3500, muon=False, hardware=(GPU := Hardware(
                     attention="flex_attention", optimizer="adamw_torch_fused", checkpointing=True, liger=True,
                     sharded=True, engine="vllm", rows=1))),
    sft=Training(learning_rate=1e-5, batch=128, row_length=20480, steps=7800, documents=200_000, muon=False,
                 hardware=GPU),
    dpo=Preference(learning_rate=5e-7, batch=128, pairs=300_000, plausible=float("inf"), longest=16384,
                   hardware=GPU),
    grpo=Reinforcement(learning_rate=5e-7, steps=300, prompts=128, group=8, candidates=20_000, max_new_tokens=25600,
                       muon=False, hardware=GPU),
    evaluation=Evaluation(problems=500, samples=8, max_new_tokens=32768, sets=("math500", "aime24", "gpqa-diamond"),
                          engine="vllm"),
)  # fmt: skip
ONE = replace(GPU, adapter="lora", dtype="bfloat16", sharded=False)
LORA = replace(
    FULL, scale="lora",
    distillation=replace(FULL.distillation, questions=10_000, validation_questions=200, max_new_tokens=4000),
    mid=replace(FULL.mid, learning_rate=1e-4, batch=32, row_length=4096, steps=2000, evaluate_every=200, cooldown=200,
                hardware=ONE),
    sft=replace(FULL.sft, learning_rate=1e-4, batch=32, row_length=4096, steps=300, documents=5000, hardware=ONE),
    dpo=replace(FULL.dpo, learning_rate=5e-6, batch=32, pairs=4000, longest=4096, hardware=ONE),
    grpo=replace(FULL.grpo, learning_rate=1e-5, steps=100, prompts=16, group=8, candidates=1000, max_new_tokens=4096,
                 hardware=ONE),
    evaluation=replace(FULL.evaluation, problems=100, samples=4, max_new_tokens=4096),
)  # fmt: skip
FOUR_BIT = replace(ONE, adapter="qlora", optimizer="paged_adamw_8bit", engine="hf")
QLORA = replace(
    LORA, scale="qlora",
    **{stage: replace(getattr(LORA, stage), hardware=FOUR_BIT) for stage in ("mid", "sft", "dpo", "grpo")},
)  # fmt: skip


def numbers(scale: str = "cpu", profile: str = "lab") -> Numbers:
    """The numbers of a run. Raises UserError for an unknown scale or profile."""
    if scale not in SCALES:
        raise UserError(f"unknown scale {scale!r}: choose one of {', '.join(SCALES)}")
    if profile not in PROFILES:
        raise UserError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    if scale == "cpu":
        return LAB if profile == "lab" else SMOKE
    chosen = {"lora": LORA, "qlora": QLORA, "full": FULL}[scale]
    return chosen if profile == "lab" else smoke(chosen)


def smoke(one: Numbers) -> Numbers:
    """A GPU scale in a few steps on short rows: it shows that everything runs, not what it reaches."""
    return replace(
        one, profile="smoke",
        mid=replace(one.mid, batch=8, row_length=1024, steps=6, evaluate_every=3, patience=2, cooldown=2),
        sft=replace(one.sft, batch=8, row_length=1024, steps=3, documents=24),
        dpo=replace(one.dpo, batch=8, pairs=16, longest=1024),
        grpo=replace(one.grpo, steps=2, prompts=8, group=4, candidates=16, max_new_tokens=256),
        evaluation=replace(one.evaluation, problems=8, samples=2, pass_problems=4, pass_samples=2, max_new_tokens=256),
    )  # fmt: skip


def without_gpu(one: Numbers, engine: str = "cpu") -> Numbers:
    """The same numbers for a computer without a GPU: its kernels, optimizer and sampler instead of a GPU's. engine:
    "hf" for models that are no Phi.
    """

    def here(hardware: Hardware) -> Hardware:
        return replace(
            hardware, dtype="float32", attention="sdpa", optimizer="adamw_torch", liger=False,
            engine="hf" if hardware.adapter == "qlora" else engine,
        )  # fmt: skip

    stages = {stage: getattr(one, stage) for stage in STAGES[1:]}
    stages = {name: replace(stage, hardware=here(stage.hardware)) for name, stage in stages.items()}
    # the CPU's sampler reads whole weights
    stages["grpo"] = replace(stages["grpo"], hardware=replace(stages["grpo"].hardware, sharded=False))
    return replace(one, **stages, evaluation=replace(one.evaluation, engine=engine))
