"""Groups by layer, tensor and model."""

from __future__ import annotations

import pytest

from warmkit.errors import UsageError
from warmkit.layouts.groups import group, layer_of

LAYERS = {
    "model.layers.3.mlp.up_proj.weight": "model.layers.3",
    "h.0.attn.bias": "h.0",
    "encoder.layer.5.output.dense.weight": "encoder.layer.5",
    "decoder.block.2.layer.0.SelfAttention.q.weight": "decoder.block.2",
    "model.layers.11.mlp.experts.4.w1": "model.layers.11",
    "transformer.h.10": "transformer.h.10",
    "lm_head.weight": "lm_head.weight",
    "embed_tokens.weight": "embed_tokens.weight",
    "model.norm2.weight": "model.norm2.weight",
    "conv1d.w": "conv1d.w",
    "0.weight": "0",
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_ends_at_the_first_integer_component(name: str) -> None:
    assert layer_of(name) == LAYERS[name]


def test_groups_keep_the_order_of_first_appearance() -> None:
    names = ["h.1.a", "z", "h.0.a", "h.1.b"]
    assert group(names, "layer") == {"h.1": ["h.1.a", "h.1.b"], "z": ["z"], "h.0": ["h.0.a"]}
    assert group(names, "tensor") == {name: [name] for name in names}
    assert group(names, "model") == {"model": names}


def test_an_unknown_granularity_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'layer'"):
        group([], "layers")
