"""Shards of torch's HuggingFaceStorageWriter: what two processes wrote is the whole model; what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint import HuggingFaceStorageWriter

import warmkit
from tests.conftest import Run, save, weights
from warmkit.errors import CheckpointError, FormatError, MismatchError
from warmkit.formats.pieces import GatheredTensor
from warmkit.formats.safetensors_file import SHARDING

SHARDS = Path(__file__).parents[2] / "data" / "hf_shards"
SECOND = "shard-00002-model-00001-of-00001.safetensors"
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # torch's own


def copied(name: str, folder: Path) -> Path:
    return shutil.copytree(SHARDS / name, folder / name)


def rewritten(file: Path, change: Callable[[dict[str, torch.Tensor], dict[str, dict[str, list[int]]]], None]) -> None:
    """Write a file anew, with other tensors or another word on where they lie."""
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors, origins = load_file(file), json.loads(metadata[SHARDING])
    change(tensors, origins)
    save_file(tensors, file, {**metadata, SHARDING: json.dumps(origins)})


def refusal(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        warmkit.open_checkpoint(path)
    return str(caught.value)


# ---- what torch wrote --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "said"),
    [("rows", "rows"), ("mixed", "mixed"), ("consolidated", "rows"), ("consolidated/sharded", "rows"), ("rank0", "rows")],
)
def test_what_two_processes_saved_is_the_whole_model(folder: str, said: str) -> None:
    """Rows, uneven ones, and columns, a middle axis, copies and a number, in a file or two a process; put together or not."""
    expected = load_file(SHARDS / f"{said}.said.safetensors")
    opened = warmkit.open_checkpoint(SHARDS / folder)
    assert set(opened) == set(expected)
    for name, tensor in expected.items():
        found = opened[name].load()
        assert found.dtype == tensor.dtype
        assert torch.equal(found, tensor), name


def test_a_tensor_of_shards_is_put_together_from_ranges_of_their_files() -> None:
    entry = warmkit.open_checkpoint(SHARDS / "rows").entries["0.weight"]
    assert isinstance(entry, GatheredTensor)
    assert [(piece.file.name[:11], piece.origin, piece.shape) for piece in entry.pieces] == [
        ("shard-00001", (0, 0), (3, 6)),
        ("shard-00002", (3, 0), (2, 6)),
    ]


def test_a_merge_of_shards_has_the_bytes_of_the_merge_of_what_was_put_together(run: Run, tmp_path: Path) -> None:
    plain = save(tmp_path / "init", load_file(SHARDS / "rows.said.safetensors"))
    for name, model in (("out", SHARDS / "rows"), ("expected", SHARDS / "consolidated")):
        done = run("liti", model, "--init", plain, "--eta", 0.3, "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert "put together from 2 shards" in run("inspect", SHARDS / "rows").stderr
    found, expected = (tmp_path / name / "model.safetensors" for name in ("out", "expected"))
    assert found.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("nested", [False, True])
def test_shards_that_are_too_few_for_the_vocabulary_are_refused(tmp_path: Path, nested: bool) -> None:
    """The files do not say how many processes there were, and those of the first fit together; the config knows better."""
    rows = max(tensor.shape[0] for tensor in load_file(SHARDS / "rows.said.safetensors").values() if tensor.ndim)
    folder = copied("rows", tmp_path)
    told = {"vocab_size": rows}
    (folder / "config.json").write_text(json.dumps({"text_config": told} if nested else told))
    warmkit.open_checkpoint(folder)
    (folder / SECOND).unlink()
    said = refusal(folder)
    assert f"says vocab_size {rows}" in said
    assert "the last shards are missing" in said


def test_one_process_leaves_one_shard(tmp_path: Path) -> None:
    dcp.save(weights(1), storage_writer=HuggingFaceStorageWriter(str(tmp_path), save_distributed=True), no_dist=True)
    opened = warmkit.open_checkpoint(tmp_path)
    assert all(torch.equal(opened[name].load(), each) for name, each in weights(1).items())


def test_a_model_that_is_there_twice_is_read_by_its_first_name(tmp_path: Path) -> None:
    both = {f"{home}.{name}": each for seed, home in ((1, "net"), (2, "ema")) for name, each in weights(seed).items()}
    dcp.save(both, storage_writer=HuggingFaceStorageWriter(str(tmp_path), save_distributed=True), no_dist=True)
    assert "--state-dict ema" in refusal(tmp_path)
    opened = warmkit.open_checkpoint(tmp_path, state_dict="ema")
    assert all(torch.equal(opened[name].load(), each) for name, each in weights(2).items())


def test_shards_beside_what_was_put_together_from_them_are_left_aside(tmp_path: Path) -> None:
    path = copied("consolidated", tmp_path)
    for shard in (path / "sharded").iterdir():
        shard.rename(path / shard.name)
    opened = warmkit.open_checkpoint(path)
    assert set(opened) == set(load_file(SHARDS / "rows.said.safetensors"))
    assert any("shard-00001" in note and "left aside" in note for note in opened.notes)


# ---- what does not fit -------------------------------------------------------------------------------------------------


def test_a_shard_that_is_missing_before_the_last_is_named(tmp_path: Path) -> None:
    path = copied("rows", tmp_path)
    (path / SECOND.replace("00002", "00001", 1)).unlink()
    assert "shard 1 of 2 is missing" in refusal(path)
    path = copied("mixed", tmp_path)
    for file in path.glob("*-model-00001-of-00002.safetensors"):
        file.unlink()
    assert "file 1 of 2 is missing" in refusal(path)


def test_without_the_last_shard_tensors_are_too_small_which_a_merge_refuses(tmp_path: Path) -> None:
    path, whole = copied("rows", tmp_path), save(tmp_path / "init", load_file(SHARDS / "rows.said.safetensors"))
    (path / SECOND).unlink()
    with pytest.raises(
        MismatchError, match=r"'0\.bias' has shape \[3\], .* has \[5\]\n.* 4 more of the 5 tensors of the model"
    ):
        warmkit.liti(path, tmp_path / "out", init=whole, eta=0.3)
    assert not (tmp_path / "out").exists()


def test_shards_of_two_saves_are_refused(tmp_path: Path) -> None:
    path = copied("mixed", tmp_path)
    shutil.copy(SHARDS / "rows" / SECOND, path)
    assert "shards of two saves" in refusal(path)
    path = copied("rows", tmp_path)
    shutil.copy(path / SECOND, path / SECOND.replace("00002", "00003", 1))
    assert "the 3 parts of tensor '0.bias' do not cover [5] once" in refusal(path)


@pytest.mark.parametrize("start", [2, 4])
def test_parts_that_overlap_or_leave_a_gap_are_refused(start: int, tmp_path: Path) -> None:
    path = copied("rows", tmp_path)
    rewritten(path / SECOND, lambda tensors, origins: origins["0.weight"].update(saved_offsets=[start, 0]))
    assert f"the 2 parts of tensor '0.weight' do not cover [{start + 2}, 6] once" in refusal(path)
    assert f"BF16 [2, 6] at [{start}, 0] in {SECOND}" in refusal(path)


def test_parts_of_two_types_are_refused(tmp_path: Path) -> None:
    path = copied("rows", tmp_path)
    rewritten(path / SECOND, lambda tensors, origins: tensors.update({"0.bias": tensors["0.bias"].float()}))
    assert "parts of two tensors are called '0.bias': BF16 [3] at [0]" in refusal(path)


@pytest.mark.parametrize("said", ["[]", "3", '{"0.bias": 3}', "{}", "nonsense", '{"0.bias": {"saved_offsets": [true]}}'])
def test_metadata_that_say_something_else_are_refused(said: str, tmp_path: Path) -> None:
    path = copied("rows", tmp_path)
    save_file({"0.bias": torch.ones(2)}, path / SECOND, {SHARDING: said})
    assert SHARDING in refusal(path)
    save_file({"0.bias": torch.ones(2)}, path / SECOND)
    assert f"a shard by its name, without {SHARDING}" in refusal(path)


def test_a_shard_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = copied("rows", tmp_path)
    (path / SECOND).write_bytes((path / SECOND).read_bytes()[:-1])
    assert "truncated" in refusal(path)


def test_an_index_of_files_with_parts_lies(tmp_path: Path) -> None:
    path = copied("rank0", tmp_path)
    file = path / "model-00001-of-00001.safetensors"
    rewritten(file, lambda tensors, origins: origins["0.weight"].update(saved_offsets=[3, 0]))
    with pytest.raises(CheckpointError, match="holds parts of tensors"):
        warmkit.open_checkpoint(path)
