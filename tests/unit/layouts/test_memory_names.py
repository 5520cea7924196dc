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
from warmkit.errors import UnsupportedError

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
