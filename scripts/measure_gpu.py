"""Tokens a second, share of the GPU's peak (MFU) and memory of Phi-4-mini in training: random weights of the published
shape, made-up documents, through the stages' own `fit`. One case after the other, each in a process of its own.

    .venv/bin/python scripts/measure_gpu.py OUT.jsonl [CASE ...]     (full-2048, lora-16384, qlora-2048-nano ...)

MFU counts what the model needs (`plan.flops`), not what checkpointing repeats.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from phi_lab import models, plan, scale
from phi_lab.stages import language_modeling as lm

PEAK = plan.CARDS["h200"].flops  # an H100 has as many
TOKENS = 16384  # a step
STEPS = 20  # the second half is timed


def random_model(name: str, folder: Path) -> Path:
    """A folder with random weights in bfloat16 and the small world's tokenizer, made once."""
    if not (folder / "config.json").exists():
        torch.set_default_dtype(torch.bfloat16)
        torch.manual_seed(0)
        with models.device():
            model = models.AutoModelForCausalLM.from_config(models.config(name))
        torch.set_default_dtype(torch.float32)
        models.save(model, models.load_tokenizer(), folder)
    return folder


def measure(case: str, where: Path) -> dict:
    """One case: {"case", "tokens_per_second", "mfu", "peak_gb", "seconds_a_step", ...}."""
    adapter, length, *rest = case.split("-")
    length, name = int(length), "phi-nano" if "nano" in rest else "phi-4-mini"
    full = adapter == "full"
    hardware = scale.Hardware(
        adapter=None if full else adapter, dtype="float32" if full else "bfloat16",
        attention="sdpa" if "sdpa" in rest else "flex_attention", liger="plain" not in rest,
        optimizer="adamw_torch_fused", checkpointing="kept" not in rest,
        rows=max(1, (4096 if "kept" in rest else 8192) // length),
    )  # fmt: skip
    student = random_model(name, where / name)
    batch = TOKENS // length
    numbers = scale.Training(learning_rate=1e-5, batch=batch, row_length=length, steps=STEPS, muon=False,
                             hardware=hardware)  # fmt: skip
    chance = torch.Generator().manual_seed(0)
    vocabulary = models.config(name).vocab_size
    documents = []
    for _ in range(batch * STEPS):  # rows of one document each: attention over a whole row, the dearest case
        ids = torch.randint(5, vocabulary, (length,), generator=chance).tolist()
        documents.append((ids, ids))
    model = models.load(student, hardware)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        saved, lm.finish = lm.finish, lambda trainer, tokenizer, out, recorder, seconds: recorder.rows
        rows = lm.fit(model, models.load_tokenizer(student), documents, [], Path(folder), numbers,
                      pack=lm.pack_best_fit, packed=True, seed=0, title=case)  # fmt: skip
        lm.finish = saved
    first, last = rows[0], rows[-1]
    seconds = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    flops = plan.flops(plan.Shape(name), hardware, length)
    return {
        "case": case, "tokens_per_second": round(TOKENS / seconds), "seconds_a_step": round(seconds, 3),
        "mfu": round(TOKENS / seconds * flops / PEAK, 4), "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "trained": trained, "losses": [first["loss"], last["loss"]],
        "all_seconds": round(time.perf_counter() - began), "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }  # fmt: skip


def main(out: Path, cases: list[str]) -> None:
    """Measure each case in a process of its own and append its row; a case that fails leaves its last lines."""
    where = Path(tempfile.gettempdir()) / "phi-lab-gpu"
    if len(cases) == 1 and out.name == "-":
        print(json.dumps(measure(cases[0], where)), flush=True)
        return
    for case in cases:
        try:
            done = subprocess.run([sys.executable, __file__, "-", case], capture_output=True, text=True, timeout=110)
            lines = done.stdout.strip().splitlines()
            row = json.loads(lines[-1]) if done.returncode == 0 else {"case": case, "error": done.stderr[-1500:]}
        except subprocess.TimeoutExpired:
            row = {"case": case, "error": "not done after 110 seconds"}
        print(json.dumps(row), flush=True)
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
