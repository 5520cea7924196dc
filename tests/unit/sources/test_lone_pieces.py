"""A file that is one of several is no model: refused by name, alone and in a folder that lacks the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.torch import save_file

import warmkit
from tests.conftest import save, weights
from warmkit.errors import UnsupportedError

INDEX = "model.safetensors.index.json"


def refusal(path: Path | str) -> str:
    with pytest.raises(UnsupportedError) as caught:
        warmkit.open_checkpoint(path, allow_pickle=True)
    return str(caught.value)


def write(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".safetensors":
        save_file(weights(1), file)
    else:
        torch.save(weights(1), file)
    return file


# ---- shards --------------------------------------------------------------------------------------------------------------


def test_a_shard_whose_index_names_others_is_refused_and_its_folder_named(tmp_path: Path) -> None:
    home = save(tmp_path / "m", weights(1), shards=3)
    text = refusal(home / "model-00001-of-00003.safetensors")
    assert f"one of 3 files of a model, as {INDEX} beside it says; give its folder, {home}" in text


def test_any_file_that_an_index_names_with_others_is_a_shard(tmp_path: Path) -> None:
    home = save(tmp_path / "m", weights(1), shards=2)
    (home / "model-00001-of-00002.safetensors").rename(home / "first.safetensors")
    index = home / INDEX
    index.write_text(index.read_text().replace("model-00001-of-00002", "first"))
    assert "one of 2 files of a model" in refusal(home / "first.safetensors")
    assert set(warmkit.open_checkpoint(home)) == set(weights(1))


@pytest.mark.parametrize(
    "name",
    [
        "model-00001-of-00003.safetensors",
        "pytorch_model-00002-of-00003.bin",
        "model.fp16-00001-of-00003.safetensors",
        "consolidated-00001-of-00003.safetensors",
        "diffusion_pytorch_model-00001-of-00003.safetensors",
    ],
)
@pytest.mark.parametrize("lone", [True, False])
def test_a_shard_without_an_index_is_refused_by_its_name(name: str, lone: bool, tmp_path: Path) -> None:
    file = write(tmp_path / name)
    text = refusal(file if lone else tmp_path)
    assert f"{file}: number {name[name.index('-of-') - 1]} of 3 files of a model, by its name" in text


def test_shards_of_pickles_without_their_index_are_no_choice_of_one(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / f"pytorch_model-0000{number}-of-00002.bin")
    assert "number 1 of 2 files of a model" in refusal(tmp_path)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_one_of_one_is_the_model(suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"model-00001-of-00001.{suffix}")
    for place in (file, tmp_path):
        assert set(warmkit.open_checkpoint(place, allow_pickle=True)) == set(weights(1))


def test_an_index_may_say_that_a_shard_is_all_there_is(tmp_path: Path) -> None:
    file = write(tmp_path / "model-00001-of-00003.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(weights(1), file.name)}))
    for place in (file, tmp_path):
        assert set(warmkit.open_checkpoint(place)) == set(weights(1))


@pytest.mark.parametrize("content", ["[]", "{", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_what_is_no_index_says_nothing_of_a_file(content: str, tmp_path: Path) -> None:
    file = write(tmp_path / "model.safetensors")
    (tmp_path / INDEX).write_text(content)
    assert set(warmkit.open_checkpoint(file)) == set(weights(1))


@pytest.mark.parametrize("lone", [True, False])
def test_a_shard_in_a_store_is_refused_by_its_name(lone: bool, tmp_path: Path) -> None:
    file = write(tmp_path / "model-00001-of-00003.safetensors")
    store = MemoryFileSystem()
    place = f"/{tmp_path.name}"
    store.pipe(f"{place}/{file.name}", file.read_bytes())
    text = refusal(f"memory:/{place}/{file.name}" if lone else f"memory:/{place}")
    assert "number 1 of 3 files of a model, by its name" in text
    store.rm(place, recursive=True)


# ---- ranks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt"),
        ("consolidated.00.pth", "consolidated.01.pth"),
        ("pytorch_model_rank0.bin", "pytorch_model_rank1.bin"),
        ("mp_rank_00/model_optim_rng.pt", "mp_rank_01/model_optim_rng.pt"),
        ("mp_rank_00_000/model.pt", "mp_rank_00_001/model.pt"),
    ],
)
def test_the_file_of_one_rank_beside_others_is_refused(first: str, second: str, tmp_path: Path) -> None:
    one, other = (write(tmp_path / name) for name in (first, second))
    for place in {one, one.parent}:
        assert f"one rank's part of a model, beside {Path(second).parts[0]}" in refusal(place)
    other.unlink()
    if other.parent != tmp_path:
        other.parent.rmdir()
    for place in {one, one.parent}:
        assert len(warmkit.open_checkpoint(place, allow_pickle=True)) == len(weights(1))


@pytest.mark.parametrize(
    "name",
    [
        "mp_rank_01_model_states.pt",
        "consolidated.03.pth",
        "pytorch_model_rank2.bin",
        "optim_world_size_2_rank_0.pt",
        "model0-mp8.safetensors",
        "model1-mp8.safetensors",
        "layer_00-model_00-model_states.pt",
    ],
)
@pytest.mark.parametrize("lone", [True, False])
def test_a_name_may_say_alone_that_there_are_other_ranks(name: str, lone: bool, tmp_path: Path) -> None:
    file = write(tmp_path / name)
    assert f"{file}: one rank's part of a model, as its name says" in refusal(file if lone else tmp_path)


@pytest.mark.parametrize("name", ["model_world_size_1_rank_0.pt", "model0-mp1.safetensors", "lora_rank8.pt"])
def test_a_world_of_one_is_all_there_is(name: str, tmp_path: Path) -> None:
    assert set(warmkit.open_checkpoint(write(tmp_path / name), allow_pickle=True)) == set(weights(1))
