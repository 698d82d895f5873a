"""The house: rooms import downwards only, modules are read in one sitting, functions fit a screen."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "phi_lab"
ROOMS = ["core", "config", "model", "sampling", "report", "verify", "problems", "distill", "stages", "evaluate",
         "pipeline", "experiments", "lab", "cli"]
STAGES = {f"stages/{name}.py" for name in ("base", "mid_training", "sft", "rollout_dpo", "grpo")}
MODULES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}


def imported_rooms(tree: ast.Module) -> set[str]:
    """The rooms that a module imports from, wherever the import stands in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("phi_lab.")} - {"__version__"}


@pytest.mark.parametrize("name", [name for name in MODULES if "/" in name])
def test_imports_go_down_the_staircase(name):
    room = name.partition("/")[0]
    allowed = ROOMS[: ROOMS.index(room) + 1]
    assert imported_rooms(MODULES[name]) <= set(allowed), f"{room} may import {', '.join(allowed)}"


def test_there_is_no_room_beside_the_fourteen():
    assert {name.partition("/")[0] for name in MODULES} - {"__init__.py", "__main__.py"} == set(ROOMS)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_read_in_one_sitting(name):
    assert len((PACKAGE / name).read_text().splitlines()) <= (200 if name in STAGES else 300)


@pytest.mark.parametrize("name", MODULES)
def test_a_function_fits_a_screen(name):
    functions = [node for node in ast.walk(MODULES[name]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [node.name for node in functions if node.end_lineno - node.lineno >= 60] == []


def test_the_stages_are_where_they_are_read():
    assert STAGES <= set(MODULES)


def test_test_files_are_read_in_one_sitting_too():
    lengths = {path.name: len(path.read_text().splitlines()) for path in Path(__file__).parent.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_core_is_light():
    """What knows nothing of language models loads none of their libraries."""
    heavy = {"torch", "transformers", "trl", "peft", "datasets"}
    for name, tree in MODULES.items():
        if name.startswith(("core/", "config/")):
            imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
            roots = {alias.name.split(".")[0] for node in imports for alias in node.names}
            roots |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            assert not roots & heavy, name
