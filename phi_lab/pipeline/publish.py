"""Publish a run into data/, where this repository ships it: a checkpoint a stage, the distilled rollouts, their cards.

Base and teacher are copied only from a run that trained them; a run that began with the shipped ones leaves them and
their cards as they are. Beside published chains only the median one of them may be shipped (`publication.py`).

    phi-lab run --out runs/ship && phi-lab publish runs/ship             # the stages; with `--from base` all of it
"""

import hashlib
import math
import shutil
from pathlib import Path

from safetensors import safe_open

from phi_lab.config.schema import STAGES, read_config
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_json, write_rows
from phi_lab.core.formatting import markdown_table, percent
from phi_lab.core.records import LadderRow, Rollout
from phi_lab.core.run_folder import RunFolder
from phi_lab.distill import shards
from phi_lab.model import checkpoints
from phi_lab.pipeline import publication
from phi_lab.pipeline.export import accuracy_table
from phi_lab.problems.benchmarks import NAMES
from phi_lab.report.chain_rows import published
from phi_lab.report.ladder_rows import read_ladder

LIMIT_MB = 30


def publish(run: RunFolder) -> None:
    """Copy the models and rollouts of a finished run into data/, and say what of the publication does not belong to it
    yet. Raises UserError for a smoke run, for one that lacks a model, and for one that is not the median chain of the
    published ones, or of other code, settings, base or teacher than they.
    """
    ladder, config = read_ladder(run.ladder), read_config(run.config)
    if config["profile"] != "lab":
        raise UserError(f"{run.path} is a {config['profile']} run: publish a lab run")
    sources = {paths.SHIPPED / stage: run.stage(stage).model for stage in STAGES[1:]}
    option = "--from base " if run.stage("base").model.is_dir() else ""
    if option:
        sources |= {paths.SHIPPED / "base": run.stage("base").model, paths.TEACHER: run.teacher.model}
    for source in sources.values():
        if not (source / "model.safetensors").is_file():
            raise UserError(f"{source} has no model.safetensors: finish `phi-lab run {option}--out {run.path}` first")
    chain_rows, made_by = published(), publication.source(run)
    publication.require_same_source(run, chain_rows)
    rollouts = list(shards.rows(run.data.rollouts))
    command = f"`phi-lab run {option}--seed {config['seed']} --out RUN` and `phi-lab publish RUN`"
    for target, source in sources.items():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.bin", "training_args*"))
        (target / "README.md").write_text(_model_card(target, ladder, config, rollouts, command))
    models = {stage: checkpoints.fingerprint(paths.SHIPPED / stage) for stage in STAGES[1:]}
    write_json(paths.SHIPPED / publication.MARK, {**made_by, "models": models})
    write_rows(paths.DISTILLED / "rollouts.jsonl.gz", rollouts)
    write_rows(paths.DISTILLED / "validation_rollouts.jsonl.gz", shards.rows(run.data.validation_rollouts))
    (paths.DISTILLED / "README.md").write_text(_data_card(read_json(run.data.funnel), config))
    total = sum(path.stat().st_size for path in paths.DATA.rglob("*") if path.is_file()) / 2**20
    print(f"data/ holds {total:.1f} MB of at most {LIMIT_MB}")
    for line in publication.published_disagreements(chain_rows) if chain_rows else []:
        print(f"not yet of one code state: {line}")


def _model_card(
    target: Path, ladder: list[LadderRow], config: dict, rollouts: list[Rollout], command: str
) -> str:
    stage = target.name
    digest = hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest()
    with safe_open(target / "model.safetensors", "pt") as weights:
        parameters = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())
    lines = [
        f"# phi-nano, {stage}", "",
        f"Phi3ForCausalLM with {parameters:,} parameters, of phi-lab's small world. It knows columns of digits.", "",
        f"- made by: {command}",
        f"- seed {config['seed']}, torch {config['versions']['torch']}, trl {config['versions']['trl']}",
        f"- sha256 of model.safetensors: `{digest}`", "",
    ]
    if stage == "teacher":
        hard = [row for row in rollouts if row["level"] >= 3]
        right = percent(sum(row["verdict"] == "right" for row in hard) / len(hard))
        lines.append(f"Right on {right} of {len(hard):,} rollouts to questions of the train split with three or four "
                     f"operations, temperature {hard[0]['temperature']}.")
    else:
        rows = [row for row in ladder if (row["stage"], row["arm"]) == (stage, "main") and row["pass_at_k"] is None]
        lines += accuracy_table(rows, {name: name for name in NAMES})
    return "\n".join(lines) + "\n"


def _data_card(funnel: dict, config: dict) -> str:
    steps = [[step["name"], f"{step['kept']:,}", f"{step['removed']:,}", step["why"]] for step in funnel["steps"]]
    lines = [
        "# Distilled rollouts", "",
        f"{funnel['rollouts']:,} rollouts of the shipped teacher to {funnel['questions']:,} questions of the train "
        f"split, seed {config['seed']}, temperature {config['config']['distillation']['temperature']}, with verdicts.",
        "Made by the run that made the checkpoints; the validation rollouts answer questions of the validation split.",
        "", *markdown_table([["filter", "kept", "removed", "why"], *steps]),
    ]
    return "\n".join(lines) + "\n"
