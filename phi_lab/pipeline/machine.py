"""Is this computer enough for the course, and how long does it take here? Facts, and a speed measured in ten seconds.

The estimate is tokens over speed: the tokens are those of the configuration (its largest possible number of steps), the
speeds those of a training step and of sampling, five seconds each, on the shipped model. Loading, verification and
figures are not in it, and neither is what else the computer does meanwhile. It has not been held against whole runs on
other computers: read it as "a quarter of an hour" or "two hours".

    phi-lab doctor --machine
"""

import os
import platform
import shutil
import time
import webbrowser
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from statistics import mean

import psutil

from phi_lab.config.schema import STAGES, RunConfig
from phi_lab.core import paths
from phi_lab.core.files import read_rows

GB = 1e9
# What a run in the lab profile needs: its largest process (docs/performance.md) with room beside it, and its folder.
MEMORY, DISK = 3 * GB, 1 * GB
PACKAGES = ("torch", "transformers", "trl", "numpy", "matplotlib", "jupyterlab")
BROWSERS = ("firefox", "chromium", "chromium-browser", "google-chrome", "microsoft-edge")
STUDENT_ANSWERS = 8  # to each of `DPOConfig.questions`
QUESTION_TOKENS = 25  # of a question of the small world with its turns: enough for an estimate


def facts() -> dict:
    """Python, cores this process may use, bytes of memory and disk, versions (None: missing), Jupyter, a browser."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory()
    return {
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}", "cores": cores,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "memory": memory.total, "memory_free": memory.available, "disk_free": shutil.disk_usage(paths.ROOT).free,
        "versions": {name: _version(name) for name in PACKAGES}, "jupyter": find_spec("jupyterlab") is not None,
        "browser": _browser(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _browser() -> str | None:
    """A browser that is installed; None where there is none, as on a server."""
    if found := next((name for name in BROWSERS if shutil.which(name)), None):
        return found
    try:
        return webbrowser.get().name if platform.system() != "Linux" else None
    except webbrowser.Error:
        return None


def lacking(found: dict) -> list[str]:
    """What is missing or tight for the course, one line each with what to do."""
    lines = []
    if found["memory_free"] < MEMORY:
        lines.append(f"{found['memory_free'] / GB:.1f} GB of memory are free, and a run takes up to {MEMORY / GB:.0f}: "
                     "close other programs")
    if found["disk_free"] < DISK:
        lines.append(f"{found['disk_free'] / GB:.1f} GB of disk are free: make room for {DISK / GB:.0f}")
    if missing := [name for name, one in found["versions"].items() if one is None]:
        lines.append(f"not installed: {', '.join(missing)}; `python scripts/setup_env.py` installs all")
    if found["load"] is not None and found["load"] > found["cores"]:
        lines.append(f"the computer is busy (load {found['load']:.1f} on {found['cores']} cores): what follows is "
                     "slower than it would be alone, often many times")
    if found["browser"] is None:
        lines.append("no browser here: start `jupyter lab --no-browser` and open its address from another computer")
    return lines


def speeds(seconds: float = 10.0) -> dict[str, float]:
    """Tokens a second in training and in sampling, each measured over half of `seconds` on the shipped SFT model, after
    one round that is not counted.
    """
    import torch

    from phi_lab import sampling
    from phi_lab.model import checkpoints
    from phi_lab.problems import benchmarks

    model = checkpoints.load(paths.SHIPPED / "sft")
    tokenizer = checkpoints.load_tokenizer(paths.SHIPPED / "sft")
    prompts = [row["prompt"] for row in benchmarks.load("easy")[:16]]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    ids = torch.randint(len(tokenizer), (8, 320), generator=torch.Generator().manual_seed(0))

    def train() -> int:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return ids.numel()

    def sample() -> int:
        params = sampling.SamplingParams(n=8, temperature=1.0, max_tokens=256)
        groups = sampling.sample(model, tokenizer, prompts, params, quiet=True)
        return sum(len(one.ids) for group in groups for one in group)

    return {"training": _rate(train, seconds / 2), "sampling": _rate(sample, seconds / 2)}


def matrix_speed(seconds: float = 0.5) -> float:
    """FLOPs a second of float32 matrix products on this processor, measured."""
    import torch

    matrix = torch.ones(1024, 1024)

    def multiply() -> int:
        matrix @ matrix
        return 2 * 1024**3

    return _rate(multiply, seconds)


def _rate(work, seconds: float) -> float:
    work()  # compiles, and warms the caches
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        done += work()
    return done / spent


def work(config: RunConfig, answer: float) -> dict[str, tuple[float, float]]:
    """{step of a run: (tokens trained on, tokens sampled)}, at most. answer: the mean tokens of an answer."""
    from phi_lab.pipeline.arms import PAPER_PAIRS  # with torch, which may be what is missing

    teacher, dpo, grpo, row = config.distillation, config.dpo, config.grpo, QUESTION_TOKENS + answer
    probes = grpo.candidate_prompts * grpo.probe_rollouts / 2  # a prompt whose first answer is right gets one
    rollouts = grpo.steps * grpo.prompts_per_step * grpo.group_size
    a_pair = 2 * row * 4 / 3  # both sides, and once more by the reference, which only reads
    asked = 0 if dpo.pairs == "teacher" else STUDENT_ANSWERS * dpo.questions
    return {
        "distillation": (0, (teacher.questions + teacher.validation_questions) * teacher.samples * answer),
        "mid-training": (config.mid.steps * config.mid.batch_size * config.mid.row_length, 0),
        "SFT": (config.sft.steps * config.sft.batch_size * row, 0),
        "Rollout DPO": (dpo.max_pairs * dpo.epochs * a_pair, asked * answer),
        "the paper's DPO": (min(dpo.max_pairs, PAPER_PAIRS) * a_pair if asked else 0, 0),
        "GRPO": (rollouts / 2 * row, (rollouts + probes) * answer),
        "measurements": (0, (len(STAGES) + bool(asked)) * config.evaluation.answers * answer),
    }


def estimate(config: RunConfig, speed: dict[str, float]) -> dict[str, float]:
    """Seconds of each step of a run at the measured speeds."""
    shipped = read_rows(paths.DISTILLED / "rollouts.jsonl.gz", ("tokens",), empty=False)
    tokens = work(config, mean(row["tokens"] for row in shipped))
    return {step: trained / speed["training"] + sampled / speed["sampling"]
            for step, (trained, sampled) in tokens.items()}


def facts_text(found: dict) -> str:
    """The facts as lines."""
    versions = ", ".join(f"{name} {one or 'missing'}" for name, one in found["versions"].items())
    lines = [
        f"{found['system']}, Python {found['python']}, {found['cores']} cores",
        f"memory {found['memory'] / GB:.1f} GB, of which {found['memory_free'] / GB:.1f} are free; "
        f"disk {found['disk_free'] / GB:.1f} GB free",
        versions, f"browser: {found['browser'] or 'none found'}",
    ]
    return "\n".join([*lines, *(f"! {line}" for line in lacking(found))])


def estimate_text(config: RunConfig, speed: dict[str, float], seconds: dict[str, float]) -> str:
    """The speeds and the estimate as lines."""
    lines = [f"measured: {speed['training']:,.0f} tokens a second in training, {speed['sampling']:,.0f} in sampling",
             f"a whole run, profile {config.profile}, takes about:"]
    lines += [f"  {step:<14}{value / 60:>7.1f} minutes" for step, value in seconds.items()]
    lines.append(f"  {'together':<14}{sum(seconds.values()) / 60:>7.1f} minutes, with as many steps as there can be")
    return "\n".join(lines)
