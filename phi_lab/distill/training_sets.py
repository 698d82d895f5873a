"""Stage 0, distillation: questions -> teacher's rollouts -> verdicts -> filters -> training sets, and the funnel.

The paper (section 3, data) samples about eight rollouts a question, verifies final answers, trains on right ones and
keeps wrong ones for Rollout DPO. Here likewise: `rollouts/` holds everything that was sampled with its verdict
(`shards.py`), `right.jsonl` what stages 1 and 2 learn from, `wrong.jsonl` what stage 3 learns against, `funnel.json`
what each filter removed and why (`filters.py`), `README.md` the dataset card.

    phi-lab distill --questions 1500 --out runs/my-run/data
    phi-lab distill --problems gsm8k --teacher endpoint --teacher-url http://localhost:8000/v1 --out runs/gsm8k
"""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from phi_lab.core.errors import UserError
from phi_lab.core.files import atomic_write, replace_file, write_json
from phi_lab.core.formatting import markdown_table
from phi_lab.core.marks import fingerprints
from phi_lab.core.records import Rollout
from phi_lab.core.run_folder import DataFolder
from phi_lab.distill.funnel import Funnel


def write_training_sets(
    rollouts: Iterable[Rollout], out: Path, funnel: Funnel | None = None, about: str = ""
) -> dict:
    """Write right.jsonl, wrong.jsonl, funnel.json and the card from verified rollouts; returns the funnel's report.

    `rollouts` is read once; those of a question have to be consecutive. Each file appears whole or not at all.
    `about`: how they were sampled, for the card. Raises UserError where a folder is in a file's place.
    """
    funnel, names = funnel or Funnel(), ("right.jsonl", "wrong.jsonl")
    out.mkdir(parents=True, exist_ok=True)
    for name in (*names, "README.md", "sets.json", "funnel.json"):
        if (out / name).is_dir():  # found now, while the old set is whole
            raise UserError(f"{out / name} is a folder, where a file of the set has to be: remove it")
    with ExitStack() as stack:
        files = [
            stack.enter_context((out / f"{name}.part").open("w", encoding="utf-8", errors="backslashreplace"))
            for name in names
        ]
        for sets in funnel.filter(rollouts):
            for file, kept in zip(files, sets, strict=True):
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
    data, report = DataFolder(out), funnel.report()
    data.funnel.unlink(missing_ok=True)  # of a set with other filters: the mark goes first and comes last
    for name in names:
        replace_file(out / f"{name}.part", out / name)
    atomic_write(out / "README.md", dataset_card(report, about).encode("utf-8", "backslashreplace"))
    write_mark(data)
    write_json(data.funnel, report)
    return report


def write_mark(data: DataFolder) -> None:
    """Write down fingerprints of the sets in a folder."""
    sets = [path for path in (data.right, data.wrong, data.validation) if path.exists()]
    write_json(data.mark, {"files": fingerprints(data.path, sets)})


def dataset_card(report: dict, about: str) -> str:
    """The Markdown card of a distilled set, from its funnel's report."""
    steps = [(step["name"], f"{step['removed']:,}", f"{step['kept']:,}", step["why"]) for step in report["steps"]]
    verdicts = [(verdict, f"{count:,}") for verdict, count in report["verdicts"].items()]
    if report["rescued"]:
        verdicts.append(("rejected by the rules, accepted by the judge", f"{report['rescued']:,}"))
    domains = [(name, f"{count:,}") for name, count in report["domains"].items()]
    lines = [
        "# Distilled reasoning data", "", about, "",
        f"{report['rollouts']:,} rollouts to {report['questions']:,} questions. right.jsonl holds"
        f" {report['steps'][-1]['kept']:,} right ones, wrong.jsonl different wrong ones for Rollout DPO.", "",
        *markdown_table([("filter", "removed", "left", "why"), *steps]), "",
        *markdown_table([("verdict", "rollouts"), *verdicts]), "",
        *markdown_table([("domain", "right rollouts"), *domains]), "",
    ]
    if report["contaminated"]:
        lines += ["Questions that were removed because a benchmark contains them:", ""]
        lines += [f'- {row["id"]}: shares "{row["shared"]}"' for row in report["contaminated"]] + [""]
    return "\n".join(lines)
