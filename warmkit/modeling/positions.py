"""Length of text that a model can read."""

from __future__ import annotations

from typing import Any

from warmkit.errors import UsageError

MOST = 4096  # tokens, where a recipe does not say
NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "context_length", "n_ctx")
PADDED = (
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xmod",
)
"""Models that count positions from behind their padding token, so that their tables hold fewer texts than rows."""


def room_for(config: Any, wanted: int | None = None) -> int:
    """Return how many tokens a text may have: `wanted`, else what the model's positions allow, at most 4096.

    Raises:
        UsageError: If `wanted` is more than the model has positions.
    """
    known = position_count(config)
    if wanted is not None and known is not None and wanted > known:
        raise UsageError(f"max_length {wanted}: {config.name_or_path} has {known} positions")
    return wanted or min(MOST, known or MOST)


def position_count(config: Any) -> int | None:
    """Return how many positions a model has; None where nothing bounds them (states, ALiBi).

    Rotary positions that are stretched from `original_max_position_embeddings` by a factor reach as far as the product.
    """
    text = config.get_text_config()
    found = next((value for name in NAMES if (value := getattr(text, name, None)) and value > 0), None)
    if found is None:
        return None
    if text.model_type.startswith(PADDED):
        return found - (text.pad_token_id or 0) - 1
    rotary: Any = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    original, factor = (rotary.get(key) for key in ("original_max_position_embeddings", "factor"))
    return max(found, int(original * factor)) if original and factor else found
