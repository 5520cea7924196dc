"""Activations computed twice instead of stored."""

from __future__ import annotations

from typing import Any


def recompute_activations(model: Any) -> None:
    """Keep the input of each layer alone, and compute the rest again for the gradient: the same result in less memory."""
    options = {"use_reentrant": False}
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is not None:
        enable(activation_checkpointing_kwargs=options)
    else:  # its name in older transformers
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
