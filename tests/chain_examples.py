"""Made-up chains: rows like those of `phi-lab experiment ladder`, whose accuracies a test chooses."""

import random

BENCHMARKS = ("easy", "hard", "transfer")
STARTS = {"base": "none", "mid": "base", "sft": "mid", "dpo": "sft", "grpo": "dpo"}
LEVELS = {
    "base": 0.0, "mid": 0.4, "mid-control": 0.0, "sft": 0.5, "sft-control": 0.45, "sft-limo": 0.0, "sft-all": 0.0,
    "sft-limo-best": 0.01, "sft-short": 0.0, "dpo": 0.5, "dpo-control": 0.5, "dpo-paper": 0.48, "grpo": 0.6,
    "grpo-rft": 0.6, "grpo-sft": 0.52, "grpo-coin": 0.3,
}


def measurement(name, benchmark, protocol, share):
    """A row of ladder.json with the accuracy `share`."""
    stage, _, arm = name.partition("-")
    heat = {"sampled": 0.6, "cool": 0.3, "greedy": 0.0, "pass": 0.6}[protocol]
    k = 8 if protocol == "pass" else 4 if protocol == "sampled" else 1
    n, correct = 500 * k, round(500 * k * share)
    return {
        "stage": stage, "arm": arm or "main", "benchmark": benchmark, "protocol": protocol, "n": n,
        "correct": correct, "accuracy": share, "ci_low": share - 0.01, "ci_high": share + 0.01, "temperature": heat,
        "k": k, "pass_at_k": share if protocol == "pass" else None,
        "parts": {"level 3": [correct, n], "fractions": [correct // 2, n], "first half": [correct, n]},
        "seconds": 1.0, "train_tokens": 1, "forward_tokens": 0, "peak_rss_mb": 1, "seed": 0,
    }


def row(seed, name, share, **other):
    """A row of chains.jsonl: controls have no cooler sampling and no pass@k."""
    protocols = ("sampled", "greedy") if "-" in name else ("sampled", "cool", "greedy", "pass")
    return {
        "seed": seed, "name": name, "stage": name.partition("-")[0], "arm": name.partition("-")[2] or "main",
        "commit": "c0ffee", "dirty": False, "code": "c0de", "config": "d1ce", "seconds": 1.0, "compute": 1,
        "model": f"{name}-{seed}" if name != "base" else "ba5e", "teacher": None if name == "base" else "7ea",
        "start": f"{STARTS.get(name, 'base')}-{seed}" if name not in ("base", "mid") else "ba5e",
        "measurements": [
            measurement(name, benchmark, protocol, share) for benchmark in BENCHMARKS
            for protocol in protocols if benchmark == "hard" or protocol in ("sampled", "greedy")
        ],
    } | other


def chain_rows(seeds, levels=LEVELS, spread=0.01, **other):
    """A chain for each seed, in which the arms end at `levels` and 0.1, give or take `spread`."""
    rng = random.Random(0)
    return [row(seed, name, level + 0.1 + rng.gauss(0, spread), **other)
            for seed in seeds for name, level in levels.items()]
