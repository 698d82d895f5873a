"""What a scale takes before a GPU is rented: memory by part, tokens a second, hours, money, and what will not fit.

The arithmetic is that of the memory's owners: weights, their gradients, Adam's two moments, copies in the precision of
the arithmetic, activations, the loss, and while sampling the keys and values. Speeds are shares of a card's peak:
`MFU` was measured (docs/performance.md: Phi-4-mini on an H200), `DECODING` is assumed and says so. Sharding over GPUs
is FSDP2's: weights, gradients and moments are divided, and one layer at a time is gathered whole.

    phi-lab plan --scale full --gpus 128 --gpu h100
    phi-lab plan --scale qlora --gpu rtx4090 --json
"""

import math
from dataclasses import dataclass

from transformers import PreTrainedConfig

from phi_lab.config.schema import VLLM_SHARE, HardwareConfig, RunConfig, global_batch_size
from phi_lab.core.errors import UserError
from phi_lab.model import shapes

# Of the card's peak in training with activation checkpointing, by adapter: measured at rows of 2,048 and 16,384.
MFU = {None: 0.35, "lora": 0.255, "qlora": 0.205}
DECODING = 0.5  # of the card's bandwidth while sampling; assumed, not measured
SPARE = 0.08  # of the memory: context, fragments
FILLED = 0.5  # of the longest answer is the mean one; the paper's own range is 12K to 20K of 25K
UNITS = {"mid": "rows", "sft": "rows", "dpo": "pairs", "grpo": "prompts"}  # what a stage's batch is counted in

FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size",
)


@dataclass(frozen=True)
class Card:
    """A GPU by its data sheet: dense bfloat16 FLOPs a second, bytes, bytes a second; money an hour is a guess."""

    flops: float
    memory: float
    bandwidth: float
    price: float


CARDS = {
    "h100": Card(989e12, 85.0e9, 3.35e12, 2.5),
    "h200": Card(989e12, 151.0e9, 4.8e12, 3.5),
    "a100": Card(312e12, 85.0e9, 2.04e12, 1.6),
    "l40s": Card(362e12, 51.5e9, 0.86e12, 1.0),
    "rtx4090": Card(165e12, 25.7e9, 1.01e12, 0.4),
}


class Shape:
    """Sizes of a model, counted from its configuration or from that of a name in `models.SHAPES`.

    Raises UserError naming a field that the configuration lacks.
    """

    def __init__(self, one: str | PreTrainedConfig):
        one = shapes.phi_config(one) if isinstance(one, str) else one
        for name in FIELDS:
            if getattr(one, name, None) is None:
                raise UserError(f"{one.name_or_path}/config.json: no {name}, so its memory cannot be planned")
        head = one.hidden_size // one.num_attention_heads
        self.hidden, self.layers, self.mlp, self.vocabulary = (
            one.hidden_size, one.num_hidden_layers, one.intermediate_size, one.vocab_size,
        )
        self.qkv = (one.num_attention_heads + 2 * one.num_key_value_heads) * head
        self.matrices = self.hidden * (self.qkv + self.hidden + 3 * self.mlp)  # of one layer
        self.weights = self.layers * (self.matrices + 2 * self.hidden) + self.hidden * (self.vocabulary + 1)
        self.in_layers = self.layers * self.matrices  # what QLoRA has in four bits; embedding and norms are the rest
        self.adapter = 16 * self.layers * (5 * self.hidden + self.qkv + 3 * self.mlp)  # rank 16 beside all matrices
        self.cache = 4 * self.layers * one.num_key_value_heads * head  # bytes a token, keys and values in bfloat16


def _held(shape: Shape, hardware: HardwareConfig) -> float:
    """Bytes of the weights as training holds them."""
    if hardware.adapter == "qlora":  # half a byte and its constants; peft's preparation makes the others float32
        return 0.53 * shape.in_layers + 4 * (shape.weights - shape.in_layers) + 4 * shape.adapter
    width = {"float32": 4, "bfloat16": 2}[hardware.dtype]
    return width * shape.weights + (4 * shape.adapter if hardware.adapter else 0)


def memory(shape: Shape, hardware: HardwareConfig, gpus: int, tokens: int) -> dict[str, float]:
    """Bytes on each GPU in a training step with `tokens` in one pass, by part."""
    full = hardware.adapter is None
    trained = shape.weights if full else shape.adapter
    parts = {
        "weights": _held(shape, hardware) / gpus,
        "gradients": 4 * trained / gpus,
        "optimizer": (2 if "8bit" in hardware.optimizer else 8) * trained / gpus,
    }
    embedding = shape.hidden * shape.vocabulary
    if full:  # what autocast keeps in bfloat16: everything on one GPU, the gathered layer on several
        parts["working copy"] = 2 * (shape.weights if gpus == 1 else 2 * shape.matrices + embedding)
    # The residual stream has the embedding's precision, and what a matrix puts out is bfloat16; QLoRA's matrices give
    # back the precision that they were given.
    stream = tokens * shape.hidden * (2 if hardware.adapter == "lora" else 4)
    width = 4 if hardware.adapter == "qlora" else 2
    layer = tokens * (2 * shape.hidden * 4 + width * (2 * shape.hidden + 2 * shape.qkv + 4 * shape.mlp))
    parts["activations"] = shape.layers * stream + layer if hardware.gradient_checkpointing else shape.layers * layer
    gradients = 8 * embedding if full else 0  # of embedding and head, one matrix, before they are added
    # all logits of a pass with their gradient, or by a fused head a few rows of them and a copy of the head
    parts["loss"] = gradients + (2 * embedding if hardware.liger else 8 * tokens * shape.vocabulary)
    return parts


def flops(shape: Shape, hardware: HardwareConfig, row: int) -> float:
    """FLOPs a token of training: 6 a weight, 4 where only an adapter trains, and attention over half of a row
    (arXiv 2204.02311, appendix B). What checkpointing repeats is in the measured `MFU`.
    """
    return (6 if hardware.adapter is None else 4) * shape.weights + 6 * shape.layers * shape.hidden * row


def training_speed(shape: Shape, hardware: HardwareConfig, card: Card, row: int) -> float:
    """Tokens a second of one GPU in training on rows of so many tokens."""
    return MFU[hardware.adapter] * card.flops / flops(shape, hardware, row)


def sampling(shape: Shape, hardware: HardwareConfig, card: Card, longest: int) -> float:
    """Tokens a second of one GPU in answers of up to `longest`. vLLM, which has a trainer beside it, has its share of
    the memory (`VLLM_SHARE`), another engine the card.

    Raises UserError when not even one answer fits.
    """
    weights = _held(shape, hardware) if hardware.adapter == "qlora" else 2 * shape.weights
    if hardware.engine == "vllm":
        room, answer, busy = VLLM_SHARE * card.memory - weights, shape.cache * longest * FILLED, 1.0
    else:  # `rollouts`: half of what is free, for the longest answer in float32; all wait until the last has ended
        room, answer, busy = ((1 - SPARE) * card.memory - weights) / 2, 2 * shape.cache * longest, FILLED
    at_once = int(min(512, room / answer))
    if at_once < 1:
        raise UserError(
            f"sampling: no answer of {longest:,} tokens fits into {max(0.0, room) / 1e9:.1f} GB beside the weights: "
            "choose a larger card"
        )
    step = (weights + at_once * answer * busy) / (card.bandwidth * DECODING)  # seconds for one token of each
    return busy * at_once / step


def plan(config: RunConfig, card_name: str, gpus: int, price: float | None = None) -> list[dict]:
    """One row a stage: `stage`, `tokens` trained on, `sampled_tokens`, `tokens_per_second` of training, `hours`,
    `price`, `row` (tokens of the longest), `batch`, `rows_a_pass`, `passes`, `memory` by part in GB on each GPU,
    `total_gb`, `fits`, `reason` why not.

    A GPU is a process and takes an even share of each batch, in passes of the stage's own `HardwareConfig.micro_batch_size`: batch =
    rows_a_pass x passes x GPUs, all in rows, where a pair is two and a prompt as many as its group. Raises UserError
    for an unknown card and for the scale cpu.
    """
    if card_name not in CARDS:
        raise UserError(f"unknown GPU {card_name!r}: choose one of {', '.join(CARDS)}")
    if config.scale == "cpu":
        raise UserError("the scale cpu needs no GPU: choose --scale lora, qlora or full")
    card, shape = CARDS[card_name], Shape("phi-4-mini")
    rows = []
    for stage in UNITS:
        one, sampled, filled = getattr(config, stage), 0, FILLED
        hardware, row, whole = one.hardware, _longest(config, stage), global_batch_size(config, stage) * _rows(config, stage)
        trained, count = whole, one.max_pairs * one.epochs // one.batch_size if stage == "dpo" else one.steps
        if stage == "mid":
            filled = 1.0  # packed
        elif stage == "dpo":  # and the reference's forward pass, a third, before
            filled = FILLED * 4 / 3
        elif stage == "grpo":
            trained = whole // 2  # about half of the rollouts count
            # at most: a candidate that is right at once is asked no more
            sampled = (one.steps * whole + one.candidate_prompts * one.probe_rollouts) * row * FILLED
        together, passes = _passes(config, stage, gpus)
        room = _room(config, stage, shape, card.memory)
        parts = memory(shape, hardware, gpus if hardware.fsdp else 1, together * row)
        needed = sum(parts.values())
        reasons = [_undivided(config, stage, gpus)]
        if needed > room:
            reasons.append(f"it takes {needed / 1e9:.1f} GB, and {room / 1e9:.1f} of {card.memory / 1e9:.1f} are free")
        tokens = count * trained * row * filled
        speed = gpus * training_speed(shape, hardware, card, row)
        hours = tokens / speed / 3600
        if sampled:
            try:
                hours += sampled / (gpus * sampling(shape, hardware, card, row)) / 3600
            except UserError as error:  # then the hours are those of training alone
                reasons.append(str(error))
        reason = "; ".join(filter(None, reasons))
        rows.append({
            "stage": stage, "tokens": round(tokens), "sampled_tokens": round(sampled),
            "tokens_per_second": round(speed), "hours": round(hours, 2),
            "price": round(hours * gpus * (card.price if price is None else price), 2), "row": row, "batch": whole,
            "rows_a_pass": together, "passes": passes,
            "memory": {name: round(value / 1e9, 2) for name, value in parts.items()},
            "total_gb": round(needed / 1e9, 1), "fits": not reason, "reason": reason,
        })
    return rows


def require_memory(config: RunConfig, model_config: PreTrainedConfig, gpus: int, bytes_each: float) -> None:
    """Raises UserError where one pass of a stage does not fit on so many GPUs of so much memory."""
    shape = Shape(model_config)
    for stage in UNITS:
        hardware = getattr(config, stage).hardware
        tokens = _passes(config, stage, gpus)[0] * _longest(config, stage)
        needed = sum(memory(shape, hardware, gpus if hardware.fsdp else 1, tokens).values())
        room = _room(config, stage, shape, bytes_each)
        if needed > room:
            raise UserError(
                f"{stage} at the scale {config.scale} takes about {needed / 1e9:.0f} GB on each of {gpus} GPUs, and "
                f"there are {room / 1e9:.0f} of {bytes_each / 1e9:.0f} free for it: another --scale, or more GPUs; "
                "`phi-lab plan` says which"
            )


def _rows(config: RunConfig, stage: str) -> int:
    """Rows in one of a stage's `UNITS`."""
    return {"dpo": 2, "grpo": config.grpo.group_size}.get(stage, 1)


def _longest(config: RunConfig, stage: str) -> int:
    """Tokens of the longest row of a stage. GRPO's prompts, short beside their answers, are left out."""
    if stage == "dpo":
        return config.dpo.max_tokens or config.mid.row_length
    return config.grpo.max_new_tokens if stage == "grpo" else getattr(config, stage).row_length


def _passes(config: RunConfig, stage: str, gpus: int) -> tuple[int, int]:
    """Rows in one forward and backward pass on a GPU, and passes a step: as the stages have it."""
    rows, mine = getattr(config, stage).hardware.micro_batch_size, math.ceil(global_batch_size(config, stage) / gpus)
    if stage == "dpo":  # passes of equal size
        together = math.gcd(mine, rows)
        return 2 * together, mine // together
    mine *= _rows(config, stage)
    return min(mine, rows), math.ceil(mine / rows)


def _divisors(config: RunConfig) -> list[int]:
    """Numbers of GPUs that divide the batch of every stage, the smallest first."""
    common = math.gcd(*(global_batch_size(config, stage) for stage in UNITS))
    return [count for count in range(1, common + 1) if common % count == 0]


def _undivided(config: RunConfig, stage: str, gpus: int) -> str:
    """Why so many GPUs cannot share a stage's batch, and how many of them can share every stage's; "" if they can."""
    if global_batch_size(config, stage) % gpus == 0:
        return ""
    fewer = max(count for count in _divisors(config) if count <= gpus)
    return (
        f"a batch of {global_batch_size(config, stage)} {UNITS[stage]} cannot be divided among {gpus} GPUs: "
        f"{fewer} divide it evenly"
    )


def _room(config: RunConfig, stage: str, shape: Shape, bytes_each: float) -> float:
    """Bytes of a GPU that a stage's training may take: beside vLLM, where it samples, what its share leaves; 0 where
    that share does not hold the weights and one longest answer.
    """
    room = bytes_each * (1 - SPARE)
    if stage != "grpo" or config.grpo.hardware.engine != "vllm":
        return room
    share = VLLM_SHARE * bytes_each
    return room - share if share >= 2 * shape.weights + shape.cache * config.grpo.max_new_tokens else 0.0


def advice(config: RunConfig, rows: list[dict], card_name: str, gpus: int) -> str:
    """One line for a plan that does not fit: the next lower and the next higher number of GPUs that would do."""
    bad = [row["stage"] for row in rows if not row["fits"]]
    if not bad:
        return ""
    good = [count for count in _divisors(config) if all(row["fits"] for row in plan(config, card_name, count))]
    near = [count for count in good if count < gpus][-1:] + [count for count in good if count > gpus][:1]
    said = f"{', '.join(bad)}: does not fit on {gpus} x {card_name}"
    return f"{said}; {' or '.join(map(str, near))} would do" if near else f"{said}: take another card, or --scale qlora"


def table(config: RunConfig, rows: list[dict], card_name: str, gpus: int) -> str:
    """The plan as text."""
    used = MFU[config.mid.hardware.adapter]
    lines = [f"Phi-4-mini, scale {config.scale}, {gpus} x {card_name}; training at {100 * used:g} % of peak "
             f"(measured), sampling at {100 * DECODING:.0f} % of bandwidth (assumed)", "",
             f"{'stage':6}{'tokens':>10}{'tokens/s':>11}{'hours':>9}{'money':>10}{'batch':>7} = {'rows a pass':>11} x"
             f"{'passes':>7} x GPUs{'GB a GPU':>10}  fits"]
    for row in rows:
        fits = "yes" if row["fits"] else "NO"
        lines.append(
            f"{row['stage']:6}{_short(row['tokens'] + row['sampled_tokens']):>10}{row['tokens_per_second']:>11,}"
            f"{row['hours']:>9,.1f}{row['price']:>10,.0f}{row['batch']:>7}   {row['rows_a_pass']:>11}  "
            f"{row['passes']:>7}{gpus:>7}{row['total_gb']:>10}  {fits}"
        )
    lines += ["a batch in rows: a pair is two, a rollout one; about half of the rollouts are trained on"]
    lines += [f"{row['stage']}: {row['reason']}" for row in rows if not row["fits"]]
    lines += ["", "memory of the largest stage, GB a GPU:"]
    largest = max(rows, key=lambda row: row["total_gb"])
    lines += [f"  {name:14}{value:>8.1f}" for name, value in largest["memory"].items()]
    lines.append(
        f"all stages: {sum(row['hours'] for row in rows):,.1f} hours, {sum(row['price'] for row in rows):,.0f}"
    )
    return "\n".join(filter(None, (*lines, advice(config, rows, card_name, gpus))))


def _short(count: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if count >= size:
            return f"{count / size:,.1f} {letter}"
    return f"{count:,.0f}"
