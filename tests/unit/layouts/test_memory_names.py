"""Adapters of models whose tensors transformers calls otherwise in memory than on disk."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import warmkit
from tests.unit.layouts import lora
from warmkit.errors import UnsupportedError, UsageError

TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
EYES = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4}


def qwen2_vl() -> Any:
    text = {**TEXT, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}, "pad_token_id": 0}
    ids: dict[str, Any] = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
    return transformers.Qwen2VLForConditionalGeneration(transformers.Qwen2VLConfig(text_config=text, vision_config=EYES, **ids))


def llava() -> Any:
    size: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = transformers.CLIPVisionConfig(**size, image_size=16, patch_size=8, projection_dim=16)
    text = transformers.LlamaConfig(**TEXT)
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=60)
    )


def mixtral() -> Any:
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**TEXT, num_local_experts=2))


def gpt_oss() -> Any:
    sizes: dict[str, Any] = {**TEXT, "num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8}
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(**sizes))


def granite() -> Any:
    return transformers.GraniteMoeForCausalLM(transformers.GraniteMoeConfig(**TEXT, num_local_experts=2))


def llama_4() -> Any:
    sizes: dict[str, Any] = {**TEXT, "intermediate_size_mlp": 48, "num_local_experts": 2, "head_dim": 8}
    return transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**sizes))


def pair(folder: Path, model: Any) -> tuple[Path, Path]:
    """Write a model, and one that is tuned in all of its matrices."""
    model.save_pretrained(folder / "base")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder / "tuned")
    return folder / "base", folder / "tuned"


@pytest.mark.parametrize("kind", [qwen2_vl, llava])
def test_what_is_extracted_from_a_vision_language_model_is_applied_by_peft(kind: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    base, tuned = pair(tmp_path, kind())
    made = warmkit.extract_lora(tuned, tmp_path / "out", init=base, rank=128)
    found, wanted = lora.dense(base, tmp_path / "out"), lora.loaded(tuned).state_dict()
    assert len(made.modules) > 15
    for module in made.modules:
        torch.testing.assert_close(found[f"{module.name}.weight"], wanted[f"{module.name}.weight"], rtol=1e-4, atol=2e-6)


def test_experts_are_refused_by_name_and_the_rest_of_the_model_is_not(tmp_path: Path) -> None:
    torch.manual_seed(1)
    base, tuned = pair(tmp_path, mixtral())
    name = r"'model\.layers\.0\.block_sparse_moe\.experts\.0\.w1\.weight' is no module of its own in memory"
    with pytest.raises(UnsupportedError, match=rf"{name}.*--targets k_proj,o_proj,q_proj,v_proj$"):
        warmkit.extract_lora(tuned, tmp_path / "out", init=base)
    assert not (tmp_path / "out").exists()
    warmkit.extract_lora(tuned, tmp_path / "out", init=base, rank=32, targets=["q_proj", "o_proj"])
    found, wanted = lora.dense(base, tmp_path / "out"), lora.loaded(tuned).state_dict()
    name = "model.layers.1.self_attn.o_proj.weight"
    torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [
        (gpt_oss, "mlp.experts.down_proj", "down_proj"),
        (granite, "block_sparse_moe.input_linear.weight", "input_linear"),
        (llama_4, "feed_forward.experts.down_proj", "experts.gate_up_proj"),
    ],
)
def test_experts_that_are_one_tensor_on_disk_are_refused_by_name(kind: Any, name: str, target: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    base, tuned = pair(tmp_path, kind())
    told = "is no module of its own in memory, where the experts of a layer are one tensor"
    said = rf"'model\.layers\.0\.{re.escape(name)}' {told} .*; name other modules with --targets .*q_proj"
    with pytest.raises(UnsupportedError, match=said):
        warmkit.extract_lora(tuned, tmp_path / "out", init=base)
    with pytest.raises(
        UnsupportedError, match=r"is no module of its own in memory, where the experts of a layer are one tensor"
    ):
        warmkit.extract_lora(tuned, tmp_path / "out", init=base, targets=["q_proj", target])
    assert not (tmp_path / "out").exists()


def test_an_adapter_with_names_as_in_memory_is_read(tmp_path: Path) -> None:
    torch.manual_seed(1)
    base = tmp_path / "base"
    qwen2_vl().save_pretrained(base)
    adapter = lora.adapter(tmp_path / "adapter", base, r=2, target_modules=["q_proj", "qkv"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = lora.save_dense(tmp_path / "dense", base, adapter)
    expected = warmkit.open_checkpoint(wanted)
    found = warmkit.open_checkpoint(f"{base}+{adapter}")
    changed = [name for name, entry in found.entries.items() if entry.file != warmkit.open_checkpoint(base).entries[name].file]
    assert len(changed) == 4
    for name in found:
        torch.testing.assert_close(found[name].load(), expected[name].load(), rtol=2e-6, atol=2e-6)


def qwen3_moe() -> Any:
    sizes: dict[str, Any] = {**TEXT, "moe_intermediate_size": 24, "num_experts": 3, "num_experts_per_tok": 2, "head_dim": 8}
    return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**sizes))


@pytest.mark.parametrize("kind", [mixtral, qwen3_moe, gpt_oss, granite, llama_4])
def test_experts_that_are_asked_for_are_applied_by_peft(kind: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    base, tuned = pair(tmp_path, kind())
    made = warmkit.extract_lora(tuned, tmp_path / "out", init=base, rank=48, experts=True)
    found, wanted = lora.dense(base, tmp_path / "out"), lora.loaded(tuned).state_dict()
    own, model = warmkit.open_checkpoint(f"{base}+{tmp_path / 'out'}"), warmkit.open_checkpoint(tuned)
    experts = [module.name for module in made.modules if ".experts." in module.name]
    assert len(experts) == 4
    for module in made.modules:
        name = module.name if module.name in experts else f"{module.name}.weight"
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=2e-6)
    rest = {each.name for each in made.rest}
    for name in own:
        if name not in rest:
            torch.testing.assert_close(own[name].load(), model[name].load(), rtol=1e-4, atol=2e-6)


def test_ranks_of_experts_follow_the_energy_of_the_one_that_needs_most(tmp_path: Path) -> None:
    torch.manual_seed(1)
    base, tuned = pair(tmp_path, qwen3_moe())
    made = warmkit.extract_lora(tuned, tmp_path / "out", init=base, energy=0.9, experts=True, targets=["gate"])
    assert len({module.rank for module in made.modules}) > 1
    found = lora.dense(base, tmp_path / "out")
    own = warmkit.open_checkpoint(f"{base}+{tmp_path / 'out'}")
    down = torch.stack([own[f"model.layers.1.mlp.experts.{expert}.down_proj.weight"].load() for expert in range(3)])
    torch.testing.assert_close(down, found["model.layers.1.mlp.experts.down_proj"], rtol=1e-4, atol=2e-6)
    torch.testing.assert_close(
        own["model.layers.0.mlp.gate.weight"].load(), found["model.layers.0.mlp.gate.weight"], rtol=1e-4, atol=2e-6
    )


def test_what_peft_would_take_for_experts_is_refused_beside_them(tmp_path: Path) -> None:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {**TEXT, "moe_intermediate_size": 24, "num_experts": 2, "num_experts_per_tok": 1}
    shared = transformers.Qwen2MoeForCausalLM(transformers.Qwen2MoeConfig(**sizes, shared_expert_intermediate_size=16))
    base, tuned = pair(tmp_path, shared)
    with pytest.raises(
        UnsupportedError, match=r"peft takes '.*shared_expert\.down_proj' in target_modules for the experts' own"
    ):
        warmkit.extract_lora(tuned, tmp_path / "out", init=base, experts=True)
    made = warmkit.extract_lora(tuned, tmp_path / "out", init=base, experts=True, targets=["q_proj"], rank=32)
    found, wanted = lora.dense(base, tmp_path / "out"), lora.loaded(tuned).state_dict()
    for name in [module.name for module in made.modules if ".experts." in module.name]:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=2e-6)
    with pytest.raises(UsageError, match=r"has no experts as transformers holds them; leave --experts out"):
        warmkit.extract_lora(lora.base(tmp_path / "llama"), tmp_path / "plain", init=tmp_path / "llama", experts=True)
