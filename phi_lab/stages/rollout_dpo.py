"""Stage 3, Rollout DPO: right rollouts are preferred over wrong ones, which distillation would have thrown away.

The paper (section 3.3) pairs a right with a wrong rollout *of the teacher* for the same question and runs one epoch
of plain DPO

    loss = -log sigmoid( beta * (log pi(y+)/ref(y+) - log pi(y-)/ref(y-)) )

with the stage-2 model as reference. Both sides are off-policy for the student. Here the student's own rollouts are
paired, or single steps of them (`stages/preference_pairs.py`), and SFT's loss of the chosen side is added with the
weight `sft_weight`, as in arXiv 2404.19733: the margin alone may grow while both sides become less likely, and then
only small rates are borne. The paper's pairs with DPO's loss alone are a second arm beside it, `dpo-paper`. The stage's
rival is `train_on_chosen`: the same chosen sides without the rejected ones. dpo_trainer.py is the seam to TRL's
DPOTrainer, which computes the loss.

    phi-lab run --from dpo --to dpo --out runs/my-run
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import trl
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phi_lab.config.schema import DPOConfig, LanguageModelingConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import write_rows
from phi_lab.core.records import PreferencePair
from phi_lab.core.run_folder import DataFolder, StageFolder
from phi_lab.distill import shards
from phi_lab.model import checkpoints
from phi_lab.problems.problem import Problem
from phi_lab.stages import checkpointing, lm_trainer, preference_pairs, training
from phi_lab.stages.dpo_trainer import DPOTrainer, pairs_dataset
from phi_lab.stages.muon import muon
from phi_lab.stages.packing import one_per_row, pair_document
from phi_lab.stages.preference_pairs import Pair, filter_by_student_likelihood, pair_closest_length
from phi_lab.stages.training import TrainingResult

METRICS = (
    "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"
)


def train(
    student: Path, right: Path, wrong: Path, out: Path, config: DPOConfig, *, seed: int,
    questions: Sequence[Problem] = (), pair: Pair = pair_closest_length,
    select: Callable[..., list[dict]] = filter_by_student_likelihood,
) -> TrainingResult:
    """Train the model in `student` on pairs of the kind `config.pairs`; model and pairs are saved in `out`.

    right, wrong: files of the teacher's rollouts. questions: what the student is asked where the pairs are its own.
    `pair` pairs whole answers of either, `select` chooses among the teacher's wrong ones. Raises UserError for an
    unknown kind, and where there is no pair.
    """
    started = time.perf_counter()
    model, tokenizer = checkpoints.load(student, config.hardware), checkpoints.load_tokenizer(student)
    if config.pairs == "teacher":
        right_rows, wrong_rows = preference_pairs.read_rollouts(right, wrong, tokenizer, config.max_tokens)
        selected = select(model, tokenizer, wrong_rows, config)
        rows = preference_pairs.make_pairs(right_rows, selected, config, seed, pair)
        scored = wrong_rows if math.isfinite(config.max_student_nll) else []
        read = sum(preference_pairs.count_tokens(tokenizer, scored))
    else:
        rows, read = own_pairs(student, tokenizer, questions, out, config, seed, pair)
    return _fit(model, tokenizer, student, rows, out, config, seed, started, read)


def own_pairs(
    student: Path, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Problem], out: Path, config: DPOConfig,
    seed: int, pair: Pair,
) -> tuple[list[PreferencePair], int]:
    """Pairs from rollouts that the student samples, and how many tokens were read and sampled for them. The rollouts
    are saved in `out`; of several processes the first one samples.
    """
    if config.pairs not in ("student", "steps"):
        raise UserError(f"unknown pairs {config.pairs!r}: choose teacher, student or steps")
    arguments, folder = trainer_arguments(config, out, 1, seed), DataFolder(out)
    with arguments.main_process_first(local=False):
        if arguments.process_index == 0:
            preference_pairs.sample_student(student, questions, out, seed)
    rollouts = list(shards.rows(folder.rollouts, len(questions)))
    sampled = sum(preference_pairs.count_tokens(tokenizer, rollouts))
    if config.pairs == "steps":
        return preference_pairs.make_step_pairs(questions, rollouts, config, seed), sampled
    right, wrong = preference_pairs.read_rollouts(folder.right, folder.wrong, tokenizer, config.max_tokens)
    return preference_pairs.make_pairs(right, wrong, config, seed, pair), sampled


def train_on_pairs(
    student: Path, rows: Sequence[PreferencePair], out: Path, config: DPOConfig, *, seed: int
) -> TrainingResult:
    """Train the model in `student` on pairs that are there already; it is saved in `out/model`."""
    model, tokenizer = checkpoints.load(student, config.hardware), checkpoints.load_tokenizer(student)
    return _fit(model, tokenizer, student, rows, out, config, seed, time.perf_counter(), 0)


def train_on_chosen(
    student: Path, rows: Sequence[PreferencePair], out: Path, config: LanguageModelingConfig, *, seed: int,
    compute: float = 0.0,
) -> TrainingResult:
    """SFT of the model in `student` on the chosen sides of pairs, DPO's rival; what a pair's sides share has no loss.

    It takes `config.steps`, or with `compute` (`TrainingResult.compute`, tokens) as many steps as that pays for.
    """
    model, tokenizer = checkpoints.load(student, config.hardware), checkpoints.load_tokenizer(student)
    documents = [pair_document(tokenizer, row, "chosen") for row in rows]
    if compute:
        a_step = config.batch_size * sum(len(ids) for ids, _ in documents) / len(documents)
        config = replace(config, steps=max(1, round(compute / a_step)))
    return lm_trainer.fit(
        model, tokenizer, documents, [], out, config, pack=one_per_row, packed=False, seed=seed, title="SFT, chosen"
    )


def _fit(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, student: Path, rows: Sequence[PreferencePair],
    out: Path, config: DPOConfig, seed: int, started: float, read: int,
) -> TrainingResult:
    """DPO of `model`, that of the folder `student`, on pairs. Reference log-probabilities are computed once before
    training, so no second model stays in memory. read: tokens that the pairs have cost.
    """
    steps = max(1, len(rows) // config.batch_size) * config.epochs
    arguments = trainer_arguments(config, out, steps, seed)
    pairs, lengths = pairs_dataset(tokenizer, rows, arguments)
    if arguments.process_index == 0:
        write_rows(StageFolder(out).pairs, rows)
    tokens_per_step = config.batch_size * sum(lengths) / len(rows)
    recorder = training.MetricsRecorder(out / "metrics.jsonl", steps, "Rollout DPO", tokens_per_step, METRICS)
    trainer = DPOTrainer(
        # Sharded, TRL scores with a second model; one that it loaded itself would choose LongRoPE's factors anew.
        model=model, ref_model=checkpoints.load(student, config.hardware) if arguments.fsdp_plugin_args else None,
        args=arguments, train_dataset=pairs, lengths=lengths, processing_class=tokenizer, callbacks=[recorder],
        micro_batch_size=micro_batch_size(config), fused_lm_head=config.hardware.liger,
    )
    if config.muon:  # DPOTrainer's constructor does not take an optimizer class
        trainer.optimizer_cls_and_kwargs = (muon, {"lr": config.learning_rate, "weight_decay": 0.0})
    # The policy changes in here: each step is one batch of pairs, their DPO loss and a gradient step.
    trainer.train(resume_from_checkpoint=checkpointing.resume_point(trainer.args))
    seconds, scored = time.perf_counter() - started, sum(lengths)  # tokens, by the reference model
    return training.save_and_summarise(trainer, tokenizer, out, recorder, seconds, forward_tokens=read + scored)


def micro_batch_size(config: DPOConfig) -> int:
    """Pairs in one forward and backward pass: micro-batches of equal size make up each process's batch."""
    return math.gcd(training.per_process_batch(config.batch_size), config.hardware.micro_batch_size)


def trainer_arguments(config: DPOConfig, out: Path, steps: int, seed: int) -> trl.DPOConfig:
    """The stage's settings in TRL's names. A step of warm-up would have a rate of zero, and steps are few."""
    losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, config.sft_weight]} if config.sft_weight else {}
    return training.keep_fp32_outputs_under_fsdp(trl.DPOConfig(
        **training.common_arguments(config, out, steps, seed), **losses, beta=config.beta,
        per_device_train_batch_size=training.per_process_batch(config.batch_size), adam_beta2=0.98,
        lr_scheduler_type="cosine", warmup_steps=0, save_steps=20, logging_steps=min(2, steps),
        logging_first_step=True, max_length=None, precompute_ref_log_probs=True,
        # the reference model scores sixteen of its micro-batches at a time, sorted by length
        precompute_ref_batch_size=2 * micro_batch_size(config) * 16,
    ))
