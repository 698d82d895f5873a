"""Stage 0, distillation: questions -> teacher's rollouts -> verdicts -> filters -> training sets, and the funnel.

The paper (section 3, data) samples about eight rollouts a question, verifies final answers, trains on right ones and
keeps wrong ones for Rollout DPO. Here likewise: `rollouts/` holds everything that was sampled with its verdict
(`phi_lab.distill.shards`), `right.jsonl` what stages 1 and 2 learn from, `wrong.jsonl` what stage 3 learns against,
`funnel.json` what each filter removed and why (`phi_lab.distill.funnel`), `README.md` the card of the set.

    phi-lab distill --questions 1500 --out runs/my-run/data
    phi-lab distill --problems gsm8k --teacher endpoint --teacher-url http://localhost:8000/v1 --out runs/gsm8k
"""

import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from phi_lab.core.files import write_json
from phi_lab.distill.funnel import Funnel


def training_sets(rows: Iterable[dict], out: Path, funnel: Funnel | None = None, about: str = "") -> dict:
    """Write right.jsonl, wrong.jsonl, funnel.json and the card from verified rollouts; returns the funnel.

    `rows` is read once, a question's rows in a row; a file appears whole or not at all. `about`: how they came.
    """
    funnel, names = funnel or Funnel(), ("right.jsonl", "wrong.jsonl")
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        files = [
            stack.enter_context((out / f"{name}.part").open("w", encoding="utf-8", errors="backslashreplace"))
            for name in names
        ]
        for sets in funnel.sift(rows):
            for file, kept in zip(files, sets, strict=True):
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    for name in names:
        os.replace(out / f"{name}.part", out / name)
    report = funnel.report()
    (out / "README.md").write_text(card(report, about), encoding="utf-8")
    write_json(out / "funnel.json", report)
    return report


def card(report: dict, about: str) -> str:
    """What a reader of the set wants to know, from its funnel."""
    kept = report["steps"][-1]["kept"]
    lines = [
        "# Distilled reasoning data", "", about, "",
        f"{report['rollouts']:,} rollouts to {report['questions']:,} questions; {kept:,} right ones are in right.jsonl,"
        " different wrong ones, for Rollout DPO, in wrong.jsonl.", "",
        "| filter | removed | left | why |", "|---|---|---|---|",
        *(f"| {step['name']} | {step['removed']:,} | {step['kept']:,} | {step['why']} |" for step in report["steps"]),
        "", "| verdict | rollouts |", "|---|---|",
        *(f"| {verdict} | {count:,} |" for verdict, count in report["verdicts"].items()),
        *[f"| turned down by the rules, accepted by the judge | {n:,} |" for n in [report["rescued"]] if n],
        "", "| domain | kept |", "|---|---|", *(f"| {name} | {n:,} |" for name, n in report["domains"].items()), "",
    ]
    if report["contaminated"]:
        lines += ["Questions that a benchmark holds, left out:", ""]
        lines += [f'- {row["id"]}: shares "{row["shared"]}"' for row in report["contaminated"]] + [""]
    return "\n".join(lines)
