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
class Hardware:
    """What a stage must know of the machine it trains on; the defaults are a laptop's CPU."""

    adapter: str | None = None  # None trains all weights; "lora"; "qlora", the frozen base in 4-bit NF4
    dtype: str = "float32"  # of the weights; a GPU calculates in bfloat16 either way
    attention: str = "sdpa"  # "flex_attention" where rows are long: no mask of length x length
    optimizer: str = "adamw_torch"  # by transformers' names
    checkpointing: bool = False  # activations are computed again in the backward pass instead of kept
    liger: bool = False  # Liger's fused kernels (arXiv 2410.10989), and a head that never holds all logits
    sharded: bool = False  # over several processes, by FSDP2; else each holds the whole model
    engine: str = "cpu"  # of rollouts: "cpu", "hf" or "vllm"
    rows: int = 8  # in one forward and backward pass; a batch is as many passes as it takes


LAPTOP = Hardware()


@dataclass(frozen=True)
class Training:
    """One language-modelling stage: base, mid-training or SFT.

    With `patience` training goes on at a constant rate until the validation loss stops improving: after so many
    evaluations in a row without one that beats the last such one by 0.005 nats the rate falls to zero over `cooldown`
    steps, and the best weights are kept. `steps` is then a limit, and `schedule` and `warmup` have no say.
    """

    learning_rate: float
    batch: int  # rows a step
    row_length: int  # tokens a packed row; the longest document when unpacked
    steps: int
    documents: int = 0  # how many to make or choose; 0 = all there are
    schedule: str = "cosine"  # of the learning rate, by transformers' names
    warmup: float = 0.1  # share of the steps
    evaluate_every: int = 0  # steps between validation losses; 0 = only at the end
    patience: int = 0
    cooldown: int = 0  # steps
    weight_decay: float = 0.01
    muon: bool = True  # Muon for the matrices (stages/muon.py); else the hardware's optimizer
    hardware: Hardware = LAPTOP


@dataclass(frozen=True)
class Distillation:
    """How many questions are asked of the teacher and how often.

    `questions` are asked in every run; `shipped` is how many more are taken, answered, from data/distilled. A run that
    trains its own teacher asks all of them itself. At the GPU scales `command` makes the set.
    """

    questions: int
    validation_questions: int
    shipped: int = 0
    samples: int = 8
    temperature: float = 1.0
    max_new_tokens: int = 256
    problems: str = "world"  # by the names of `phi-lab distill`, as the next two are
    answers: str = "model"  # --teacher: the shipped model, or "traces", what others sampled; here of DeepSeek-R1
    keep_clear_of: tuple[str, ...] = ()  # benchmarks, besides the lab's

    def command(self, model: str) -> str:
        """The shell command for this set. model: whose tokenizer counts tokens."""
        return (
            f"phi-lab distill --problems {self.problems} --teacher {self.answers} --questions {self.questions} "
            f"--longest {self.max_new_tokens} --tokenizer {model} --keep-clear-of {' '.join(self.keep_clear_of)} "
            "--out SET"
        )


@dataclass(frozen=True)
class Preference:
    """Rollout DPO. `own_questions` is for the second arm, pairs from the student's own rollouts; 0 leaves it out."""

    learning_rate: float
    batch: int  # pairs a step
    pairs: int  # at most
    plausible: float = 6.0  # nats: wrong rollouts that the student writes less often than once in exp(6) are left out
    beta: float = 0.1
    epochs: int = 1
    pairs_a_question: int = 4
    own_questions: int = 0
    longest: int = 0  # tokens of a prompt with its answer: pairs with a longer side are left out; 0 = no limit
    hardware: Hardware = LAPTOP


@dataclass(frozen=True)
class Reinforcement:
    """GRPO. A step samples `prompts` x `group` rollouts; what the advantage function leaves at zero is not trained
    on.
    """

    learning_rate: float
    steps: int
    prompts: int
    group: int  # rollouts sampled a prompt, before rebalancing
    candidates: int  # prompts sampled for the selection by length uniformity
    probes: int = 4  # rollouts a candidate that fails at first
    keep: float = 0.6  # share of the mixed candidates that is kept, the most uniform in length first
    hot: float = 1.0
    cool: float = 0.6
    annealed: float = 0.5  # share of the steps over which the temperature falls
    max_new_tokens: int = 256
    epsilon: float = 0.2
    schedule: str = "linear"  # of the learning rate: what a constant one reaches last is chance (docs/log.md)
    muon: bool = True  # as in Training
    hardware: Hardware = Hardware(rows=32)


@dataclass(frozen=True)
class Evaluation:
    """How much of each benchmark is sampled after each stage."""

    problems: int  # of each benchmark, at most
    samples: int = 4  # on hard
    temperature: float = 0.6
    pass_problems: int = 200
    pass_samples: int = 8
    max_new_tokens: int = 256
    sets: tuple[str, str, str] = ("easy", "hard", "transfer")  # who plays these three
    engine: str = "cpu"  # as in Hardware


@dataclass(frozen=True)
class Protocol:
    """How public benchmarks are sampled (`phi_lab.evaluate.public_benchmarks`): the authors' later protocol."""

    temperature: float = 0.6
    top_p: float = 0.95
    max_new_tokens: int = 32768
    samples: int = 8
    aime_samples: int = 64
    problems: int = 0  # of each set, at most; 0 = all
    instruction: str = INSTRUCTION  # before the problem


@dataclass(frozen=True)
class Numbers:
    """All numbers of a run at one scale and profile."""

    scale: str
    profile: str
    model: str  # of SHAPES at the scale cpu, which has its own; else a folder or a name on the hub
    distillation: Distillation
    mid: Training
    sft: Training
    dpo: Preference
    grpo: Reinforcement
    evaluation: Evaluation

    def row(self) -> dict:
        """As it stands in config.json."""
        return asdict(self)


def batch(numbers: Numbers, stage: str) -> int:
    """What the processes of a stage share in each step: rows, pairs, or GRPO's prompts."""
    return numbers.grpo.prompts if stage == "grpo" else getattr(numbers, stage).batch


def restored(row: dict) -> Numbers:
    """The numbers that stand in a config.json."""
    kinds = {"distillation": Distillation, "mid": Training, "sft": Training, "dpo": Preference, "grpo": Reinforcement,
             "evaluation": Evaluation}  # fmt: skip
    parts = {}
    for name, kind in kinds.items():
        values = dict(row[name])
        if "hardware" in values:
            values["hardware"] = Hardware(**values["hardware"])
        for several in {"sets", "keep_clear_of"} & set(values):
            values[several] = tuple(values[several])
        parts[name] = kind(**values)
    return Numbers(**{**row, **parts})
