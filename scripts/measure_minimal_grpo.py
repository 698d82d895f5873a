"""Does the loop on one page learn as much as the stage behind TRL? `minimal_grpo.train` and `grpo.train` from the
shipped mid-trained model, on the same questions with the same settings, seed by seed; then `hard`, four answers a
problem at T 0.6, and the paired difference over problems.

    .venv/bin/python scripts/measure_minimal_grpo.py [SEEDS] [FOLDER]
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from phi_lab import sampling
from phi_lab.config import presets
from phi_lab.core import paths, stats
from phi_lab.model import checkpoints
from phi_lab.problems import arithmetic, benchmarks
from phi_lab.stages import grpo, minimal_grpo
from phi_lab.verify import verify_many

STEPS, PROMPTS, GROUP, RATE, LONGEST = 24, 16, 8, 3e-4, 384
START = paths.SHIPPED / "mid"
SETTINGS = replace(
    presets.LAB.grpo, steps=STEPS, prompts_per_step=PROMPTS, group_size=GROUP, learning_rate=RATE, muon=False,
    temperature_start=1.0, temperature_end=1.0, max_new_tokens=LONGEST,
)
PROBLEMS, SAMPLES = 500, 4


def by_hand(seed: int, out: Path) -> Path:
    """The model of the readable loop, saved in `out`."""
    model, tokenizer = checkpoints.load(START), checkpoints.load_tokenizer(START)
    minimal_grpo.train(
        model, tokenizer, questions(seed), steps=STEPS, prompts_per_step=PROMPTS, group_size=GROUP, learning_rate=RATE,
        max_new_tokens=LONGEST, seed=seed, on_step=lambda row: None,
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return out


def by_trl(seed: int, out: Path) -> Path:
    """The model of the stage, without its choice of prompts."""
    asked = questions(seed)
    return grpo.train(START, asked, out, SETTINGS, seed=seed, select=lambda *_: asked).model


def questions(seed: int) -> list:
    """As many as the steps ask for, of all levels."""
    return arithmetic.sample_problems(STEPS * PROMPTS, seed + 50_000, levels=arithmetic.LEVELS)


def right_shares(folder: Path) -> np.ndarray:
    """The share of right answers to each problem of `hard`."""
    problems = benchmarks.load("hard")[:PROBLEMS]
    model, tokenizer = checkpoints.load_to_sample(folder, "cpu"), checkpoints.load_tokenizer(folder)
    params = sampling.SamplingParams(n=SAMPLES, temperature=0.6, max_tokens=LONGEST, seed=0)
    groups = sampling.sample(model, tokenizer, [problem["prompt"] for problem in problems], params, quiet=True)
    pairs = [(one.text, problem["answer"]) for problem, group in zip(problems, groups, strict=True) for one in group]
    right = [verdict.verdict == "right" for verdict in verify_many(pairs)]
    return np.array(right, dtype=float).reshape(len(problems), SAMPLES).mean(1)


def main(seeds: int = 3, folder: str = "") -> None:
    """Print a line a seed, and one for all."""
    out = Path(folder or tempfile.mkdtemp())
    print(f"start: {100 * right_shares(START).mean():.1f} %", flush=True)
    ends = []
    for seed in range(seeds):
        mine, theirs = (right_shares(train(seed, out / f"{train.__name__}-{seed}")) for train in (by_hand, by_trl))
        t = stats.paired_t(mine, theirs)
        ends.append((mine.mean(), theirs.mean()))
        print(f"seed {seed}: by hand {100 * mine.mean():.1f} %, with TRL {100 * theirs.mean():.1f} %, difference "
              f"{100 * t.mean:+.1f} [{100 * t.low:+.1f}, {100 * t.high:+.1f}]", flush=True)
    if seeds > 1:
        t = stats.paired_t(*zip(*ends, strict=True))
        print(f"over seeds: {100 * t.mean:+.1f} [{100 * t.low:+.1f}, {100 * t.high:+.1f}]")


if __name__ == "__main__":
    main(*(convert(text) for convert, text in zip((int, str), sys.argv[1:], strict=False)))
