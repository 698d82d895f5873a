"""What can be set in a run: one dataclass for each stage, one for the hardware, one for the whole run.

A *scale* says which hardware and model a run is for (cpu, lora, qlora, full); a *profile* says how long it may take
(smoke: continuous integration, seconds a stage; lab: the whole recipe; lesson: a notebook page in two to three minutes,
no chain of stages). Code reads these values instead of asking
which scale it runs at. What each scale sets them to is in `presets.py`, what the paper used in `paper.py`.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from phi_lab.core.errors import UserError
from phi_lab.core.files import REMADE, read_json

SCALES = ("cpu", "lora", "qlora", "full")
PROFILES = ("smoke", "lab")  # of a run; a notebook has "lesson", too (`presets.course_config`)
STAGES = ("base", "mid", "sft", "dpo", "grpo")
VLLM_SHARE = 0.3  # of a GPU's memory, for vLLM beside a trainer
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."  # for natural-language problems


@dataclass(frozen=True)
class HardwareConfig:
    """How a stage uses the machine it trains on; the defaults are for a laptop's CPU."""

    adapter: str | None = None  # None trains all weights; "lora"; "qlora": the frozen base in 4-bit NF4
    dtype: str = "float32"  # of the weights; a GPU computes in bfloat16 either way, or in float16 where it has none
    attention: str = "sdpa"  # "flex_attention" for long rows: it needs no (length, length) mask
    optimizer: str = "adamw_torch"  # a name of transformers' OptimizerNames
    gradient_checkpointing: bool = False  # recompute activations in the backward pass
    liger: bool = False  # Liger's fused kernels (arXiv 2410.10989) and a chunked output head
    fsdp: bool = False  # shard the model over processes with FSDP2; else each holds all of it
    engine: str = "cpu"  # that samples rollouts: "cpu", "hf" or "vllm"
    micro_batch_size: int = 8  # rows in one forward and backward pass; gradients accumulate over a batch


LAPTOP = HardwareConfig()


@dataclass(frozen=True)
class LanguageModelingConfig:
    """A stage that trains on next-token prediction: base, mid-training or SFT.

    With `epochs` > 0 training ends after so many passes over its rows, or after `steps` if that is earlier.
    """

    learning_rate: float
    batch_size: int  # rows a step
    row_length: int  # tokens a packed row; the longest document when unpacked
    steps: int
    epochs: float = 0.0  # passes over the rows; 0: `steps` alone count
    documents: int = 0  # how many to generate (base, teacher) or to select (SFT)
    replay_share: float = 0.0  # of the tokens: fresh text of the small world's pretraining
    lr_schedule: str = "cosine"  # a name of transformers' SchedulerType
    warmup_ratio: float = 0.1  # share of the steps
    decay_ratio: float = 0.2  # share of the steps in which "warmup_stable_decay" falls to zero, linearly
    eval_steps: int = 0  # steps between evaluations of the validation loss; 0: only at the end
    keep_best: bool = False  # save the weights of the lowest validation loss, not the last ones
    weight_decay: float = 0.01
    muon: bool = True  # Muon for weight matrices (stages/muon.py); else hardware.optimizer
    hardware: HardwareConfig = LAPTOP


@dataclass(frozen=True)
class DistillationConfig:
    """How many questions the teacher answers, and how often each.

    A run samples answers to `questions`; answers to `shipped_questions` more come from data/distilled. A run that
    trains its own teacher samples all of them. At the GPU scales `command` makes the set.
    """

    questions: int
    validation_questions: int
    shipped_questions: int = 0
    samples: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 256
    problems: str = "world"  # --problems of `phi-lab distill`
    teacher_kind: str = "model"  # --teacher: "model" is the shipped teacher, "traces" are published answers
    decontaminate_against: tuple[str, ...] = ()  # benchmarks, besides the lab's own

    def command(self, model: str) -> str:
        """The shell command that makes this set; `model`'s tokenizer counts the tokens."""
        return (
            f"phi-lab distill --problems {self.problems} --teacher {self.teacher_kind} --questions {self.questions} "
            f"--max-answer-tokens {self.max_new_tokens} --tokenizer {model} "
            f"--decontaminate-against {' '.join(self.decontaminate_against)} --out SET"
        )


@dataclass(frozen=True)
class DPOConfig:
    """Rollout DPO, and where its pairs come from.

    pairs: "teacher", right over wrong rollouts of the teacher, as in the paper; "student", right over wrong rollouts
    that the student itself samples; "steps", those that the student goes on with from one beginning of its wrong
    rollouts, a right step over the first wrong one (`phi_lab.stages.preference_pairs`).
    """

    learning_rate: float
    batch_size: int  # pairs a step
    max_pairs: int
    pairs: str = "teacher"
    questions: int = 0  # that the student answers eight times each, unless the pairs are the teacher's
    max_student_nll: float = 6.0  # nats: wrong rollouts of the teacher less likely than exp(-6) under the student drop
    beta: float = 0.1
    # Of SFT's loss of the chosen side, added to DPO's (arXiv 2404.19733): a mean over the tokens of a micro-batch, of
    # which each counts by its pairs.
    sft_weight: float = 0.0
    epochs: int = 1
    pairs_per_question: int = 4
    muon: bool = True  # as in LanguageModelingConfig
    max_tokens: int = 0  # of a prompt with its answer: pairs with a longer side are dropped; 0: no limit
    hardware: HardwareConfig = LAPTOP


@dataclass(frozen=True)
class GRPOConfig:
    """GRPO. A step samples `prompts_per_step` x `group_size` rollouts; those with advantage zero are not trained on."""

    learning_rate: float
    steps: int
    prompts_per_step: int
    group_size: int  # rollouts per prompt, before rebalancing
    candidate_prompts: int  # prompts to choose from
    probe_rollouts: int = 4  # per candidate whose first rollout is wrong, that one included; 0: all candidates are used
    keep_fraction: float = 0.6  # of the candidates with right and wrong rollouts, the most uniform in length first
    temperature_start: float = 1.0  # of sampling and of the loss's log-probabilities
    temperature_end: float = 0.6
    anneal_fraction: float = 0.5  # of the steps, over which the temperature falls linearly
    max_new_tokens: int = 256
    epsilon: float = 0.2  # clip range of the importance ratio
    lr_schedule: str = "linear"  # with a constant rate the last weights are a matter of chance (docs/log.md)
    muon: bool = True  # as in LanguageModelingConfig
    hardware: HardwareConfig = HardwareConfig(micro_batch_size=32)


@dataclass(frozen=True)
class EvaluationConfig:
    """How much of each benchmark is sampled after each stage. Greedy answers are always among it."""

    problems: int  # of each benchmark, at most
    samples: int = 4  # a problem of `hard`; one elsewhere
    temperature: float = 0.6
    cool_temperature: float = 0.3  # of one more sample a problem of `hard`; 0: none
    pass_problems: int = 200  # of `hard`, for pass@k; 0: none
    pass_samples: int = 8
    max_new_tokens: int = 384  # the longest worked solution of seven operations has fewer
    benchmarks: tuple[str, str, str] = ("easy", "hard", "transfer")  # the sets that stand for these three; "": left out
    engine: str = "cpu"  # as in HardwareConfig

    @property
    def answers(self) -> int:
        """How many a model is asked for (`evaluate.ladder`), where each set has as many problems as are asked."""
        count = 2 * self.problems * sum(map(bool, self.benchmarks[::2]))  # greedy and sampled
        if self.benchmarks[1]:
            count += self.problems * (1 + self.samples + bool(self.cool_temperature))
            count += self.pass_problems * max(0, self.pass_samples - self.samples)
        return count


@dataclass(frozen=True)
class BenchmarkProtocol:
    """How public benchmarks are sampled (`phi_lab.evaluate.public_benchmarks`); the authors' later protocol."""

    temperature: float = 0.6
    top_p: float = 0.95
    max_new_tokens: int = 32768
    samples: int = 8
    aime_samples: int = 64
    problems: int = 0  # of each set, at most; 0: all
    instruction: str = INSTRUCTION  # before the problem


@dataclass(frozen=True)
class RunConfig:
    """Every setting of a run at one scale and profile."""

    scale: str
    profile: str
    model: str  # at the scale cpu a name of model.SHAPES; else a folder or a name on the Hugging Face hub
    distillation: DistillationConfig
    mid: LanguageModelingConfig
    sft: LanguageModelingConfig
    dpo: DPOConfig
    grpo: GRPOConfig
    evaluation: EvaluationConfig

    def row(self) -> dict:
        """The settings as nested dictionaries, as config.json holds them."""
        return asdict(self)

    def digest(self) -> str:
        """A hash of all settings that training depends on, so not of `evaluation`: 16 hexadecimal digits."""
        settings = {name: value for name, value in self.row().items() if name != "evaluation"}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def global_batch_size(config: RunConfig, stage: str) -> int:
    """Rows, pairs, or GRPO prompts in one step of a stage, over all processes."""
    return config.grpo.prompts_per_step if stage == "grpo" else getattr(config, stage).batch_size


# Names of release 0.1, read in config.json and manifests for one more release.
OLD_NAMES = {
    "numbers": "config",
    "warmup": "warmup_ratio", "schedule": "lr_schedule", "evaluate_every": "eval_steps",
    "batch": "batch_size", "shipped": "shipped_questions", "answers": "teacher_kind",
    "keep_clear_of": "decontaminate_against", "pairs": "max_pairs", "plausible": "max_student_nll",
    "pairs_a_question": "pairs_per_question", "own_questions": "questions", "longest": "max_tokens",
    "on_policy_questions": "questions",  # of versions between the releases
    "prompts": "prompts_per_step", "group": "group_size", "candidates": "candidate_prompts",
    "probes": "probe_rollouts", "keep": "keep_fraction", "hot": "temperature_start", "cool": "temperature_end",
    "annealed": "anneal_fraction", "sets": "benchmarks", "checkpointing": "gradient_checkpointing",
    "rows": "micro_batch_size", "sharded": "fsdp",
}


REMOVED_NAMES = ("patience", "cooldown", "cooldown_steps")


def with_new_names(saved: dict) -> dict:
    """The settings of a saved config under today's names, at every depth, without those that are no more."""
    return {
        _new_name(name, value): with_new_names(value) if isinstance(value, dict) else value
        for name, value in saved.items()
        if name not in REMOVED_NAMES
    }


def _new_name(name: str, value: object) -> str:
    """Today's name of a setting. `pairs` was a number once, and names a kind of pairs today."""
    return name if name == "pairs" and isinstance(value, str) else OLD_NAMES.get(name, name)


def read_config(path: Path) -> dict:
    """A saved config.json, or another manifest with a "config" in it, under today's names: one of release 0.1 has
    "numbers" instead, and its settings have other names. Raises UserError if it is missing or broken.
    """
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise UserError(f"{path} has an unexpected form; {REMADE}")
    return with_new_names(saved)


def config_from_dict(saved: dict) -> RunConfig:
    """The inverse of `RunConfig.row`; settings of release 0.1 are read under their old names."""
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
