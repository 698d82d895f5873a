"""How fast is this computer at what the lab does? Ratios within one interleaved run, since machines are noisy.

phi-lab bench --json bench.json
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from phi_lab import benchmarks, chat, models, rollouts
from phi_lab.evaluate import peak_rss_mb
from phi_lab.files import write_json
from phi_lab.progress import Bar
from phi_lab.run import SHIPPED
from phi_lab.verify import verify_many

RUNS = 5


def interleaved(ours: Callable[[], float], theirs: Callable[[], float], bar: Bar) -> dict:
    """`RUNS` pairs of rates, one after the other; the ratio ours/theirs as median, lowest and highest."""
    ratios = []
    for _ in range(RUNS):
        ratios.append(ours() / theirs())
        bar.update(1)
    return {"ratio": median(ratios), "low": min(ratios), "high": max(ratios), "runs": RUNS}


def bench(path: Path | None) -> dict:
    """Measure, print and, with a path, write: rollouts against `model.generate`, matrix products, memory."""
    model, tokenizer = models.load(SHIPPED / "grpo"), models.load_tokenizer()
    prompts = [problem["prompt"] for problem in benchmarks.load("hard")[:16]]

    def tokens_a_second(engine: str) -> float:
        began = time.perf_counter()
        groups = rollouts.sample(
            model, tokenizer, prompts, samples=8, temperature=1.0, max_new_tokens=256, seed=0, engine=engine, quiet=True
        )
        return sum(len(one.ids) for group in groups for one in group) / (time.perf_counter() - began)

    def verdicts_a_second() -> float:
        pairs = [(chat.completion_text("47+38:7+8=15,4+3+1=8;85." * 3, "85"), "85")] * 20_000
        began = time.perf_counter()
        verify_many(pairs)
        return len(pairs) / (time.perf_counter() - began)

    def gflops() -> float:
        a = torch.randn(1024, 1024)
        began = time.perf_counter()
        for _ in range(20):
            a @ a
        return 20 * 2 * 1024**3 / (time.perf_counter() - began) / 1e9

    tokens_a_second("cpu")  # warm up
    with Bar(RUNS, "rollouts against model.generate", "pair") as bar:
        ratio = interleaved(lambda: tokens_a_second("cpu"), lambda: tokens_a_second("hf"), bar)
    figures = {
        "rollouts_vs_generate": ratio,
        "rollout_tokens_a_second": tokens_a_second("cpu"),
        "verdicts_a_second": verdicts_a_second(),
        "matmul_gflops": gflops(),
        "peak_rss_mb": peak_rss_mb(),
    }
    for name, value in figures.items():
        print(f"{name}: {value if isinstance(value, dict) else round(value, 1)}")
    if path:
        write_json(path, figures)
    return figures
