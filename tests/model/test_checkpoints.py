"""Models: the published shape to the parameter, the tiny ones Phi too, adapters that leave the base alone."""

import bitsandbytes
import pytest
import torch
from peft import peft_model
from transformers import AutoModelForCausalLM, Phi3ForCausalLM

from phi_lab.config.schema import HardwareConfig
from phi_lab.core.errors import UserError
from phi_lab.model import chat, checkpoints, shapes


def test_phi_4_mini_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shapes.phi_config("phi-4-mini"))
    assert isinstance(model, Phi3ForCausalLM)
    assert sum(weight.numel() for weight in model.parameters()) == 3_836_021_760


@pytest.mark.parametrize("name", ["phi-nano", "phi-micro", "phi-4-mini"])
def test_every_size_is_phi(name):
    config = shapes.phi_config(name)
    assert config.num_attention_heads % config.num_key_value_heads == 0
    assert config.num_key_value_heads < config.num_attention_heads  # grouped queries
    assert config.rope_parameters["partial_rotary_factor"] == 0.75
    assert config.tie_word_embeddings
    if name == "phi-4-mini":
        return
    model = shapes.build(name, 514, 0)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    head = config.hidden_size // config.num_attention_heads
    cosine, _ = model.model.rotary_emb(torch.zeros(1, 1, config.hidden_size), torch.arange(3)[None])
    assert cosine.shape[-1] == 0.75 * head
    assert 0.5e6 < sum(weight.numel() for weight in model.parameters()) < 2.5e6
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]


def test_longrope_keeps_to_the_long_factors(long_roped):
    """transformers rotates a short document differently once a long one is packed beside it; vLLM decides once."""
    ids = torch.arange(20)[None] + 5
    beside = torch.cat((ids, torch.arange(60)[None] + 7), 1)  # packed behind it: a document of 60 tokens
    places = torch.cat((torch.arange(20), torch.arange(60)))[None]

    def alone_and_packed(model):
        model.eval()
        with torch.no_grad():
            return (model(ids, use_cache=False).logits,
                    model(beside, position_ids=places, use_cache=False).logits[:, :20])

    alone, packed = alone_and_packed(AutoModelForCausalLM.from_pretrained(long_roped, dtype=torch.float32))
    assert (alone - packed).abs().max() > 1e-3  # the trap
    one_way, packed_one_way = alone_and_packed(checkpoints.load(long_roped))
    assert torch.allclose(one_way, packed_one_way, atol=1e-5) and torch.allclose(one_way, packed, atol=1e-5)
    assert shapes.min_vllm_context(checkpoints.load(long_roped)) == 33
    assert shapes.min_vllm_context(shapes.build("phi-nano", 514, 0)) == 0


def test_the_seed_makes_the_weights():
    first, same, other = (shapes.build("phi-nano", 514, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_what_is_saved_loads_anywhere(tmp_path, tokenizer):
    model = shapes.build("phi-nano", len(tokenizer), 3)
    checkpoints.save(model, tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())
    assert checkpoints.load_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()
    assert checkpoints.load_tokenizer(tmp_path).chat_template == chat.CHAT_TEMPLATE


def test_wrong_names_are_the_users(tmp_path, student):
    with pytest.raises(UserError, match="unknown model 'phi-5'.*phi-nano"):
        shapes.phi_config("phi-5")
    with pytest.raises(UserError, match="config.json is missing"):
        checkpoints.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="unknown adapter 'dora'"):
        checkpoints.load(student, HardwareConfig(adapter="dora"))


def state(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_adapters_train_and_the_base_stays(adapter, student, tokenizer):
    model = checkpoints.load(student, HardwareConfig(adapter=adapter))
    ids = tokenizer(chat.prompt_text("Compute 12+13.") + r"\boxed{25}", return_tensors="pt").input_ids
    with torch.no_grad():
        first = model(input_ids=ids).logits
    before = state(model)  # after a forward pass, at which bitsandbytes lays 4-bit weights out anew on a CPU
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert 0 < sum(weight.numel() for weight in trained) < 0.5 * sum(weight.numel() for weight in model.parameters())
    optimiser, losses = torch.optim.AdamW(trained, 1e-3), []
    for _ in range(4):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    after = state(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("lora_" in name for name in moved)
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(input_ids=ids).logits, first)
    if adapter == "qlora":
        linear = model.base_model.model.model.layers[0].mlp.down_proj.base_layer
        assert linear.weight.dtype == torch.uint8 and linear.weight.quant_type == "nf4"


def test_a_base_in_4_bits_is_merged_in_the_computer_s_memory(student, tokenizer, tmp_path, monkeypatch):
    """On the GPU a whole base would have to find room beside the trained model."""
    model = checkpoints.load(student, HardwareConfig(adapter="qlora"))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.01)
    devices, real = [], peft_model.load_peft_weights
    monkeypatch.setattr(checkpoints, "device", lambda: torch.device("meta"))  # a model moved there has no weights
    monkeypatch.setattr(peft_model, "infer_device", lambda: "meta")
    monkeypatch.setattr(
        peft_model, "load_peft_weights", lambda *names, **how: devices.append(how["device"]) or real(*names, **how)
    )
    checkpoints.save(model, tokenizer, tmp_path)
    assert devices == ["cpu"]
    merged, base = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (tmp_path, student))
    layer = model.base_model.model.model.layers[0].mlp.down_proj
    added = merged.model.layers[0].mlp.down_proj.weight - base.model.layers[0].mlp.down_proj.weight
    assert added.abs().max() > 0 and torch.allclose(added, layer.get_delta_weight("default").float(), atol=1e-5)
    assert torch.equal(merged.model.norm.weight, base.model.norm.weight)


def test_all_weights_train_without_an_adapter(student):
    assert all(weight.requires_grad for weight in checkpoints.load(student).parameters())


def test_a_step_of_8_bit_adamw(tokenizer):
    model = shapes.build("phi-nano", len(tokenizer), 0)
    before = state(model)
    optimiser = bitsandbytes.optim.AdamW8bit(model.parameters(), lr=1e-3)
    ids = tokenizer(chat.prompt_text("Compute 12+13."), return_tensors="pt").input_ids
    losses = []
    for _ in range(3):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert any(values["state1"].dtype == torch.uint8 for values in optimiser.state.values())  # really in 8 bits
    assert not torch.equal(before["model.norm.weight"], state(model)["model.norm.weight"])
