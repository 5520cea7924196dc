"""One dropout probability for every dropout of a model, those that are plain function calls included."""

from __future__ import annotations

from typing import Any

from torch import nn

from warmkit.common.records import is_number

WORDS = ("dropout", "pdrop")
KEPT = ("layerdrop", "classifier_dropout_type")


def set_dropout(target: Any, probability: float) -> int:
    """Set every dropout of a config (before the model is built) or of a model.

    Configs name them in many ways (`hidden_dropout_prob`, `attn_pdrop`, `attention_dropout`); attention reads a float
    attribute of its module and drops inside a function, where no `nn.Dropout` module shows.

    Returns:
        How many values were set.
    """
    holders = list(target.modules()) if isinstance(target, nn.Module) else _configs(target)
    count = 0
    for holder in holders:
        if isinstance(holder, nn.Dropout):
            holder.p = probability
            count += 1
        for name, value in list(vars(holder).items()):
            if is_number(value) and any(word in name for word in WORDS) and name not in KEPT:
                setattr(holder, name, probability)
                count += 1
        if not isinstance(holder, nn.Module) and getattr(holder, "classifier_dropout", 0.0) is None:
            holder.classifier_dropout = probability
    return count


def _configs(config: Any) -> list[Any]:
    text = config.get_text_config()
    return [config] if text is config else [config, text]
