"""Stage 3, Rollout DPO: right rollouts are preferred over wrong ones, which distillation would have thrown away.

The paper (section 3.3) pairs a right with a wrong rollout *of the teacher* for the same question and runs one epoch
of plain DPO

    loss = -log sigmoid( beta * (log pi(y+)/ref(y+) - log pi(y-)/ref(y-)) )

with the stage-2 model as reference. Both sides are off-policy for the student; on-policy DPO, a second arm (`dpo-own`),
pairs the student's own rollouts instead. Which wrong rollouts to take is not known, and here it decides: most of the
teacher's mistakes are slips that the student would never make, nine nats less likely than its own responses, and pairs
of them lower its accuracy, since the right responses lose probability with them (docs/log.md). So
`filter_by_student_likelihood` keeps the wrong rollouts that the student itself might write, and each is paired with the
right one closest in length, so that length is not what the pair teaches. Watch both log-probabilities fall while the
margin grows: that is how DPO moves. dpo_trainer.py is the seam to TRL's DPOTrainer, which computes the loss.

    phi-lab run --from dpo --to dpo --out runs/my-run
"""

import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import trl
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab.config.schema import DPOConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.core.records import PreferencePair
from phi_lab.model import checkpoints
from phi_lab.stages import checkpointing, training
from phi_lab.stages.dpo_trainer import DPOTrainer, pairs_dataset
from phi_lab.stages.packing import collate, document, rows_dataset
from phi_lab.stages.training import TrainingResult

# pair(right, wrong, count, rng) -> up to `count` (chosen, rejected) for one question
Pair = Callable[[Sequence[dict], Sequence[dict], int, random.Random], list[tuple[dict, dict]]]
SCORED_TOGETHER = 64  # rollouts in one forward pass of `log_probabilities`
METRICS = (
    "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"
)


def pair_closest_length(
    right: Sequence[dict], wrong: Sequence[dict], count: int, rng: random.Random
) -> list[tuple[dict, dict]]:
    """The `count` pairs of one question's rollouts that differ least in tokens; each rollout is in one pair at most."""
    gaps = sorted(
        (abs(good["tokens"] - bad["tokens"]), rng.random(), i, j)
        for i, good in enumerate(right)
        for j, bad in enumerate(wrong)
    )
    pairs, used_right, used_wrong = [], set(), set()
    for _, _, i, j in gaps:
        if len(pairs) < count and i not in used_right and j not in used_wrong:
            used_right.add(i)
            used_wrong.add(j)
            pairs.append((right[i], wrong[j]))
    return pairs


def log_probabilities(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: Sequence[dict]) -> list[float]:
    """log pi(completion and its stop token | prompt) of each rollout by the model, in nats, at temperature 1."""
    documents = [document(tokenizer, row["prompt"], row["completion"]) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: len(documents[index][0]))
    collator, logprobs = collate(tokenizer.pad_token_id), [0.0] * len(rows)
    for first in range(0, len(order), SCORED_TOGETHER):
        indices = order[first : first + SCORED_TOGETHER]
        batch = collator(list(rows_dataset(documents, [[index] for index in indices], 0, None)))
        labels = batch.pop("labels")[:, 1:].to(model.device)
        with torch.no_grad():
            logits = model(**{name: value.to(model.device) for name, value in batch.items()}).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        for index, loss in zip(indices, losses.sum(1).tolist(), strict=True):
            logprobs[index] = -loss
    return logprobs


def filter_by_student_likelihood(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, wrong: Sequence[dict], config: DPOConfig
) -> list[dict]:
    """The wrong rollouts that the model itself samples at least once in exp(`config.max_student_nll`) times; all of
    them, unscored, where that is infinite.
    """
    if math.isinf(config.max_student_nll):
        return list(wrong)
    logprobs = log_probabilities(model, tokenizer, wrong)
    return [row for row, value in zip(wrong, logprobs, strict=True) if value >= -config.max_student_nll]


def make_pairs(
    right: list[dict], wrong: list[dict], config: DPOConfig, seed: int, pair: Pair
) -> list[PreferencePair]:
    """`prompt` (the question), `chosen`, `rejected` rows from rollouts of the same questions; shuffled.

    Raises UserError when no question has both a right and a wrong rollout.
    """
    rng = random.Random(seed)
    sides: dict[str, tuple[list, list]] = defaultdict(lambda: ([], []))
    for side, rollouts in enumerate((right, wrong)):
        for row in rollouts:
            sides[row["id"]][side].append(row)
    rows = []
    for good, bad in sides.values():
        for chosen, rejected in pair(good, bad, config.pairs_per_question, rng) if good and bad else []:
            rows.append({"prompt": chosen["prompt"], "chosen": chosen["completion"],
                         "rejected": rejected["completion"]})
    if not rows:
        raise UserError("no question has both a right and a plausible wrong rollout: distil more questions, or raise "
                        "`max_student_nll`")
    rng.shuffle(rows)
    return rows[: config.max_pairs]


def train(
    student: Path, right: Path, wrong: Path, out: Path, config: DPOConfig, *, seed: int,
    pair: Pair = pair_closest_length, select: Callable[..., list[dict]] = filter_by_student_likelihood,
) -> TrainingResult:
    """Train the model in `student` on pairs from two files of rollouts; it is saved in `out/model`.

    `select` chooses wrong rollouts, `pair` the right ones for them. Reference log-probabilities are computed once
    before training, so no second model stays in memory.
    """
    started = time.perf_counter()
    model, tokenizer = checkpoints.load(student, config.hardware), checkpoints.load_tokenizer(student)
    right_rows, wrong_rows = read_rollouts(right, wrong, tokenizer, config.max_tokens)
    selected = select(model, tokenizer, wrong_rows, config)
    rows = make_pairs(right_rows, selected, config, seed, pair)
    steps = max(1, len(rows) // config.batch_size) * config.epochs
    arguments = trainer_arguments(config, out, steps, seed)
    pairs, lengths = pairs_dataset(tokenizer, rows, arguments)
    tokens_per_step = config.batch_size * sum(lengths) / len(rows)
    recorder = training.MetricsRecorder(out / "metrics.jsonl", steps, "Rollout DPO", tokens_per_step, METRICS)
    trainer = DPOTrainer(
        # Sharded, TRL scores with a second model; one that it loaded itself would choose LongRoPE's factors anew.
        model=model, ref_model=checkpoints.load(student, config.hardware) if arguments.fsdp_plugin_args else None,
        args=arguments, train_dataset=pairs, lengths=lengths, processing_class=tokenizer, callbacks=[recorder],
        micro_batch_size=micro_batch_size(config), fused_lm_head=config.hardware.liger,
    )
    # The policy changes in here: each step is one batch of pairs, their DPO loss and a gradient step.
    trainer.train(resume_from_checkpoint=checkpointing.resume_point(trainer.args))
    scored = sum(lengths)  # tokens, by the reference model
    if math.isfinite(config.max_student_nll):
        scored += sum(count_tokens(tokenizer, wrong_rows))  # by the student, to select
    seconds = time.perf_counter() - started
    return training.save_and_summarise(trainer, tokenizer, out, recorder, seconds, forward_tokens=scored)


def micro_batch_size(config: DPOConfig) -> int:
    """Pairs in one forward and backward pass: micro-batches of equal size make up each process's batch."""
    return math.gcd(training.per_process_batch(config.batch_size), config.hardware.micro_batch_size)


def trainer_arguments(config: DPOConfig, out: Path, steps: int, seed: int) -> trl.DPOConfig:
    """The stage's settings in TRL's names."""
    return training.keep_fp32_outputs_under_fsdp(trl.DPOConfig(
        **training.common_arguments(config, out, steps, seed), beta=config.beta,
        per_device_train_batch_size=training.per_process_batch(config.batch_size), adam_beta2=0.98,
        lr_scheduler_type="cosine", warmup_steps=max(1, steps // 10), save_steps=20, logging_steps=min(2, steps),
        max_length=None, precompute_ref_log_probs=True,
        # the reference model scores sixteen of its micro-batches at a time, sorted by length
        precompute_ref_batch_size=2 * micro_batch_size(config) * 16,
    ))


def read_rollouts(
    right: Path, wrong: Path, tokenizer: PreTrainedTokenizerFast, max_tokens: int
) -> tuple[list[dict], list[dict]]:
    """The right rollouts of one file and, of another, the wrong ones to the same questions; those of more than
    `max_tokens` tokens are left out (0: none are).
    """
    columns = ("id", "prompt", "completion", "tokens")
    right_rows = read_rows(right, columns)
    answered = {row["id"] for row in right_rows}
    sides = right_rows, [row for row in read_rows(wrong, columns) if row["id"] in answered]
    if max_tokens:
        sides = tuple(
            [row for row, count in zip(side, count_tokens(tokenizer, side), strict=True) if count <= max_tokens]
            for side in sides
        )
    return sides


def count_tokens(tokenizer: PreTrainedTokenizerFast, rows: Sequence[dict]) -> list[int]:
    """Tokens of each rollout with its prompt and its stop token."""
    return [len(document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows]
