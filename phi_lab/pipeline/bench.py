"""The speed of this computer at what the lab does: rollouts, training and verification, each as a ratio to a baseline.

Machines are noisy; ours and the baseline are measured in turn, so that both meet the same noise.

The baseline ("theirs") is what a user gets without this package: `model.generate`, TRL's trainers as they come (packing
and data handling included), a bare PyTorch loop, math-verify. Both sides get the same model, rows and prompts, and of
Rollout DPO DPO's loss alone. TRL's trainers have AdamW, their default, as ours has for Rollout DPO here; the bare loop
has Muon, as our SFT and GRPO have.

    phi-lab bench --json bench.json
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from statistics import median

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from phi_lab import sampling
from phi_lab.config import presets
from phi_lab.core.files import read_rows, write_json
from phi_lab.core.memory import peak_rss_mb
from phi_lab.core.paths import DISTILLED, SHIPPED
from phi_lab.core.progress import Bar
from phi_lab.distill import training_sets
from phi_lab.model import chat, checkpoints
from phi_lab.pipeline import machine
from phi_lab.problems import arithmetic, benchmarks
from phi_lab.stages import grpo, lm_trainer, packing, preference_pairs, rollout_dpo
from phi_lab.stages.muon import Muon
from phi_lab.stages.training import TrainingResult
from phi_lab.verify import reference, verify, worker

RUNS = 3
STEPS = 36  # of our SFT in one measurement; two thirds as many of Rollout DPO, a twelfth of GRPO
TRL_DEFAULT_ROWS: dict[str, int] = {}  # TRL's own packing: eight rows of 1,024 tokens
PROMPTS = (32, 256)  # prompts with eight samples each, and with one each
DECADES = (4, 40, 400)  # prompts with eight samples each, and training steps: how time grows with their number


class Workloads:
    """The same model, rows and prompts for both sides. Methods return useful tokens, pairs, steps or texts a second."""

    def __init__(self, folder: Path):
        self.folder, self.tokenizer = folder, checkpoints.load_tokenizer()
        training_sets.write_training_sets(read_rows(DISTILLED / "rollouts.jsonl.gz")[:8000], folder)
        self.right = read_rows(folder / "right.jsonl")
        self.documents = [packing.document(self.tokenizer, row["prompt"], row["completion"]) for row in self.right]
        self.hard = benchmarks.load("hard")
        self.quiet = {
            "output_dir": str(folder / "trl"), "save_strategy": "no", "logging_strategy": "no", "report_to": "none",
            "disable_tqdm": True, "use_cpu": not torch.cuda.is_available(), "bf16": False,
            "activation_checkpointing": False, "learning_rate": 1e-5,
        }

    def rollouts(self, engine: str, count: int, samples: int) -> float:
        """Sampled tokens a second, for `count` prompts."""
        prompts = [problem["prompt"] for problem in self.hard[:count]]
        began = time.perf_counter()
        params = sampling.SamplingParams(n=samples, temperature=1.0, max_tokens=256)
        groups = sampling.sample(
            checkpoints.load(SHIPPED / "sft"), self.tokenizer, prompts, params, engine=engine, quiet=True
        )
        return sum(len(sample.ids) for group in groups for sample in group) / (time.perf_counter() - began)

    def roofline(self) -> float:
        """Tokens a second if rollouts were matrix products alone, at the speed of large ones."""
        weights = sum(weight.numel() for weight in checkpoints.load(SHIPPED / "sft").parameters())
        return machine.matrix_speed() / (2 * weights)

    def sft(self) -> float:
        """Training tokens a second."""
        result = self._fit(STEPS)
        return result.train_tokens / result.seconds

    def _fit(self, steps: int) -> TrainingResult:
        config = replace(presets.LAB.mid, steps=steps, epochs=0, replay_share=0.0, eval_steps=0)
        return _silent(lambda: lm_trainer.fit(
            checkpoints.load(SHIPPED / "mid"), self.tokenizer, self.documents, [], self.folder / "sft", config,
            pack=packing.pack_best_fit, packed=True, seed=0, title="ours",
        ))

    def growth(self, tick: Callable[[int], object]) -> dict[str, float]:
        """The exponents with which time grows with rollouts and with training steps, over two decades; 1 is linear.
        `tick` is called after each of the measurements.
        """
        rollouts, training = [], []
        for n in DECADES:
            rollouts.append(_timed(lambda n=n: self.rollouts("cpu", n, 8)))
            tick(1)
        for n in DECADES:
            training.append(self._fit(n).seconds)
            tick(1)
        return {"rollouts_exponent": exponent(DECADES, rollouts), "training_exponent": exponent(DECADES, training)}

    def sft_trl(self, steps: int, **rows: int) -> float:
        """Training tokens a second of TRL, with its packing."""
        text = [{"prompt": chat.prompt_text(row["prompt"]), "completion": row["completion"]} for row in self.right]
        arguments = SFTConfig(**self.quiet, max_steps=steps, packing=True, **rows)
        trainer = _silent(lambda: SFTTrainer(
            checkpoints.load(SHIPPED / "mid"), arguments, train_dataset=Dataset.from_list(text),
            processing_class=self.tokenizer,
        ))
        return steps * arguments.per_device_train_batch_size * arguments.max_length / _seconds(trainer)

    def sft_bare(self) -> float:
        """The same packed rows and optimizer in the shortest loop."""
        config, model, pad = presets.LAB.mid, checkpoints.load(SHIPPED / "mid").train(), self.tokenizer.pad_token_id
        packed = packing.pack_best_fit([len(ids) for ids, _ in self.documents], config.row_length)
        packed = packed[: STEPS * config.batch_size]
        rows, together = packing.rows_dataset(self.documents, packed, pad, config.row_length), packing.collate(pad)
        optimizer = Muon(model, 1e-4, 0.01)
        began = time.perf_counter()
        for first in range(0, len(rows), config.batch_size):
            loss = model(**together([rows[i] for i in range(first, first + config.batch_size)]), use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return len(rows) * config.row_length / (time.perf_counter() - began)

    def dpo(self) -> float:
        """Pairs a second, without what TRL does not have: the selection of wrong rollouts, SFT's loss, Muon."""
        config = replace(presets.LAB.dpo, pairs="teacher", max_pairs=STEPS * 2 // 3 * presets.LAB.dpo.batch_size,
                         epochs=1, sft_weight=0.0, muon=False)
        right, wrong = self.folder / "right.jsonl", self.folder / "wrong.jsonl"
        return config.max_pairs / _silent(lambda: rollout_dpo.train(
            SHIPPED / "sft", right, wrong, self.folder / "dpo", config, seed=0, select=lambda _, __, wrong, ___: wrong
        )).seconds

    def dpo_trl(self) -> float:
        """Pairs a second of TRL."""
        config = replace(presets.LAB.dpo, max_pairs=STEPS // 6 * presets.LAB.dpo.batch_size)
        rows = preference_pairs.make_pairs(self.right, read_rows(self.folder / "wrong.jsonl"), config, 0)
        text = [{**row, "prompt": chat.prompt_text(row["prompt"])} for row in rows]
        arguments = DPOConfig(**self.quiet, max_steps=STEPS // 6, per_device_train_batch_size=config.batch_size)
        seconds = _timed(lambda: _silent(lambda: _plain(DPOTrainer(  # which reads the pairs, as ours does
            checkpoints.load(SHIPPED / "sft"), args=arguments, train_dataset=Dataset.from_list(text),
            processing_class=self.tokenizer,
        )).train()))
        return config.max_pairs / seconds

    def grpo(self) -> float:
        """Steps a second."""
        config, problems = replace(presets.LAB.grpo, steps=STEPS // 12), arithmetic.sample_problems(200, 1)
        return config.steps / _silent(lambda: grpo.train(
            SHIPPED / "dpo", problems, self.folder / "grpo", config, seed=0
        )).seconds

    def grpo_trl(self) -> float:
        """Steps a second of TRL."""
        config, problems = presets.LAB.grpo, arithmetic.sample_problems(200, 1)
        rows = [{"prompt": chat.prompt_text(problem.prompt), "answer": problem.answer} for problem in problems]
        arguments = GRPOConfig(
            **self.quiet, max_steps=1, num_generations=config.group_size, temperature=config.temperature_start,
            per_device_train_batch_size=config.prompts_per_step * config.group_size, beta=0.0,
            max_completion_length=config.max_new_tokens,
        )
        trainer = _silent(lambda: GRPOTrainer(
            checkpoints.load(SHIPPED / "dpo"), args=arguments,
            reward_funcs=lambda completions, answer, **_: grpo.verified(completions, answer),
            train_dataset=Dataset.from_list(rows), processing_class=self.tokenizer,
        ))
        return arguments.max_steps / _seconds(trainer)

    def texts(self, long: bool) -> list[tuple[str, str]]:
        """(completion, gold) pairs; with `long`, thousands of characters in prose and formulas precede the answer."""
        work = "So we get $\\frac{38}{24}=\\frac{19}{12}$, and then $x^2-5x+6=(x-2)(x-3)$ by the steps above. " * 60
        return [
            (f"{work if long else 'That makes '}The answer is \\boxed{{{n}}}.", str(n))
            for n in range(100 if long else 300)
        ]

    def verify(self, long: bool) -> float:
        """Texts a second."""
        pairs = self.texts(long)
        return len(pairs) / _timed(lambda: [verify(text, gold) for text, gold in pairs])

    def math_verify(self, long: bool) -> float:
        """Texts a second of math-verify, in a process whose start does not count."""
        first, *pairs = map(list, self.texts(long))
        pool = worker.Pool(reference.__name__, spare=False)
        try:
            pool.ask(first, reference.DEADLINE)
            return len(pairs) / _timed(lambda: [pool.ask(pair, reference.DEADLINE) for pair in pairs])
        finally:
            pool.close()


def bench(path: Path | None) -> dict:
    """Measure and print every figure, and write them to `path`. Takes about twelve minutes on two cores."""
    print("bench: about twelve minutes on two cores; nothing of it is kept before its end", flush=True)
    total = 10 * RUNS + 2 * len(DECADES)
    with tempfile.TemporaryDirectory() as folder, Bar(total, "bench", "step") as bar:
        lab, (few, many) = Workloads(Path(folder)), PROMPTS
        growth = lab.growth(bar.update)
        lab.dpo()
        lab.grpo()
        peak = peak_rss_mb()  # of ours; the baselines run later
        mid = presets.LAB.mid
        same_rows = {"per_device_train_batch_size": mid.batch_size, "max_length": mid.row_length}

        def ratio(ours: Callable[[], float], theirs: Callable[[], float]) -> dict:
            """`RUNS` pairs of rates in turn: ours/theirs as median, lowest and highest, and the rates' medians."""
            pairs = []
            for _ in range(RUNS):
                pairs.append((ours(), theirs()))
                bar.update(1)
            ratios = [our_rate / their_rate for our_rate, their_rate in pairs]
            return {"ratio": median(ratios), "low": min(ratios), "high": max(ratios), "runs": RUNS,
                    "ours": median(pair[0] for pair in pairs), "theirs": median(pair[1] for pair in pairs)}

        figures = {
            "rollouts_vs_generate": ratio(lambda: lab.rollouts("cpu", few, 8), lambda: lab.rollouts("hf", few, 8)),
            "rollouts_vs_generate_single": ratio(
                lambda: lab.rollouts("cpu", many, 1), lambda: lab.rollouts("hf", many, 1)
            ),
            "rollouts_vs_roofline": ratio(lambda: lab.rollouts("cpu", few, 8), lab.roofline),
            "sft_vs_trl_packing": ratio(lab.sft, lambda: lab.sft_trl(2, **TRL_DEFAULT_ROWS)),
            "sft_vs_trl_packing_same_rows": ratio(lab.sft, lambda: lab.sft_trl(4, **same_rows)),
            "sft_vs_bare_loop": ratio(lab.sft, lab.sft_bare),
            "dpo_vs_trl": ratio(lab.dpo, lab.dpo_trl),
            "grpo_step_vs_trl": ratio(lab.grpo, lab.grpo_trl),
            "verify_vs_math_verify_long": ratio(lambda: lab.verify(True), lambda: lab.math_verify(True)),
            "verify_vs_math_verify_short": ratio(lambda: lab.verify(False), lambda: lab.math_verify(False)),
        } | growth
    rates = {name: value["ours"] for name, value in figures.items() if isinstance(value, dict)}
    figures |= {
        "ladder_seconds": _ladder_seconds(rates),
        "matmul_gflops": machine.matrix_speed() / 1e9, "peak_rss_mb": peak,
    }
    line = "{ratio:.2f} [{low:.2f}, {high:.2f}], {ours:,.1f} against {theirs:,.1f} a second"
    for name, value in figures.items():
        print(f"{name}: {line.format(**value) if isinstance(value, dict) else f'{value:,.2f}'}")
    if path:
        write_json(path, figures)
    return figures


def _ladder_seconds(rates: dict[str, float]) -> float:
    """Seconds of the lab's training at these rates, with all steps of mid-training; ladder.json has those of a run."""
    lab, tokens = presets.LAB, 100  # of a mean answer with its question
    trained = lab.mid.steps * lab.mid.batch_size * lab.mid.row_length + lab.sft.steps * lab.sft.batch_size * tokens
    asked = lab.dpo.questions * 8 * tokens  # by the student, for its pairs
    return (trained / rates["sft_vs_bare_loop"] + lab.dpo.max_pairs * lab.dpo.epochs / rates["dpo_vs_trl"]
            + lab.grpo.steps / rates["grpo_step_vs_trl"] + asked / rates["rollouts_vs_generate"])


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log(seconds) over log(size), by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _silent(work: Callable[[], object]):
    """The result of `work` without its output: its progress bars would mix with the benchmark's."""
    with redirect_stderr(StringIO()), redirect_stdout(StringIO()):
        return work()


def _plain(trainer):
    """The same trainer without the callback that prints metrics."""
    trainer.remove_callback(PrinterCallback)
    return trainer


def _seconds(trainer) -> float:
    return _timed(lambda: _silent(_plain(trainer).train))
