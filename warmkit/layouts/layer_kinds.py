"""Kinds of layers by position, as a config says them: lists by layer, lists of positions, periods and borders."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from warmkit.errors import UnsupportedError
from warmkit.layouts.attention_kinds import UNWRITTEN, Config, layer_types

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
ONE_PER_LAYER = (
    "layer_types",
    "mlp_layer_types",
    "layers_block_type",
    "no_rope_layers",
    "indexer_types",
    "attention_layers",
    "layer_rope_theta",
    "num_attention_heads_per_layer",
    "num_key_value_heads_per_layer",
    "activation_sparsity_pattern",
    "hybrid_override_pattern",  # one letter a layer
    "moe_layer_freq",
    "hybrid_layer_pattern",
    "intermediate_size",
    "swiglu_limits",
    "swiglu_limits_shared",
)
LAYER_INDICES = ("mlp_only_layers", "full_attn_idxs", "attn_layer_indices", "moe_layers", "cross_attention_layers")
# Lists that may happen to be as long as there are layers.
OTHER_LISTS = frozenset(
    ("architectures", "eos_token_id", "forced_eos_token_id", "time_step_limit", "keys_to_ignore_at_inference")
)
# Keys that sound like positions and are none.
HARMLESS = frozenset(
    (
        *LAYER_COUNTS,
        "decoder_layers",
        "encoder_layers",
        "initializer_offset",
        "mamba_dt_limit",
        "mtp_num_layers",
        "num_nextn_predict_layers",
        "rope_local_base_freq",
        "time_step_floor",
        "time_step_limit",
        "time_step_max",
        "time_step_min",
        "time_step_rank",
        "use_mem_rope",
    )
)
_POSITIONAL = re.compile(
    r"period|offset|interval|pattern|_freq$|_frequency$|_step$|idxs$|indices$|indexes$|every_n|first_k|_layers$|block_types?$"
)


def _every(key: str) -> Callable[[Config, int, int], Any]:
    return lambda config, layer, count: (layer + 1) % config[key] == 0


def _dense(config: Config, layer: int, count: int) -> bool:
    frequency = config.get("moe_layer_freq")
    return layer < config["first_k_dense_replace"] or (isinstance(frequency, int) and layer % frequency != 0)


def _at_offset(what: str, offset: int) -> Callable[[Config, int, int], Any]:
    period, place = f"{what}_layer_period", f"{what}_layer_offset"
    return lambda config, layer, count: layer % config[period] == config.get(place, offset)


def _expert_range(config: Config, layer: int, count: int) -> bool:
    last = config.get("moe_layer_end_index", -1)
    inside = config["moe_layer_start_index"] <= layer <= (count - 1 if last == -1 else last)
    return inside and (layer + 1) % config.get("moe_layer_interval", 1) == 0


def _expanded(config: Config, layer: int, count: int) -> Any:
    kinds = [kind for group, times in config["attention_types"] for _ in range(times) for kind in group]
    return kinds[layer] if layer < len(kinds) else None


# Key of a config: what it says of a layer among `count`, and the list that says it instead where there is one.
RULES: dict[str, tuple[Callable[[Config, int, int], Any], str]] = {
    "sliding_window_pattern": (_every("sliding_window_pattern"), "layer_types"),
    "_sliding_window_pattern": (_every("_sliding_window_pattern"), "layer_types"),
    "global_attn_every_n_layers": (_every("global_attn_every_n_layers"), "layer_types"),
    "full_attention_interval": (_every("full_attention_interval"), "layer_types"),
    "max_window_layers": (
        lambda config, layer, count: bool(config.get("use_sliding_window")) and layer >= config["max_window_layers"],
        "layer_types",
    ),
    "attention_types": (_expanded, ""),
    "first_k_dense_replace": (_dense, "mlp_layer_types"),
    "num_dense_layers": (lambda config, layer, count: layer < config["num_dense_layers"], "mlp_layer_types"),
    "attn_layer_period": (_at_offset("attn", 4), ""),
    "attn_layer_offset": (_at_offset("attn", 4), ""),
    "expert_layer_period": (_at_offset("expert", 1), ""),
    "expert_layer_offset": (_at_offset("expert", 1), ""),
    "decoder_sparse_step": (_every("decoder_sparse_step"), "mlp_layer_types"),
    "interleave_moe_layer_step": (_every("interleave_moe_layer_step"), "moe_layers"),
    "no_rope_layer_interval": (_every("no_rope_layer_interval"), "no_rope_layers"),
    "moe_layer_start_index": (_expert_range, "mlp_layer_types"),
    "moe_layer_end_index": (_expert_range, "mlp_layer_types"),
    "moe_layer_interval": (_expert_range, "mlp_layer_types"),
    "moe_layer_freq": (lambda config, layer, count: layer % config["moe_layer_freq"] == 0, "mlp_layer_types"),
    "num_kv_shared_layers": (lambda config, layer, count: layer >= count - config["num_kv_shared_layers"], ""),
    "block_types": (lambda config, layer, count: config["block_types"][layer % len(config["block_types"])], ""),
    "scale_attn_by_inverse_layer_idx": (lambda config, layer, count: layer, ""),
    "cross_attention_frequency": (lambda config, layer, count: layer % config["cross_attention_frequency"] == 0, ""),
}
BORDERS = ("first_k_dense_replace", "num_dense_layers")


@dataclass(frozen=True)
class Origin:
    """Where a layer of a stack comes from: a model's config, its number of layers, and the layer's place there."""

    config: Config
    count: int
    layer: int


def restack(config: dict[str, Any], origins: Sequence[Origin]) -> dict[str, Any]:
    """Return a config for layers put together, in which each is what it was.

    Args:
        config: Of the model that gives its config, whose numbers of layers are right already.
        origins: Of every layer of the result.

    Raises:
        UnsupportedError: Naming a key that cannot say it.
    """
    config = dict(config)
    for key in ONE_PER_LAYER:
        if isinstance(config.get(key), list) or (key == "hybrid_override_pattern" and key in config):
            config[key] = _taken(key, config, origins)
    for key in LAYER_INDICES:
        if isinstance(config.get(key), list):
            config[key] = [place for place, one in enumerate(origins) if one.layer in (one.config.get(key) or [])]
    _keep_attention(config, origins)
    for key, (_, instead) in RULES.items():
        if config.get(key) and not _said_otherwise(key, instead, config) and not _stays(key, config, origins):
            _move_border(key, config, origins)
    _refuse_unknown(config, origins)
    return config


def apart_from_layers(config: Config) -> dict[str, Any]:
    """Return a config without what it says of layers: how many there are, and what each of them is."""
    known = {*LAYER_COUNTS, *ONE_PER_LAYER, *LAYER_INDICES, *RULES}
    return {key: value for key, value in config.items() if key not in known}


def other_kind(one: Origin, other: Origin) -> str | None:
    """Return a key that says something else of one layer than of another; None where they are of one kind."""
    mine, theirs = layer_types(one.config, one.count), layer_types(other.config, other.count)
    if mine and theirs and mine[one.layer] != theirs[other.layer]:
        return "layer_types"
    for key in ONE_PER_LAYER[1:]:
        mine, theirs = one.config.get(key), other.config.get(key)
        if isinstance(mine, list) and isinstance(theirs, list) and mine[one.layer : one.layer + 1] != theirs[other.layer :][:1]:
            return key
    for key, (rule, instead) in RULES.items():
        if one.config.get(key) and other.config.get(key) and not _said_otherwise(key, instead, one.config):
            with contextlib.suppress(KeyError, TypeError, ZeroDivisionError, ValueError):
                if rule(one.config, one.layer, one.count) != rule(other.config, other.layer, other.count):
                    return key
    return None


def _taken(key: str, config: Config, origins: Sequence[Origin]) -> Any:
    """Return a list by layer for the layers of a stack."""

    def of(one: Origin) -> Any:
        values = one.config.get(key)
        if key == "layer_types" and values is None:
            values = layer_types(one.config, one.count)
        if not isinstance(values, list | str) or len(cast("Sequence[Any]", values)) != one.count:
            raise UnsupportedError(
                f"slices: {key} in config.json is expected to say what each of {one.count} layers is, in every model; found "
                f"{str(cast('object', values))[:60]}"
            )
        return cast("Sequence[Any]", values)[one.layer]

    taken = [of(one) for one in origins]
    return "".join(taken) if isinstance(config[key], str) else taken


def _keep_attention(config: dict[str, Any], origins: Sequence[Origin]) -> None:
    """Write `layer_types` where the kinds that transformers would find by position are not those of the layers."""
    kind, found = config.get("model_type"), layer_types(config, len(origins))
    if found is None:
        if kind in UNWRITTEN and any(place != one.layer for place, one in enumerate(origins)):
            raise UnsupportedError(
                f"slices: what a layer of {kind!r} is depends on its place, and config.json has no layer_types"
            )
        return
    kinds = [layer_types(one.config, one.count) for one in origins]
    wanted = [each[one.layer] if each else "" for each, one in zip(kinds, origins)]
    if wanted != found:
        config["layer_types"] = wanted


def _said_otherwise(key: str, instead: str, config: Config) -> bool:
    """Say whether a list that is right already says what a key would."""
    if isinstance(config[key], list) and key in ONE_PER_LAYER:
        return True
    return isinstance(config.get(instead), list) or (instead == "layer_types" and layer_types(config, 1) is not None)


def _stays(key: str, config: Config, origins: Sequence[Origin]) -> bool:
    """Say whether a key is true of every layer at its new place."""
    rule, _ = RULES[key]
    try:
        before = [rule(one.config, one.layer, one.count) for one in origins]
        return before == [rule(config, place, len(origins)) for place in range(len(origins))]
    except (KeyError, TypeError, ZeroDivisionError, ValueError):
        return all(place == one.layer for place, one in enumerate(origins))


def _move_border(key: str, config: dict[str, Any], origins: Sequence[Origin]) -> None:
    """Say with another number how many layers come before the others, if these are still the first ones."""
    if key in BORDERS:
        before = [bool(RULES[key][0](one.config, one.layer, one.count)) for one in origins]
        config[key] = before.index(False) if False in before else len(before)
        if _stays(key, config, origins):
            return
    raise UnsupportedError(
        f"slices: {key} in config.json says by its position what a layer is, and some layers would come to a place of another "
        "kind; choose ranges that keep every layer at a place of its kind"
    )


def _refuse_unknown(config: Config, origins: Sequence[Origin]) -> None:
    """Refuse keys that may say something of layers by their place, where layers have moved."""
    if all(place == one.layer for place, one in enumerate(origins)) and len(origins) == origins[0].count:
        return
    known = {*RULES, *ONE_PER_LAYER, *LAYER_INDICES, *HARMLESS}
    for key, value in config.items():
        listed = isinstance(value, list) and len(cast("list[Any]", value)) == origins[0].count and key not in OTHER_LISTS
        if key not in known and value and (listed or _POSITIONAL.search(key)):
            raise UnsupportedError(f"slices: {key} in config.json may say by position what a layer is, and is not known here")
