"""Rotary positions in a config, in the keys of either generation of transformers.

Version 4: `rope_theta`, `rope_scaling`, and keys of their own for layers that look through a window. Version 5:
`rope_parameters`, one or one for each kind of layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from warmkit.layouts.config_defaults import PARTIAL_FACTORS, ROPE_BASES

Rope: TypeAlias = "dict[str, Any]"

KEYS = (
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "rotary_pct",
    "rotary_emb_base",
    "rope_local_base_freq",
    "global_rope_theta",
    "local_rope_theta",
    "original_max_position_embeddings",
)
OTHER_NAMES = {"su": "longrope", "mrope": "default"}
# Of architectures whose layers differ: where version 4 has each kind's base, its default, and whether scaling is for that kind.
_GEMMA3 = {"full_attention": ("rope_theta", 1e6, True), "sliding_attention": ("rope_local_base_freq", 1e4, False)}
_MODERNBERT = {"full_attention": ("global_rope_theta", 160e3, True), "sliding_attention": ("local_rope_theta", 1e4, True)}
_OLMO3 = {"full_attention": ("rope_theta", 5e5, True), "sliding_attention": ("rope_theta", 5e5, False)}
LAYERED: dict[str, dict[str, tuple[str, float, bool]]] = {
    "gemma3_text": _GEMMA3,
    "gemma3n_text": _GEMMA3,
    "modernbert": _MODERNBERT,
    "modernbert-decoder": _MODERNBERT,
    "olmo3": _OLMO3,
}
# Positions of an image's patches, of which version 4 has nothing in a config.
AXIAL = {"rope_parameters": {"rope_type": "axial", "rope_theta": 1e4}}
# What a kind of scaling takes where a key is absent.
IMPLIED: dict[str, Any] = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True, "mrope_interleaved": False}
PLAIN = ("rope_type", "rope_theta", "partial_rotary_factor", "mrope_section", "mrope_interleaved")
STRETCHED = ("yarn", "dynamic", "longrope")


def rope(config: Mapping[str, Any]) -> Rope:
    """Return what a config says or leaves to transformers' defaults: one rope, or one for each kind of layer."""
    kind = str(config.get("model_type"))
    given = _table(config, "rope_parameters") or _table(config, "rope_scaling")
    if given and all(isinstance(each, dict | None) for each in given.values()):
        return _alike({name: _plain(each or {}, config, kind) for name, each in given.items()})
    if kind in LAYERED:
        return _alike(
            {
                name: _plain({"rope_theta": config.get(key, base), **(given if scaled else {})}, config, kind)
                for name, (key, base, scaled) in LAYERED[kind].items()
            }
        )
    return _plain(given, config, kind)


def has_rope(config: Mapping[str, Any]) -> bool:
    """Say whether a config speaks of rotary positions."""
    return any(config.get(key) is not None for key in KEYS)


def is_axial(config: Mapping[str, Any]) -> bool:
    """Say whether positions are those of an image's patches."""
    return _table(config, "rope_parameters").get("rope_type") == "axial"


def _table(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _alike(ropes: dict[str, Rope]) -> Rope:
    """Return one rope where all kinds of layers have the same."""
    different = [each for place, each in enumerate(ropes.values()) if each not in list(ropes.values())[:place]]
    return different[0] if len(different) == 1 else ropes


def _plain(given: Mapping[str, Any], config: Mapping[str, Any], kind: str) -> Rope:
    """Return one rope with everything that it leaves unsaid."""
    found = {key: value for key, value in given.items() if value is not None and key != "type"}
    name = given.get("rope_type") or given.get("type") or "default"
    found["rope_type"] = OTHER_NAMES.get(str(name), name)
    found.setdefault("rope_theta", _first(config, ("rope_theta", "rotary_emb_base"), _known(ROPE_BASES, kind, 1e4)))
    share = _first(config, ("partial_rotary_factor", "rotary_pct"), _known(PARTIAL_FACTORS, kind, 1.0))
    found.setdefault("partial_rotary_factor", share)
    if found["rope_type"] == "default":
        found = {key: value for key, value in found.items() if key in PLAIN}
    elif found["rope_type"] in STRETCHED:
        found = {**found, "original_max_position_embeddings": _original(found, config)}
    return {key: value for key, value in found.items() if IMPLIED.get(key) != value}


def _first(config: Mapping[str, Any], keys: tuple[str, ...], otherwise: float) -> Any:
    return next((config[key] for key in keys if config.get(key) is not None), otherwise)


def _known(table: Mapping[str, float], kind: str, otherwise: float) -> float:
    return table.get(kind, table.get(f"{kind}_text", otherwise))


def _original(found: Rope, config: Mapping[str, Any]) -> Any:
    """Return the number of positions before they were stretched."""
    return _first({**found, **config}, ("original_max_position_embeddings", "max_position_embeddings"), 0)
