"""The packaging holds together: one set of windows, one command per job, no idle dependency.

python -m pytest tests/test_packaging.py            (`-m "not slow"` leaves out the resolver)
"""

import ast
import importlib.metadata
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
TARGETS = ("course", "test", "check", "lab", "bench", "notebooks", "help", "clean")
# Core dependencies that no line imports, each with the reason why it is a dependency all the same.
NOT_IMPORTED = {
    "jupyterlab": "`make lab` opens it",
    "accelerate": "transformers' Trainer refuses to start without it",
}
# Imported modules that come with a declared dependency and share its version.
CARRIED = {"latex2sympy2_extended": "math-verify", "mpmath": "sympy", "nbclient": "jupyterlab", "nbformat": "jupytext",
           "anyio": "openai", "loguru": "datatrove"}


def constraints() -> dict[str, str]:
    """Name -> exact version, out of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def described(requirement: Requirement) -> tuple:
    return (
        canonicalize_name(requirement.name),
        frozenset(requirement.extras),
        str(requirement.specifier),
    )


def imported_modules(*folders: str) -> set[str]:
    """Top-level names of every module that the Python files and notebooks below import."""
    sources = []
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            sources.append(path.read_text(encoding="utf-8"))
        for path in (ROOT / folder).rglob("*.ipynb"):
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
            sources += [re.sub(r"(?m)^\s*[%!].*$", "", cell) for cell in code]
    names = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names


def test_environment_yml_asks_for_the_same_as_pyproject():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert f"python{PROJECT['requires-python']}" in listed
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    options = [line for line in pip if line.startswith("-")]
    assert "-c constraints.txt" in options and "-e ." in options
    ours = {described(Requirement(line)) for line in pip if not line.startswith("-")}
    assert ours == {described(requirement) for requirement in CORE}


def test_every_window_is_narrow_and_holds_the_tested_version():
    exact = constraints()
    for requirement in [*CORE, *EXTRAS["test"], *EXTRAS["endpoint"], *EXTRAS["cluster"]]:
        operators = {part.operator for part in requirement.specifier}
        assert operators == {">=", "<"}, f"{requirement}: give it a lower and an upper bound"
        version = exact.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is missing from constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} does not hold {version}"
    for extra in ("endpoint", "cluster"):  # so their tests run everywhere
        assert {*map(described, EXTRAS[extra])} <= {*map(described, EXTRAS["test"])}


def test_constraints_are_plain_versions():
    for name, version in constraints().items():
        assert "+" not in version, f"{name}: a local version shuts out every other platform"
    assert Requirement(f"torch=={constraints()['torch']}").specifier.contains("2.13.0+cpu")


def test_this_environment_is_the_tested_one():
    if not (ROOT / ".venv").is_dir() or not Path(sys.prefix).samefile(ROOT / ".venv"):
        pytest.skip("not running in the project's own .venv")
    exact = constraints()
    for distribution in importlib.metadata.distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        if name in exact:
            assert distribution.version.split("+")[0] == exact[name], name


def test_every_core_dependency_is_used():
    modules = imported_modules("phi_lab", "notebooks", "tests")
    names = {requirement.name for requirement in CORE}
    assert set(NOT_IMPORTED) <= names
    idle = {name for name in names - set(NOT_IMPORTED) if name.replace("-", "_") not in modules}
    assert not idle, f"declared in pyproject.toml and imported nowhere: {sorted(idle)}"


def test_every_import_of_the_package_is_declared():
    extras = [*EXTRAS["gpu"], *EXTRAS["endpoint"], *EXTRAS["cluster"]]
    declared = {r.name.replace("-", "_") for r in [*CORE, *extras]} | set(CARRIED)
    foreign = imported_modules("phi_lab") - set(sys.stdlib_module_names) - {"phi_lab"}
    missing = foreign - declared - {"IPython"}  # IPython comes with every notebook kernel
    assert not missing, f"imported by phi_lab, not declared in pyproject.toml: {sorted(missing)}"


def test_vllm_lies_in_the_window_of_trl():
    lines = importlib.metadata.requires("trl")
    window = next(r for r in map(Requirement, lines) if r.name == "vllm" and "extra" in str(r))
    pinned = next(r for r in EXTRAS["gpu"] if r.name == "vllm")
    (pin,) = pinned.specifier
    assert pin.operator == "==" and window.specifier.contains(pin.version)


def resolve(platform: str, python: str, *extras: str) -> dict[str, str]:
    """What pip would install for a platform, from package metadata alone: name -> version.

    Skips where the index does not answer; fails with the resolver's words on a conflict.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet"]
    command += ["-c", "constraints.txt", "--only-binary", ":all:", "--no-header", "--no-annotate"]
    command += ["--python-version", python, "--python-platform", platform]
    for extra in extras:
        command += ["--extra", extra]
    # torch 2.13 needs macOS 14; the resolver assumes 13 unless told.
    settings = {"UV_PYTHON_DOWNLOADS": "never", "MACOSX_DEPLOYMENT_TARGET": "14.0"}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            timeout=240,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the package index did not answer within four minutes")
    if done.returncode:
        silent = ("Failed to fetch", "error sending request", "dns error", "Could not connect")
        if any(words in done.stderr for words in silent):
            pytest.skip(f"the package index cannot be reached: {done.stderr.strip()[:200]}")
        pytest.fail(done.stderr)
    pairs = re.findall(r"(?m)^([\w.-]+)==(\S+)", done.stdout)
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_gpu_extra_resolves_beside_the_core(python):
    """A dry run: the versions fit together on Linux x86_64. That they work was never tried."""
    found = resolve("x86_64-manylinux_2_31", python, "test", "gpu")
    exact = constraints()
    for name in ("torch", "transformers", "trl", "peft", "datasets", "bitsandbytes"):
        assert found[name] == exact[name]
    assert found["vllm"] == "0.30.0"


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("platform", ["aarch64-manylinux_2_31", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"])
def test_core_resolves_on_platforms_not_at_hand(platform):
    """ARM Linux, macOS 14, Windows: a wheel exists for every package. Nothing was run there."""
    assert resolve(platform, "3.11", "test")["torch"] == constraints()["torch"]


def test_makefile_has_every_target_with_help():
    makefile = (ROOT / "Makefile").read_text()
    for target in TARGETS:
        assert re.search(rf"(?m)^{target}:.*## \S", makefile), f"make {target} has no help text"
        if target not in ("help", "clean"):
            assert re.search(rf"(?m)^{target}: \$\(STAMP\)", makefile), f"{target} skips the setup"


def test_ci_calls_make_test():
    script = ROOT / ".ci" / "run"
    lines = [line for line in script.read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "set -euo pipefail" and lines[-1] == "make test"
    if os.name != "nt":
        assert script.stat().st_mode & stat.S_IXUSR
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    commands = {step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step}
    assert {command.split(" PYTHON")[0] for command in commands} == {"make check", "make test"}


def test_readme_names_the_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("make course", "make test", "make lab"):
        assert command in readme


def test_setup_says_in_one_line_that_python_is_too_old(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import setup_env

    monkeypatch.setattr(setup_env.sys, "version_info", (3, 10, 1))
    monkeypatch.setattr(setup_env.shutil, "which", lambda name: name == "python3.12" or None)
    with pytest.raises(setup_env.SetupError, match=r"needs 3\.11 or newer.*PYTHON=python3\.12"):
        setup_env.check_python()


def test_setup_from_a_wheelhouse_asks_no_index(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import setup_env

    commands, venv = [], tmp_path / ".venv"
    for name, path in (("VENV", venv), ("STAMP", venv / ".stamp"), ("JUPYTERLAB", venv / "overrides.json")):
        monkeypatch.setattr(setup_env, name, path)
    monkeypatch.setattr(setup_env, "usable", lambda: True)
    monkeypatch.setattr(setup_env, "reaches", lambda url: pytest.fail(f"asked {url}"))
    monkeypatch.setattr(setup_env, "run", lambda command, failure: commands.append([str(part) for part in command]))
    wheels = tmp_path / "wheels"
    with pytest.raises(setup_env.SetupError, match="holds no packages: `setup_env.py --download"):
        setup_env.install(False, wheels)
    wheels.mkdir()
    (wheels / "torch-2.13.0-cp311-linux.whl").touch()
    setup_env.install(False, wheels)
    install, _ = commands
    assert install[install.index("--no-index") :][:3] == ["--no-index", "--find-links", str(wheels)]
    assert "-c" in install and "--extra-index-url" not in install
    assert json.loads((venv / "overrides.json").read_text()) == setup_env.NO_NEWS
    assert (venv / ".stamp").read_text().strip() == setup_env.fingerprint("test")  # make does not install again


def test_a_download_holds_what_pip_builds_with(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import setup_env

    commands = []
    monkeypatch.setattr(setup_env, "run", lambda command, failure: commands.append([str(part) for part in command]))
    monkeypatch.setattr(setup_env, "choose_torch", lambda gpu: ([], "torch", 3.0))
    setup_env.download(tmp_path / "wheels")
    (command,) = commands
    assert command[command.index("-d") + 1] == str(tmp_path / "wheels")
    assert ".[test]" in command and any(one.startswith("setuptools") for one in command)


def test_setup_never_fails_on_an_unreachable_wheel_server(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import setup_env

    assert not setup_env.reaches("http://127.0.0.1:9/", seconds=1)
    monkeypatch.setattr(setup_env.sys, "platform", "linux")
    monkeypatch.setattr(setup_env.shutil, "which", lambda name: None)
    monkeypatch.setattr(setup_env, "reaches", lambda url: False)
    assert setup_env.choose_torch(gpu=False)[0] == []
    monkeypatch.setattr(setup_env, "reaches", lambda url: True)
    assert setup_env.choose_torch(gpu=False)[0] == ["--extra-index-url", setup_env.CPU_WHEELS]
    monkeypatch.setattr(setup_env.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert setup_env.choose_torch(gpu=False)[0] == []


@pytest.mark.skipif(sys.platform != "linux", reason="GNU sed, as on the canary's runner")
def test_the_canary_installs_the_newest_release_of_everything(tmp_path):
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "canary.yml").read_text())
    loosen, install, _ = [step["run"] for step in workflow["jobs"]["newest"]["steps"] if "run" in step]
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    subprocess.run(loosen, shell=True, cwd=tmp_path, check=True)
    loose = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    wanted = [*loose["dependencies"], *loose["optional-dependencies"]["test"]]
    for requirement in map(Requirement, wanted):
        assert [bound.operator for bound in requirement.specifier] == [">="], requirement
    assert [Requirement(line).name for line in loose["dependencies"]] == [one.name for one in CORE]
    assert "constraints.txt" not in install and ".[test]" in install
    assert {"pull_request", "push"}.isdisjoint(workflow[True])  # YAML reads the key `on` so: nothing waits for it
