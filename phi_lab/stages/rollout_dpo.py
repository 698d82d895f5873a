"""Stage 3, Rollout DPO: right rollouts preferred over wrong ones, the wrong ones that distillation would have thrown
away.

The paper (section 3.3) pairs a right with a wrong rollout *of the teacher* for the same question and runs one epoch
of plain DPO

    loss = -log sigmoid( beta * (log pi(y+)/ref(y+) - log pi(y-)/ref(y-)) )

with the stage-2 model as reference. Both sides are off-policy for the student; the second arm, `own`, pairs the
student's own rollouts instead. Which wrong rollouts to take is not known, and here it decides: most of the teacher's
mistakes are slips that the student would never make, nine nats away from its own answers, and pairs of them lower its
accuracy, since the right answers lose probability with them (docs/log.md). So `select_plausible` keeps the wrong
rollouts that the student itself might write, and each is paired with the right one closest in length, so that length is
not what the pair teaches. Watch both log-probabilities fall while the margin grows: that is how DPO moves.

    phi-lab run --from dpo --to dpo --out runs/my-run
"""

import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
import trl
from datasets import Dataset, load_from_disk
from transformers import PreTrainedModel, PreTrainedTokenizerFast, PrinterCallback

from phi_lab.config.schema import DPOConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.model import chat, checkpoints
from phi_lab.stages import language_modeling as lm
from phi_lab.stages.training import (
    Recorder,
    Result,
    backward_in_microbatches,
    hardware_arguments,
    keep_fp32_outputs_under_fsdp,
    per_process_batch,
    preflight_longest_batch,
    resume_point,
    save_and_summarise,
)

# pair(right, wrong, count, rng) -> up to `count` (chosen, rejected) for one question
Pair = Callable[[Sequence[dict], Sequence[dict], int, random.Random], list[tuple[dict, dict]]]
SORTED = 16  # times as many pairs as the reference scores at once are sorted by length
KEPT = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected")


def pair_closest_length(
    right: Sequence[dict], wrong: Sequence[dict], count: int, rng: random.Random
) -> list[tuple[dict, dict]]:
    """Pairs of one question with the smallest difference in tokens, nobody used twice."""
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
    """What the model thinks of each rollout: log pi(completion and its stop token | prompt) at temperature 1, nats."""
    documents = [lm.document(tokenizer, row["prompt"], row["completion"]) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: len(documents[index][0]))
    together, found = lm.collate(tokenizer.pad_token_id), [0.0] * len(rows)
    for first in range(0, len(order), 64):
        some = order[first : first + 64]
        batch = together(list(lm.rows_dataset(documents, [[index] for index in some], 0, None)))
        labels = batch.pop("labels")[:, 1:].to(model.device)
        with torch.no_grad():
            logits = model(**{name: value.to(model.device) for name, value in batch.items()}).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        for index, loss in zip(some, losses.sum(1).tolist(), strict=True):
            found[index] = -loss
    return found


def filter_by_student_likelihood(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, wrong: Sequence[dict], config: DPOConfig
) -> list[dict]:
    """The wrong rollouts that the model itself writes at least once in exp(`config.max_student_nll`) samples; infinite: all
    of them, and the model is not asked.
    """
    if math.isinf(config.max_student_nll):
        return list(wrong)
    found = log_probabilities(model, tokenizer, wrong)
    return [row for row, value in zip(wrong, found, strict=True) if value >= -config.max_student_nll]


def make_pairs(
    tokenizer: PreTrainedTokenizerFast, right: list[dict], wrong: list[dict], config: DPOConfig, seed: int, pair: Pair
) -> list[dict]:
    """`prompt`, `chosen`, `rejected` rows, TRL's own columns, from rollouts of the same questions; shuffled.

    Raises UserError when no question has both a right and a wrong rollout.
    """
    rng = random.Random(seed)
    sides: dict[str, tuple[list, list]] = defaultdict(lambda: ([], []))
    for side, rows in enumerate((right, wrong)):
        for row in rows:
            sides[row["id"]][side].append(row)
    rows = []
    for good, bad in sides.values():
        for chosen, rejected in pair(good, bad, config.pairs_per_question, rng) if good and bad else []:
            prompt = chat.render_prompt(tokenizer, chosen["prompt"])
            rows.append({"prompt": prompt, "chosen": chosen["completion"], "rejected": rejected["completion"]})
    if not rows:
        raise UserError(
            "no question has both a right and a plausible wrong rollout: distil more questions, or raise `plausible`"
        )
    rng.shuffle(rows)
    return rows[: config.max_pairs]


def train(
    student: Path,
    right: Path,
    wrong: Path,
    out: Path,
    config: DPOConfig,
    *,
    seed: int,
    pair: Pair = pair_closest_length,
    select: Callable[..., list[dict]] = filter_by_student_likelihood,
) -> Result:
    """Train the model in `student` on pairs from two files of rollouts; saved in `out/model`.

    `select` chooses wrong rollouts, `pair` the right ones for them. Reference log-probabilities are computed once
    before training, so no second model stays in memory.
    """
    columns, started = ("id", "prompt", "completion", "tokens"), time.perf_counter()
    model, tokenizer = checkpoints.load(student, config.hardware), checkpoints.load_tokenizer(student)
    rows = read_rows(right, columns)
    answered = {row["id"] for row in rows}
    mistakes = [row for row in read_rows(wrong, columns) if row["id"] in answered]
    if config.max_tokens:
        rows, mistakes = (
            [row for row, count in zip(side, _tokens(tokenizer, side), strict=True) if count <= config.max_tokens]
            for side in (rows, mistakes)
        )
    rows = make_pairs(tokenizer, rows, select(model, tokenizer, mistakes, config), config, seed, pair)
    steps = max(1, len(rows) // config.batch_size) * config.epochs
    mine = per_process_batch(config.batch_size)
    together = math.gcd(mine, config.hardware.micro_batch_size)  # pairs in one pass; passes of equal size make up the batch
    arguments = trl.DPOConfig(
        output_dir=str(out / "trainer"), seed=seed, data_seed=seed, max_steps=steps, beta=config.beta,
        per_device_train_batch_size=mine, learning_rate=config.learning_rate, lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 10), max_grad_norm=1.0, adam_beta2=0.98, precompute_ref_log_probs=True,
        precompute_ref_batch_size=2 * together * SORTED, max_length=None, save_strategy="steps", save_steps=20,
        save_total_limit=1, logging_steps=min(2, steps), **hardware_arguments(config.hardware),
    )
    ids = {f"{side}_ids": _ids(tokenizer, [row[side] for row in rows]) for side in ("prompt", "chosen", "rejected")}
    for side in ("chosen_ids", "rejected_ids"):
        ids[side] = [one + [tokenizer.eos_token_id] for one in ids[side]]
    lengths = [2 * len(prompt) + len(good) + len(bad) for prompt, good, bad in zip(*ids.values(), strict=True)]
    recorder = Recorder(out / "metrics.jsonl", steps, "Rollout DPO", config.batch_size * sum(lengths) / len(rows), KEPT)
    keep_fp32_outputs_under_fsdp(arguments)
    with arguments.main_process_first(local=False):  # TRL keeps the reference's log-probabilities beside a set on disk
        folder = out / "trainer" / "pairs"
        if arguments.process_index == 0:
            Dataset.from_dict(ids).save_to_disk(folder)
        pairs = load_from_disk(folder)
    trainer = _Trainer(
        model=model,
        # sharded, TRL scores with a second model; one that it loads itself would choose LongRoPE's factors anew
        ref_model=checkpoints.load(student, config.hardware) if arguments.fsdp_plugin_args else None,
        args=arguments,
        train_dataset=pairs,
        processing_class=tokenizer,
        callbacks=[recorder],
        rows=together,
        fused=config.hardware.liger,
        longest=sorted(range(len(pairs)), key=lambda index: -lengths[index])[:together],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=resume_point(out))
    scored = sum(lengths)  # by the reference, and to select
    if math.isfinite(config.max_student_nll):
        scored += sum(_tokens(tokenizer, mistakes))
    return save_and_summarise(trainer, tokenizer, out, recorder, time.perf_counter() - started, forward_tokens=scored)


def _tokens(tokenizer: PreTrainedTokenizerFast, rows: Sequence[dict]) -> list[int]:
    """Of each rollout with its question and its stop token."""
    asked = _ids(tokenizer, [chat.render_prompt(tokenizer, row["prompt"]) for row in rows])
    said = _ids(tokenizer, [row["completion"] for row in rows])
    return [len(question) + len(answer) + 1 for question, answer in zip(asked, said, strict=True)]


def _ids(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """All at once, which is twice as fast."""
    return tokenizer(texts, add_special_tokens=False).input_ids


def by_length(
    batch: dict[str, torch.Tensor], rows: int, once: bool
) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """The pairs of TRL's batch, shortest first, `rows` at a time and cut after their last token: (their places, they).

    batch: chosen answers (pairs, width) above the rejected ones, and numbers (pairs,). once: a pair is as long as its
    question and both answers (`question_once`); else as the longer of its two rows.
    """
    pairs = len(batch["input_ids"]) // 2
    widths = batch["attention_mask"].sum(1).view(2, pairs)
    lengths = widths[0] + batch["completion_mask"][pairs:].sum(1) if once else widths.amax(0)
    for some in lengths.argsort(stable=True).split(rows):
        both, width = torch.cat([some, some + pairs]), int(widths[:, some].max())
        yield some, {name: value[both, :width] if value.dim() > 1 else value[some] for name, value in batch.items()}


def shared_prefix_logprobs(
    model: PreTrainedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    labels: torch.Tensor,
    fused_lm_head: bool,
    **rest,
) -> SimpleNamespace:
    """What TRL's model returns, by rows of a question, its chosen and its rejected answer, of which neither answer sees
    the other (prefix sharing, arXiv 2410.20305). All logits at once, where TRL's head goes through a vocabulary in
    chunks: on a small one that takes longer.

    input_ids, attention_mask, labels: (2 x pairs, width), chosen above rejected, padded on the right, -100 where a
    token is not scored. Each result: (2 x pairs, width - 1), zero there.
    """
    pairs, width = len(input_ids) // 2, input_ids.shape[1]
    scored = labels != lm.IGNORE
    asked = scored[:pairs].int().argmax(1, keepdim=True)  # tokens of each question
    good, bad = (attention_mask.sum(1, keepdim=True) - asked.repeat(2, 1)).split(pairs)
    place = torch.arange(int((asked + good + bad).max()), device=input_ids.device)[None]
    part = sum(place >= edge for edge in (asked, asked + good, asked + good + bad)).to(torch.int8)
    there = torch.where(part == 2, place - good, place).clamp(max=width - 1)  # the place in the answer's own row
    ids = torch.where(part == 2, input_ids[pairs:].gather(1, there), input_ids[:pairs].gather(1, there))
    seen = (place[..., None] >= place[:, None]) & ((part[:, None] == 0) | (part[:, None] == part[..., None]))
    output = model(input_ids=ids, position_ids=there, attention_mask=seen[:, None], **rest)

    back = place[:, : width - 1].repeat(2 * pairs, 1)
    back[pairs:] += torch.where(back[pairs:] < asked, 0, good)
    back = back.clamp(max=place.shape[1] - 1)

    def own(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """(pairs, any) -> the numbers at `index` of the answers' own rows, (2 x pairs, width - 1)."""
        both = values.gather(1, torch.cat(index.split(pairs), 1))
        return torch.cat(both.split(width - 1, 1)) * scored[:, 1:]

    logits = output.logits.float()
    every = logits.log_softmax(-1)
    said = own(every.flatten(1), back * logits.shape[-1] + input_ids[:, 1:])
    with torch.no_grad():  # TRL's metrics
        entropy, mean, top = (
            own(values, back) for values in (-(every.exp() * every).sum(-1), logits.mean(-1), every.amax(-1))
        )
    return SimpleNamespace(
        log_probs=said, entropy=entropy, mean_logits=mean, is_top1=said >= top, aux_loss=output.get("aux_loss")
    )


class _Trainer(trl.DPOTrainer):
    """DPOTrainer that sends pairs of like length through together, so that few positions only pad, reads a question
    once where logits may be held whole, and meets its longest pairs first.
    """

    def __init__(self, *, rows: int, fused: bool, longest: list[int], **rest):
        """rows: pairs in one forward and backward pass; fused: TRL's head; longest: places of pairs, to rehearse."""
        self.rows, self.fused, self.longest = rows, fused, longest  # first: the reference scores in here
        super().__init__(**rest)
        self.ref_model = None  # it has scored all pairs

    def _prepare_dataset(self, dataset, *_):
        """As it is: its ids are there."""
        return dataset

    def _headed(self, model):
        """What TRL calls as the model, and gets log-probabilities from."""
        return model if self.fused else partial(shared_prefix_logprobs, model)

    def compute_ref_log_probs(self, model, inputs):
        """The same log-probabilities, (pairs,) of the chosen and of the rejected answers."""
        found, places = [], []
        for some, part in by_length(inputs, 2 * self.rows, not self.fused):
            found.append(super().compute_ref_log_probs(self._headed(model), part))
            places.append(some)
        back = torch.cat(places).argsort()
        return tuple(torch.cat(side)[back] for side in zip(*found, strict=True))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The same loss and gradient, a few pairs at a time."""
        whole, headed = super().compute_loss, self._headed(model)
        if self.longest and self.optimizer.state:
            worst = self._prepare_inputs(self.data_collator([self.train_dataset[place] for place in self.longest]))
            preflight_longest_batch(self, model, lambda: whole(headed, worst), f"the longest {len(self.longest)} pairs at once")
            self.longest = []
        pairs, parts = len(inputs["input_ids"]) // 2, by_length(inputs, self.rows, not self.fused)
        return backward_in_microbatches(
            list(parts), lambda part: whole(headed, part[1]) * len(part[0]) / pairs, self.accelerator.backward
        )
