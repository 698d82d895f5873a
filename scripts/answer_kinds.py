"""How the arms of `mid_training` answer: of each model's answers to a benchmark, how many open a thought, are never
finished, or are terse (with the results of the columns alone), how many of the terse ones are right, and how often the
first result is, whatever becomes of it.

    .venv/bin/python scripts/answer_kinds.py runs/mid_training

Reads the answers in the experiment's folder. Writes the counts to data/experiments/mid_training_answers.jsonl, and the
table that follows from them to docs/results.md. Counted are the answers whose accuracies are in the experiment's rows:
greedy ones, and at T = 0.6 the first four to a problem of `hard` and the only one to a problem of `easy`.
"""

import re
import sys
from pathlib import Path

from phi_lab.core.files import read_rows, write_rows
from phi_lab.core.formatting import markdown_table
from phi_lab.core.page_parts import fill
from phi_lab.core.paths import ROOT
from phi_lab.experiments import mid_training
from phi_lab.problems import benchmarks, worked_solutions

COUNTS = ROOT / "data" / "experiments" / "mid_training_answers.jsonl"
PAGE = ROOT / "docs" / "results.md"
MARKS = ("<!-- answers of mid_training: scripts/answer_kinds.py -->\n", "\n<!-- end of answers of mid_training -->")
SAMPLES = {"hard": 4, "easy": 1}
HEADS = {"thoughts": "thought", "unfinished": "unfinished", "terse": "terse", "terse_right": "terse and right"}
SHOWN = {"hard": HEADS, "easy": {**HEADS, "first_right": "first result right"}}
RESULT = re.compile(r";(\d+)|=(\d+)\.")  # after columns: 47+38:7+8=15,4+3+1=8;85. and 3+4=7.


def first_right(row: dict, gold: str) -> bool:
    """Whether the first result in an answer's thought is `gold`, to a problem of one operation; of an answer without a
    thought, whether it is right.
    """
    if "<think>" not in row["completion"]:
        return row["verdict"] == "right"
    found = RESULT.search(row["completion"])
    return found is not None and gold in found.groups()


def kinds(answers: list[dict]) -> dict[str, int]:
    """Counts over answers with `completion` and `verdict`; terse is one with a thought and without columns."""
    thoughts = [row for row in answers if "<think>" in row["completion"]]
    terse = [row for row in thoughts if not worked_solutions.shows_columns(row["completion"])]
    return {
        "answers": len(answers), "right": sum(row["verdict"] == "right" for row in answers), "thoughts": len(thoughts),
        "unfinished": sum(row["verdict"] == "unfinished" for row in answers),
        "terse": len(terse), "terse_right": sum(row["verdict"] == "right" for row in terse),
    }


def count(folder: Path) -> list[dict]:
    """A row for each seed, arm, benchmark and protocol ("greedy", "sampled") of an experiment's folder; of `easy`, with
    problems of one operation, also how often the first result is right.
    """
    gold = {problem["id"]: problem["answer"] for problem in benchmarks.load("easy")}
    found = []
    for path in sorted(folder.glob("seed-*/evals/*.*.jsonl")):
        seed, (arm, benchmark), answers = int(path.parts[-3][len("seed-"):]), path.stem.split("."), read_rows(path)
        for protocol in ("greedy", "sampled"):
            chosen = [row for row in answers if (row["temperature"] == 0.0) == (protocol == "greedy")
                      and row["sample"] < SAMPLES[benchmark]]
            found.append({"seed": seed, "name": arm, "benchmark": benchmark, "protocol": protocol, **kinds(chosen)})
            if benchmark == "easy":
                found[-1]["first_right"] = sum(first_right(row, gold[row["id"]]) for row in chosen)
    return found


def table(rows: list[dict]) -> str:
    """Shares at T = 0.6 in percent, over all seeds, for each arm and benchmark."""
    lines = [["arm", *(f"{benchmark}: {head}" for benchmark, heads in SHOWN.items() for head in heads.values())]]
    for arm in mid_training.ARMS:
        line = [f"`{arm}`"]
        for benchmark, heads in SHOWN.items():
            mine = [row for row in rows
                    if (row["name"], row["benchmark"], row["protocol"]) == (arm, benchmark, "sampled")]
            answers = sum(row["answers"] for row in mine)
            line += [f"{100 * sum(row[name] for row in mine) / answers:.1f}" for name in heads]
        lines.append(line)
    return "\n".join(markdown_table(lines))


def main(arguments: list[str]) -> None:
    """Count and write. Exits with a line on how it is used where no folder of answers is named."""
    counted = count(Path(arguments[0])) if len(arguments) == 1 else []
    if not counted:
        sys.exit("usage: answer_kinds.py FOLDER, where phi-lab experiment mid_training has written its answers")
    write_rows(COUNTS, counted)
    PAGE.write_text(fill(PAGE, MARKS, table(counted)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
