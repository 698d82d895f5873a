"""Take it away: a trained stage as a folder that loads anywhere, with a card of the run's own numbers.

    phi-lab export runs/my-run --out my-phi                 # the last finished stage
    phi-lab export runs/my-run --out my-phi --push me/my-phi  # also to the hub, private; needs `hf auth login`

Then `vllm serve my-phi`, or for llama.cpp, which knows tokenizers by name, so a Phi-4-mini only (neither was run here;
what the folder's configuration needs for them was read in their sources):

    python llama.cpp/convert_hf_to_gguf.py my-phi --outfile my-phi.gguf --outtype bf16
    llama.cpp/build/bin/llama-quantize my-phi.gguf my-phi-Q4_K_M.gguf Q4_K_M
"""

import json
from itertools import pairwise
from pathlib import Path

import torch
from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HFValidationError, HTTPError
from transformers import AutoModelForCausalLM

from phi_lab.config.schema import STAGES, read_config
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_json
from phi_lab.core.run_folder import RunFolder
from phi_lab.model import checkpoints
from phi_lab.report.ladder_rows import SHIPPED_START

# Problems: a ladder's accuracy on fewer stands in the card's table, with its interval, and not in the hub's metadata.
# Public benchmarks are there whatever their size.
LEAST = 500


def export(run: RunFolder, out: Path, stage: str | None = None, push: str | None = None, scores: Path | None = None) -> Path:
    """Write the model of a stage (the last one that is finished) into `out` as one safetensors folder with its card;
    `push` names a repository of the hub that gets it, `scores` a folder of `phi-lab eval --benchmarks`.

    A GPU scale's weights are written in bfloat16, half of what training kept. Raises UserError for a run without that
    stage, a folder `out` that is in use, and a hub that does not take it.
    """
    config, ladder = read_config(run.config), read_json(run.ladder)
    done = [name for name in STAGES if run.stage(name).finished]
    if not done or (stage and stage not in done):
        raise UserError(f"{run.path}: no finished stage{f' {stage}' if stage else ''}; it has {', '.join(done) or 'none'}")
    stage = stage or done[-1]
    model = run.stage(stage).model
    public = read_json(scores / "scores.json") if scores else []
    if scores and read_json(scores / "protocol.json")["model"] != checkpoints.fingerprint(model):
        raise UserError(f"{scores}: the scores of another model than {model}")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: choose another --out")
    dtype = torch.float32 if config["scale"] == "cpu" else torch.bfloat16
    AutoModelForCausalLM.from_pretrained(model, dtype=dtype).save_pretrained(out)
    checkpoints.load_tokenizer(model).save_pretrained(out)
    _also_for_older_readers(out)
    (out / "README.md").write_text(card(stage, config, ladder, public, begun_from(run, stage)))
    if push:
        try:
            api = HfApi()
            api.create_repo(push, private=True, exist_ok=True)
            api.upload_folder(repo_id=push, folder_path=out)
        except (OSError, HTTPError, HFValidationError) as error:
            words = " ".join(str(error).split())[:200]
            raise UserError(f"{push}: the hub does not take it ({words}); the folder {out} is complete") from None
    return out


def _also_for_older_readers(folder: Path) -> None:
    """Write what transformers 4, llama.cpp and older vLLM read of a Phi, beside what transformers 5 has saved: the
    fields of the published Phi-4-mini, which every version of theirs knows.

    Without them transformers 4 turns whole heads by unscaled frequencies, and does not know the tokenizer's class;
    llama.cpp looks for a SentencePiece file. transformers 5 takes `rope_scaling` for `rope_parameters` and completes it
    from the other fields; a tokenizer it builds from tokenizer.json alone, whatever class a Phi names.
    """
    config = read_json(folder / "config.json")
    if config["model_type"] != "phi3":
        return
    rope = config["rope_parameters"]
    old = {"rope_theta": rope["rope_theta"], "partial_rotary_factor": rope["partial_rotary_factor"],
           "torch_dtype": config["dtype"], "rope_scaling": None}
    if rope["rope_type"] == "longrope":  # transformers 4 takes these three and no more
        factors = {name: rope[name] for name in ("short_factor", "long_factor")}
        old["rope_scaling"] = {"type": "longrope", **factors}
    write_json(folder / "config.json", {**config, **old})
    about = read_json(folder / "tokenizer_config.json")
    if isinstance(about.get("extra_special_tokens"), list):  # transformers 4 takes a dictionary by this name
        about["additional_special_tokens"] = about.pop("extra_special_tokens")
    if '"ByteLevel"' in json.dumps(read_json(folder / "tokenizer.json")["pre_tokenizer"]):  # Phi-3's is no such one
        about["tokenizer_class"] = "GPT2Tokenizer"
    write_json(folder / "tokenizer_config.json", about)


def begun_from(run: RunFolder, stage: str) -> str | None:
    """The stage whose shipped checkpoint this run's model of `stage` goes back to; None where it goes back to the base
    by stages of this run alone.
    """
    for before, after in reversed(list(pairwise(STAGES[: STAGES.index(stage) + 1]))):
        own, student = run.stage(before).model, run.stage(after).student
        if before != "base" and not (own.is_dir() and read_json(student)["weights"] == checkpoints.fingerprint(own)):
            return before
    return None


def card(stage: str, config: dict, ladder: list[dict], scores: list[dict], begun: str | None = None) -> str:
    """The model card: what it is, how it was made, what was measured, with the hub's metadata before it.

    begun: the stage from whose shipped checkpoint the run's training began, where that was not the base. Then most of
    what is measured was learned before the run, and nothing of it is written in the hub's format.
    """
    measured = [row for row in ladder if (row["stage"], row["arm"]) == (stage, "main") and row["pass_at_k"] is None]
    names = dict(zip(("easy", "hard", "transfer"), config["config"]["evaluation"]["benchmarks"], strict=True))
    large = [row for row in measured if row["temperature"] > 0 and row["n"] // row["k"] >= LEAST]
    found = [(names[row["benchmark"]], row["accuracy"]) for row in large]
    found += [(row["benchmark"], row["accuracy"]) for row in scores]
    base, tiny = config["config"]["model"], config["scale"] == "cpu"
    known = None if tiny or Path(base).exists() else base  # a folder of somebody's means nothing on the hub
    phi = known and known.startswith("microsoft/Phi-4")
    data = ModelCardData(
        license="apache-2.0" if tiny else "mit" if phi else None, language="en", library_name="transformers",
        pipeline_tag="text-generation", base_model=known, tags=["phi-lab", "reasoning", stage],
        model_name=f"phi-lab-{stage}",
        eval_results=None if begun else [
            EvalResult(task_type="text-generation", dataset_type=name, dataset_name=name, metric_type="pass@1",
                       metric_value=round(100 * value, 2)) for name, value in found
        ] or None,
    )
    command = f"phi-lab run --scale {config['scale']} --profile {config['profile']} --seed {config['seed']}"
    lines = [
        "---", data.to_yaml(), "---", "",
        f"# {'phi-nano' if tiny else known or 'A model'}, after {stage}", "",
        "Trained through the ladder of Phi-4-Mini-Reasoning (arXiv 2504.21233) with phi-lab.",
        "It knows columns of digits and nothing else." if tiny else "Trained on mathematics in English only.", "",
        f"- made by: `{command} --out RUN`, phi_lab {config['phi_lab']}, commit {config['git_commit']}",
        f"- versions: {', '.join(f'{name} {number}' for name, number in config['versions'].items())}", "",
        *([f"Training began from the checkpoint of {begun} that phi-lab ships, not from the base: what that could do "
           "already is no work of this run.", ""] if begun else []),
        *accuracy_table(measured, names),
    ]
    start = [row for row in ladder if (row["stage"], row["arm"]) == (begun, SHIPPED_START) and row["pass_at_k"] is None]
    if start:
        lines += ["", f"That checkpoint of {begun}, on the same problems:", "", *accuracy_table(start, names)]
    if scores:
        lines += ["", "Public benchmarks, temperature 0.6, top-p 0.95:", "",
                  "| benchmark | samples | accuracy | 95 % interval |", "|---|---|---|---|"]
        lines += [f"| {row['benchmark']} | {row['problems']} x {row['samples']} | {100 * row['accuracy']:.1f} % | "
                  f"{100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f} % |" for row in scores]
    return "\n".join(lines) + "\n"


def accuracy_table(rows: list[dict], names: dict[str, str]) -> list[str]:
    """Markdown lines for rows of ladder.json; `names` says who plays easy, hard and transfer."""
    lines = ["| benchmark | temperature | samples | accuracy | 95 % interval |", "|---|---|---|---|---|"]
    for row in rows:
        share, low, high = (100 * row[name] for name in ("accuracy", "ci_low", "ci_high"))
        interval = f"{low:.1f} to {high:.1f} %"
        lines.append(f"| {names[row['benchmark']]} | {row['temperature']} | {row['n']} | {share:.1f} % | {interval} |")
    return lines
