"""The GPU scales on a CPU: the tiny model in a folder like a download, natural text, every stage of each scale."""

import json
import re
import shutil
from dataclasses import asdict, fields, replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from phi_lab import cli
from phi_lab.config import paper, presets, schema
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows, write_rows
from phi_lab.core.run_folder import DataFolder, RunFolder
from phi_lab.distill import training_sets
from phi_lab.model import checkpoints, shapes
from phi_lab.pipeline import plan, run, run_data
from phi_lab.problems import benchmarks

NUMBERS = [(a, b) for a in range(3, 15) for b in range(2, 6)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """base/: a model as a download would leave it; set/: distilled from traces; sets/: three benchmarks."""
    root = tmp_path_factory.mktemp("scales")
    shutil.copytree(paths.SHIPPED / "sft", root / "base")
    right, wrong = "<think>{a}+{b}={c}.</think>\\boxed{{{c}}}", "<think>{a}+{b}={d}.</think>\\boxed{{{d}}}"
    rows = []
    for a, b in NUMBERS:
        one = {"a": a, "b": b, "c": a + b, "d": a + b + 1}
        traces = [right.format(**one), wrong.format(**one), right.replace(".<", ";{c}.<").format(**one)]
        rows.append({"problem": f"What is {a} and {b} together?", "answer": str(a + b), "generations": traces})
    write_rows(root / "openr1-math.jsonl", rows)
    for name in ("math500", "aime24"):
        problems = [{"problem": f"Add {n} to {n}.", "answer": str(2 * n)} for n in range(9)]
        for folder in (root, root / "sets"):
            write_rows(folder / f"{name}.jsonl", problems)
    # what a run without a set tells its user to type, with the folders of this test
    _, *asked = presets.LORA.distillation.command(str(root / "base")).replace("SET", str(root / "set")).split()
    assert cli.main([*asked, "--data", str(root)]) == 0
    write_rows(root / "sets" / "gpqa-diamond.jsonl", [
        {"Question": f"Which is {n}?", "Correct Answer": n, **{f"Incorrect Answer {k}": n + k for k in (1, 2, 3)}}
        for n in range(9)
    ])
    return root


def command(place, name, *rest):
    """A smoke run at a scale as a list of words."""
    words = ["run", "--scale", name, "--profile", "smoke", "--data", place / "set", "--model", place / "base"]
    return [str(word) for word in (*words, "--sets", place / "sets", *rest)]


PARTS = ("distillation", "mid", "sft", "dpo", "grpo", "evaluation", "hardware")


@pytest.mark.parametrize("part", PARTS)
def test_every_number_stands_beside_the_papers(part):
    """A row a number, a cell a scale; only what is off in all of them is left out."""
    scales = [presets.run_config(name) for name in schema.SCALES]
    rows = {row[0]: row[1:] for row in paper.comparison_table(part, scales)}
    assert all(len(cells) == len(scales) + 2 for cells in rows.values())
    found = [one.mid.hardware if part == "hardware" else getattr(one, part) for one in scales]
    for field in fields(found[0]):
        values, name = [getattr(one, field.name) for one in found], field.name.replace("_", " ")
        if name in rows and all(isinstance(value, int) and value > 1 for value in values) and part != "hardware":
            assert rows[name][: len(scales)] == tuple(f"{value:,}" for value in values)
        assert name in rows or name == "hardware" or not any(values), name
    for name, (value, source) in paper.PAPER[part].items():
        *_, theirs, said = rows[name.replace("_", " ")]
        assert said == source and source
        assert (theirs == "unknown") == (value is None)


def test_the_table_shows_each_kind_of_number():
    scales = [presets.run_config(name) for name in schema.SCALES]
    rows = {part: {row[0]: row[1:] for row in paper.comparison_table(part, scales)} for part in PARTS}
    assert rows["mid"]["row length"] == ("384", "4,096", "4,096", "16,384", "16,384", "section 3.1 [S]")
    assert rows["distillation"]["problems"][:4] == ("world", "openr1-math", "openr1-math", "openr1-math")
    assert rows["distillation"]["teacher kind"][:4] == ("model", "traces", "traces", "traces")
    assert rows["distillation"]["teacher"] == ("–", "–", "–", "–", "DeepSeek-R1", "[S2]")
    assert rows["distillation"]["decontaminate against"][:2] == ("none", "math500, aime24")
    assert rows["mid"]["muon"] == ("yes", "no", "no", "no", "–", "")
    assert rows["mid"]["epochs"] == ("5", "5", "5", "5", "5", "section 3.1 [S]")
    assert rows["dpo"]["max student nll"][:5] == ("6.0", "no limit", "no limit", "no limit", "unknown")
    assert rows["dpo"]["max tokens"][:5] == ("0", "4,096", "4,096", "16,384", "16,384")
    assert rows["evaluation"]["benchmarks"][0] == "easy, hard, transfer"
    assert rows["hardware"]["adapter"][:4] == ("none", "lora", "qlora", "none")
    assert rows["hardware"]["micro batch size"][:4] == ("8 (mid, sft); 4 (dpo); 32 (grpo)", "1", "1", "1")
    assert "keep best" not in rows["sft"]


def test_full_takes_the_papers_figures():
    for part, figures in paper.PAPER.items():
        ours = asdict(getattr(presets.FULL, "mid" if part == "hardware" else part))
        for name, (value, _) in figures.items():
            assert value is None or name not in ours or ours[name] == value, name
    # 128 GPUs, as the paper had them, can share the batch of every stage
    assert all(schema.global_batch_size(presets.FULL, stage) % 128 == 0 for stage in schema.STAGES[1:])
    assert presets.FULL.grpo.prompts_per_step * presets.FULL.grpo.group_size == 1024


def test_pairs_have_a_limit_where_a_gpu_has_to_hold_them():
    """An older run's config.json has none."""
    limits = {(name, profile): presets.run_config(name, profile).dpo.max_tokens
              for name in schema.SCALES for profile in schema.PROFILES}
    assert {limits["cpu", profile] for profile in schema.PROFILES} == {0}
    assert limits["full", "lab"] == 16384 and limits["lora", "lab"] == limits["qlora", "lab"] == 4096
    assert {limits[name, "smoke"] for name in ("lora", "qlora", "full")} == {1024}
    row = presets.LORA.row()
    assert schema.config_from_dict(row) == presets.LORA
    row["dpo"] = {name: value for name, value in row["dpo"].items() if name != "max_tokens"}
    assert schema.config_from_dict(row) == replace(presets.LORA, dpo=replace(presets.LORA.dpo, max_tokens=0))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "qlora", "full"])
def test_the_whole_chain_runs_at_a_gpu_scale(place, tmp_path, monkeypatch, name):
    monkeypatch.setenv("PHI_LAB_SETS", "")
    out = tmp_path / "run"
    assert cli.main(command(place, name, "--out", out)) == 0
    ladder = read_json(out / "ladder.json")
    assert [row["stage"] for row in ladder if row["benchmark"] == "easy" and row["temperature"]] == list(schema.STAGES)
    config = read_json(out / "config.json")["config"]
    assert config["model"] == str(place / "base") and config["evaluation"]["benchmarks"] == [
        "math500",
        "aime24",
        "gpqa-diamond",
    ]
    before = place / "base"
    for stage in schema.STAGES[1:]:
        folder = out / stage / "model"
        started_from = read_json(out / stage / "student.json")["weights"]
        assert started_from == checkpoints.fingerprint(before), "stages are chained"
        assert (folder / "adapter" / "adapter_model.safetensors").is_file() == (name != "full")
        assert shapes.count_parameters(folder) == shapes.count_parameters(before)
        before = folder
    assert checkpoints.fingerprint(out / "grpo" / "model") != checkpoints.fingerprint(place / "base")
    said = {row["id"] for row in read_rows(out / "evals" / "grpo.transfer.jsonl")}
    assert len(said) == 8 and all(one.startswith("gpqa-diamond-") for one in said)
    assert "report.html" in {path.name for path in out.iterdir()}


@pytest.mark.slow
def test_another_causal_language_model_climbs_too(place, tmp_path, tokenizer, monkeypatch):
    """A tiny Llama with separate projections: nothing but the rollout loop for CPUs is Phi's own."""
    for name in ("PHI_LAB_SETS", "PHI_LAB_LEAVE_OUT_GATED"):  # which the command sets
        monkeypatch.setenv(name, "")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "intermediate_size": 128, "vocab_size": len(tokenizer), "max_position_embeddings": 1024}
    ends = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    checkpoints.save(LlamaForCausalLM(LlamaConfig(**sizes, **ends)), tokenizer, tmp_path / "llama")
    words = [word if word != str(place / "base") else str(tmp_path / "llama") for word in command(place, "lora")]
    assert cli.main([*words, "--out", str(tmp_path / "run"), "--leave-out-gated"]) == 0
    measured = {row["benchmark"] for row in read_json(tmp_path / "run" / "ladder.json")}
    assert measured == {"easy", "hard"}  # and not GPQA
    assert (tmp_path / "run" / "report.html").is_file()
    before = tmp_path / "llama"
    for stage in ("mid", "sft", "dpo"):  # of answers that are never right GRPO learns nothing
        after = tmp_path / "run" / stage / "model"
        assert checkpoints.fingerprint(after) != checkpoints.fingerprint(before)
        before = after
    assert read_json(tmp_path / "run" / "config.json")["config"]["evaluation"]["engine"] == "hf"


def test_a_set_without_wrong_rollouts_is_told_when_it_is_adopted(place, tmp_path):
    """Not after mid-training and SFT, when Rollout DPO finds no pair."""
    said = []
    run_data.import_dataset(place / "set", RunFolder(tmp_path / "whole"), said.append)
    assert said == []
    shutil.copytree(place / "set", tmp_path / "set")
    (tmp_path / "set" / "wrong.jsonl").write_text("")
    training_sets.write_mark(DataFolder(tmp_path / "set"))
    run_data.import_dataset(tmp_path / "set", RunFolder(tmp_path / "run"), said.append)
    assert len(said) == 1 and "Rollout DPO will have no pair: end the run before it with --to sft" in said[0]


def test_reinforcement_asks_the_questions_of_the_set(place, tmp_path):
    """And none of its validation set, of whose questions there are wrong rollouts, too."""
    run_data.import_dataset(place / "set", RunFolder(tmp_path))
    data = RunFolder(tmp_path).data
    held_out = {row["id"] for row in read_rows(data.validation)}
    assert held_out & {row["id"] for row in read_rows(place / "set" / "wrong.jsonl")}
    assert not held_out & {row["id"] for path in (data.right, data.wrong) for row in read_rows(path)}
    asked = run_data.grpo_problems(data, 20, 0)
    assert len(asked) == 20 == len({problem.id for problem in asked})
    known = {f"{schema.INSTRUCTION}\n\nWhat is {a} and {b} together?": str(a + b) for a, b in NUMBERS}
    assert all(known[problem.prompt] == problem.answer for problem in asked)
    assert asked == run_data.grpo_problems(data, 20, 0) != run_data.grpo_problems(data, 20, 1)


def refused(capsys, words):
    """The one line of a command that must fail before anything is loaded."""
    assert cli.main([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_bad_input_is_one_line_before_anything_is_loaded(place, tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"

    def unreachable(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr(checkpoints, "snapshot_download", unreachable)
    monkeypatch.setenv("PHI_LAB_SETS", "")  # which --sets would leave behind for other tests
    assert "--data SET" in refused(capsys, ["run", "--scale", "lora", "--out", out])
    asked = ["run", "--scale", "lora", "--data", place / "set", "--out", out]
    assert "microsoft/Phi-4-mini-instruct: no such folder, and the hub does not give it (no connection)" in refused(
        capsys, asked
    )
    assert "config.json is missing" in refused(capsys, [*asked, "--model", tmp_path])
    assert "--model goes with --scale lora" in refused(capsys, ["run", "--model", place / "base", "--out", out])
    assert "--from mid" in refused(capsys, [*asked, "--model", place / "base", "--from", "base"])
    assert "no checkpoint of sft" in refused(
        capsys, [*command(place, "lora", "--out", tmp_path / "later"), "--from", "dpo"]
    )
    mute = shutil.copytree(place / "base", tmp_path / "mute")
    (mute / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((mute / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (mute / "tokenizer_config.json").write_text(json.dumps(settings))
    assert "no chat template" in refused(capsys, [*asked, "--model", mute])
    monkeypatch.setattr(run, "SMALL_FOR_CPU", 1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1e6))
    assert "needs an NVIDIA GPU for this model" in refused(capsys, [*asked, "--model", place / "base"])
    assert not out.exists()


def test_a_gated_set_is_left_out_where_the_user_says_so(place, monkeypatch):
    monkeypatch.setenv("PHI_LAB_LEAVE_OUT_GATED", "1")
    config = run.resolve_and_check(presets.LORA, str(place / "base"), True, 1)
    assert config.evaluation.benchmarks == ("math500", "aime24", "")
    monkeypatch.delenv("PHI_LAB_LEAVE_OUT_GATED")
    assert "" not in run.resolve_and_check(presets.LORA, str(place / "base"), True, 1).evaluation.benchmarks


def test_a_large_model_on_a_processor_is_told_with_its_hours(place, monkeypatch):
    """Twice the speed, half the hours; a model of the same shape as Phi-4-mini does not fit beside its optimizer."""
    monkeypatch.setattr(run, "SMALL_FOR_CPU", 1000)
    said: list[str] = []
    config = run.resolve_and_check(presets.LORA, str(place / "base"), True, 1, said.append)
    assert len(said) == 1 and "no NVIDIA GPU: 1 M weights" in said[0] and "hours" in said[0]
    assert config.mid.hardware.attention == "sdpa"  # it goes on, with a processor's settings
    small = shapes.phi_config("phi-nano")
    hours = [float(re.search(r"([\d,]+) hours or more", plan.cpu_warning(presets.LORA, small, 1e12, speed))[1]
                   .replace(",", "")) for speed in (1e6, 2e6)]
    assert hours[0] == pytest.approx(2 * hours[1], rel=0.001)
    assert "--profile smoke tries them" in plan.cpu_warning(presets.LORA, small, 1e12, 1e6)
    tried = presets.smoke(presets.LORA)
    measuring = replace(tried.evaluation, problems=2 * tried.evaluation.problems,
                        pass_problems=2 * tried.evaluation.pass_problems)
    said = [plan.cpu_warning(config, small, 1e12, 1e9) for config in (tried, replace(tried, evaluation=measuring))]
    minutes = [float(re.search(r", ([\d,]+) minutes or more for all stages and their measurements as they are set$",
                               line)[1]) for line in said]
    assert minutes[1] > minutes[0]  # more problems, more time
    with pytest.raises(UserError, match=r"3\.8 B weights take 61 GB here, and 32 are free"):
        plan.cpu_warning(presets.FULL, shapes.phi_config("phi-4-mini"), 32e9, 1e11)
    assert run.matrix_speed(0.05) > 1e8


def test_another_models_chat_template_is_its_own(tokenizer):
    from phi_lab.model import chat

    other = checkpoints.load_tokenizer()
    other.chat_template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}{{ '[assistant]' }}"
    assert chat.render_prompt(other, "Compute 1+1.") == "[user]Compute 1+1.[assistant]"
    other.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        chat.render_prompt(other, "Compute 1+1.")


def test_a_benchmark_that_is_nowhere_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI_LAB_SETS", str(tmp_path))
    with pytest.raises(UserError, match="no math500.jsonl"):
        benchmarks.load("math500")
