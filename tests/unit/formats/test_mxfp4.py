"""Experts of GPT-OSS in MXFP4: the numbers that transformers reads, or an error that names why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import warmkit
from tests.conftest import save, tensors_of
from warmkit.errors import CheckpointError, FormatError, NonFiniteError, UnsupportedError
from warmkit.sources.files import Files

MODEL = Path(__file__).parents[2] / "data" / "quantised" / "mxfp4"
UP = "model.layers.0.mlp.experts.gate_up_proj"
Change = Callable[[dict[str, torch.Tensor]], object]


def by_transformers(dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype).state_dict()


def changed(folder: Path, change: Change = lambda _: None, **config: Any) -> Path:
    """Write a copy of the model with other tensors, or another config."""
    folder.mkdir()
    tensors = load_file(MODEL / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**json.loads((MODEL / "config.json").read_text()), **config}))
    return folder


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_every_number_is_that_of_transformers(kind: torch.dtype) -> None:
    found, expected = tensors_of(MODEL), by_transformers(kind)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor.to(kind), expected[name]), name


def test_a_merge_is_that_of_the_exact_weights_rounded_once_and_loads(tmp_path: Path) -> None:
    one, two = by_transformers(), {name: each * 3 for name, each in by_transformers().items()}
    config = json.loads((MODEL / "config.json").read_text())
    del config["quantization_config"]
    other = save(tmp_path / "dense", two, config)
    warmkit.merge([MODEL, other], output=tmp_path / "out", method="lerp", coefficients=[0.25, 0.75])
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        exact = 0.25 * one[name].double() + 0.75 * two[name].double()
        assert torch.equal(tensor, exact.float().bfloat16()), name
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert loaded.keys() == one.keys()


@pytest.mark.parametrize("name", [UP, UP.replace("gate_up", "down")])
def test_any_part_is_that_part_of_the_numbers(name: str) -> None:
    opened = warmkit.open_checkpoint(MODEL)
    entry, whole = opened.entries[name], opened[name].load().reshape(-1).view(torch.int16).numpy().view(np.uint16)
    with Files() as files:
        for start in (0, 1, 63, 64, 65, 2047, 2048, 4095, entry.elements - 1):
            for stop in (start, start + 1, start + 130, start + 2100, entry.elements):
                part = np.empty(min(stop, entry.elements) - start, np.uint16)
                entry.read(files, start, part.data.cast("B"))
                np.testing.assert_array_equal(part, whole[start : start + part.size])


def test_the_same_bytes_with_any_number_of_threads(tmp_path: Path) -> None:
    written = set()
    for threads in (1, 3):
        warmkit.merge([MODEL, MODEL, MODEL], tmp_path / f"{threads}", method="uniform", threads=threads)
        written.add((tmp_path / f"{threads}" / "model.safetensors").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("exponent", [0, 1, 254])
def test_exponents_at_the_ends_are_those_of_the_format(exponent: int, tmp_path: Path) -> None:
    """2^-127 is subnormal in float32 and bfloat16, 6 * 2^127 is beyond them."""
    folder = changed(tmp_path / "m", lambda each: each[f"{UP}_scales"].fill_(exponent))
    found = tensors_of(folder)[UP].double()
    ones = tensors_of(changed(tmp_path / "ones", lambda each: each[f"{UP}_scales"].fill_(127)))[UP].double()
    exact = ones * 2.0 ** (exponent - 127)
    assert torch.equal(found, torch.where(exact.abs() < 2.0**128, exact, exact.sign() * torch.inf))


def test_an_exponent_that_is_no_number_is_found_and_named(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", lambda each: each[f"{UP}_scales"].reshape(-1)[5:6].fill_(255))
    with pytest.raises(NonFiniteError, match=rf"tensor '{UP}' of .*m holds NaN or infinity"):
        warmkit.merge([folder, MODEL], output=tmp_path / "out", method="lerp")


def test_it_is_quantised_again_without_an_error(tmp_path: Path) -> None:
    result = warmkit.merge([MODEL], output=tmp_path / "out", method="uniform", container="same")
    assert f"quantised again (mxfp4), as {MODEL} is: relative error 0.00% of the coded weights" in result.notes
    found, expected = tensors_of(tmp_path / "out"), tensors_of(MODEL)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


WRONG: dict[str, tuple[Change, dict[str, Any], str]] = {
    "no scales": (lambda each: each.pop(f"{UP}_scales"), {}, f"'{UP}_blocks' holds codes, and its scales are missing"),
    "no blocks": (lambda each: each.pop(f"{UP}_blocks"), {}, f"'{UP}_scales' holds scales, and its blocks are missing"),
    "other scales": (
        lambda each: each.update({f"{UP}_scales": torch.ones(3, 64, 1, dtype=torch.uint8)}),
        {},
        f"'{UP}_blocks' is U8 [3, 64, 2, 16], its scales U8 [3, 64, 1]; expected U8 [experts, out, blocks, 16]",
    ),
    "blocks of another size": (
        lambda each: each.update({f"{UP}_blocks": torch.ones(3, 64, 2, 8, dtype=torch.uint8)}),
        {},
        "is U8 [3, 64, 2, 8], its scales U8 [3, 64, 2]; expected",
    ),
    "scales that are numbers": (
        lambda each: each.update({f"{UP}_scales": torch.ones(3, 64, 2)}),
        {},
        "its scales F32 [3, 64, 2]; expected",
    ),
    "another model": (
        lambda _: None,
        {"model_type": "llama"},
        "(model_type 'llama') is not read",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named_and_nothing_is_written(what: str, tmp_path: Path) -> None:
    change, config, expected = WRONG[what]
    folder = changed(tmp_path / "m", change, **config)
    with pytest.raises(CheckpointError) as refusal:
        warmkit.merge([folder, MODEL], output=tmp_path / "out", method="lerp")
    assert isinstance(refusal.value, FormatError | UnsupportedError)
    assert expected in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_blocks_without_a_config_are_refused_as_before(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", quantization_config=None)
    with pytest.raises(UnsupportedError, match=r"quantised weights \(packed: tensor '.*_blocks'\)"):
        warmkit.open_checkpoint(folder)
