"""Weights in the names of the checkpoint, taken over by a loaded model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from warmkit.errors import MismatchError


def load_weights(model: Any, weights: Mapping[str, torch.Tensor], source: str, optional: Collection[str] = ()) -> None:
    """Replace a model's weights, by those of a merge in memory for instance.

    Args:
        model: Of transformers.
        weights: By the names of the checkpoint; tied copies may be left out.
        source: Of the model, for messages.
        optional: Other names that may be left out.

    Raises:
        MismatchError: If they are not those of this architecture.
    """
    try:
        outcome = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise MismatchError(f"{source}: weights do not fit: {' '.join(str(error).split())[:300]}") from None
    left_out = {*(getattr(model, "all_tied_weights_keys", None) or ()), *optional}
    missing = [name for name in outcome.missing_keys if name not in left_out]
    if missing or outcome.unexpected_keys:
        raise MismatchError(f"{source}: weights do not fit: {sorted(missing + outcome.unexpected_keys)[:6]}")
