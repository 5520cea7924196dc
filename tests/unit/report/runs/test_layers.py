"""Layers: short names, in the order of a forward pass."""

from __future__ import annotations

from typing import Any

from warmkit.report.runs.layers import NAMED, layered

GROUPS = ["lm_head.weight", *(f"model.layers.{n}" for n in (10, 2, 0)), "model.norm.weight", "model.embed_tokens.weight"]


def rows(groups: list[str]) -> list[dict[str, Any]]:
    return [{"group": name, "angle": 80.0} for name in groups]


def test_layers_have_short_names_in_their_order() -> None:
    chart = layered("a", "A", rows(GROUPS), "angle", "angle, degrees")
    assert [row["layer"] for row in chart.rows] == ["embed_tokens", "0", "2", "10", "norm", "lm_head"]
    assert (chart.x, chart.x_title, chart.tips) == ("layer", "layer", ())


def test_encoder_and_decoder_are_told_apart() -> None:
    chart = layered("a", "A", rows(["encoder.block.0", "decoder.block.0"]), "angle", "angle, degrees")
    assert [row["layer"] for row in chart.rows] == ["decoder.block 0", "encoder.block 0"]


def test_many_or_long_names_are_numbers_that_hover_explains() -> None:
    for groups in (
        [f"model.layers.{n}" for n in range(NAMED + 1)],
        ["layers.0.self_attn.q_proj.weight", "layers.1.self_attn.q_proj.weight"],
    ):
        chart = layered("a", "A", rows(groups), "angle", "angle, degrees", kind="tensor")
        assert [row["tensor"] for row in chart.rows] == list(range(len(groups)))
        assert chart.tips == ("group",)
        assert chart.x_title == "tensors, numbered in the order of the model"
