"""Phi models from under a million to 3.8 billion parameters, one class: `Phi3ForCausalLM`.

phi-4-mini is the published shape (arXiv 2503.01743 and its config.json: 3,836,021,760 parameters). The tiny ones keep
what makes it Phi: grouped-query attention, tied embeddings, rotary position on 75 % of each head, SwiGLU without
biases.
"""

import hashlib
import math
import os
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    Phi3Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils.logging import disable_progress_bar

from phi_lab.config.schema import LAPTOP, HardwareConfig
from phi_lab.core.errors import UserError
from phi_lab.core.paths import TOKENIZER

disable_progress_bar()  # loading a tiny model takes a millisecond

CPU = torch.device("cpu")

_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
SHAPES = {
    "phi-nano": dict(zip(_SIZES, (128, 4, 4, 2, 384), strict=True)),
    "phi-micro": dict(zip(_SIZES, (192, 5, 6, 2, 576), strict=True)),
    "phi-4-mini": dict(zip(_SIZES, (3072, 32, 24, 8, 8192), strict=True)),
}
LONG_FACTORS = [
    1, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649, 2.446418898,
    2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533, 5.984965424,
    6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651, 14.64173252,
    16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03, 32.1, 32.13, 32.23, 32.6,
    32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77,
]


def config(name: str, vocabulary: int = 492) -> Phi3Config:
    """The configuration of a model in `SHAPES`. `vocabulary` is the tokenizer's length; Phi-4-mini's own is 200,064.

    Raises UserError for an unknown name.
    """
    if name not in SHAPES:
        raise UserError(f"unknown model {name!r}: choose one of {', '.join(SHAPES)}")
    if name == "phi-4-mini":
        rope = {
            "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
            "short_factor": [1.0] * 48, "long_factor": [float(factor) for factor in LONG_FACTORS],
            "original_max_position_embeddings": 4096, "factor": 131072 / 4096,
        }
        rest = dict(
            vocab_size=200064, max_position_embeddings=131072, sliding_window=262144, bos_token_id=199999,
            eos_token_id=[199999, 200020], pad_token_id=199999, original_max_position_embeddings=4096,
        )
    else:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
        rest = dict(vocab_size=vocabulary, max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, pad_token_id=0)
    return Phi3Config(**SHAPES[name], **rest, rope_parameters=rope, rms_norm_eps=1e-5, tie_word_embeddings=True)


def build(name: str, vocabulary: int, seed: int) -> PreTrainedModel:
    """A model with random weights. Residual outputs start smaller by 1/sqrt(2 layers), as in GPT-2."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(name, vocabulary), attn_implementation="sdpa")
    with torch.no_grad():
        for layer in model.model.layers:
            for residual in (layer.self_attn.o_proj, layer.mlp.down_proj):
                residual.weight.mul_(1 / math.sqrt(2 * model.config.num_hidden_layers))
    return model


def _require(folder: Path | str) -> None:
    for name in ("config.json", "*.safetensors"):
        if not list(Path(folder).glob(name)):
            raise UserError(f"no model in {folder}: {name} is missing; name a folder with a saved checkpoint")


def device() -> torch.device:
    """Where models live: this process's GPU if there is one."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else CPU


def load(folder: Path | str, hardware: HardwareConfig = LAPTOP) -> PreTrainedModel:
    """A causal language model from a local folder, on its device, with a fresh LoRA adapter where `hardware` asks.

    Adapters: "lora" (arXiv 2106.09685), "qlora" (the base in 4-bit NF4, arXiv 2305.14314). Raises UserError where
    there is no model, or for another adapter.
    """
    _require(folder)
    if hardware.adapter not in (None, "lora", "qlora"):
        raise UserError(f"unknown adapter {hardware.adapter!r}: choose lora, qlora or none")
    dtype = getattr(torch, hardware.dtype)
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation=hardware.attention,
        device_map={"": device()} if torch.cuda.is_available() else None,
        quantization_config=four_bit if hardware.adapter == "qlora" else None,
    )
    _keep_to_one_rope(model)
    if hardware.adapter is None:
        return model
    if hardware.adapter == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))


def load_to_sample(folder: Path, engine: str) -> PreTrainedModel:
    """The model in `folder` as the engine of `sampling.sample` needs it: vLLM reads weights by itself, and gets only
    their shapes.
    """
    if engine != "vllm":
        return load(folder, HardwareConfig(dtype="bfloat16" if engine == "hf" and torch.cuda.is_available() else "float32"))
    _require(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    if (Path(folder) / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.name_or_path = str(folder)
    return model


def longrope(model: PreTrainedModel) -> dict | None:
    """The LongRoPE parameters of a model that has them, as Phi-4-mini does (arXiv 2402.13753)."""
    rope = getattr(model.config, "rope_parameters", None) or {}
    return rope if rope.get("rope_type") == "longrope" else None


def _keep_to_one_rope(model: PreTrainedModel) -> None:
    """Take LongRoPE's long factors for short sequences too, as vLLM does once its max_model_len is beyond the original
    context, in every stage and every measurement of a run.

    transformers chooses anew for each batch, by its longest document, so a packed short document would be turned by
    its neighbour's length.
    """
    if rope := longrope(model):
        turning = model.get_decoder().rotary_emb
        turning.original_inv_freq, _ = ROPE_INIT_FUNCTIONS["longrope"](
            model.config, turning.inv_freq.device, seq_len=rope["original_max_position_embeddings"] + 1
        )


def min_vllm_context(model: PreTrainedModel) -> int:
    """The least max_model_len at which vLLM turns as `load` does; 0 for a model without LongRoPE."""
    rope = longrope(model)
    return rope["original_max_position_embeddings"] + 1 if rope else 0


def resolve_model(name: str) -> Path:
    """The local folder of a model: `name` itself if it is one, else a download from the hub, or what is left of one.

    Raises UserError where there is none, or where it lacks what every stage needs: a tokenizer with a chat template.
    """
    folder = Path(name)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"]))
        except (OSError, ValueError) as error:  # HTTP errors, a missing cache, and a name that is none
            words = " ".join(str(error).split())[:160]
            raise UserError(f"{name}: no such folder, and the hub does not give it ({words}): --model DIR") from None
    _require(folder)
    if not load_tokenizer(folder).chat_template:
        raise UserError(f"{folder}: its tokenizer has no chat template (chat_template.jinja or tokenizer_config.json)")
    return folder


def count_parameters(folder: Path) -> int:
    """Weights of the model in a folder, counted from its configuration without loading it."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return sum(weight.numel() for weight in model.parameters())


def fingerprint(folder: Path) -> str:
    """16 hexadecimal digits of the weights in `folder`: whether two folders hold the same model.

    Raises UserError where there is no model.
    """
    _require(folder)
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as weights:
            digest.update(hashlib.file_digest(weights, "sha256").digest())
    return digest.hexdigest()[:16]


def load_tokenizer(folder: Path | str = TOKENIZER) -> PreTrainedTokenizerFast:
    """The tokenizer saved in `folder`; the small world's own by default. Raises UserError where there is none."""
    if not (Path(folder) / "tokenizer.json").is_file():
        raise UserError(f"no tokenizer in {folder}: tokenizer.json is missing")
    return AutoTokenizer.from_pretrained(folder)


def save(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerFast, folder: Path, weights: dict | None = None
) -> None:
    """Write a folder that loads anywhere: safetensors, config, tokenizer. weights: in place of the model's own.

    An adapter is merged into its base, and kept by itself in `folder`/adapter. A base in 4 bits is read again in full
    for that: what was trained is added to the weights that were published, not to their rounding. That takes the
    computer's memory, not the GPU's, which has no room for a whole base beside the trained model.
    """
    if isinstance(model, PeftModel):
        model.save_pretrained(folder / "adapter", selected_adapters=["default"])  # TRL's DPO has a second, "ref"
        if getattr(model.base_model.model, "is_quantized", False):
            whole = AutoModelForCausalLM.from_pretrained(
                model.peft_config["default"].base_model_name_or_path, dtype=model.base_model.model.dtype
            )
            model = PeftModel.from_pretrained(whole, folder / "adapter", torch_device="cpu")
        model = model.merge_and_unload(adapter_names=["default"])
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
