"""What is loaded when: a mistake is told before torch is loaded, and a notebook's first cell loads no trainer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MISTAKES = """
plan --scale larg                                   | unknown scale 'larg'
plan --gpu h1000                                    | unknown GPU 'h1000'
run --scale larg --out new                          | unknown scale 'larg'
run --profile labb --out new                        | unknown profile 'labb'
run --from mit --out new                            | unknown stage 'mit'
run --out a_file                                    | a_file is a file
run --data nowhere --out new                        | nowhere/right.jsonl is missing
run --scale lora --data set --model ./no --out new  | no model in ./no
chat --model nowhere hello                          | no model in nowhere
eval --model nowhere --out new                      | no model in nowhere
eval --model set --out a_file                       | a_file is a file
export nowhere --out new                            | nowhere/ladder.json is missing
report nowhere                                      | nowhere/ladder.json is missing
doctor nowhere                                      | nowhere: no such folder
track nowhere --to wandb                            | nowhere: no such folder
query nowhere                                       | nowhere: no finished rollouts
distill --teacher modl --out new                    | unknown teacher 'modl'
distill --problems nowhere.jsonl --out new          | nowhere.jsonl is missing
distill --model nowhere --out new                   | no model in nowhere
stage mit --out new                                 | unknown stage 'mit'
stage mid --out nowhere                             | nowhere/config.json is missing
experiment ladder --profile labb --out new          | unknown profile 'labb'
publish nowhere                                     | nowhere/ladder.json is missing
course --profile labb                               | unknown profile 'labb'
"""
CASES = [tuple(part.strip() for part in line.split("|")) for line in MISTAKES.strip().splitlines()]
WITHOUT_TORCH = """
import contextlib, io, json, sys
sys.modules["torch"] = None  # to import it now raises
from phi_lab.cli import main
answers = []
for command in json.loads(sys.argv[1]):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            code = main(command.split())
        except ImportError as error:
            code = f"loads torch: {error}"
    answers.append([code, errors.getvalue()])
print(json.dumps(answers))
"""
SLOW_TO_LOAD = ("trl", "peft", "bitsandbytes", "datasets", "accelerate", "transformers.modeling_utils", "torch._dynamo")


def python(folder, code, *arguments):
    """What a new Python prints last, as JSON."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """{command: (exit code, what it said)} of a process that cannot load torch."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "a_file").write_text("")
    (folder / "set").mkdir()
    for name in ("right.jsonl", "config.json", "model.safetensors"):
        (folder / "set" / name).write_text("{}\n")
    commands = [command for command, _ in CASES]
    return dict(zip(commands, python(folder, WITHOUT_TORCH, json.dumps(commands)), strict=True))


@pytest.mark.parametrize(("command", "line"), CASES)
def test_a_mistake_is_told_before_torch_is_loaded(told, command, line):
    code, said = told[command]
    assert code == 2 and said.startswith("phi-lab: ") and line in said, (code, said)


@pytest.mark.parametrize("code", ["from phi_lab.lab import Lab", "from phi_lab.lab import widgets, tables, checks"])
def test_a_notebook_starts_without_what_only_training_needs(tmp_path, code):
    loaded = f"{code}; import json, sys; print(json.dumps([n for n in {SLOW_TO_LOAD} if n in sys.modules]))"
    assert python(tmp_path, loaded) == []


def test_help_loads_nothing_slow(tmp_path):
    names = ("torch", "transformers", "matplotlib", "numpy", *SLOW_TO_LOAD)
    loaded = f"""
import contextlib, io, json, sys
from phi_lab.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["--help"])
print(json.dumps([name for name in {names} if name in sys.modules]))"""
    assert python(tmp_path, loaded) == []
