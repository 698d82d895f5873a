"""The settings of every stage at each scale: cpu (profiles lab, lesson and smoke), lora, qlora and full."""

from dataclasses import replace

from phi_lab.config.schema import (
    PROFILES,
    SCALES,
    STAGES,
    DistillationConfig,
    DPOConfig,
    EvaluationConfig,
    GRPOConfig,
    HardwareConfig,
    LanguageModelingConfig,
    RunConfig,
)
from phi_lab.core.errors import UserError

BASE = LanguageModelingConfig(
    learning_rate=8e-3, batch_size=6, row_length=352, steps=9200, documents=273_000, warmup_ratio=0.05, eval_steps=500
)
TEACHER = LanguageModelingConfig(
    learning_rate=4e-3, batch_size=7, row_length=352, steps=3200, documents=87_000, warmup_ratio=0.05, eval_steps=400
)
LAB = RunConfig(
    scale="cpu", profile="lab", model="phi-nano",
    distillation=DistillationConfig(
        questions=1200, validation_questions=100, temperature=0.8, max_new_tokens=384
    ),
    mid=LanguageModelingConfig(
        learning_rate=4e-3, batch_size=8, row_length=384, steps=1200, epochs=5, lr_schedule="warmup_stable_decay",
        warmup_ratio=0.02, replay_share=0.2, eval_steps=100,
    ),
    sft=LanguageModelingConfig(
        learning_rate=2e-3, batch_size=32, row_length=384, steps=400, epochs=3, documents=1536, replay_share=0.1
    ),
    dpo=DPOConfig(
        learning_rate=1e-3, batch_size=8, max_pairs=1600, pairs="student", questions=1500, sft_weight=100, epochs=3,
        hardware=HardwareConfig(micro_batch_size=4),
    ),
    grpo=GRPOConfig(
        learning_rate=8e-4, steps=64, prompts_per_step=32, group_size=8, candidate_prompts=2048, probe_rollouts=0,
        max_new_tokens=384,
    ),
    evaluation=EvaluationConfig(problems=500),
)
SMOKE = replace(
    LAB, profile="smoke",
    distillation=replace(LAB.distillation, questions=24, validation_questions=8, shipped_questions=1300),
    mid=replace(LAB.mid, steps=12, eval_steps=6, learning_rate=2e-4),
    sft=replace(LAB.sft, steps=6, documents=96, batch_size=16),
    dpo=replace(LAB.dpo, max_pairs=48, questions=24),
    grpo=replace(LAB.grpo, steps=3, prompts_per_step=8, candidate_prompts=24),
    evaluation=EvaluationConfig(problems=20, samples=2, pass_problems=10, pass_samples=4),
)

# For the notebooks: each stage starts from the shipped checkpoint of the one before it, as in smoke, and trains for
# long enough that its effect can be seen.
LESSON = replace(
    LAB, profile="lesson",
    distillation=replace(LAB.distillation, questions=150, validation_questions=50, shipped_questions=1150),
    mid=replace(LAB.mid, steps=160, eval_steps=80),
    sft=replace(LAB.sft, documents=768, epochs=2),
    dpo=replace(LAB.dpo, questions=500, max_pairs=400),
    grpo=replace(LAB.grpo, steps=12, candidate_prompts=384),
    evaluation=EvaluationConfig(problems=200, samples=2, pass_problems=50),
)

# On GPUs: Phi-4-mini. The paper's values (paper.py) are taken as they are at the scale "full". Where the paper's value
# is unknown it is ours: 128 prompts a step, so that 128 GPUs can share them as they share the paper's batches. An
# adapter gets ten times the learning rate (about what Schulman, LoRA Without Regret, 2025, found best), and a smaller
# batch.
GPU = HardwareConfig(
    attention="flex_attention", optimizer="adamw_torch_fused", gradient_checkpointing=True, liger=True, fsdp=True,
    engine="vllm", micro_batch_size=1,
)
FULL = RunConfig(
    scale="full", profile="lab", model="microsoft/Phi-4-mini-instruct",
    distillation=DistillationConfig(
        questions=1_600_000, validation_questions=2000, max_new_tokens=16384, problems="openr1-math",
        teacher_kind="traces", decontaminate_against=("math500", "aime24"),
        # and not GPQA, which is gated and asks about the sciences
    ),
    mid=LanguageModelingConfig(
        learning_rate=1e-5, batch_size=128, row_length=16384, steps=71_500, epochs=5, eval_steps=1000,
        lr_schedule="warmup_stable_decay", muon=False, hardware=GPU,
    ),
    sft=LanguageModelingConfig(
        learning_rate=1e-5, batch_size=128, row_length=20480, steps=7800, epochs=5, documents=200_000, muon=False,
        hardware=GPU,
    ),
    dpo=DPOConfig(
        learning_rate=5e-7, batch_size=128, max_pairs=300_000, max_student_nll=float("inf"), max_tokens=16384,
        muon=False, hardware=GPU,
    ),
    grpo=GRPOConfig(
        learning_rate=5e-7, steps=300, prompts_per_step=128, group_size=8, candidate_prompts=20_000,
        max_new_tokens=25600, muon=False, hardware=GPU,
    ),
    evaluation=EvaluationConfig(
        problems=500, samples=8, max_new_tokens=32768, benchmarks=("math500", "aime24", "gpqa-diamond"), engine="vllm"
    ),
)
ONE_GPU = replace(GPU, adapter="lora", dtype="bfloat16", fsdp=False)
LORA = replace(
    FULL, scale="lora",
    distillation=replace(FULL.distillation, questions=10_000, validation_questions=200, max_new_tokens=4000),
    mid=replace(
        FULL.mid, learning_rate=1e-4, batch_size=32, row_length=4096, steps=2000, eval_steps=200,
        hardware=ONE_GPU,
    ),
    sft=replace(
        FULL.sft, learning_rate=1e-4, batch_size=32, row_length=4096, steps=300, documents=5000, hardware=ONE_GPU
    ),
    dpo=replace(FULL.dpo, learning_rate=5e-6, batch_size=32, max_pairs=4000, max_tokens=4096, hardware=ONE_GPU),
    grpo=replace(
        FULL.grpo, learning_rate=1e-5, steps=100, prompts_per_step=16, group_size=8, candidate_prompts=1000,
        max_new_tokens=4096, hardware=ONE_GPU,
    ),
    evaluation=replace(FULL.evaluation, problems=100, samples=4, max_new_tokens=4096),
)
FOUR_BIT = replace(ONE_GPU, adapter="qlora", optimizer="paged_adamw_8bit", engine="hf")
QLORA = replace(
    LORA, scale="qlora",
    mid=replace(LORA.mid, hardware=FOUR_BIT), sft=replace(LORA.sft, hardware=FOUR_BIT),
    dpo=replace(LORA.dpo, hardware=FOUR_BIT), grpo=replace(LORA.grpo, hardware=FOUR_BIT),
)


NEEDS_BFLOAT16 = "training all weights needs a GPU with bfloat16"


def run_config(scale: str = "cpu", profile: str = "lab") -> RunConfig:
    """The settings of a run. Raises UserError for an unknown scale or profile."""
    if scale not in SCALES:
        raise UserError(f"unknown scale {scale!r}: choose one of {', '.join(SCALES)}")
    if profile not in PROFILES:
        raise UserError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    if scale == "cpu":
        return LAB if profile == "lab" else SMOKE
    chosen = {"lora": LORA, "qlora": QLORA, "full": FULL}[scale]
    return chosen if profile == "lab" else smoke(chosen)


def course_config(scale: str = "cpu", profile: str = "lab") -> RunConfig:
    """The settings of the notebooks: those of a run, and at the scale cpu also the profile "lesson"; elsewhere a lesson
    has the settings of "lab".

    Raises UserError for an unknown scale or profile.
    """
    if profile not in (*PROFILES, "lesson"):
        raise UserError(f"unknown profile {profile!r}: choose one of {', '.join((*PROFILES, 'lesson'))}")
    if profile != "lesson":
        return run_config(scale, profile)
    return LESSON if scale == "cpu" else run_config(scale, "lab")


def stage_range(start: str, stop: str) -> tuple[str, ...]:
    """The stages from `start` to `stop`, both included. Raises UserError for unknown names or the wrong order."""
    for stage in (start, stop):
        if stage not in STAGES:
            raise UserError(f"unknown stage {stage!r}: choose one of {', '.join(STAGES)}")
    if STAGES.index(start) > STAGES.index(stop):
        raise UserError(f"--from {start} comes after --to {stop}: the order is {', '.join(STAGES)}")
    return STAGES[STAGES.index(start) : STAGES.index(stop) + 1]


def require_trained_stage(stage: str) -> None:
    """Raises UserError unless a run can launch this stage: all but the base."""
    if stage not in STAGES[1:]:
        raise UserError(f"unknown stage {stage!r}: choose one of {', '.join(STAGES[1:])}")


def smoke(config: RunConfig) -> RunConfig:
    """A GPU scale's settings for a few steps on short rows: a test that everything runs, not how well it learns."""
    return replace(
        config, profile="smoke",
        mid=replace(config.mid, batch_size=8, row_length=1024, steps=6, epochs=0, eval_steps=3),
        sft=replace(config.sft, batch_size=8, row_length=1024, steps=3, epochs=0, documents=24),
        dpo=replace(config.dpo, batch_size=8, max_pairs=16, max_tokens=1024),
        grpo=replace(config.grpo, steps=2, prompts_per_step=8, group_size=4, candidate_prompts=16, max_new_tokens=256),
        evaluation=replace(
            config.evaluation, problems=8, samples=2, pass_problems=4, pass_samples=2, max_new_tokens=256
        ),
    )


def without_bfloat16(config: RunConfig) -> RunConfig:
    """A GPU scale's settings for a GPU that has no bfloat16, such as a T4: weights in float16, torch's own attention,
    and no vLLM, which would read the weights as bfloat16.

    Raises UserError where all weights train.
    """
    stages = {stage: getattr(config, stage) for stage in STAGES[1:]}
    if not all(settings.hardware.adapter for settings in stages.values()):
        raise UserError(f"{NEEDS_BFLOAT16}: --scale qlora")
    changed = {"dtype": "float16", "attention": "sdpa", "engine": "hf"}
    return replace(config, evaluation=replace(config.evaluation, engine="hf"), **{
        stage: replace(settings, hardware=replace(settings.hardware, **changed)) for stage, settings in stages.items()
    })


def without_gpu(config: RunConfig, engine: str = "cpu") -> RunConfig:
    """A GPU scale's settings for a computer without a GPU: CPU kernels, optimizer and sampler.

    engine: "cpu" samples Phi models only; "hf" samples any model.
    """

    def on_cpu(hardware: HardwareConfig) -> HardwareConfig:
        return replace(
            hardware, dtype="float32", attention="sdpa", optimizer="adamw_torch", liger=False,
            engine="hf" if hardware.adapter == "qlora" else engine,
        )

    grpo = replace(on_cpu(config.grpo.hardware), fsdp=False)  # the CPU's sampler reads whole weights
    return replace(
        config,
        mid=replace(config.mid, hardware=on_cpu(config.mid.hardware)),
        sft=replace(config.sft, hardware=on_cpu(config.sft.hardware)),
        dpo=replace(config.dpo, hardware=on_cpu(config.dpo.hardware)),
        grpo=replace(config.grpo, hardware=grpo),
        evaluation=replace(config.evaluation, engine=engine),
    )
