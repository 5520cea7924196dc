"""A model in several safetensors is what its index says, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmkit.errors import CheckpointError, FormatError
from warmkit.layouts.opening import open_checkpoint
from warmkit.sources.weight_names import INDEX, SINGLE

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_file({"a": torch.arange(4.0)}, tmp_path / FIRST)
    save_file({"b": torch.ones(2, 3)}, tmp_path / SECOND)
    write(tmp_path, {"a": FIRST, "b": SECOND})
    return tmp_path


def write(folder: Path, mapping: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": mapping}))


def test_all_shards_are_one_checkpoint(model: Path) -> None:
    checkpoint = open_checkpoint(model)
    assert {name: each.shape for name, each in checkpoint.items()} == {"a": (4,), "b": (2, 3)}
    assert [Path(str(file)).name for file in checkpoint.files] == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"a": FIRST}, "'b' is in .* and not in the index|expected all"),
        ({"a": FIRST, "b": FIRST}, "'b' is not in"),
        ({"a": FIRST, "b": SECOND, "c": SECOND}, "'c' is not in"),
        ({"a": SECOND, "b": FIRST}, "the index says"),
        ({"a": FIRST, "b": "model-00003-of-00003.safetensors"}, "which is not there"),
        ({"a": FIRST, "b": "../b.safetensors"}, "points outside its directory"),
        ({}, "expected a weight_map"),
    ],
)
def test_an_index_that_is_wrong_is_refused(mapping: dict[str, str], said: str, model: Path) -> None:
    if mapping == {"a": FIRST}:
        save_file({"a": torch.arange(4.0), "b": torch.ones(2, 3)}, model / FIRST)
    write(model, mapping)
    with pytest.raises(FormatError, match=said):
        open_checkpoint(model)


def test_a_tensor_in_two_shards_is_refused(model: Path) -> None:
    save_file({"a": torch.zeros(4), "b": torch.ones(2, 3)}, model / SECOND)
    with pytest.raises(FormatError, match="'a' is also in"):
        open_checkpoint(model)


def test_one_file_and_an_index_of_others_are_not_chosen_from(model: Path) -> None:
    save_file({"a": torch.zeros(4)}, model / SINGLE)
    with pytest.raises(FormatError, match="remove the one that is out of date"):
        open_checkpoint(model)


def test_a_folder_without_weights_says_where_a_model_lies(model: Path) -> None:
    with pytest.raises(CheckpointError, match=f"found neither; did you mean {model}"):
        open_checkpoint(model.parent)
