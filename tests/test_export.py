"""A stage taken away: one folder that loads anywhere, with a card of the run's own numbers."""

import shutil

import pytest
import torch
import yaml
from huggingface_hub.errors import HTTPError
from transformers import AutoModelForCausalLM, AutoTokenizer

from phi_lab import cli, export, models, run, scale
from phi_lab.errors import UserError
from phi_lab.files import read_json, write_json


@pytest.fixture
def finished(tmp_path, shipped):
    """A run folder with two stages, as far as an export looks into it."""
    folder = tmp_path / "run"
    run.open_folder(folder, scale.SMOKE, 3)
    for stage in ("mid", "sft"):
        shutil.copytree(shipped(stage), folder / stage / "model")
        write_json(folder / stage / "done.json", {})
    shutil.copytree(shipped("dpo"), folder / "dpo" / "model")  # saved, but not finished
    row = {"arm": "main", "pass_at_k": None, "n": 80, "ci_low": 0.1, "ci_high": 0.9, "seed": 3}
    write_json(folder / "ladder.json", [
        {**row, "stage": stage, "benchmark": name, "temperature": temperature, "accuracy": accuracy}
        for stage, accuracy in (("mid", 0.25), ("sft", 0.5)) for name in ("easy", "hard") for temperature in (0.0, 0.6)
    ])  # fmt: skip
    return folder


def logits(folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("Compute 1+2.", return_tensors="pt").input_ids
    with torch.no_grad():
        return model(ids).logits.float()


def test_the_folder_loads_anywhere_and_its_card_tells_the_run_s_numbers(tmp_path, finished, capsys):
    out = tmp_path / "phi"
    assert cli.main(["export", str(finished), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"vllm serve {out}" in said and "convert_hf_to_gguf.py" in said
    assert torch.equal(logits(out), logits(finished / "sft" / "model"))  # the last finished stage
    assert not torch.equal(logits(out), logits(finished / "mid" / "model"))
    text = (out / "README.md").read_text()
    about = yaml.safe_load(text.split("---")[1])
    assert about["license"] == "apache-2.0" and about["library_name"] == "transformers"
    found = about["model-index"][0]["results"]
    assert {one["dataset"]["name"]: one["metrics"][0]["value"] for one in found} == {"easy": 50.0, "hard": 50.0}
    assert "| hard | 0.6 | 80 | 50.0 % | 10.0 to 90.0 % |" in text and "--seed 3" in text and "25.0" not in text


def test_a_gpu_scale_is_written_in_bfloat16_with_its_base_and_public_scores(tmp_path, finished):
    config = read_json(finished / "config.json")
    config |= {"scale": "lora", "numbers": scale.LORA.row()}
    write_json(finished / "config.json", config)
    score = {"benchmark": "aime25", "problems": 30, "samples": 64, "accuracy": 0.25, "ci_low": 0.2, "ci_high": 0.3}
    write_json(tmp_path / "scores" / "scores.json", [score])
    write_json(tmp_path / "scores" / "protocol.json", {"model": models.fingerprint(finished / "mid" / "model")})
    out = export.export(finished, tmp_path / "phi", "mid", scores=tmp_path / "scores")
    assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.bfloat16
    text = (out / "README.md").read_text()
    about = yaml.safe_load(text.split("---")[1])
    assert about["base_model"] == "microsoft/Phi-4-mini-instruct" and about["license"] == "mit"
    assert "| aime25 | 30 x 64 | 25.0 % | 20.0 to 30.0 % |" in text and "| aime24 | 0.6 |" in text
    with pytest.raises(UserError, match="scores of another model"):
        export.export(finished, tmp_path / "other", "sft", scores=tmp_path / "scores")
    with pytest.raises(UserError, match=r"scores\.json is missing"):
        export.export(finished, tmp_path / "other", "sft", scores=tmp_path)
    assert not (tmp_path / "other").exists()
    config["numbers"]["model"] = str(tmp_path)  # a folder of somebody's
    write_json(finished / "config.json", config)
    text = (export.export(finished, tmp_path / "local") / "README.md").read_text()
    assert str(tmp_path) not in text and "base_model" not in text and "license" not in text


def test_bad_input_is_one_line(tmp_path, finished, monkeypatch):
    with pytest.raises(UserError, match="no finished stage grpo; it has mid, sft"):
        export.export(finished, tmp_path / "phi", "grpo")
    with pytest.raises(UserError, match="is not empty"):
        export.export(finished, finished)
    with pytest.raises(UserError, match="config.json is missing"):
        export.export(tmp_path, tmp_path / "phi")

    def unreachable(*_, **__):
        raise HTTPError("no connection")

    monkeypatch.setattr(export.HfApi, "create_repo", unreachable)
    with pytest.raises(UserError, match=r"me/phi: the hub does not take it \(no connection\); the folder .* complete"):
        export.export(finished, tmp_path / "phi", push="me/phi")
    assert (tmp_path / "phi" / "model.safetensors").is_file()


def test_a_push_creates_a_private_repository_and_uploads_the_folder(tmp_path, finished, monkeypatch):
    seen = []
    monkeypatch.setattr(export.HfApi, "create_repo", lambda self, name, **how: seen.append((name, how)))
    monkeypatch.setattr(export.HfApi, "upload_folder", lambda self, **what: seen.append(what))
    out = export.export(finished, tmp_path / "phi", push="me/phi")
    assert seen == [("me/phi", {"private": True, "exist_ok": True}), {"repo_id": "me/phi", "folder_path": out}]
