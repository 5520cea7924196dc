"""Modules that store their matrix [in, out]: transformers' Conv1D, which a square matrix does not tell from a linear layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

# Architectures whose matrices are transformers' Conv1D.
CONV1D_TYPES = frozenset(("gpt2", "imagegpt", "openai-gpt", "decision_transformer", "clvp", "clvp_decoder"))
CONV1D_MODULES = frozenset(("c_attn", "c_proj", "c_fc", "q_attn"))
# Names of modules whose config has another key than `<name>` or `<name>_config`.
_TEXT = ("text_config", "llm_config", "language_config", "thinker_config")
SUB_CONFIGS: dict[str, tuple[str, ...]] = {
    "language_model": _TEXT,
    "text_model": _TEXT,
    "vision_tower": ("vision_config",),
    "vision_model": ("vision_config",),
    "visual": ("vision_config",),
    "speech_decoder_model": ("decoder_config",),
}


def is_conv1d(config: Mapping[str, Any], module: str) -> bool:
    """Say whether a module of an architecture is transformers' Conv1D.

    Of a composite (an encoder of one architecture, a decoder of another) the part decides that the module's name says.
    """
    return governing_type(config, module) in CONV1D_TYPES and module.rpartition(".")[2] in CONV1D_MODULES


def has_conv1d(config: Mapping[str, Any]) -> bool:
    """Say whether an architecture, or a part of it, has such modules."""
    return config.get("model_type") in CONV1D_TYPES or any(map(has_conv1d, (part for _, part in parts(config))))


def governing_type(config: Mapping[str, Any], module: str) -> str | None:
    """Return the `model_type` of the part that a module is in."""
    inside = dict(parts(config))
    for component in module.split("."):
        keys = (component, f"{component}_config", *SUB_CONFIGS.get(component, ()))
        if found := next((inside[key] for key in keys if key in inside), None):
            return governing_type(found, module.partition(f"{component}.")[2])
    return config.get("model_type")


def parts(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the configs of parts inside a config, by their keys."""
    for key, value in config.items():
        if isinstance(value, dict):
            part = cast("dict[str, Any]", value)
            if isinstance(part.get("model_type"), str):
                yield key, part
