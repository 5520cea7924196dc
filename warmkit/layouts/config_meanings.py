"""Comparison of two configs by what they mean, whatever version of transformers wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from warmkit.layouts.attention_kinds import ALTERNATIONS, WINDOWED, layer_types
from warmkit.layouts.config_defaults import DEFAULTS, HEADS, RATIO
from warmkit.layouts.layer_kinds import LAYER_COUNTS, LAYER_INDICES, ONE_PER_LAYER, RULES
from warmkit.layouts.rope import AXIAL, has_rope, is_axial, rope
from warmkit.layouts.rope import KEYS as ROPE_KEYS

Config: TypeAlias = Mapping[str, Any]

# Keys that say where a model is from, how it is loaded or how it samples.
BOOKKEEPING = frozenset(
    (
        "_name_or_path",
        "name_or_path",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "use_cache",
        "_attn_implementation_autoset",
        "architectures",
        "label2id",
        "return_dict",
        "output_attentions",
        "output_hidden_states",
        "is_encoder_decoder",
    )
)
# Keys that decide what weights compute while shapes agree.
STRUCTURE = frozenset(
    (
        *ONE_PER_LAYER,
        *LAYER_INDICES,
        *RULES,
        "activation_function",
        "add_cross_attention",
        "alibi",
        "apply_residual_connection_post_layernorm",
        "attention_chunk_size",
        "attention_multiplier",
        "attention_window_size",
        "attn_logit_softcapping",
        "clip_qkv",
        "do_layer_norm_before",
        "embedding_multiplier",
        "feature_layer",
        "feed_forward_proj",
        "final_logit_softcapping",
        "head_dim",
        "hidden_act",
        "hidden_activation",
        "is_causal",
        "is_decoder",
        "logit_scale",
        "logits_scaling",
        "model_type",
        "multi_query",
        "n_group",
        "n_head",
        "n_heads",
        "norm_topk_prob",
        "num_attention_heads",
        "num_experts",
        "num_experts_per_tok",
        "num_heads",
        "num_key_value_heads",
        "parallel_attn",
        "position_embedding_type",
        "projector_hidden_act",
        "query_pre_attn_scalar",
        "relative_attention",
        "residual_multiplier",
        "rope_interleave",
        "routed_scaling_factor",
        "scale_attn_weights",
        "scale_embedding",
        "scoring_func",
        "sliding_window",
        "spatial_merge_size",
        "topk_group",
        "topk_method",
        "use_bidirectional_attention",
        "use_parallel_residual",
        "use_qk_norm",
        "vision_feature_layer",
        "vision_feature_select_strategy",
    )
)
# One thing under several names.
SAME_KEYS = {
    "num_local_experts": "num_experts",
    "n_routed_experts": "num_experts",
    "moe_num_experts": "num_experts",
    "num_experts_per_token": "num_experts_per_tok",
    "moe_topk": "num_experts_per_tok",
    "moe_k": "num_experts_per_tok",
    "encoder_attention_heads": "encoder_num_heads",
    "decoder_attention_heads": "decoder_num_heads",
    "_sliding_window_pattern": "sliding_window_pattern",
}
SAME_ACTIVATIONS = {
    "swish": "silu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
}
_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "projector_hidden_act")
_WINDOWS = (
    "sliding_window_pattern",
    "global_attn_every_n_layers",
    "full_attention_interval",
    "max_window_layers",
    "layer_types",
)
_ABSENT = object()


@dataclass(frozen=True)
class Differences:
    """What two configs say otherwise of the same weights.

    Attributes:
        contradictions: Keys that decide what the weights compute, each with what the first and the second say.
        others: All other keys.
    """

    contradictions: dict[str, tuple[str, str]] = field(default_factory=lambda: {})
    others: dict[str, tuple[str, str]] = field(default_factory=lambda: {})


def compare(mine: Config, theirs: Config) -> Differences:
    """Compare what two configs mean.

    Keys of both generations of transformers are turned into one form, names for the same thing into one name, and a key
    that is absent on one side has transformers' default where that is known for the architecture.
    """
    found = Differences()
    names = _architectures(mine), _architectures(theirs)
    if all(names) and names[0] != names[1]:
        found.contradictions["architectures"] = repr(names[0]), repr(names[1])
    _compare("", *_alike(mine, theirs), found)
    return found


def _architectures(config: Config) -> Any:
    """Return what model it is; version 4 writes it into `text_config` where a model was built from its config."""
    inner = config.get("text_config")
    return config.get("architectures") or (cast("Config", inner).get("architectures") if isinstance(inner, dict) else None)


def _alike(mine: Config, theirs: Config) -> tuple[Config, Config]:
    """Give two configs the same form: older ones of vision-language models have the keys of `text_config` at the top."""
    nested = ["text_config" in each for each in (mine, theirs)]
    if nested[0] == nested[1]:
        return mine, theirs
    one, two = ({**each, **_flattened(each)} if inside else each for each, inside in zip((mine, theirs), nested))
    return one, two


def _flattened(config: Config) -> dict[str, Any]:
    inner = {key: value for key, value in dict(config["text_config"]).items() if key != "model_type"}
    return {**inner, **config, "text_config": None}


def _compare(prefix: str, mine: Config, theirs: Config, found: Differences) -> None:
    one, two = _meaning(mine, theirs), _meaning(theirs, mine)
    for key in sorted(one.keys() | two.keys()):
        here, there = (_value(key, each, own) for each, own in ((one, mine), (two, theirs)))
        if isinstance(here, dict) and isinstance(there, dict) and key not in ("id2label", "rope"):
            _compare(f"{prefix}{key}.", cast("Config", here), cast("Config", there), found)
        elif here is not _ABSENT or there is not _ABSENT:
            for name, *values in _unequal(key, here, there):
                decides = key in (*STRUCTURE, "rope", "id2label") and _ABSENT not in values
                (found.contradictions if decides else found.others)[prefix + name] = _shown(values[0]), _shown(values[1])


def _meaning(config: Config, other: Config) -> dict[str, Any]:
    """Return a config in the one form, without what is bookkeeping."""
    known = {SAME_KEYS.get(key, key): value for key, value in config.items() if key not in (*BOOKKEEPING, *ROPE_KEYS)}
    for key in _ACTIVATIONS:
        if key in known:
            known[key] = SAME_ACTIVATIONS.get(str(known[key]), known[key])
    if isinstance(kind := known.get("model_type"), str):
        known["model_type"] = kind.removesuffix("_text").removesuffix("_vision")
    if has_rope(config) or has_rope(other):
        known["rope"] = rope(AXIAL if is_axial(other) and not has_rope(config) else config)
    count = next((config[key] for key in LAYER_COUNTS if isinstance(config.get(key), int)), None)
    if (kind in ALTERNATIONS or kind in WINDOWED) and isinstance(count, int) and (kinds := layer_types(config, count)):
        known = {key: value for key, value in known.items() if key not in _WINDOWS} | {"layer_types": kinds}
        if kind in WINDOWED and "sliding_attention" not in kinds:
            known["sliding_window"] = None
    if known.get("use_sliding_window") is False:
        known |= {"sliding_window": None, "max_window_layers": None}
    if "id2label" in known:
        known["id2label"] = _labels(known["id2label"])
    return known


def _labels(labels: Any) -> Any:
    """Return what the outputs of a classifier are called; None where they have the names that transformers gives by itself."""
    if not isinstance(labels, dict):
        return None
    named = {str(number): name for number, name in cast("dict[Any, Any]", labels).items()}
    return None if all(name == f"LABEL_{number}" for number, name in named.items()) else named


def _value(key: str, known: Config, config: Config) -> Any:
    """Return what a config says of a key, or transformers' default; without a known default, null is the same as absent."""
    kind = str(config.get("model_type"))
    defaults = DEFAULTS.get(kind, DEFAULTS.get(f"{kind}_text", {}))
    value = known.get(key, defaults.get(key, _ABSENT))
    if value is None and key in defaults and defaults[key] in (HEADS, RATIO):
        value = defaults[key]
    heads = config.get(HEADS, defaults.get(HEADS, _ABSENT))
    if value == HEADS:
        return heads
    if value == RATIO:
        size = config.get("hidden_size")
        return size // heads if isinstance(size, int) and isinstance(heads, int) and heads else _ABSENT
    if key in _ACTIVATIONS and isinstance(value, str):
        return SAME_ACTIVATIONS.get(value, value)
    return _ABSENT if value is None and key not in defaults else value


def _unequal(key: str, here: Any, there: Any) -> Iterator[tuple[str, Any, Any]]:
    if key != "rope" or not isinstance(here, dict) or not isinstance(there, dict):
        if here != there:
            yield key, here, there
        return
    one, two = (dict(_leaves("", cast("Config", each))) for each in (here, there))
    for name in sorted(one.keys() | two.keys()):
        if one.get(name) != two.get(name):
            yield name, one.get(name), two.get(name)


def _leaves(prefix: str, table: Config) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(f"{prefix}{key}.", cast("Config", value))
        else:
            yield prefix + key, value


def _shown(value: Any) -> str:
    return "(absent)" if value is _ABSENT else repr(value)[:60]
