"""Tokens a second, share of the GPU's peak (MFU) and memory of Phi-4-mini in training: random weights of the published
shape, made-up documents, through the stages' own `fit`. One case after the other, each in a process of its own.

    .venv/bin/python scripts/measure_gpu.py OUT.jsonl [CASE ...]     (full-2048, lora-16384, qlora-2048-nano ...)

A case is full, lora or qlora, the length of a row, and any of: rowsN (N rows in one pass; else 8,192 tokens), kept
(activations, instead of computing them again), sdpa (attention of torch's own), plain (no Liger), nano (phi-nano),
fsdp (FSDP2 with one process), packed (documents of a fourth of a row), profile (the last step's kernels, to stderr).
MFU counts what the model needs (`gpu_costs.flops`), not what checkpointing repeats; `planned_gb` is the plan's memory.
"""

import faulthandler
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, masking_utils

from phi_lab.config import presets, schema
from phi_lab.model import checkpoints, shapes
from phi_lab.pipeline import gpu_costs
from phi_lab.stages import lm_trainer, packing, training

if torch.__version__ < "2.13":  # to compile the mask of a long row takes these minutes (pytorch issue 182060)
    create = masking_utils.create_block_mask
    masking_utils.create_block_mask = lambda **words: create(**{**words, "_compile": False})

PEAK = gpu_costs.CARDS["h200"].flops  # an H100 has as many
TOKENS = 32768  # a step
STEPS = 6  # the last three are timed: the first compiles, and before the second the longest batch is rehearsed
LIMIT = int(os.environ.get("SECONDS_A_CASE", "110"))  # of one case, before it says where it is and ends
hardware_arguments = training.hardware_arguments  # before `sharded_alone` takes its place
FAST = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


def random_model(name: str, folder: Path) -> Path:
    """A folder with random weights in bfloat16 and the small world's tokenizer, made once."""
    if not (folder / "config.json").exists():
        torch.set_default_dtype(torch.bfloat16)
        torch.manual_seed(0)
        with checkpoints.device():
            model = AutoModelForCausalLM.from_config(shapes.phi_config(name))
        torch.set_default_dtype(torch.float32)
        checkpoints.save(model, checkpoints.load_tokenizer(), folder)
    return folder


def sharded_alone(hardware: schema.HardwareConfig) -> dict:
    """`training.hardware_arguments` as several processes have them."""
    world_size, training.world_size = training.world_size, lambda: 2
    try:
        return hardware_arguments(hardware)
    finally:
        training.world_size = world_size


def measure(case: str, where: Path) -> dict:
    """One case: {"case", "tokens_per_second", "mfu", "peak_gb", "planned_gb", "seconds_a_step", "steps", ...}."""
    adapter, length, *rest = case.split("-")
    length, name = int(length), "phi-nano" if "nano" in rest else "phi-4-mini"
    rows = next((int(one[4:]) for one in rest if one.startswith("rows")), max(1, 8192 // length))
    base = {"full": presets.FULL, "lora": presets.LORA, "qlora": presets.QLORA}[adapter].mid.hardware
    hardware = replace(
        base, attention="sdpa" if "sdpa" in rest else base.attention, liger="plain" not in rest,
        gradient_checkpointing="kept" not in rest, fsdp="fsdp" in rest, micro_batch_size=rows,
    )
    if "fsdp" in rest:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="29511")
        training.hardware_arguments = sharded_alone
    student = random_model(name, where / name)
    batch = TOKENS // length
    config = schema.LanguageModelingConfig(
        learning_rate=1e-5, batch_size=batch, row_length=length, steps=STEPS, muon=False, hardware=hardware
    )
    chance = torch.Generator().manual_seed(0)
    vocabulary = shapes.phi_config(name).vocab_size
    documents = []
    part = length // 4 if "packed" in rest else length  # else attention over a whole row, the dearest case
    for _ in range(batch * STEPS * length // part):
        ids = torch.randint(5, vocabulary, (part,), generator=chance).tolist()
        documents.append((ids, ids))
    began = time.perf_counter()
    model = checkpoints.load(student, hardware)
    loaded = time.perf_counter() - began
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    ends, profile = [], None
    on_step_end = training.MetricsRecorder.on_step_end

    def timed(recorder, args, state, control, **others):
        nonlocal profile
        torch.cuda.synchronize()
        ends.append(time.perf_counter())
        print(f"step {state.global_step}: {ends[-1] - began:.1f} s", file=sys.stderr, flush=True)
        if "profile" in rest and state.global_step == STEPS - 1:
            activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
            profile = torch.profiler.profile(activities=activities)
            profile.__enter__()
        elif profile:
            profile.__exit__(None, None, None)
            print(profile.key_averages().table(sort_by="self_cuda_time_total", row_limit=40, max_name_column_width=90),
                  file=sys.stderr)
        return on_step_end(recorder, args, state, control, **others)

    training.MetricsRecorder.on_step_end = timed
    training.save_and_summarise = lambda trainer, tokenizer, out, recorder, seconds: recorder.rows
    sft_config = lm_trainer.SFTConfig  # without checkpoints, whose 46 GB take longer than the steps
    lm_trainer.SFTConfig = lambda **words: sft_config(**{**words, "save_strategy": "no"})
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        logged = lm_trainer.fit(model, checkpoints.load_tokenizer(student), documents, [], Path(folder), config,
                                pack=packing.pack_best_fit, packed=True, seed=0, title=case)
    steps = [round(after - before, 3) for before, after in zip([began, *ends], ends, strict=False)]
    seconds = statistics.median(steps[3:5] if "profile" in rest else steps[3:])
    shape = gpu_costs.Shape(shapes.phi_config(name))
    planned = sum(gpu_costs.training_memory(shape, hardware, 1, rows * length).values())
    return {
        "case": case, "tokens_per_second": round(TOKENS / seconds), "seconds_a_step": round(seconds, 3),
        "mfu": round(TOKENS / seconds * gpu_costs.flops(shape, hardware, part) / PEAK, 4),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2), "planned_gb": round(planned / 1e9, 2),
        "trained": trained, "loss": logged[-1]["loss"], "steps": steps, "load_seconds": round(loaded, 1),
        "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
    }


def start(case: str) -> subprocess.Popen:
    """A process for one case, which imports what it needs and waits for a line."""
    return subprocess.Popen([sys.executable, __file__, "-", case], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def main(out: Path, cases: list[str]) -> None:
    """Measure each case in a process of its own and append its row; a case that fails leaves its last lines, one that
    takes too long says where it was.
    """
    if len(cases) == 1 and out.name == "-":
        sys.stdin.readline()
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        print(json.dumps(measure(cases[0], FAST / "phi-lab-gpu")), flush=True)
        return
    waiting = start(cases[0])
    for case, following in zip(cases, [*cases[1:], None], strict=True):
        now, waiting = waiting, start(following) if following else None
        said, errors = now.communicate("go\n")
        lines = said.strip().splitlines()
        row = json.loads(lines[-1]) if now.returncode == 0 else {"case": case, "error": errors[-2500:]}
        print(json.dumps(row), flush=True)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        with out.with_suffix(".log").open("a", encoding="utf-8") as file:
            file.write(f"\n===== {case}\n{errors[-60000:]}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
