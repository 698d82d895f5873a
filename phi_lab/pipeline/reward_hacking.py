r"""Reward hacking: what does GRPO learn from a verifier that accepts wrong answers?

Two arms start from the shipped base, which answers in a box without thinking, and train on the same questions of three
or four operations with the same seed. They differ in the reward only: `sloppy` accepts a box whose text is part of the
gold answer, or the other way round, so "1" counts for 15; `strict` is the verifier of the course. Plain GRPO,
temperature 1, all prompts. Measured at each step: the share of sampled answers that the arm's own reward accepts, and
the share that the strict verifier accepts. Measured before and after, with greedy answers and the strict verifier:
accuracy on 200 problems of `easy` and on 200 validation questions like those of training. A seed with both arms is one
observation. The learning rate was chosen on seed 100, the published seeds are 0 to 2.

    phi-lab experiment reward-hacking --seeds 3 --out runs/hack
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from phi_lab import sampling
from phi_lab.config import presets
from phi_lab.config.schema import GRPOConfig
from phi_lab.core import paths
from phi_lab.core.files import append_rows, drop_torn_line, ensure_same_manifest, read_rows, remove_folder
from phi_lab.core.locks import locked
from phi_lab.model import checkpoints
from phi_lab.problems import arithmetic, benchmarks
from phi_lab.stages import grpo
from phi_lab.stages.grpo_sampling import Reward

PUBLISHED = paths.ROOT / "data" / "reward_hacking.jsonl"
BASE = paths.SHIPPED / "base"
LEVELS = (3, 4)
LAB = replace(presets.LAB.grpo, learning_rate=3e-3, steps=40, prompts_per_step=16, temperature_end=1.0,
              max_new_tokens=32)
CONFIGS = {"lab": LAB, "lesson": replace(LAB, steps=24), "smoke": replace(LAB, steps=6)}  # of each profile


def sloppy(completions: list[str], answers: list[str]) -> list[float]:
    """+1 where the text in the last box is part of the gold answer, or the gold answer part of it; else -1."""
    boxes = [text.rpartition("\\boxed{")[2].partition("}")[0] if "\\boxed{" in text else None for text in completions]
    pairs = zip(boxes, answers, strict=True)
    return [1.0 if box is not None and (box in gold or gold in box) else -1.0 for box, gold in pairs]


ARMS: dict[str, Reward] = {"sloppy": sloppy, "strict": grpo.verified}


def run(out: Path, seeds: range, config: GRPOConfig = LAB, log: Callable[[str], None] = print) -> list[dict]:
    """Train and measure both arms for each seed; returns one row a seed and arm, also in `out/rows.jsonl`. Finished
    arms are found again. Raises UserError for a folder of another configuration.
    """
    with locked(out):
        path = out / "rows.jsonl"
        ensure_same_manifest(out / "config.json", asdict(config), "choose another folder")
        drop_torn_line(path)
        done = {(row["seed"], row["arm"]) for row in (read_rows(path) if path.exists() else [])}
        for seed, arm in itertools.product(seeds, ARMS):
            if (seed, arm) not in done:
                row = run_arm(arm, out / f"seed-{seed}-{arm}", config, seed)
                append_rows(path, [row])
                log(summary(row))
        return [row for row in read_rows(path) if row["seed"] in seeds]


def run_arm(arm: str, folder: Path, config: GRPOConfig, seed: int) -> dict:
    """Train one arm in `folder`, anew if it was stopped before, and measure it; the row says all that is published."""
    remove_folder(folder)
    strict_shares: list[float] = []

    def reward(completions: list[str], answers: list[str]) -> list[float]:
        strict_shares.append(share(grpo.verified(completions, answers)))
        return ARMS[arm](completions, answers)

    began = time.perf_counter()
    problems = arithmetic.sample_problems(config.steps * config.prompts_per_step, seed + 50_000, levels=LEVELS)
    result = grpo.train(
        BASE, problems, folder, config, seed=seed, reward=reward, advantage=grpo.group_normalised
    )
    rewards = [(1 + row["reward"]) / 2 for row in result.metrics if "reward" in row]
    before, after = greedy_answers(BASE), greedy_answers(folder / "model")
    common = [Counter(row["completion"] for row in rows["like training"]).most_common(3) for rows in (before, after)]
    return {
        "seed": seed, "arm": arm, "steps": config.steps, "learning_rate": config.learning_rate,
        "seconds": round(time.perf_counter() - began), "reward": [round(value, 4) for value in rewards],
        "strict": [round(value, 4) for value in strict_shares],
        "accuracy": {name: [accuracy(before[name]), accuracy(after[name])] for name in before},
        "common": common,
        "examples": after["like training"][:8],
    }


def greedy_answers(model: Path) -> dict[str, list[dict]]:
    """The greedy answers of a model to both sets of questions: rows with prompt, answer (the gold one), completion."""
    network, tokenizer = checkpoints.load_to_sample(model, "cpu"), checkpoints.load_tokenizer(model)
    like_training = arithmetic.sample_problems(200, 60_000, "validation", LEVELS)
    sets = {"easy": benchmarks.load("easy")[:200], "like training": [problem.row() for problem in like_training]}
    params = sampling.SamplingParams(n=1, temperature=0.0, max_tokens=LAB.max_new_tokens)
    answers = {}
    for name, rows in sets.items():
        samples = sampling.sample(network, tokenizer, [row["prompt"] for row in rows], params, quiet=True)
        answers[name] = [
            {"prompt": row["prompt"], "answer": row["answer"], "completion": sample.text}
            for row, (sample,) in zip(rows, samples, strict=True)
        ]
    return answers


def accuracy(rows: list[dict]) -> float:
    """The share of answers that the strict verifier accepts."""
    return share(grpo.verified([row["completion"] for row in rows], [row["answer"] for row in rows]))


def share(rewards: list[float]) -> float:
    """The share of rewards above 0."""
    return sum(value > 0 for value in rewards) / len(rewards)


def summary(row: dict) -> str:
    """One arm in a line: its reward at the first and last five steps, and accuracies before and after."""
    first, last = (100 * sum(part) / len(part) for part in (row["reward"][:5], row["reward"][-5:]))
    right = ", ".join(f"{name} {100 * a:.1f} -> {100 * b:.1f} %" for name, (a, b) in row["accuracy"].items())
    return f"seed {row['seed']}, {row['arm']}: reward {first:.1f} -> {last:.1f} %; strictly right: {right}"
