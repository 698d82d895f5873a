"""The one dial: every number of every stage, beside the paper's.

A *scale* says which hardware and model a run is for (cpu, lora, qlora, full); a *profile* says how long it may take
(smoke: continuous integration, seconds a stage; lab: what a learner runs). Code never asks which scale it is on, it
reads numbers here. Paper figures: arXiv 2504.21233, as collected from second-hand notes where its text could not be
read; each says where it is from.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from math import isinf
from typing import NamedTuple

from phi_lab.core.errors import UserError

SCALES = ("cpu", "lora", "qlora", "full")
PROFILES = ("smoke", "lab")
STAGES = ("base", "mid", "sft", "dpo", "grpo")
VLLM_SHARE = 0.3  # of a GPU's memory, for vLLM beside a trainer
INSTRUCTION = "Please reason step by step, and put your final answer within \\boxed{}."  # to a served teacher


class Figure(NamedTuple):
    """A figure of the paper, None where it is unknown, and its source: a section of arXiv 2504.21233 by our notes, and
    how sure they are, in the marks of notebook 00.
    """

    value: object
    source: str


UNKNOWN = Figure(None, "[U]")
REPORT = "[P] an earlier report, arXiv 2503.01743; the paper's own [U]"
PAPER = {  # by our names, where we have the number too; K is read as 1,024 [I]
    "distillation": {
        "questions": Figure(1_600_000, "section 3, data [S2]"), "rollouts": Figure(10_000_000, "section 3, data [S2]"),
        "samples": Figure(8, "about; model card [P], [S2]"), "teacher": Figure("DeepSeek-R1", "model card [P]"),
        "problems": Figure(None, "[U]; more than a million, model card [P]"), "keep_clear_of": UNKNOWN,
    },
    "mid": {
        "row_length": Figure(16384, "section 3.1 [S]"), "batch": Figure(128, "section 3.1 [S]"),
        "learning_rate": Figure(1e-5, "section 3.1 [S]"), "epochs": Figure(5, "section 3.1 [S]"),
        "steps": Figure(71_500, "[I] 150 B tokens, model card [P], in steps of 128 x 16,384"),
        "warmup": Figure(0.1, "section 3.1 [S]"), "packed": Figure(True, "section 3.1 [S2]"),
        "schedule": UNKNOWN, "weight_decay": UNKNOWN,
    },
    "sft": {
        "row_length": Figure(20480, "section 3.2 [S]"), "batch": Figure(128, "section 3.2 [S]"),
        "learning_rate": Figure(1e-5, "section 3.2 [S]"), "epochs": Figure(5, "section 3.2 [S]"),
        "documents": Figure(200_000, REPORT), "warmup": Figure(0.1, "from memory, unchecked"),
        "packed": Figure(False, "section 3.2 [S2]"), "schedule": UNKNOWN, "weight_decay": UNKNOWN,
    },
    "dpo": {
        "longest": Figure(16384, "section 3.3 [S]"), "batch": UNKNOWN, "pairs": Figure(300_000, REPORT),
        "learning_rate": Figure(5e-7, "section 3.3 [S2]"), "epochs": Figure(1, "section 3.3 [S2]"), "beta": UNKNOWN,
        "plausible": UNKNOWN, "pairs_a_question": UNKNOWN,
    },
    "grpo": {
        "max_new_tokens": Figure(25600, "section 3.4 [S]"), "learning_rate": Figure(5e-7, "section 3.4 [S]"),
        "hot": Figure(1.0, "section 3.4 [S2]"), "cool": Figure(0.6, "section 3.4 [S2]"),
        "annealed": Figure(0.5, "section 3.4 [S2]"), "steps": UNKNOWN, "prompts": UNKNOWN, "group": UNKNOWN,
        "candidates": UNKNOWN, "probes": UNKNOWN, "keep": UNKNOWN, "epsilon": UNKNOWN, "schedule": UNKNOWN,
    },
    "evaluation": {
        "sets": Figure(("math500", "aime24", "gpqa-diamond"), "[P]"), "samples": UNKNOWN,
        "temperature": Figure(None, "[U]; the model card's example has 0.8 [P]"),
        "max_new_tokens": Figure(None, "[U]; the model card's example has 32,768 [P]"),
    },
    "hardware": {"optimizer": UNKNOWN},
}  # fmt: skip


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


def beside_the_paper(part: str, scales: Iterable[Numbers]) -> list[tuple[str, ...]]:
    """Every number of a part of the scales as text, a row each: its name, one cell a scale, the paper's, the source.

    part: a key of PAPER; "hardware" is that of all stages. A number that is off in every scale (0, no or none, and so
    by default) has no row unless the paper has it; "–": nobody there has such a number.
    """
    scales, theirs, rows = list(scales), PAPER[part], []
    for field in fields(Hardware if part == "hardware" else getattr(scales[0], part)):
        if field.name == "hardware":
            continue
        values = [[getattr(one, field.name) for one in _holders(numbers, part)] for numbers in scales]
        off = not field.default and all(value == field.default for several in values for value in several)
        if off and field.name not in theirs:
            continue
        rows.append((field.name, *map(_cell, values)))
    known = {row[0] for row in rows}
    rows += [(name, *("–" for _ in scales)) for name in theirs if name not in known]
    nothing = Figure("–", "")
    found = [(row, theirs.get(row[0], nothing)) for row in rows]
    return [
        (name.replace("_", " "), *cells, "unknown" if value is None else _shown(value), source)
        for (name, *cells), (value, source) in found
    ]


def _holders(numbers: Numbers, part: str) -> list:
    """Who has the numbers of a part: itself, or the hardware of each stage."""
    return [getattr(numbers, name).hardware for name in STAGES[1:]] if part == "hardware" else [getattr(numbers, part)]


def _cell(values: list) -> str:
    """One value, or several by stage, the stages named where they differ."""
    if len(set(values)) == 1:
        return _shown(values[0])
    stages = {value: [name for name, one in zip(STAGES[1:], values, strict=True) if one == value] for value in values}
    return "; ".join(f"{_shown(value)} ({', '.join(names)})" for value, names in stages.items())


def _shown(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float) and isinf(value):
        return "no limit"
    return ", ".join(value) or "none" if isinstance(value, tuple) else value if isinstance(value, str) else f"{value:,}"
