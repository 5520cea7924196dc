"""Weights of torchao: the numbers that it computes, or an error that names why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import warmkit
from tests.conftest import tensors_of
from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.formats.tensors import result_dtype
from warmkit.formats.torchao import READ

DATA = Path(__file__).parents[2] / "data" / "quantised"
WRITTEN = sorted(each.name for each in DATA.glob("torchao-*"))
Q = "model.layers.0.self_attn.q_proj"
Change = Callable[[dict[str, torch.Tensor], dict[str, str]], object]


def changed(folder: Path, name: str, change: Change) -> Path:
    """Write a copy of a model with other tensors, or other words on them."""
    folder.mkdir()
    tensors = load_file(DATA / name / "model.safetensors")
    with safe_open(DATA / name / "model.safetensors", "pt") as file:
        words = file.metadata()
    change(tensors, words)
    save_file(tensors, folder / "model.safetensors", words)
    (folder / "config.json").write_bytes((DATA / name / "config.json").read_bytes())
    return folder


@pytest.mark.parametrize("name", WRITTEN)
def test_every_number_is_that_of_torchao(name: str) -> None:
    opened, expected = warmkit.open_checkpoint(DATA / name), json.loads((DATA / "said" / f"{name}.json").read_text())
    assert len(expected) == 7
    assert len(opened) == 12
    for each, said in expected.items():
        tensor = opened[each].load()
        assert tensor.dtype == torch.float32  # which torchao rounds last
        assert hashlib.sha256(tensor.bfloat16().view(torch.int16).numpy().tobytes()).hexdigest() == said, each
        assert result_dtype(opened[each].entry).torch_name == "bfloat16"


def test_a_merge_is_dense(tmp_path: Path) -> None:
    models = [DATA / "torchao-int8", DATA / "torchao-fp8"]
    warmkit.merge(models, output=tmp_path / "out", method="lerp", coefficients=[0.25, 0.75])
    one, two = (tensors_of(each) for each in models)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, (0.25 * one[name].double() + 0.75 * two[name].double()).float().bfloat16()), name
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


WRONG: dict[str, tuple[Change, str]] = {
    "no scales": (lambda each, _: each.pop(f"{Q}._weight_scale"), f"the scale of '{Q}.weight' is missing"),
    "no codes": (lambda each, _: each.pop(f"{Q}._weight_qdata"), f"the qdata of '{Q}.weight' is missing"),
    "other scales": (
        lambda each, _: each.update({f"{Q}._weight_scale": torch.ones(15, 1)}),
        "is I8 [16, 32] with scales F32 [15, 1], which are not Int8Tensor in blocks of [1, 32]",
    ),
    "other zero points": (
        lambda each, _: each.update({f"{Q}._weight_zero_point": torch.ones(16, 1)}),
        "_weight_zero_point' is F32 [16, 1], expected I8",
    ),
    "another kind": (
        lambda _, words: words.update({f"{Q}.weight": words[f"{Q}.weight"].replace("Int8Tensor", "Int4Tensor")}),
        f"'{Q}.weight' is a 'Int4Tensor' of torchao, which is not read (read are {', '.join(READ)})",
    ),
    "no size of blocks": (
        lambda _, words: words.update({f"{Q}.weight": words[f"{Q}.weight"].replace("block_size", "size")}),
        "has blocks of None in the metadata",
    ),
    "no word on it": (lambda _, words: words.pop(f"{Q}.weight"), f"quantised weights (packed: tensor '{Q}._weight_"),
}


WRONG_INT4: dict[str, tuple[Change, str]] = {
    "no zero points": (lambda each, _: each.pop(f"{Q}._weight_zero_point"), f"the zero_point of '{Q}.weight' is missing"),
    "scales of another type": (
        lambda each, _: each.update({f"{Q}._weight_scale": torch.ones(16, 2, dtype=torch.float64)}),
        "is I8 [16, 32] with scales F64 [16, 2], which are not IntxUnpackedToInt8Tensor in blocks of [1, 16]",
    ),
}


@pytest.mark.parametrize("what", WRONG_INT4)
def test_what_does_not_fit_of_four_bits_is_named(what: str, tmp_path: Path) -> None:
    change, expected = WRONG_INT4[what]
    with pytest.raises(FormatError) as refusal:
        warmkit.open_checkpoint(changed(tmp_path / "m", "torchao-int4", change))
    assert expected in str(refusal.value)


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named(what: str, tmp_path: Path) -> None:
    change, expected = WRONG[what]
    with pytest.raises(CheckpointError) as refusal:
        warmkit.open_checkpoint(changed(tmp_path / "m", "torchao-int8", change))
    assert isinstance(refusal.value, FormatError | UnsupportedError)
    assert expected in str(refusal.value)
