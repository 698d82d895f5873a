"""A run, the chain of stages: distil, mid-train, fine-tune, Rollout DPO, GRPO, with a measurement after each.

A run is one folder (`core/run_folder.py`): config.json (everything needed to repeat it), data/, one folder a stage,
evals/, ladder.json, ten.json and report.html. Finished steps are never repeated, so a stopped run continues with the
same command. The `lab` profile climbs from the shipped base; `smoke` starts each stage from the shipped checkpoint
before it, so that even a two-minute DPO or GRPO has prompts that are sometimes answered right and sometimes wrong. Such
a start is measured as well (rows of the arm "shipped" in ladder.json): the stage's gain is the difference to that.

    phi-lab run --scale cpu --profile lab --seed 0 --out runs/my-run
"""

import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from phi_lab import __version__
from phi_lab.config import presets
from phi_lab.config.schema import RunConfig, global_batch_size, read_config
from phi_lab.core.code_state import code_state
from phi_lab.core.errors import UserError
from phi_lab.core.files import ensure_same_manifest, write_json
from phi_lab.core.locks import belongs_to_a_process, locked
from phi_lab.core.run_folder import RunFolder
from phi_lab.model import checkpoints, shapes
from phi_lab.pipeline import launch
from phi_lab.pipeline.arms import run_paper_dpo
from phi_lab.pipeline.machine import matrix_speed
from phi_lab.pipeline.measure import measure
from phi_lab.pipeline.plan import cpu_warning, require_memory
from phi_lab.pipeline.run_data import import_dataset, read_set
from phi_lab.pipeline.stage_runner import run_stage
from phi_lab.problems import sources
from phi_lab.report import expectation, report

DISK_MB = 300  # a lab run leaves about 100 MB; its trainers need as much again while they work
# At a GPU scale that trains all weights in float32; an adapter takes less. Mid-training holds three checkpoints of 12
# bytes, a weight and Adam's two moments (the best, the last and the one being written), and the model that it saves, 4.
# GRPO: the models of the three stages before it, two such checkpoints, and its own model.
BYTES_PER_WEIGHT = 40
SMALL_FOR_CPU = 100e6  # weights of a model that a CPU trains at a GPU scale without a word
PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")  # whose versions config.json names


def run_chain(
    run: RunFolder, *, scale_name: str = "cpu", profile: str = "lab", seed: int = 0, start: str = "mid",
    stop: str = "grpo", data: Path | None = None, model: str | None = None, launcher: Sequence[str] | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Run the stages from `start` to `stop` and measure each; returns the path of the report. `data`: as `source` in
    `import_dataset`. `model`: what a GPU scale starts from, instead of Phi-4-mini from the hub. `launcher`: as in
    `run_stage`; None starts a process for each GPU at a scale that shards the model.

    Raises UserError for unknown names, a folder that belongs to another configuration or in which another process
    works, a missing checkpoint, a full disk, and GPUs that are too few or too many for what trains on them.
    """
    stages = presets.stage_range(start, stop)
    config = presets.run_config(scale_name, profile)
    launcher = launch.default_launcher(config) if launcher is None else launcher
    processes = launch.count(launcher)
    config = resolve_and_check(config, model, data or run.data.imported.exists(), processes, log)
    _check_stages(stages, config, processes)
    with locked(run.path):
        if data:
            read_set(data)  # before there is a run of it
        open_run(run, config, seed)
        if data:
            import_dataset(data, run)
        began = time.perf_counter()
        for stage in dict.fromkeys(("base", *stages)):
            if stage in stages:
                run_stage(stage, run, config, seed, log, launcher)
            measure(stage, run, config, seed, log)
            if stage == "dpo" and config.dpo.pairs != "teacher":
                run_paper_dpo(run, config, seed, log)
        page = report.write_report(run.path)
        if line := expectation.compare_with_chains(run):
            log(line)
        log(f"{page} written after {(time.perf_counter() - began) / 60:.1f} minutes")
        return page


def _check_stages(stages: Sequence[str], config: RunConfig, processes: int | None) -> None:
    """Raises UserError for stages that this configuration, or this number of processes, cannot train."""
    if stages[0] == "base" and config.scale != "cpu":
        raise UserError(f"the scale {config.scale} starts from a finished base: --from mid")
    if stages[0] == "base" and config.profile == "smoke":
        raise UserError("the smoke profile starts from shipped checkpoints: use --profile lab with --from base")
    for stage in stages:
        if processes and stage != "base" and (batch := global_batch_size(config, stage)) % processes:
            raise UserError(f"{stage}: {batch} a step cannot be divided among {processes} processes")
    if "base" in stages or ("dpo" in stages and config.dpo.pairs != "teacher"):  # which no launcher trains
        launch.require_one_gpu()


def resolve_and_check(
    config: RunConfig, model: str | None, has_data: bool, processes: int | None, log: Callable[[str], None] = print
) -> RunConfig:
    """The configuration of a run with the model that a GPU scale starts from, before anything is loaded. processes:
    how many train together; None: not known.

    A large model without a GPU is told with the hours that it takes. Raises UserError for more processes than GPUs, a
    model at the scale cpu, a missing one or one without a chat template, a GPU scale without a distilled set, and too
    little memory.
    """
    launch.require_gpus(processes or 1)
    if config.scale == "cpu":
        if model:
            raise UserError("the scale cpu has its own base: --model goes with --scale lora, qlora or full")
        return config
    if not has_data:
        raise UserError(
            f"the scale {config.scale} trains on a distilled set: --data SET, made by "
            + config.distillation.command(model or config.model)
        )
    config = replace(config, model=model or config.model)
    if os.environ.get("PHI_LAB_LEAVE_OUT_GATED"):
        config = _without_gated_benchmarks(config)
    base = checkpoints.resolve_model(config.model)
    model_config = shapes.load_config(base)
    if torch.cuda.is_available():
        if checkpoints.half_precision() == "float16":
            config = presets.without_bfloat16(config)
        if processes:
            require_memory(config, model_config, processes, torch.cuda.get_device_properties(0).total_memory)
        return config
    if shapes.count_parameters(base) > SMALL_FOR_CPU:
        log(cpu_warning(config, model_config, psutil.virtual_memory().available, matrix_speed()))
    return presets.without_gpu(config, "cpu" if model_config.model_type == "phi3" else "hf")


def _without_gated_benchmarks(config: RunConfig) -> RunConfig:
    gated = {name for name, dataset in sources.NAMED.items() if dataset.gated}
    kept = tuple("" if name in gated else name for name in config.evaluation.benchmarks)
    return replace(config, evaluation=replace(config.evaluation, benchmarks=kept))


def open_run(run: RunFolder, config: RunConfig, seed: int) -> None:
    """Create the run folder with its config.json. Raises UserError where it belongs to another configuration or seed,
    holds other things, or where the disk is too full.
    """
    manifest, out = {"config": config.row(), "seed": seed}, run.path
    if run.config.exists():
        ensure_same_manifest(run.config, manifest, f"choose another --out, or delete {out}", read_config)
        return
    if out.is_file():
        raise UserError(f"{out} is a file: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    if not all(belongs_to_a_process(path.name) for path in out.iterdir()):
        raise UserError(f"{out} is not empty and has no config.json: choose another --out")
    needed_mb = DISK_MB
    if config.scale != "cpu":
        needed_mb += BYTES_PER_WEIGHT * shapes.count_parameters(checkpoints.resolve_model(config.model)) >> 20
    if shutil.disk_usage(out).free < needed_mb << 20:
        raise UserError(f"less than {needed_mb:,} MB free for {out}: make room or choose another --out")
    code = code_state()
    write_json(run.config, {
        "scale": config.scale, "profile": config.profile, **manifest, "phi_lab": __version__,
        "git_commit": code["commit"], "dirty": code["dirty"], "code": code["code"], "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES}, "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    })

