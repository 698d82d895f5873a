"""Record a run of a real model on a processor for notebook 07: what each stage took and changed, one row each.

    phi-lab distill --problems SOLUTIONS.jsonl --teacher traces --answer-column gold --questions 1000 \
        --tokenizer runs/smollm2 --out runs/gsm8k        # from example_model_solutions.jsonl of grade-school-math
    phi-lab run --scale lora --profile smoke --model runs/smollm2 --data runs/gsm8k --leave-out-gated --out runs/laptop
    python scripts/record_laptop_run.py runs/laptop      # writes data/smollm2/stages.jsonl
"""

import argparse
from pathlib import Path

from phi_lab.config.schema import STAGES
from phi_lab.core.files import read_json, read_rows, write_rows
from phi_lab.core.paths import DATA
from phi_lab.core.run_folder import RunFolder
from phi_lab.report.ladder_rows import protocol, read_ladder

SHOWN = ("loss", "eval_loss", "reward", "rewards/margins")  # of the last logged step that has them


def stage_row(run: RunFolder, stage: str) -> dict:
    """What a stage took, what it last logged, its share right at T 0.6, and its greedy answer to the first question."""
    measured = next(row for row in read_ladder(run.ladder)
                    if (row["stage"], row["benchmark"], protocol(row)) == (stage, "easy", "sampled"))
    greedy = next(row for row in read_rows(run.evals.answers(stage, "easy")) if row["temperature"] == 0)
    metrics = read_rows(run.stage(stage).metrics) if run.stage(stage).metrics.exists() else []
    logged = {name: row[name] for row in metrics for name in SHOWN if name in row}
    losses = {row["step"]: row["eval_loss"] for row in metrics if "eval_loss" in row}
    config, report = read_json(run.config), run.path / "report.html"  # the run's first file and its last
    return {
        "stage": stage, "seconds": round(measured["seconds"]), "train_tokens": measured["train_tokens"],
        "forward_tokens": measured["forward_tokens"], "peak_rss_mb": measured["peak_rss_mb"], "logged": logged,
        "eval_losses": losses, "minutes_of_the_run": round((report.stat().st_mtime - run.config.stat().st_mtime) / 60),
        "right": measured["correct"], "of": measured["n"], "question": greedy["id"], "answer": greedy["completion"],
        "verdict": greedy["verdict"], "commit": config["git_commit"], "dirty": config["dirty"],
        "versions": config["versions"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Record a run of a real model on a processor for notebook 07.")
    parser.add_argument("run", type=Path, help="folder of a finished phi-lab run")
    run = RunFolder(parser.parse_args().run)
    target = DATA / "smollm2" / "stages.jsonl"
    target.parent.mkdir(exist_ok=True)
    write_rows(target, [stage_row(run, stage) for stage in STAGES])
    print(target)
