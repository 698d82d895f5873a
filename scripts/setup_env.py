"""Make `.venv` with everything the course needs: plain pip, the exact versions of constraints.txt.

    python3 scripts/setup_env.py             Linux and macOS (`make` runs this for you)
    py -3 scripts/setup_env.py               Windows
    python3 scripts/setup_env.py --gpu       adds the extra `gpu` (vLLM): it resolves, nobody ran it

For a room without a network, on one computer of the same system and Python, then on each of the others:

    python3 scripts/setup_env.py --download wheels      every package as a file, 0.6 GB
    python3 scripts/setup_env.py --wheelhouse wheels    .venv from these files alone

A second run does nothing while pyproject.toml, constraints.txt and the options stay as they were.
An interrupted run is picked up by running it again: pip keeps what it has downloaded.

On Linux without an NVIDIA GPU the CUDA build of PyTorch is 3 GB of libraries nobody would use, so
PyTorch's public CPU wheels are taken when a quick probe reaches them, else whatever pip finds.
Tested on Linux only. Exit code 0 when .venv is ready, 2 with one clear line when it is not.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import platform
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".stamp"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
JUPYTERLAB = VENV / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
NO_NEWS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
CPU_SIZE = "about 0.5 GB to download, 2 GB on disk, a few minutes"  # measured on Linux x86_64
CUDA_SIZE = "about 3.5 GB to download, 8 GB on disk"  # torch and CUDA wheels added up, not tried
GB = 1e9


class SetupError(Exception):
    """Something the user can put right; its text is one line: what is wrong and what to do."""


def check_python() -> None:
    """Raise SetupError below Python 3.11, naming a newer one if the PATH has it."""
    if sys.version_info >= (3, 11):
        return
    names = ("python3.14", "python3.13", "python3.12", "python3.11")
    newer = next((name for name in names if shutil.which(name)), "python3.11")
    raise SetupError(
        f"this is Python {platform.python_version()}, phi-lab needs 3.11 or newer: "
        f"run `make PYTHON={newer} course` (or `{newer} scripts/setup_env.py`)"
    )


def fingerprint(extras: str) -> str:
    """What .venv was made from, as a short hash: a changed file or option makes it outdated."""
    digest = hashlib.sha256(extras.encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()[:16]


def usable() -> bool:
    """Whether .venv holds a Python that starts (it does not once the folder or Python moved)."""
    try:
        return subprocess.run([PYTHON, "-c", "import pip"], capture_output=True).returncode == 0
    except OSError:
        return False


def ready(mark: str) -> bool:
    """Whether .venv is complete and made from exactly these files and options."""
    return STAMP.is_file() and STAMP.read_text().strip() == mark and usable()


def reaches(url: str, seconds: float = 5.0) -> bool:
    """Whether `url` answers within about `seconds`; never raises."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            return answer.status == 200
    except (OSError, ValueError, http.client.HTTPException):  # refused, timed out, odd proxy …
        return False


def choose_torch(gpu: bool) -> tuple[list[str], str, float]:
    """Pip options for PyTorch, a line for the user, and the free disk space wanted in GB."""
    if sys.platform != "linux":
        return [], f"PyTorch for this system ({CPU_SIZE})", 3.0
    if gpu or shutil.which("nvidia-smi"):
        return [], f"the CUDA build of PyTorch ({CUDA_SIZE})", 12.0
    if reaches(f"{CPU_WHEELS}/torch/"):
        return (["--extra-index-url", CPU_WHEELS], f"PyTorch's CPU wheels ({CPU_SIZE})", 3.0)
    line = (
        f"the PyTorch that pip finds, as {CPU_WHEELS} cannot be reached "
        f"(CPU build: {CPU_SIZE}; CUDA build: {CUDA_SIZE})"
    )
    return [], line, 3.0


def run(command: list[str | Path], failure: str) -> None:
    """Run `command` with its output shown; raise SetupError(failure) unless it exits 0."""
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1")
    if subprocess.run(command, cwd=ROOT, env=environment).returncode:
        raise SetupError(failure)


def build_requirements() -> list[str]:
    """What pip builds this package with: it comes from the wheelhouse as well."""
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]


def download(folder: Path) -> None:
    """Fill `folder` with every package of .venv as a file; raises SetupError with one clear line when it cannot."""
    check_python()
    options, line, _ = choose_torch(gpu=False)
    print(f"[setup] downloading to {folder}: {line}", flush=True)
    run(
        [sys.executable, "-m", "pip", "download", "-c", "constraints.txt", *options, "-d", folder.resolve(), ".[test]",
         *build_requirements()],
        "pip stopped (see above): check the network and the disk, then run it again",
    )
    print(f"[setup] take {folder} to the other computers: setup_env.py --wheelhouse {folder}")


def install(gpu: bool, wheelhouse: Path | None = None) -> None:
    """Make or bring up to date .venv, with a wheelhouse from its files alone; raises SetupError with one clear line
    when it cannot.
    """
    if wheelhouse and not any(wheelhouse.glob("*.whl")):
        raise SetupError(f"{wheelhouse} holds no packages: `setup_env.py --download {wheelhouse}` fills it")
    extras = "test,gpu" if gpu else "test"
    mark = fingerprint(extras)
    if ready(mark):
        os.utime(STAMP)  # make compares times, and a checkout may have touched pyproject.toml
        print("[setup] .venv is up to date")
        return
    check_python()
    options, line, wanted = choose_torch(gpu) if wheelhouse is None else (
        ["--no-index", "--find-links", str(wheelhouse.resolve())], f"the files in {wheelhouse}", 3.0)
    free = shutil.disk_usage(ROOT).free / GB
    if not VENV.exists() and free < wanted:
        raise SetupError(f"{free:.1f} GB free in {ROOT}, {wanted:.0f} GB needed: free some space")
    print(f"[setup] making .venv with pip: {line}", flush=True)
    if not usable():
        run(
            [sys.executable, "-m", "venv", "--clear", VENV],
            "Python could not make .venv (see above): on Debian and Ubuntu, "
            "`sudo apt install python3-venv` and run it again",
        )
    STAMP.unlink(missing_ok=True)
    run(
        [PYTHON, "-m", "pip", "install", "-c", "constraints.txt", *options, "-e", f".[{extras}]"],
        "pip stopped (see above): check the network and the disk, then run it again" if wheelhouse is None else
        f"pip stopped (see above): {wheelhouse} must be of this system and Python {platform.python_version()}",
    )
    run(
        [PYTHON, "-c", "import torch; print('[setup] ready: PyTorch', torch.__version__)"],
        "PyTorch was installed but does not start: delete .venv and run it again",
    )
    JUPYTERLAB.parent.mkdir(parents=True, exist_ok=True)  # else it asks other computers, and a pop-up covers the page
    JUPYTERLAB.write_text(json.dumps(NO_NEWS, indent=2) + "\n")
    STAMP.write_text(mark + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make .venv with everything the course needs.")
    parser.add_argument("--gpu", action="store_true", help="add the extra `gpu` (vLLM; untested)")
    parser.add_argument("--download", type=Path, metavar="DIR", help="only download all packages, into DIR")
    parser.add_argument("--wheelhouse", type=Path, metavar="DIR", help="install from DIR, without a network")
    options = parser.parse_args()
    try:
        if options.download:
            download(options.download)
        else:
            install(options.gpu, options.wheelhouse)
    except SetupError as error:
        print(f"[setup] {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\n[setup] stopped; run it again to go on", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
