"""Attention of each layer: over everything, through a window, or none, as the config says or leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

Config: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Alternation:
    """Layers that alternate where `layer_types` is absent.

    Attributes:
        period: By default.
        keys: Of a config, which may say another period.
        usual: Kind of most layers.
        special: Kind of one layer in a period: its last one, or its first.
        first: Whether it is the first.
    """

    period: int
    keys: tuple[str, ...] = ()
    usual: str = "sliding_attention"
    special: str = "full_attention"
    first: bool = False

    def kinds(self, config: Config, count: int) -> list[str]:
        period = next((config[key] for key in self.keys if key in config), self.period)
        if isinstance(period, str):  # EXAONE 4's `LLLG`
            letters = [period[layer % len(period)] for layer in range(count)]
            return [self.usual if letter == "L" else self.special for letter in letters]
        if not period or (self.usual == "sliding_attention" and config.get("sliding_window", 1) is None):
            return [self.special] * count
        special = [(layer + (not self.first)) % period == 0 for layer in range(count)]
        return [self.special if each else self.usual for each in special]


_PATTERN = ("sliding_window_pattern", "_sliding_window_pattern")
ALTERNATIONS: dict[str, Alternation] = {
    **dict.fromkeys(("gemma2", "gpt_oss", "vaultgemma"), Alternation(2)),
    **dict.fromkeys(("cohere2", "exaone4"), Alternation(4, _PATTERN)),
    "gemma3_text": Alternation(6, _PATTERN),
    "gemma3n_text": Alternation(5),
    "olmo3": Alternation(4),
    "cwm": Alternation(4, first=True),
    "afmoe": Alternation(4, ("global_attn_every_n_layers",)),
    **dict.fromkeys(("modernbert", "modernbert-decoder"), Alternation(3, ("global_attn_every_n_layers",), first=True)),
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"),
        Alternation(4, ("full_attention_interval",), usual="linear_attention"),
    ),
    "minimax": Alternation(2, usual="full_attention", special="linear_attention"),
}
# Layers from `max_window_layers` on look through a window, where `use_sliding_window` says so.
WINDOWED = {"qwen2": 28, "qwen2_moe": 28, "qwen3": 28, "dots1": 62}
# Architectures of transformers whose layers differ by a default that is not written here.
UNWRITTEN = frozenset(
    (
        "bailing_hybrid",
        "beam",
        "deepseek_v4",
        "diffusion_gemma_text",
        "dots3_note_text",
        "embedding_gemma2_text",
        "exaone_moe",
        "cohere2_moe",
        "flint",
        "gemma4_text",
        "gemma4_unified_text",
        "glm5_next_text",
        "granite_swa",
        "granitemoe_swa",
        "inkling2_text",
        "inkling_text",
        "kimi_linear",
        "kolibri1",
        "lfm3",
        "lfm3_vl_vision",
        "llama4_text",
        "mimo_v2_flash",
        "muse_glimmer_text",
        "muse_glimmer_vision",
        "muse_spark_text",
        "muse_spark_vision",
        "neomme",
        "olmo_hybrid",
        "qwen4_exp_text",
        "t5_gemma_module",
        "t5gemma2_decoder",
        "t5gemma2_text",
        "ultrabert",
    )
)


def layer_types(config: Config, count: int) -> list[str] | None:
    """Return the kind of every layer's attention as transformers reads it; None where the config leaves nothing to say."""
    if isinstance(written := config.get("layer_types"), list):
        return cast("list[str]", written)
    kind = config.get("model_type")
    if kind in ALTERNATIONS:
        return ALTERNATIONS[kind].kinds(config, count)
    if kind in WINDOWED:
        windowed = bool(config.get("use_sliding_window")) and config.get("sliding_window", 4096) is not None
        border = config.get("max_window_layers", WINDOWED[kind]) if windowed else count
        return ["full_attention" if layer < border else "sliding_attention" for layer in range(count)]
    return None
