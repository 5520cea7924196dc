"""A layer of a stack is what it was: what a config says of it by its position stays true, or is refused by its key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import warmkit
from tests.conftest import save
from warmkit import LayerRange, Slice
from warmkit.errors import MismatchError, UnsupportedError
from warmkit.layouts.attention_kinds import UNWRITTEN, layer_types
from warmkit.layouts.layer_kinds import Origin, restack

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
MOE = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "n_group": 1}
WINDOW = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}
LFM2 = ["conv", "conv", "full_attention", "conv", "full_attention", "conv"]
DEEPSEEK: Callable[[], Any] = lambda: transformers.DeepseekV3Config(  # noqa: E731
    **SIZES, **MOE, **LATENT, topk_group=1, first_k_dense_replace=2
)
# How a model is made, what its config.json lacks on the Hub, and what it has.
MODELS: dict[str, tuple[Callable[[], Any], list[str], dict[str, Any]]] = {
    "gemma2": (lambda: transformers.Gemma2Config(**SIZES, head_dim=8, sliding_window=8), ["layer_types"], {}),
    "gemma3": (
        lambda: transformers.Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=8),
        ["layer_types", "_sliding_window_pattern"],
        {"sliding_window_pattern": 3},
    ),
    "cohere2": (
        lambda: transformers.Cohere2Config(**SIZES, sliding_window=8),
        ["layer_types", "_sliding_window_pattern"],
        {"sliding_window_pattern": 4},
    ),
    "qwen2": (lambda: transformers.Qwen2Config(**SIZES, **WINDOW), ["layer_types"], WINDOW),
    "lfm2": (
        lambda: transformers.Lfm2Config(**SIZES, layer_types=LFM2, block_auto_adjust_ff_dim=False),
        ["layer_types"],
        {"full_attn_idxs": [2, 4]},
    ),
    "olmo3": (lambda: transformers.Olmo3Config(**SIZES, sliding_window=8), ["layer_types"], {}),
    "llama": (lambda: transformers.LlamaConfig(**SIZES), [], {}),
}


def made(folder: Path, config: Any, lacks: list[str], has: dict[str, Any]) -> Path:
    """Write a model of transformers with the config that such models have on the Hub."""
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    content = json.loads((folder / "config.json").read_text())
    content = {key: value for key, value in content.items() if key not in lacks} | has
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def stack(model: Path, output: Path, *ranges: tuple[int, int]) -> dict[str, Any]:
    warmkit.merge_slices([Slice((LayerRange(model, *each),)) for each in ranges], output)
    return json.loads((output / "config.json").read_text())


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_keeps_its_kind(name: str, tmp_path: Path) -> None:
    config, lacks, has = MODELS[name]
    model = made(tmp_path / "model", config(), lacks, has)
    stack(model, tmp_path / "out", (0, 4), (1, 6))
    before, after = (transformers.AutoConfig.from_pretrained(tmp_path / each) for each in ("model", "out"))
    if kinds := getattr(before, "layer_types", None):
        assert after.layer_types == [kinds[layer] for layer in (0, 1, 2, 3, 1, 2, 3, 4, 5)]
    _, told = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]


def test_a_config_whose_positions_stay_true_is_not_given_a_list(tmp_path: Path) -> None:
    model = made(tmp_path / "model", *(each() if callable(each) else each for each in MODELS["gemma2"]))
    assert "layer_types" not in stack(model, tmp_path / "out", (0, 4), (2, 6))


def test_a_border_moves_with_its_layers_or_is_refused_by_its_key(tmp_path: Path) -> None:
    model = made(tmp_path / "model", DEEPSEEK(), ["layer_types", "mlp_layer_types"], {"first_k_dense_replace": 2})
    assert stack(model, tmp_path / "one", (1, 6))["first_k_dense_replace"] == 1
    assert stack(model, tmp_path / "three", (0, 2), (1, 6))["first_k_dense_replace"] == 3
    for name in ("one", "three"):
        _, told = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not told["missing_keys"]
    with pytest.raises(UnsupportedError, match=r"slices: first_k_dense_replace in config\.json says by its position"):
        stack(model, tmp_path / "mixed", (0, 4), (1, 6))
    assert not (tmp_path / "mixed").exists()


REFUSED: dict[str, dict[str, Any]] = {
    "attn_layer_period": {"attn_layer_period": 4, "attn_layer_offset": 2},
    "expert_layer_period": {"expert_layer_period": 2, "expert_layer_offset": 1},
    "num_dense_layers": {"num_dense_layers": 2},
    "decoder_sparse_step": {"decoder_sparse_step": 2},
    "interleave_moe_layer_step": {"interleave_moe_layer_step": 2},
    "no_rope_layer_interval": {"no_rope_layer_interval": 4},
    "moe_layer_start_index": {"moe_layer_start_index": 2},
    "num_kv_shared_layers": {"num_kv_shared_layers": 2},
    "block_types": {"block_types": ["recurrent", "recurrent", "attention"]},
    "attention_types": {"attention_types": [[["global", "local"], 3]]},
    "scale_attn_by_inverse_layer_idx": {"scale_attn_by_inverse_layer_idx": True},
    "max_window_layers": {"max_window_layers": 3, "use_sliding_window": True, "model_type": "of_remote_code"},
    "cross_every_n_layers": {"cross_every_n_layers": 2},  # not known, and sounds like a position
    "something_new": {"something_new": [1, 2, 3, 4, 5, 6]},  # not known, and as long as there are layers
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_a_config_cannot_say_of_moved_layers_is_refused_by_its_key(key: str) -> None:
    config = {"num_hidden_layers": 6, **REFUSED[key]}
    same = [Origin(config, 6, layer) for layer in range(6)]
    assert restack(config, same) == config
    moved = [Origin(config, 6, layer) for layer in (0, 1, 2, 3, 1, 2, 3, 4, 5, 3, 2)]
    with pytest.raises(UnsupportedError, match=rf"slices: {key} in config\.json"):
        restack({**config, "num_hidden_layers": 11}, moved)


def test_harmless_values_of_such_keys_are_no_obstacle() -> None:
    config = {
        "num_hidden_layers": 6,
        "moe_layer_freq": 1,
        "decoder_sparse_step": 1,
        "max_window_layers": 3,
        "mlp_only_layers": [],
    }
    moved = [Origin(config, 6, layer) for layer in (0, 1, 2, 1, 2, 3)]
    assert restack(config, moved) == config


def test_lists_by_layer_follow_the_layers() -> None:
    config = {
        "layer_types": list("abcdef"),
        "moe_layers": [1, 3],
        "hybrid_override_pattern": "M*M-M*",
        "layer_rope_theta": [*range(6)],
    }
    found = restack(config, [Origin(config, 6, layer) for layer in (0, 1, 1, 3)])
    assert found == {
        "layer_types": list("abbd"),
        "moe_layers": [1, 2, 3],
        "hybrid_override_pattern": "M**-",
        "layer_rope_theta": [0, 1, 1, 3],
    }


def test_layers_of_two_kinds_are_not_merged(tmp_path: Path) -> None:
    model = made(tmp_path / "model", *(each() if callable(each) else each for each in MODELS["gemma2"]))
    both = Slice((LayerRange(model, 0, 4), LayerRange(model, 1, 5)), lambda_=0.5)
    with pytest.raises(
        MismatchError, match=r"layer 1 of .* is of another kind than layer 0 of .*: layer_types in config\.json"
    ):
        warmkit.merge_slices([both], tmp_path / "out")


def test_a_file_with_other_layers_than_its_config_says_is_refused(tmp_path: Path) -> None:
    tensors = {f"model.layers.{layer}.w": torch.ones(2) for layer in range(3)}
    model = save(
        tmp_path / "model", tensors, {"model_type": "llama", "num_hidden_layers": 2}
    )  # a layer that predicts ahead, say
    with pytest.raises(UnsupportedError, match=r"has 3 layers, num_hidden_layers in config\.json says 2"):
        stack(model, tmp_path / "out", (0, 2))


def test_kinds_by_position_are_those_of_transformers() -> None:
    told = 0
    for kind in CONFIG_MAPPING:
        try:
            found = CONFIG_MAPPING[kind](num_hidden_layers=24).to_dict().get("layer_types")
        except (StrictDataclassError, ValueError, TypeError, NotImplementedError, ImportError):
            continue  # no such number, or not this number
        if not isinstance(found, list) or len(found) != 24 or len(set(found)) == 1:
            continue
        told += 1
        ours = layer_types({"model_type": kind}, 24)
        assert ours == found if kind not in UNWRITTEN else ours is None, kind
    assert told > 20
