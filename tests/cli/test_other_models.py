"""A model of another architecture in every command that samples: no option is needed."""

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from phi_lab import cli
from phi_lab.distill import shards
from phi_lab.model import checkpoints


@pytest.fixture(scope="module")
def llama(tmp_path_factory, tokenizer):
    """Folder of a Llama with random weights."""
    folder = tmp_path_factory.mktemp("llama")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    checkpoints.save(LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)), tokenizer, folder)
    return folder


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_it_chats(llama, capsys):
    assert run("chat", "--model", llama, "Compute 1+2.") == 0
    assert "3" in capsys.readouterr().out  # the verdict names the right answer
    assert run("chat", "--model", llama, "--engine", "cpu", "Compute 1+2.") == 2
    assert "the engine cpu knows Phi-3 models only, not llama: choose hf" in capsys.readouterr().err


def test_it_teaches(llama, tmp_path):
    few = ("--questions", 2, "--samples", 2, "--max-tokens", 4)
    assert run("distill", "--model", llama, *few, "--out", tmp_path / "set") == 0
    assert len(list(shards.rows(tmp_path / "set" / "rollouts"))) == 4


def test_it_is_measured(llama, tmp_path, capsys):
    asked = ("eval", "--model", llama, "--problems", 1, "--out", tmp_path / "exam")
    assert run(*asked) == 2 and "choose hf" in capsys.readouterr().err
    assert run(*asked, "--engine", "hf", "--name", "other") == 0
    assert "hard" in capsys.readouterr().out
