"""Configs are compared by what they mean, whatever version of transformers wrote them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import warmkit
from tests.conftest import save
from tests.unit.layouts import config_defaults_of_transformers as known
from warmkit.errors import MismatchError
from warmkit.layouts.config_defaults import DEFAULTS, PARTIAL_FACTORS, ROPE_BASES, TIED
from warmkit.layouts.config_meanings import compare

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 8}
GEMMA3 = {"model_type": "gemma3_text", "num_hidden_layers": 6}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
QWEN_VL = {"model_type": "qwen2_vl", "vision_config": {"depth": 2}}
ROUTED = {"model_type": "qwen3_moe", "num_experts_per_tok": 8}
LABELS = {"0": "rejected", "1": "chosen"}
ALTERNATE = ["sliding_attention", "full_attention"]

# What two configs say in other words.
SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the base in the keys of 4 and of 5": (
        {**LLAMA, "rope_theta": 5e5, "rope_scaling": None},
        {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
    ),
    "a base that is absent and the default": (LLAMA, {**LLAMA, "rope_theta": 10000.0}),
    "another default": ({"model_type": "mixtral"}, {"model_type": "mixtral", "rope_theta": 1e6}),
    "scaling in the keys of 4 and of 5": (
        {**LLAMA, "rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}},
        {**LLAMA, "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
    ),
    "defaults of YaRN, and the positions before it": (
        {**LLAMA, "max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": 4.0}},
        {
            **LLAMA,
            "max_position_embeddings": 4096,
            "rope_parameters": {**YARN, "rope_theta": 1e4, "beta_fast": 32, "truncate": True},
        },
    ),
    "a part of each head": (
        {"model_type": "gpt_neox", "rotary_pct": 0.25, "rotary_emb_base": 10000},
        {"model_type": "gpt_neox", "rope_parameters": {"rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
    ),
    "a base for each kind of layer": (
        {**GEMMA3, "rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {
            **GEMMA3,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "windows by a period and by a list": (
        {**GEMMA3, "sliding_window_pattern": 2},
        {**GEMMA3, "layer_types": ALTERNATE * 3, "_sliding_window_pattern": 2},
    ),
    "windows by nothing and by a list": (
        {"model_type": "gemma2", "num_hidden_layers": 4},
        {"model_type": "gemma2", "num_hidden_layers": 4, "layer_types": ALTERNATE * 2},
    ),
    "a window that is not used": (
        {
            "model_type": "qwen2",
            "num_hidden_layers": 2,
            "sliding_window": 4096,
            "max_window_layers": 2,
            "use_sliding_window": False,
        },
        {"model_type": "qwen2", "num_hidden_layers": 2, "sliding_window": None, "layer_types": ["full_attention"] * 2},
    ),
    "experts": ({**ROUTED, "num_experts": 4}, {**ROUTED, "num_local_experts": 4}),
    "types": ({**LLAMA, "torch_dtype": "bfloat16"}, {**LLAMA, "dtype": "float32"}),
    "heads of keys that are absent": (LLAMA, {**LLAMA, "num_key_value_heads": 8, "head_dim": 8}),
    "names of activations": ({**LLAMA, "hidden_act": "silu"}, {**LLAMA, "hidden_act": "swish"}),
    "positions of an image's patches": (
        {"model_type": "qwen2_vl", "vision_config": {"model_type": "qwen2_vl"}},
        {
            "model_type": "qwen2_vl",
            "vision_config": {
                "model_type": "qwen2_vl_vision",
                "rope_parameters": {"rope_type": "axial", "rope_theta": 10000.0},
            },
        },
    ),
    "architectures on one side": (LLAMA, {**LLAMA, "architectures": ["LlamaForCausalLM"]}),
    "architectures in a part": (
        {**QWEN_VL, "architectures": ["Qwen2VLForConditionalGeneration"]},
        {**QWEN_VL, "text_config": {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl_text"}},
    ),
    "a language model's keys at the top": (
        {
            **QWEN_VL,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "rope_theta": 1e6,
            "rope_scaling": {"type": "mrope", "mrope_section": [1]},
        },
        {
            **QWEN_VL,
            "text_config": {
                "model_type": "qwen2_vl_text",
                "hidden_size": 32,
                "num_attention_heads": 4,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1]},
            },
        },
    ),
    "labels that transformers gives by itself": ({**LLAMA, "id2label": {"0": "LABEL_0"}}, LLAMA),
    "tied by default": ({"model_type": "gemma"}, {"model_type": "gemma", "tie_word_embeddings": True}),
}


@pytest.mark.parametrize("case", SAME)
def test_what_means_the_same_is_no_note(case: str) -> None:
    one, two = SAME[case]
    for found in (compare(one, two), compare(two, one)):
        assert not found.contradictions
        assert not found.others


# What two configs say that cannot both be true of the same weights, and the key that is named.
DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "the base": ({**LLAMA, "rope_theta": 1e4}, {**LLAMA, "rope_parameters": {"rope_theta": 1e6}}, "rope_theta"),
    "a base against the default": (LLAMA, {**LLAMA, "rope_theta": 1e6}, "rope_theta"),
    "scaling": (LLAMA, {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type"),
    "the factor of scaling": (
        {**LLAMA, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        "factor",
    ),
    "positions before they were stretched": (
        {**LLAMA, "max_position_embeddings": 4096, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {**LLAMA, "max_position_embeddings": 8192, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        "original_max_position_embeddings",
    ),
    "the base of one kind of layer": (
        {**GEMMA3, "rope_local_base_freq": 1e4},
        {**GEMMA3, "rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 5e4}}},
        "sliding_attention.rope_theta",
    ),
    "which layers have a window": (
        {"model_type": "gemma2", "num_hidden_layers": 2},
        {"model_type": "gemma2", "num_hidden_layers": 2, "layer_types": ALTERNATE[::-1]},
        "layer_types",
    ),
    "the window": ({"model_type": "mistral"}, {"model_type": "mistral", "sliding_window": None}, "sliding_window"),
    "positions of an image's patches": (
        {"model_type": "qwen2_vl", "vision_config": {"model_type": "qwen2_vl"}},
        {"model_type": "qwen2_vl", "vision_config": {"rope_parameters": {"rope_type": "axial", "rope_theta": 100.0}}},
        "vision_config.rope_theta",
    ),
    "heads of a part": (
        {"model_type": "llava", "text_config": {**LLAMA}},
        {"model_type": "llava", "text_config": {**LLAMA, "num_attention_heads": 4}},
        "text_config.num_attention_heads",
    ),
    "heads of an encoder": (
        {"model_type": "vision-encoder-decoder", "encoder": {"model_type": "vit", "num_attention_heads": 4}},
        {"model_type": "vision-encoder-decoder", "encoder": {"model_type": "vit", "num_attention_heads": 2}},
        "encoder.num_attention_heads",
    ),
    "experts a token": ({**ROUTED}, {**ROUTED, "num_experts_per_tok": 2}, "num_experts_per_tok"),
    "normalised shares": ({**ROUTED, "norm_topk_prob": True}, ROUTED, "norm_topk_prob"),
    "scale of experts": (
        {"model_type": "deepseek_v3", "routed_scaling_factor": 2.5},
        {"model_type": "deepseek_v3", "routed_scaling_factor": 1.0},
        "routed_scaling_factor",
    ),
    "softcapping": (
        {"model_type": "gemma2", "final_logit_softcapping": None},
        {"model_type": "gemma2"},
        "final_logit_softcapping",
    ),
    "the scale of attention": (
        {"model_type": "gemma2", "query_pre_attn_scalar": 224},
        {"model_type": "gemma2", "query_pre_attn_scalar": 256},
        "query_pre_attn_scalar",
    ),
    "parts of rotary positions": (
        {**QWEN_VL, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        {**QWEN_VL, "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}},
        "mrope_section",
    ),
    "labels": ({**LLAMA, "id2label": LABELS}, {**LLAMA, "id2label": {"0": "chosen", "1": "rejected"}}, "id2label"),
    "architectures": (
        {**LLAMA, "architectures": ["LlamaForCausalLM"]},
        {**LLAMA, "architectures": ["LlamaForSequenceClassification"]},
        "architectures",
    ),
    "kinds of experts": (
        {"model_type": "deepseek_v3", "first_k_dense_replace": 3},
        {"model_type": "deepseek_v3", "first_k_dense_replace": 1},
        "first_k_dense_replace",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_another_meaning_is_a_contradiction(case: str) -> None:
    one, two, key = DIFFERENT[case]
    assert key in compare(one, two).contradictions
    assert key in compare(two, one).contradictions


def test_what_weights_do_not_depend_on_is_a_note() -> None:
    one = {**LLAMA, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "eos_token_id": 2, "rope_theta": 1e4}
    two = {**LLAMA, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "eos_token_id": 7, "rope_theta": 1e4}
    found = compare(one, two)
    assert not found.contradictions
    assert found.others == {
        "eos_token_id": ("2", "7"),
        "max_position_embeddings": ("2048", "4096"),
        "rms_norm_eps": ("1e-05", "1e-06"),
    }


def test_an_unknown_default_is_a_note_and_no_contradiction() -> None:
    found = compare({"model_type": "of_remote_code"}, {"model_type": "of_remote_code", "norm_topk_prob": True})
    assert found.others == {"norm_topk_prob": ("(absent)", "True")}
    assert not found.contradictions


def test_defaults_are_those_of_transformers() -> None:
    assert known.defaults() == DEFAULTS
    assert known.ropes() == (ROPE_BASES, PARTIAL_FACTORS)
    assert known.tied() == TIED


# ---- models of transformers ------------------------------------------------------------------------------------------

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}


def llama(folder: Path, theta: float = 1e4) -> Path:
    torch.manual_seed(ord(folder.name))
    rope = {"rope_type": "default", "rope_theta": theta}
    config = transformers.LlamaConfig(**SIZES, num_attention_heads=4, rope_parameters=rope)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def as_version_4(folder: Path) -> Path:
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "rope_theta": config.pop("rope_parameters")["rope_theta"],
        "rope_scaling": None,
        "torch_dtype": config.pop("dtype"),
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_one_model_as_two_versions_of_transformers_write_it_merges_without_a_note(tmp_path: Path) -> None:
    models = [as_version_4(llama(tmp_path / "a")), llama(tmp_path / "b")]
    assert warmkit.soup(models, tmp_path / "out").notes == ()


def test_another_base_is_refused(tmp_path: Path) -> None:
    models = [as_version_4(llama(tmp_path / "a")), llama(tmp_path / "b", theta=1e6)]
    with pytest.raises(MismatchError, match=r"(?s)another architecture.*rope_theta is 1000000\.0, .*a has 10000\.0"):
        warmkit.soup(models, tmp_path / "out")


def llava(folder: Path) -> Path:
    vision = transformers.CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=8
    )
    text = transformers.LlamaConfig(**SIZES, num_attention_heads=4)
    torch.manual_seed(0)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=60)
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_names_of_another_version_are_read_where_they_are_known_and_one_line_where_not(tmp_path: Path) -> None:
    new, old = llava(tmp_path / "new"), tmp_path / "old"
    shutil.copytree(new, old)
    tensors = load_file(new / "model.safetensors")
    renamed = {name.replace("vision_tower.", "vision_tower.vision_model."): value for name, value in tensors.items()}
    save_file(renamed, old / "model.safetensors", {"format": "pt"})
    made = load_file(warmkit.soup([new, old], tmp_path / "both").path / "model.safetensors")
    assert made.keys() == tensors.keys()
    assert all(torch.equal(made[name], value) for name, value in tensors.items())
    for folder in (new, old):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "architectures": ["Seer"], "model_type": "seer"}))
    with pytest.raises(MismatchError, match="names of transformers 4 and 5") as caught:
        warmkit.soup([new, old], tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 2


def test_a_config_that_is_silent_ties_where_its_architecture_does(tmp_path: Path) -> None:
    body = {"model.embed_tokens.weight": torch.randn(8, 4), "model.layers.0.mlp.weight": torch.randn(4, 4)}
    own = {**body, "lm_head.weight": torch.randn(8, 4)}
    untied = save(tmp_path / "untied", own, {"model_type": "gemma", "tie_word_embeddings": False})
    silent = save(tmp_path / "silent", body, {"model_type": "gemma"})
    made = warmkit.soup([untied, silent], tmp_path / "out")
    assert any("ties lm_head.weight to model.embed_tokens.weight" in note for note in made.notes)
    head = load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"]
    torch.testing.assert_close(head, (own["lm_head.weight"] + body["model.embed_tokens.weight"]) / 2)
    two = save(tmp_path / "two", own, {"model_type": "gemma"})
    with pytest.raises(MismatchError, match=r"config\.json ties lm_head\.weight .*but the file holds two different tensors"):
        warmkit.soup([two, two], tmp_path / "out-two")
