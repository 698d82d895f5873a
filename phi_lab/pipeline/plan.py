"""The plan of a scale, before a GPU is rented: memory by part, tokens a second, hours, dollars, and what will not fit.

`gpu_costs.py` says what a step and an answer cost; here a stage's steps and answers are counted.

    phi-lab plan --scale full --gpus 128 --gpu h100
    phi-lab plan --scale qlora --gpu rtx4090 --json
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from phi_lab.config import presets
from phi_lab.config.schema import VLLM_SHARE, RunConfig, global_batch_size
from phi_lab.core.errors import UserError
from phi_lab.pipeline.gpu_costs import (
    CARDS,
    DECODING,
    MEAN_LENGTH,
    MFU,
    RESERVED,
    Card,
    Shape,
    flops,
    sampling_speed,
    training_memory,
    training_speed,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

UNITS = {"mid": "rows", "sft": "rows", "dpo": "pairs", "grpo": "prompts"}  # what a stage's batch is counted in


def plan(config: RunConfig, card_name: str, gpus: int, price: float | None = None) -> list[dict]:
    """One row a stage: `stage`, `tokens` trained on, `sampled_tokens`, `tokens_per_second` of training, `hours`,
    `price`, `row` (tokens of the longest), `batch`, `rows_a_pass`, `passes`, `memory` by part in GB on each GPU,
    `total_gb`, `fits`, `reason` why not.

    A GPU is a process and takes an even share of each batch, in passes of the stage's own micro-batch size: batch =
    rows_a_pass x passes x GPUs, all in rows, where a pair is two and a prompt as many as its group. Raises UserError
    for an unknown card and for the scale cpu.
    """
    if card_name not in CARDS:
        raise UserError(f"unknown GPU {card_name!r}: choose one of {', '.join(CARDS)}")
    if config.scale == "cpu":
        raise UserError("the scale cpu needs no GPU: choose --scale lora, qlora or full")
    card, shape = CARDS[card_name], Shape("phi-4-mini")
    if not card.bfloat16 and config.scale != "full":
        config = presets.without_bfloat16(config)
    return [_plan_stage(stage, config, card, shape, gpus, price) for stage in UNITS]


def _plan_stage(stage: str, config: RunConfig, card: Card, shape: Shape, gpus: int, price: float | None) -> dict:
    hardware, row = getattr(config, stage).hardware, _longest(config, stage)
    tokens, sampled = _tokens(config, stage)
    rows_a_pass, passes = _passes(config, stage, gpus)
    parts = training_memory(shape, hardware, gpus if hardware.fsdp else 1, rows_a_pass * row)
    needed, free = sum(parts.values()), _free_memory(config, stage, shape, card.memory)
    reasons = [_undivided(config, stage, gpus)]
    if not (card.bfloat16 or hardware.adapter):
        reasons.append(presets.NEEDS_BFLOAT16)
    if needed > free:
        reasons.append(f"it takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} of {card.memory / 1e9:.1f} are free")
    speed = gpus * training_speed(shape, hardware, card, row)
    hours = tokens / speed / 3600
    if sampled:
        try:
            hours += sampled / (gpus * sampling_speed(shape, hardware, card, row)) / 3600
        except UserError as error:  # then the hours are those of training alone
            reasons.append(str(error))
    reason = "; ".join(filter(None, reasons))
    return {
        "stage": stage, "tokens": round(tokens), "sampled_tokens": round(sampled), "tokens_per_second": round(speed),
        "hours": round(hours, 2), "price": round(hours * gpus * (card.price if price is None else price), 2),
        "row": row, "batch": _batch_rows(config, stage), "rows_a_pass": rows_a_pass, "passes": passes,
        "memory": {name: round(value / 1e9, 2) for name, value in parts.items()},
        "total_gb": round(needed / 1e9, 1), "fits": not reason, "reason": reason,
    }


def _tokens(config: RunConfig, stage: str) -> tuple[float, float]:
    """Tokens that a stage trains on, and tokens that it samples."""
    settings, row, batch = getattr(config, stage), _longest(config, stage), _batch_rows(config, stage)
    if stage == "mid":
        return settings.steps * batch * row, 0  # packed: every row is full
    if stage == "sft":
        return settings.steps * batch * row * MEAN_LENGTH, 0
    if stage == "dpo":  # and before it the forward pass of the reference, a third
        steps = settings.max_pairs * settings.epochs // settings.batch_size
        return steps * batch * row * (MEAN_LENGTH * 4 / 3), 0
    # about half of the rollouts are trained on; at most: a candidate whose first answer is right is sampled no more
    sampled = settings.steps * batch + settings.candidate_prompts * settings.probe_rollouts
    return settings.steps * (batch // 2) * row * MEAN_LENGTH, sampled * row * MEAN_LENGTH


def require_memory(config: RunConfig, model_config: PreTrainedConfig, gpus: int, bytes_each: float) -> None:
    """Raises UserError where one pass of a stage does not fit on `gpus` GPUs of `bytes_each` memory."""
    shape = Shape(model_config)
    for stage in UNITS:
        hardware = getattr(config, stage).hardware
        tokens = _passes(config, stage, gpus)[0] * _longest(config, stage)
        needed = sum(training_memory(shape, hardware, gpus if hardware.fsdp else 1, tokens).values())
        free = _free_memory(config, stage, shape, bytes_each)
        if needed > free:
            raise UserError(
                f"{stage} at the scale {config.scale} takes about {needed / 1e9:.0f} GB on each of {gpus} GPUs, and "
                f"there are {free / 1e9:.0f} of {bytes_each / 1e9:.0f} free for it: another --scale, or more GPUs; "
                "`phi-lab plan` says which"
            )


def cpu_warning(config: RunConfig, model_config: PreTrainedConfig, available: float, flops_a_second: float) -> str:
    """One line on what a GPU scale takes without a GPU, training and measuring: so many hours or more, at the
    computer's own speed in matrix products, which sampling does not reach. available: bytes of free memory.

    Raises UserError where the weights alone, in float32 and with their optimizer where all are trained, do not fit.
    """
    shape = Shape(model_config)
    needed = max(4 * shape.weights + (12 * shape.weights if getattr(config, stage).hardware.adapter is None else 0)
                 for stage in UNITS)
    if needed > available:
        raise UserError(
            f"the scale {config.scale} needs an NVIDIA GPU for this model, and torch sees none: "
            f"{shape.weights / 1e9:.1f} B weights take {needed / 1e9:.0f} GB here, and {available / 1e9:.0f} are free; "
            f"phi-lab plan --scale {config.scale} says which GPU"
        )
    measured = config.evaluation.answers * config.evaluation.max_new_tokens * MEAN_LENGTH
    work = (1 + len(UNITS)) * measured * 2 * shape.weights
    for stage in UNITS:
        trained, sampled = _tokens(config, stage)
        work += trained * flops(shape, getattr(config, stage).hardware, _longest(config, stage))
        work += sampled * 2 * shape.weights
    minutes = work / flops_a_second / 60
    time = f"{minutes:,.0f} minutes" if minutes < 120 else f"{minutes / 60:,.0f} hours"
    hint = "" if config.profile == "smoke" else "; --profile smoke tries them"
    return (f"no NVIDIA GPU: {shape.weights / 1e6:,.0f} M weights on this processor, {time} or more for all stages and "
            f"their measurements as they are set{hint}")


def _rows_per_unit(config: RunConfig, stage: str) -> int:
    """Rows in one of a stage's `UNITS`."""
    return {"dpo": 2, "grpo": config.grpo.group_size}.get(stage, 1)


def _batch_rows(config: RunConfig, stage: str) -> int:
    """Rows in a batch, over all GPUs."""
    return global_batch_size(config, stage) * _rows_per_unit(config, stage)


def _longest(config: RunConfig, stage: str) -> int:
    """Tokens of the longest row of a stage. GRPO's prompts, short beside their answers, are left out."""
    if stage == "dpo":
        return config.dpo.max_tokens or config.mid.row_length
    return config.grpo.max_new_tokens if stage == "grpo" else getattr(config, stage).row_length


def _passes(config: RunConfig, stage: str, gpus: int) -> tuple[int, int]:
    """Rows in one forward and backward pass on a GPU, and passes a step: as the stages do it."""
    micro_batch = getattr(config, stage).hardware.micro_batch_size
    per_gpu = math.ceil(global_batch_size(config, stage) / gpus)
    if stage == "dpo":  # passes of equal size
        pairs = math.gcd(per_gpu, micro_batch)
        return 2 * pairs, per_gpu // pairs
    per_gpu *= _rows_per_unit(config, stage)
    return min(per_gpu, micro_batch), math.ceil(per_gpu / micro_batch)


def _divisors(config: RunConfig) -> list[int]:
    """Numbers of GPUs that divide the batch of every stage, the smallest first."""
    common = math.gcd(*(global_batch_size(config, stage) for stage in UNITS))
    return [count for count in range(1, common + 1) if common % count == 0]


def _undivided(config: RunConfig, stage: str, gpus: int) -> str:
    """Why `gpus` GPUs cannot share a stage's batch, and how many of them can share every stage's; "" if they can."""
    batch = global_batch_size(config, stage)
    if batch % gpus == 0:
        return ""
    fewer = max(count for count in _divisors(config) if count <= gpus)
    return f"a batch of {batch} {UNITS[stage]} cannot be divided among {gpus} GPUs: {fewer} divide it evenly"


def _free_memory(config: RunConfig, stage: str, shape: Shape, bytes_each: float) -> float:
    """Bytes of a GPU that a stage's training may take: beside vLLM, where it samples, what vLLM's share leaves; 0 where
    that share does not hold the weights and one longest answer.
    """
    free = bytes_each * (1 - RESERVED)
    if stage != "grpo" or config.grpo.hardware.engine != "vllm":
        return free
    share = VLLM_SHARE * bytes_each
    return free - share if share >= 2 * shape.weights + shape.cache * config.grpo.max_new_tokens else 0.0


def advice(config: RunConfig, rows: list[dict], card_name: str, gpus: int) -> str:
    """One line for a plan that does not fit: the next lower and the next higher number of GPUs that would do."""
    too_large = [row["stage"] for row in rows if not row["fits"]]
    if not too_large:
        return ""
    fitting = [count for count in _divisors(config) if all(row["fits"] for row in plan(config, card_name, count))]
    nearest = [count for count in fitting if count < gpus][-1:] + [count for count in fitting if count > gpus][:1]
    problem = f"{', '.join(too_large)}: cannot run on {gpus} x {card_name}, for the reasons above"
    if not nearest:
        return f"{problem}: take another card, or --scale qlora"
    return f"{problem}; {' or '.join(map(str, nearest))} would do"


def table(config: RunConfig, rows: list[dict], card_name: str, gpus: int) -> str:
    """The plan as text."""
    mfu = MFU[config.mid.hardware.adapter]
    lines = [f"Phi-4-mini, scale {config.scale}, {gpus} x {card_name}; training at {100 * mfu:g} % of peak "
             f"(measured on an H200), sampling at {100 * DECODING:.0f} % of bandwidth (assumed)"
             + ("" if CARDS[card_name].bfloat16 else f"; {card_name} trains in float16 with loss scaling"), "",
             f"{'stage':6}{'tokens':>10}{'tokens/s':>11}{'hours':>9}{'US$':>10}{'batch':>7} = {'rows a pass':>11} x"
             f"{'passes':>7} x GPUs{'GB a GPU':>10}  fits"]
    for row in rows:
        fits = "yes" if row["fits"] else "NO"
        lines.append(
            f"{row['stage']:6}{_short(row['tokens'] + row['sampled_tokens']):>10}{row['tokens_per_second']:>11,}"
            f"{_hours(row['hours']):>9}{row['price']:>10,.0f}{row['batch']:>7}   {row['rows_a_pass']:>11}  "
            f"{row['passes']:>7}{gpus:>7}{row['total_gb']:>10}  {fits}"
        )
    lines += ["a batch in rows: a pair is two, a rollout one; about half of the rollouts are trained on"]
    lines += [f"{row['stage']}: {row['reason']}" for row in rows if not row["fits"]]
    lines += ["", "memory of the largest stage, GB a GPU:"]
    largest = max(rows, key=lambda row: row["total_gb"])
    lines += [f"  {name:14}{value:>8.1f}" for name, value in largest["memory"].items()]
    hours, price = (sum(row[name] for row in rows) for name in ("hours", "price"))
    lines.append(f"all stages: {_hours(hours)} hours, {price:,.0f} US$")
    return "\n".join(filter(None, (*lines, advice(config, rows, card_name, gpus))))


def _hours(hours: float) -> str:
    """Hours with one digit; what is less would read as nothing."""
    return f"{hours:,.1f}" if hours >= 0.05 or not hours else "< 0.1"


def _short(count: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if count >= size:
            return f"{count / size:,.1f} {letter}"
    return f"{count:,.0f}"
