"""What transformers takes where a config is silent; prints the tables of `warmkit/layouts/config_defaults.py`."""

from __future__ import annotations

import contextlib
import functools
import pprint
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from warmkit.layouts.config_defaults import HEADS, RATIO

KEYS = (
    "num_attention_heads",
    "n_head",
    "num_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "sliding_window",
    "use_sliding_window",
    "num_experts_per_tok",
    "norm_topk_prob",
    "routed_scaling_factor",
    "topk_method",
    "n_group",
    "topk_group",
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "query_pre_attn_scalar",
    "attention_multiplier",
    "residual_multiplier",
    "embedding_multiplier",
    "logits_scaling",
    "logit_scale",
    "use_qk_norm",
    "use_parallel_residual",
    "scale_attn_weights",
    "tie_word_embeddings",
)
TYPES = (
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "qwen3_next",
    "qwen2_vl_text",
    "qwen2_5_vl_text",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "gpt2",
    "gpt_neox",
    "opt",
    "falcon",
    "bloom",
    "olmo",
    "olmo2",
    "olmo3",
    "cohere",
    "cohere2",
    "stablelm",
    "starcoder2",
    "granite",
    "granitemoe",
    "deepseek_v2",
    "deepseek_v3",
    "glm",
    "glm4",
    "glm4_moe",
    "gpt_oss",
    "smollm3",
    "bert",
    "roberta",
    "modernbert",
    "t5",
    "bart",
    "clip_vision_model",
    "siglip_vision_model",
)


def defaults() -> dict[str, dict[str, Any]]:
    """Return the defaults of well-known architectures."""
    found = dict[str, dict[str, Any]]()
    for kind in TYPES:
        config = CONFIG_MAPPING[kind]().to_dict()
        mine = {key: config[key] for key in KEYS if key in config}
        if heads := config.get("num_attention_heads"):
            own: Any = CONFIG_MAPPING[kind]
            other = own(num_attention_heads=heads // 2, hidden_size=32 * heads).to_dict()
            if (mine.get("num_key_value_heads"), other.get("num_key_value_heads")) == (heads, heads // 2):
                mine["num_key_value_heads"] = HEADS
            if mine.get("head_dim", 0) is None or other.get("head_dim") != config.get("head_dim"):
                mine["head_dim"] = RATIO
        found[kind] = mine
    return found


@functools.cache
def every() -> dict[str, dict[str, Any]]:
    """Return the config of every architecture, as it is by default."""
    found = dict[str, dict[str, Any]]()
    for kind in (each for each in CONFIG_MAPPING if each.islower()):
        with contextlib.suppress(StrictDataclassError, ValueError, TypeError, NotImplementedError, ImportError):
            found[kind] = CONFIG_MAPPING[kind]().to_dict()
    return found


def tied() -> set[str]:
    """Return the architectures whose head is the embedding."""
    return {kind for kind, config in every().items() if config.get("tie_word_embeddings") is True}


def ropes() -> tuple[dict[str, float], dict[str, float]]:
    """Return bases other than 10,000 and partial factors other than 1, of all architectures with one plain rope."""
    bases, partial = dict[str, float](), dict[str, float]()
    for kind, config in every().items():
        rope = config.get("rope_parameters")
        if not isinstance(rope, dict) or rope.get("rope_type") != "default":
            continue
        if rope.get("rope_theta", 10000.0) != 10000.0:
            bases[kind] = float(rope["rope_theta"])
        if rope.get("partial_rotary_factor", 1.0) != 1.0:
            partial[kind] = rope["partial_rotary_factor"]
    return bases, partial


if __name__ == "__main__":
    bases, partial = ropes()
    for name, table in (("DEFAULTS", defaults()), ("ROPE_BASES", bases), ("PARTIAL_FACTORS", partial), ("TIED", tied())):
        print(f"{name} = {pprint.pformat(table, width=124, sort_dicts=False, underscore_numbers=True)}\n")
