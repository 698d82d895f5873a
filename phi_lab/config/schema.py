"""What can be set in a run: one dataclass for each stage, one for the hardware, one for the whole run.

A *scale* says which hardware and model a run is for (cpu, lora, qlora, full); a *profile* says how long it may take
(smoke: continuous integration, seconds a stage; lab: what a learner runs). Code never asks which scale it is on; it
reads these values. What each scale sets them to is in `presets.py`, what the paper used in `paper.py`.
"""

from dataclasses import asdict, dataclass

SCALES = ("cpu", "lora", "qlora", "full")
PROFILES = ("smoke", "lab")
STAGES = ("base", "mid", "sft", "dpo", "grpo")
VLLM_SHARE = 0.3  # of a GPU's memory, for vLLM beside a trainer
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."  # to a served teacher


@dataclass(frozen=True)
class HardwareConfig:
    """What a stage must know of the machine it trains on; the defaults are a laptop's CPU."""

    adapter: str | None = None  # None trains all weights; "lora"; "qlora", the frozen base in 4-bit NF4
    dtype: str = "float32"  # of the weights; a GPU calculates in bfloat16 either way
    attention: str = "sdpa"  # "flex_attention" where rows are long: no mask of length x length
    optimizer: str = "adamw_torch"  # by transformers' names
    gradient_checkpointing: bool = False  # activations are computed again in the backward pass instead of kept
    liger: bool = False  # Liger's fused kernels (arXiv 2410.10989), and a head that never holds all logits
    fsdp: bool = False  # over several processes, by FSDP2; else each holds the whole model
    engine: str = "cpu"  # of rollouts: "cpu", "hf" or "vllm"
    micro_batch_size: int = 8  # in one forward and backward pass; a batch is as many passes as it takes


LAPTOP = HardwareConfig()


@dataclass(frozen=True)
class LanguageModelingConfig:
    """One language-modelling stage: base, mid-training or SFT.

    With `patience` training goes on at a constant rate until the validation loss stops improving: after so many
    evaluations in a row without one that beats the last such one by 0.005 nats the rate falls to zero over `cooldown`
    steps, and the best weights are kept. `steps` is then a limit, and `schedule` and `warmup` have no say.
    """

    learning_rate: float
    batch_size: int  # rows a step
    row_length: int  # tokens a packed row; the longest document when unpacked
    steps: int
    documents: int = 0  # how many to make or choose; 0 = all there are
    lr_schedule: str = "cosine"  # of the learning rate, by transformers' names
    warmup_ratio: float = 0.1  # share of the steps
    eval_steps: int = 0  # steps between validation losses; 0 = only at the end
    patience: int = 0
    cooldown_steps: int = 0  # steps
    weight_decay: float = 0.01
    muon: bool = True  # Muon for the matrices (stages/muon.py); else the hardware's optimizer
    hardware: HardwareConfig = LAPTOP


@dataclass(frozen=True)
class DistillationConfig:
    """How many questions are asked of the teacher and how often.

    `questions` are asked in every run; `shipped` is how many more are taken, answered, from data/distilled. A run that
    trains its own teacher asks all of them itself. At the GPU scales `command` makes the set.
    """

    questions: int
    validation_questions: int
    shipped_questions: int = 0
    samples: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 256
    problems: str = "world"  # by the names of `phi-lab distill`, as the next two are
    teacher_kind: str = "model"  # --teacher: the shipped model, or "traces", what others sampled; here of DeepSeek-R1
    decontaminate_against: tuple[str, ...] = ()  # benchmarks, besides the lab's

    def command(self, model: str) -> str:
        """The shell command for this set. model: whose tokenizer counts tokens."""
        return (
            f"phi-lab distill --problems {self.problems} --teacher {self.teacher_kind} --questions {self.questions} "
            f"--longest {self.max_new_tokens} --tokenizer {model} --decontaminate-against {' '.join(self.decontaminate_against)} "
            "--out SET"
        )


@dataclass(frozen=True)
class DPOConfig:
    """Rollout DPO. `own_questions` is for the second arm, pairs from the student's own rollouts; 0 leaves it out."""

    learning_rate: float
    batch_size: int  # pairs a step
    max_pairs: int  # at most
    max_student_nll: float = 6.0  # nats: wrong rollouts that the student writes less often than once in exp(6) are left out
    beta: float = 0.1
    epochs: int = 1
    pairs_per_question: int = 4
    on_policy_questions: int = 0
    max_tokens: int = 0  # tokens of a prompt with its answer: pairs with a longer side are left out; 0 = no limit
    hardware: HardwareConfig = LAPTOP


@dataclass(frozen=True)
class GRPOConfig:
    """GRPO. A step samples `prompts` x `group` rollouts; what the advantage function leaves at zero is not trained
    on.
    """

    learning_rate: float
    steps: int
    prompts_per_step: int
    group_size: int  # rollouts sampled a prompt, before rebalancing
    candidate_prompts: int  # prompts sampled for the selection by length uniformity
    probe_rollouts: int = 4  # rollouts a candidate that fails at first
    keep_fraction: float = 0.6  # share of the mixed candidates that is kept, the most uniform in length first
    temperature_start: float = 1.0
    temperature_end: float = 0.6
    anneal_fraction: float = 0.5  # share of the steps over which the temperature falls
    max_new_tokens: int = 256
    epsilon: float = 0.2
    lr_schedule: str = "linear"  # of the learning rate: what a constant one reaches last is chance (docs/log.md)
    muon: bool = True  # as in Training
    hardware: HardwareConfig = HardwareConfig(micro_batch_size=32)


@dataclass(frozen=True)
class EvaluationConfig:
    """How much of each benchmark is sampled after each stage."""

    problems: int  # of each benchmark, at most
    samples: int = 4  # on hard
    temperature: float = 0.6
    pass_problems: int = 200
    pass_samples: int = 8
    max_new_tokens: int = 256
    benchmarks: tuple[str, str, str] = ("easy", "hard", "transfer")  # who plays these three
    engine: str = "cpu"  # as in Hardware


@dataclass(frozen=True)
class BenchmarkProtocol:
    """How public benchmarks are sampled (`phi_lab.evaluate.public_benchmarks`): the authors' later protocol."""

    temperature: float = 0.6
    top_p: float = 0.95
    max_new_tokens: int = 32768
    samples: int = 8
    aime_samples: int = 64
    problems: int = 0  # of each set, at most; 0 = all
    instruction: str = INSTRUCTION  # before the problem


@dataclass(frozen=True)
class RunConfig:
    """All numbers of a run at one scale and profile."""

    scale: str
    profile: str
    model: str  # of SHAPES at the scale cpu, which has its own; else a folder or a name on the hub
    distillation: DistillationConfig
    mid: LanguageModelingConfig
    sft: LanguageModelingConfig
    dpo: DPOConfig
    grpo: GRPOConfig
    evaluation: EvaluationConfig

    def row(self) -> dict:
        """As it stands in config.json."""
        return asdict(self)


def global_batch_size(config: RunConfig, stage: str) -> int:
    """What all processes of a stage share in each step: rows, pairs, or GRPO's prompts."""
    return config.grpo.prompts_per_step if stage == "grpo" else getattr(config, stage).batch_size


# Names of release 0.1, read in config.json and manifests for one more release.
OLD_NAMES = {
    "warmup": "warmup_ratio", "schedule": "lr_schedule", "evaluate_every": "eval_steps", "cooldown": "cooldown_steps",
    "batch": "batch_size", "shipped": "shipped_questions", "answers": "teacher_kind",
    "keep_clear_of": "decontaminate_against", "pairs": "max_pairs", "plausible": "max_student_nll",
    "pairs_a_question": "pairs_per_question", "own_questions": "on_policy_questions", "longest": "max_tokens",
    "prompts": "prompts_per_step", "group": "group_size", "candidates": "candidate_prompts",
    "probes": "probe_rollouts", "keep": "keep_fraction", "hot": "temperature_start", "cool": "temperature_end",
    "annealed": "anneal_fraction", "sets": "benchmarks", "checkpointing": "gradient_checkpointing",
    "rows": "micro_batch_size", "sharded": "fsdp",
}


def with_new_names(saved: dict) -> dict:
    """The settings of a saved config under today's names, at every depth."""
    return {
        OLD_NAMES.get(name, name): with_new_names(value) if isinstance(value, dict) else value
        for name, value in saved.items()
    }


def config_from_dict(saved: dict) -> RunConfig:
    """The inverse of `RunConfig.row`, for a saved config; settings of release 0.1 are read under their old names."""
    kinds = {
        "distillation": DistillationConfig, "mid": LanguageModelingConfig, "sft": LanguageModelingConfig,
        "dpo": DPOConfig, "grpo": GRPOConfig, "evaluation": EvaluationConfig,
    }
    saved, stages = with_new_names(saved), {}
    for name, kind in kinds.items():
        values = dict(saved[name])
        if "hardware" in values:
            values["hardware"] = HardwareConfig(**values["hardware"])
        for names in {"benchmarks", "decontaminate_against"} & set(values):
            values[names] = tuple(values[names])
        stages[name] = kind(**values)
    return RunConfig(**{**saved, **stages})
