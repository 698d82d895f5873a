"""Checkpoints: folders with weights, configuration and tokenizer, found, loaded, identified and saved."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from phi_lab.config.schema import LAPTOP, HardwareConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, require_model
from phi_lab.core.formatting import one_line
from phi_lab.core.paths import TOKENIZER
from phi_lab.model.shapes import load_config, use_long_factors

if TYPE_CHECKING:
    from peft import PeftModel

disable_progress_bar()  # loading a tiny model takes a millisecond
CPU = torch.device("cpu")
ANOTHER = "restore it, or name another folder"


def _require(folder: Path | str) -> None:
    """Raises UserError where `folder` holds no model, or one whose weights are cut short or have no header."""
    require_model(folder)
    read_json(Path(folder) / "config.json", ("model_type",), ANOTHER)
    for weights in Path(folder).glob("*.safetensors"):
        try:
            with safe_open(weights, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise UserError(f"{weights} is damaged ({one_line(error, 80)}); {ANOTHER}") from None


@contextmanager
def _damage_is_the_users(folder: Path | str) -> Iterator[None]:
    """Turn what transformers raises for files that are damaged in any other way into one line for the user."""
    try:
        yield
    except (AttributeError, LookupError, OSError, SafetensorError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise UserError(f"{folder}: a file is damaged ({one_line(error, 160)}); {ANOTHER}") from None


def device() -> torch.device:
    """Where models live: this process's GPU if there is one."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else CPU


def half_precision() -> str:
    """The 16-bit type that this GPU computes in: bfloat16, or float16 where it has none, as on a T4."""
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def load(folder: Path | str, hardware: HardwareConfig = LAPTOP) -> transformers.PreTrainedModel:
    """A causal language model from a local folder, on its device, with a new LoRA adapter where `hardware` has one.

    Adapters: "lora" (arXiv 2106.09685), "qlora" (the base in 4-bit NF4, arXiv 2305.14314). Raises UserError where
    there is no model, or for another adapter.
    """
    _require(folder)
    if hardware.adapter not in (None, "lora", "qlora"):
        raise UserError(f"unknown adapter {hardware.adapter!r}: choose lora, qlora or none")
    load_config(folder)  # raises for a model that needs code of its own
    dtype = getattr(torch, hardware.dtype)
    four_bit = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
    )
    with _damage_is_the_users(folder):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=hardware.attention,
            device_map={"": device()} if torch.cuda.is_available() else None,
            quantization_config=four_bit if hardware.adapter == "qlora" else None, trust_remote_code=False,
        )
    use_long_factors(model)
    if hardware.adapter is None:
        return model
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training  # takes seconds: only with an adapter

    if hardware.adapter == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))


def load_to_sample(folder: Path, engine: str) -> transformers.PreTrainedModel:
    """The model in `folder` for an engine of `sampling.sample`; for vLLM, which reads the weights from the folder, on
    the device meta, that is without them.
    """
    if engine != "vllm":
        half = engine == "hf" and torch.cuda.is_available()
        return load(folder, HardwareConfig(dtype=half_precision() if half else "float32"))
    _require(folder)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(load_config(folder), trust_remote_code=False)
    if (Path(folder) / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    model.name_or_path = str(folder)
    return model


def resolve_model(name: str) -> Path:
    """The local folder of a model: `name` itself if it is a folder, else a download from the Hugging Face hub or the
    copy of an earlier one.

    Raises UserError where there is none, or where its tokenizer lacks the chat template that every stage needs.
    """
    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))
        except (OSError, ValueError) as error:  # HTTP errors, a missing cache, and a name that is none
            reason = one_line(error, 160)
            raise UserError(f"{name}: no such folder, and the hub does not give it ({reason}): --model DIR") from None
    _require(folder)
    if not load_tokenizer(folder).chat_template:
        raise UserError(f"{folder}: its tokenizer has no chat template (chat_template.jinja or tokenizer_config.json)")
    return folder


def fingerprint(folder: Path) -> str:
    """A hash of the weights in `folder`, 16 hexadecimal digits: two folders with the same one hold the same model.

    Raises UserError where there is no model.
    """
    _require(folder)
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as weights:
            digest.update(hashlib.file_digest(weights, "sha256").digest())
    return digest.hexdigest()[:16]


def load_tokenizer(folder: Path | str = TOKENIZER) -> PreTrainedTokenizerFast:
    """The tokenizer saved in `folder`; this course's by default. Raises UserError where there is none."""
    if not (Path(folder) / "tokenizer.json").is_file():
        raise UserError(f"no tokenizer in {folder}: tokenizer.json is missing")
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # code of its own, or a broken file, for which libraries raise whatever they like
        raise UserError(f"{folder}: its tokenizer cannot be read ({one_line(error, 160)})") from None


def save(
    model: transformers.PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerFast, folder: Path,
    weights: dict | None = None,
) -> None:
    """Save model and tokenizer in a folder that transformers loads (safetensors, configuration, tokenizer).

    weights: a state dict to save instead of the model's. An adapter is merged into its base, and saved by itself in
    `folder`/adapter too. A base in 4 bits is loaded again in full precision for that, so that the adapter is added to
    the published weights and not to their rounding; this takes the computer's memory, since the GPU has no room for a
    whole base beside the trained model.
    """
    if hasattr(model, "merge_adapter"):  # peft's
        from peft import PeftModel

        model.save_pretrained(folder / "adapter", selected_adapters=["default"])  # TRL's DPO has a second, "ref"
        if getattr(model.base_model.model, "is_quantized", False):
            base = transformers.AutoModelForCausalLM.from_pretrained(
                model.peft_config["default"].base_model_name_or_path, dtype=model.base_model.model.dtype,
                trust_remote_code=False,
            )
            model = PeftModel.from_pretrained(base, folder / "adapter", torch_device="cpu")
        model = model.merge_and_unload(adapter_names=["default"])
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
