"""Load a language model: the init of a policy or of SFT, the SFT model, a policy to evaluate."""

from __future__ import annotations

from typing import Any

import torch

from warmkit.errors import UnsupportedError, listed
from warmkit.modeling.batching import check_causal
from warmkit.modeling.dropout import set_dropout
from warmkit.modeling.quiet import loading, quiet
from warmkit.modeling.weights import home_of, load_adapters


def load_causal_model(source: str, device: str | None = None, dropout: float | None = 0.0) -> Any:
    """Load a language model in float32, by default without dropout: what learns, or is measured, is what was sampled from.

    A vision-language model reads text alone.

    Args:
        source: Directory or Hub repository, or an adapter on one.
        device: `cpu` or `cuda`; by default a GPU where there is one.
        dropout: Probability for every dropout of the model; None for the config's.

    Raises:
        CheckpointError: If transformers cannot load it.
        UnsupportedError: If it is no language model: an encoder, an encoder-decoder, or without the head of one.
    """
    from transformers import AutoConfig

    home = home_of(source)
    with loading(source), quiet():
        config = AutoConfig.from_pretrained(home)
        _refuse_encoder_decoder(config, source)
        if dropout is not None:
            set_dropout(config, dropout)
        options: dict[str, Any] = {"config": config, "dtype": torch.float32, "output_loading_info": True}
        loaded: Any = _class_for(config).from_pretrained(home, **options)
    model, report = loaded
    _refuse_parts(model, report, source)
    load_adapters(model, source)
    if dropout is not None:
        set_dropout(model, dropout)
    model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    check_causal(model, source)
    return model


def _class_for(config: Any) -> Any:
    """Return transformers' class that loads a language model, or one that sees and is given text alone."""
    import transformers

    alone, seeing = (getattr(transformers, f"MODEL_FOR_{each}_MAPPING") for each in ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT"))
    if type(config) in seeing and type(config) not in alone:
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM


def _refuse_encoder_decoder(config: Any, source: str) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedError(
            f"{source}: {config.model_type} is an encoder-decoder; expected a model that goes on writing its prompt (a decoder)"
        )


def _refuse_parts(model: Any, report: dict[str, Any], source: str) -> None:
    """Refuse what transformers would fill up with random numbers, without a word under `quiet`."""
    if missing := sorted(report["missing_keys"]):
        raise UnsupportedError(
            f"{source}: lacks {len(missing)} tensors of {type(model).__name__}, so it is no language model (a reward model, an "
            f"encoder?):\n{listed(missing)}"
        )
