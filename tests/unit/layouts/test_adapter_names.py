"""A name in an adapter is turned into the base's where exactly one fits."""

from __future__ import annotations

import pytest

from warmkit.layouts.adapter_names import alike, naming

Q = "layers.0.self_attn.q_proj"
BASES: dict[str, list[str]] = {
    "plain": [f"model.{Q}", "lm_head"],
    "qwen2_vl on disk": [f"model.{Q}", "visual.blocks.0.attn.qkv", "lm_head"],
    "llava on disk": [f"language_model.model.{Q}", f"vision_tower.vision_model.encoder.{Q}", "language_model.lm_head"],
    "clip": [f"text_model.encoder.{Q}", f"vision_model.encoder.{Q}"],
    "clip's text alone": [f"text_model.encoder.{Q}"],
    "two halves": [f"model.encoder.{Q}", f"model.decoder.{Q}"],
}


@pytest.mark.parametrize(
    ("base", "name", "found"),
    [
        ("plain", f"model.{Q}", f"model.{Q}"),
        ("plain", Q, f"model.{Q}"),
        ("qwen2_vl on disk", f"model.language_model.{Q}", f"model.{Q}"),
        ("qwen2_vl on disk", "model.visual.blocks.0.attn.qkv", "visual.blocks.0.attn.qkv"),
        ("llava on disk", f"model.language_model.{Q}", f"language_model.model.{Q}"),
        ("llava on disk", f"model.vision_tower.encoder.{Q}", f"vision_tower.vision_model.encoder.{Q}"),
        ("llava on disk", "lm_head", "language_model.lm_head"),
        ("clip", f"encoder.{Q}", None),  # of either half
        ("clip's text alone", f"vision_model.encoder.{Q}", None),  # of the other half
        ("two halves", Q, None),
        ("two halves", f"decoder.{Q}", f"model.decoder.{Q}"),
    ],
)
def test_names_differ_by_wrappers_alone(base: str, name: str, found: str | None) -> None:
    tensors = [f"{module}.weight" for module in BASES[base]]
    assert naming([name], tensors)(name) == (found or name)


def test_names_of_several_parts_are_turned_together() -> None:
    tensors = [f"{module}.weight" for module in BASES["llava on disk"]]
    turn = naming([f"model.language_model.{Q}", f"model.vision_tower.encoder.{Q}"], tensors)
    assert turn(f"model.language_model.{Q}") == f"language_model.model.{Q}"
    assert turn("lm_head.weight") == "language_model.lm_head.weight"


def test_what_ends_alike_is_told() -> None:
    tensors = [f"{module}.weight" for module in BASES["two halves"]]
    assert alike(f"{Q}.weight", tensors) == tensors
    assert alike("score.weight", tensors) == []
