"""`phi-lab export`: a trained stage as a folder that other programs load."""

import shlex
from pathlib import Path

from phi_lab.cli.options import add_command
from phi_lab.config import presets
from phi_lab.core.run_folder import RunFolder
from phi_lab.report.ladder_rows import read_ladder


def add_parser(commands) -> None:
    """Add `export` and its options."""
    parser = add_command(
        commands, "export", run, "save a trained stage as a folder that loads anywhere, with a model card",
        "phi-lab export runs/first --stage grpo --out my-phi",
    )
    parser.add_argument("folder", type=Path, help="of a run, or of a model")
    parser.add_argument("--stage", default=None, help="by default the last that is finished")
    parser.add_argument("--scores", type=Path, default=None, metavar="DIR",
                        help="folder of `phi-lab eval --benchmarks`, for the card")
    parser.add_argument("--push", default=None, metavar="NAME", help="also to this repository of the hub, private")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")


def run(options) -> None:
    """Export and say how the folder is loaded."""
    folder = RunFolder(options.folder)
    if not list(options.folder.glob("*.safetensors")):  # a run, and one that is none is told before torch is loaded
        read_ladder(folder.ladder)
        presets.stage_range(options.stage or "base", "grpo")
    from phi_lab.pipeline import export

    out = export.export(folder, options.out, options.stage, options.push, options.scores)
    print(f"{out}: loads in transformers, and in vLLM by `vllm serve {shlex.quote(str(out))}`")
    print(f"for llama.cpp: {export.llama_cpp_line(out)}")
