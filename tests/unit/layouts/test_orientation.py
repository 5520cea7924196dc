"""The table of Conv1D modules is that of transformers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers

from warmkit.layouts.orientation import CONV1D_MODULES, CONV1D_TYPES, governing_type, is_conv1d


def test_the_modules_that_transformers_makes_conv1d_are_known() -> None:
    folder = Path(transformers.__file__).parent / "models"
    used = {path.parent.name: path.read_text("utf-8") for path in folder.glob("*/modeling_*.py")}
    made = {name: set(re.findall(r"self\.(\w+) = Conv1D\(", text)) for name, text in used.items()}
    made = {name: modules for name, modules in made.items() if modules}
    assert set().union(*made.values()) == CONV1D_MODULES
    assert {name.replace("openai", "openai-gpt") for name in made} == CONV1D_TYPES - {"clvp_decoder"}


@pytest.mark.parametrize(
    ("module", "type_", "conv1d"),
    [
        ("decoder.transformer.h.0.attn.c_proj", "gpt2", True),
        ("encoder.layer.0.attention.query", "vit", False),
        ("encoder.layer.0.c_proj", "vit", False),
        ("enc_to_dec_proj", "vision-encoder-decoder", False),
    ],
)
def test_the_part_that_a_module_is_in_decides(module: str, type_: str, conv1d: bool) -> None:
    config = {"model_type": "vision-encoder-decoder", "encoder": {"model_type": "vit"}, "decoder": {"model_type": "gpt2"}}
    assert governing_type(config, module) == type_
    assert is_conv1d(config, module) is conv1d


def test_a_language_model_inside_another_has_a_config_of_its_own() -> None:
    config = {
        "model_type": "llava",
        "text_config": {"model_type": "gpt2"},
        "vision_config": {"model_type": "clip_vision_model"},
    }
    assert is_conv1d(config, "model.language_model.h.0.attn.c_proj")
    assert not is_conv1d(config, "model.vision_tower.layers.0.c_proj")
