"""A model's folder brings data, never code: nothing in it is run, whatever is typed, and no loader is asked to."""

import ast
import json
import shutil
from pathlib import Path

import pytest

from phi_lab import sampling
from phi_lab.core.errors import UserError
from phi_lab.core.paths import DATA
from phi_lab.distill import teachers
from phi_lab.model import checkpoints, shapes

PACKAGE = Path(shapes.__file__).parents[1]
LOADERS = {"from_pretrained", "from_config", "LLM", "pipeline"}
WITHOUT_CODE = {  # take no such argument
    "GenerationConfig.from_pretrained", "transformers.GenerationConfig.from_pretrained", "PeftModel.from_pretrained",
}


def loading_calls():
    """(module, line, call) of everything in the package that loads a model, a configuration or a tokenizer."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in LOADERS:
                if ast.unparse(node.func) not in WITHOUT_CODE:
                    yield path.relative_to(PACKAGE).as_posix(), node


def test_every_loader_is_told_to_run_no_code():
    calls = list(loading_calls())
    assert len(calls) >= 9
    for name, call in calls:
        said = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert said.get("trust_remote_code") == "False", f"{name}:{call.lineno}"


@pytest.fixture
def hostile(tmp_path, student, monkeypatch):
    """A model with code for everything that transformers would import, and a user who says yes."""
    folder, ran = tmp_path / "model", tmp_path / "ran"
    shutil.copytree(student, folder)
    code = f"open({str(ran)!r}, 'w').close()\nclass Own: pass\n"
    (folder / "own.py").write_text(code)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(code + "def generate(*_, **__): pass\n")
    parts = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        content |= {"auto_map": parts, **({"tokenizer_class": "Own"} if "tokenizer" in name else {})}
        (folder / name).write_text(json.dumps(content))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    yield folder
    assert not ran.exists(), "the folder's code was run"


def of_its_own_kind(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "architectures": ["Own"]}))
    return folder


@pytest.mark.parametrize("load", [
    checkpoints.load, lambda folder: checkpoints.load_to_sample(folder, "vllm"), shapes.load_config,
    shapes.count_parameters,
])
def test_a_model_that_needs_code_of_its_own_is_refused(hostile, load):
    with pytest.raises(UserError, match="code of its own is not run"):
        load(of_its_own_kind(hostile))


def test_a_known_kind_is_loaded_without_the_code_beside_it(hostile):
    model = checkpoints.load(hostile)
    assert type(model).__module__.startswith("transformers.")
    for load in (checkpoints.load_tokenizer, lambda folder: teachers.load_tokenizer(str(folder))):
        try:
            assert type(load(hostile)).__module__.startswith("transformers.")
        except UserError as error:
            assert "cannot be read" in str(error)
    params = sampling.SamplingParams(n=1, temperature=0.0, max_tokens=2)
    tokenizer = checkpoints.load_tokenizer(DATA / "tokenizer")
    assert sampling.sample(model, tokenizer, ["1"], params, engine="hf", quiet=True)


def test_commands_name_it_in_one_line(hostile, refused, tmp_path):
    of_its_own_kind(hostile)
    for command in (["chat", "--model", hostile, "1+1"], ["eval", "--model", hostile, "--out", tmp_path / "e"],
                    ["distill", "--model", hostile, "--out", tmp_path / "d", "--questions", "1"]):
        assert "code of its own is not run" in refused(*command)
