"""How fast and how large is distillation at a million rollouts? Made-up traces of about 300 characters, eight a
question, go through everything but a teacher: journals, verdicts, shards, filters, near-duplicates.

    .venv/bin/python scripts/measure_distill.py [ROLLOUTS] [FOLDER]
"""

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from phi_lab.distill import shards, training_sets
from phi_lab.distill.decontamination import BenchmarkIndex
from phi_lab.distill.funnel import Funnel, Rules
from phi_lab.evaluate.ladder import peak_rss_mb
from phi_lab.problems.problem import Problem

WORDS = "train river apple total nine speed blue market square angle seven price line coin water path half tree".split()
SAMPLES = 8


def questions(count: int) -> Iterator[Problem]:
    """Different questions in natural text, with whole numbers for answers."""
    for number in range(count):
        chance = random.Random(number)
        prompt = f"{' '.join(chance.choices(WORDS, k=16))} {number}?"
        yield Problem("text", "text", 0, prompt, prompt, str(number))


def teacher(pending_shards, deliver) -> None:
    """Three in four right, one in sixteen a copy of the one before."""
    for shard in pending_shards:
        for key in list(shard.pending):
            chance = random.Random(shard.first * SAMPLES + key[0] * SAMPLES + key[1] - (key[1] % 16 == 3))
            gold = shard.problems[key[0]].answer
            work = " ".join(f"{chance.choice(WORDS)} {chance.randrange(1000)}." for _ in range(27))
            answer = gold if chance.random() < 0.75 else str(chance.randrange(10**6))
            deliver(shard, key, (f"<think>{work}</think>\\boxed{{{answer}}}", "stop", 100))


def main(rollouts: int, folder: Path) -> None:
    """Run it and print seconds, rates and the most memory."""
    began = time.perf_counter()
    shards.collect_rollouts(teacher, questions(rollouts // SAMPLES), folder / "rollouts", name="made up",
                            samples=SAMPLES, temperature=1.0, seed=0)
    rolled = time.perf_counter()
    index = BenchmarkIndex(("held", problem.prompt) for problem in questions(500))
    funnel = Funnel(Rules(near_duplicate_threshold=0.9), index)
    report = training_sets.write_training_sets(shards.rows(folder / "rollouts"), folder, funnel)
    ended = time.perf_counter()
    size = sum(path.stat().st_size for path in (folder / "rollouts").iterdir())
    print(f"{rollouts:,} rollouts: journals, verdicts and shards {rollouts / (rolled - began):,.0f} a second, "
          f"the whole funnel {rollouts / (ended - rolled):,.0f} a second, {size / rollouts:.0f} bytes each, "
          f"peak memory {peak_rss_mb():,} MB")
    print({step["name"]: step["removed"] for step in report["steps"]})
    some = [{**row, "domain": "arithmetic"} for row in islice(shards.rows(folder / "rollouts"), 100_000)]
    began = time.perf_counter()
    for _ in Funnel().filter(some):
        pass
    print(f"the cheap filters alone {len(some) / (time.perf_counter() - began):,.0f} a second")
    began = time.perf_counter()
    for _ in Funnel(Rules(near_duplicate_threshold=0.9)).filter(some):
        pass
    print(f"with near-duplicates among answers {len(some) / (time.perf_counter() - began):,.0f} a second")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as scratch:
        main(count, Path(sys.argv[2] if len(sys.argv) > 2 else scratch))
