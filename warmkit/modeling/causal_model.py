"""Load a language model: the init of a policy, the SFT model, a policy to evaluate."""

from __future__ import annotations

from typing import Any

import torch

from warmkit.modeling.dropout import set_dropout
from warmkit.modeling.quiet import loading, quiet
from warmkit.modeling.weights import home_of, load_adapters


def load_causal_model(source: str, device: str | None = None) -> Any:
    """Load a language model in float32, without dropout: what learns, or is measured, is what was sampled from.

    Args:
        source: Directory or Hub repository, or an adapter on one.
        device: `cpu` or `cuda`; by default a GPU where there is one.

    Raises:
        CheckpointError: If transformers cannot load it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    home = home_of(source)
    with loading(source), quiet():
        config = AutoConfig.from_pretrained(home)
        set_dropout(config, 0.0)
        model: Any = AutoModelForCausalLM.from_pretrained(home, config=config, dtype=torch.float32)
    load_adapters(model, source)
    set_dropout(model, 0.0)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def positions_of(model: Any, wanted: int | None = None) -> int:
    """Return how many tokens prompt and answer may have together: `wanted`, else what the config allows, at most 4096."""
    return wanted or min(4096, model.config.get_text_config().max_position_embeddings)
