"""The arm `grpo-coin` of finished chains with a toss for each answer, where the published one has a toss for each text.

    .venv/bin/python scripts/tossed_coin.py runs/ladder runs/tossed 11 12 13

Reads the chains' folders in the first, trains and measures in the second, keeps a row a chain in data/tossed_coin.jsonl
and writes the table that follows from them to docs/results.md. With the published coin equal answers of a group
share their reward, and rebalancing then pushes against the most frequent one (docs/log.md, 109). `grpo-coin` has the
other coin now; this goes with the chains when they have it, too.
"""

import shutil
import sys
from pathlib import Path

import torch

from phi_lab.core import stats
from phi_lab.core.code_state import code_digest
from phi_lab.core.files import read_rows, write_rows
from phi_lab.core.formatting import markdown_table
from phi_lab.core.page_parts import fill
from phi_lab.core.paths import ROOT
from phi_lab.core.run_folder import RunFolder
from phi_lab.model import checkpoints
from phi_lab.pipeline import controls
from phi_lab.pipeline.experiment import chain_config
from phi_lab.report import chain_rows
from phi_lab.report.contrasts import accuracy, points
from phi_lab.report.ladder_rows import read_ladder

ROWS = ROOT / "data" / "tossed_coin.jsonl"
PAGE = ROOT / "docs" / "results.md"
MARKS = ("<!-- tossed coin: scripts/tossed_coin.py -->\n", "\n<!-- end of tossed coin -->")
SHOWN = {"hard, T 0.6": ("hard", "sampled"), "hard, greedy": ("hard", "greedy"), "easy, T 0.6": ("easy", "sampled")}
ARMS = {"dpo": "Rollout DPO, the start", "grpo-coin": "a toss for each text", "grpo-tossed": "a toss for each answer",
        "grpo": "the verifier"}


def tossed(source: Path, folder: Path, seed: int) -> dict:
    """The row of one chain: its measurements as in data/chains.jsonl."""
    for part in ("data", "mid", "sft", "dpo", "grpo"):
        if not (folder / part).exists():
            shutil.copytree(source / part, folder / part)
    shutil.copy(source / "config.json", folder / "config.json")
    run = RunFolder(folder)
    controls.ARMS["grpo-tossed"] = controls.coin_reward  # under a name of its own
    controls.control("grpo-tossed", run, chain_config("lab"), seed)
    measurements = [row for row in read_ladder(run.ladder) if row["arm"] == "tossed"]
    return {"seed": seed, "name": "grpo-tossed", "code": code_digest(), "measurements": measurements,
            "model": checkpoints.fingerprint(run.stage("grpo", "tossed").model),
            "start": checkpoints.fingerprint(run.stage("dpo").model)}


def table(rows: list[dict], published: list[dict]) -> str:
    """Accuracies in percent chain by chain, and differences in points over these chains."""
    seeds = sorted(row["seed"] for row in rows)
    found = {(row["seed"], row["name"]): row for row in (*published, *rows)}
    lines = [["GRPO, by its reward", *(f"{title}: {', '.join(map(str, seeds))}" for title in SHOWN)]]
    for arm, words in ARMS.items():
        lines.append([words, *(", ".join(f"{100 * accuracy(found[seed, arm], *shown):.1f}" for seed in seeds)
                               for shown in SHOWN.values())])
    for one, other in (("grpo-tossed", "dpo"), ("grpo-tossed", "grpo-coin"), ("grpo", "grpo-tossed")):
        differences = (stats.paired_t(*([accuracy(found[seed, arm], *shown) for seed in seeds] for arm in (one, other)))
                       for shown in SHOWN.values())
        lines.append([f"{ARMS[one]} minus {ARMS[other]}", *map(points, differences)])
    return "\n".join(markdown_table(lines))


def main(arguments: list[str]) -> None:
    """Exits with a line on how it is used where seeds are missing."""
    if len(arguments) < 3:
        sys.exit("usage: tossed_coin.py CHAINS OUT SEED..., chains as `phi-lab experiment ladder` leaves them")
    torch.set_num_threads(1)
    chains, out, *seeds = arguments
    for seed in map(int, seeds):
        row = tossed(Path(chains) / f"seed-{seed}", Path(out) / f"seed-{seed}", seed)
        others = [one for one in read_rows(ROWS) if one["seed"] != seed] if ROWS.exists() else []
        write_rows(ROWS, [*others, row])
        print(seed, [(one["benchmark"], one["protocol"], one["accuracy"]) for one in row["measurements"]])
    PAGE.write_text(fill(PAGE, MARKS, table(read_rows(ROWS), chain_rows.published())), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
