"""The arm `grpo-coin` of finished chains with a toss for each answer, where the published one has a toss for each text.

    .venv/bin/python scripts/tossed_coin.py runs/ladder runs/tossed 11 12 13

Reads the chains' folders in the first, trains and measures in the second, and adds a row a chain to
data/tossed_coin.jsonl. With the published coin equal answers of a group share their reward, and rebalancing then pushes
against the most frequent one (docs/log.md, 109); this one knows nothing at all.
"""

import random
import shutil
import sys
from pathlib import Path

import torch

from phi_lab.core.code_state import code_digest
from phi_lab.core.files import append_rows
from phi_lab.core.paths import ROOT
from phi_lab.core.run_folder import RunFolder
from phi_lab.model import checkpoints
from phi_lab.pipeline import controls
from phi_lab.pipeline.experiment import chain_config
from phi_lab.pipeline.run_data import grpo_problems
from phi_lab.report.ladder_rows import read_ladder
from phi_lab.stages import grpo
from phi_lab.stages.training import TrainingResult

ROWS = ROOT / "data" / "tossed_coin.jsonl"


def tossed_reward(rung: controls.Rung, out: Path) -> TrainingResult:
    """`controls.coin_reward`, but for the coin."""
    toss = random.Random(rung.seed)
    problems = grpo_problems(rung.run.data, rung.config.grpo.candidate_prompts, rung.seed)
    return grpo.train(rung.start, problems, out, rung.config.grpo, seed=rung.seed,
                      reward=lambda completions, answers: [toss.choice((1.0, -1.0)) for _ in completions])


def tossed(source: Path, folder: Path, seed: int) -> dict:
    """The row of one chain: its measurements as in data/chains.jsonl."""
    for part in ("data", "mid", "sft", "dpo", "grpo"):
        if not (folder / part).exists():
            shutil.copytree(source / part, folder / part)
    shutil.copy(source / "config.json", folder / "config.json")
    run = RunFolder(folder)
    controls.ARMS["grpo-tossed"] = tossed_reward
    controls.control("grpo-tossed", run, chain_config("lab"), seed)
    measurements = [row for row in read_ladder(run.ladder) if row["arm"] == "tossed"]
    return {"seed": seed, "name": "grpo-tossed", "code": code_digest(), "measurements": measurements,
            "model": checkpoints.fingerprint(run.stage("grpo", "tossed").model),
            "start": checkpoints.fingerprint(run.stage("dpo").model)}


def main(arguments: list[str]) -> None:
    """Exits with a line on how it is used where seeds are missing."""
    if len(arguments) < 3:
        sys.exit("usage: tossed_coin.py CHAINS OUT SEED..., chains as `phi-lab experiment ladder` leaves them")
    torch.set_num_threads(1)
    chains, out, *seeds = arguments
    for seed in map(int, seeds):
        row = tossed(Path(chains) / f"seed-{seed}", Path(out) / f"seed-{seed}", seed)
        append_rows(ROWS, [row])
        print(seed, [(one["benchmark"], one["protocol"], one["accuracy"]) for one in row["measurements"]])


if __name__ == "__main__":
    main(sys.argv[1:])
