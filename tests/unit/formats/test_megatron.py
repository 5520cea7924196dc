"""Checkpoints of Megatron-Core's torch_dist, by its own writer: read as its own reader reads them, and written again."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import warmkit
from tests.conftest import tensors_of
from tests.unit.engine.test_container_copy import mean, same
from warmkit.errors import FormatError, UnsupportedError, UsageError, WarmkitError
from warmkit.formats.torch_distributed import every_tensor
from warmkit.verbs.average import plan_averages

DATA = Path(__file__).parents[2] / "data" / "megatron"
RUNS = ("tensor", "pipeline", "optimizer")


def said(name: str, number: int) -> dict[str, torch.Tensor]:
    return load_file(DATA / "said" / f"{name}-{number}.safetensors")


def weights_of(said: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return what Megatron's reader gave by layer, float32 where the optimizer has it."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in said.items():
        if name.startswith("optimizer."):
            continue
        best = said.get(f"optimizer.state.fp32_param.{name}", tensor)
        if name.startswith("decoder.layers."):
            found |= {name.replace("layers.", f"layers.{number}.", 1): each for number, each in enumerate(best)}
        else:
            found[name] = best
    return found


def read_all(home: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a copy, the optimizer's too, as torch reads it."""
    import torch.distributed.checkpoint as dcp

    state = {
        ".".join(keys): torch.empty(each.shape, dtype=getattr(torch, each.dtype.torch_name))
        for keys, each in every_tensor(home).items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, checkpoint_id=home, no_dist=True)
    return state


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("name", RUNS)
def test_every_layer_is_what_megatrons_own_reader_reads(name: str, number: int) -> None:
    wanted = weights_of(said(name, number))
    assert len(wanted) == 21
    assert same(tensors_of(DATA / name / f"iter_{number:07d}", allow_pickle=True), wanted)


def test_a_run_is_its_newest_step_and_steps_are_found() -> None:
    newest = tensors_of(DATA / "tensor", allow_pickle=True)
    assert same(newest, weights_of(said("tensor", 4)))
    steps = plan_averages(DATA / "tensor")[0].checkpoints
    assert [each.step for each in steps] == [2, 4]


@pytest.mark.parametrize("name", ["tensor", "pipeline"])
def test_an_average_is_written_where_megatron_reads_it(name: str, tmp_path: Path) -> None:
    out = tmp_path / "iter_0000004"
    warmkit.average(DATA / name, out, allow_pickle=True, container="same")
    assert same(read_all(out), mean(said(name, 2), said(name, 4)))
    newest = DATA / name / out.name
    for file in ("metadata.json", "common.pt", ".metadata"):
        assert (out / file).read_bytes() == (newest / file).read_bytes()
    assert warmkit.verify(out).tensors == 21


def test_float32_weights_bfloat16_weights_and_moments_are_all_written(tmp_path: Path) -> None:
    two, four = said("optimizer", 2), said("optimizer", 4)
    for optimizer in ("average", "keep"):
        out = tmp_path / optimizer
        warmkit.average(DATA / "optimizer", out, allow_pickle=True, container="same", optimizer=optimizer)
        found = read_all(out)
        for name, tensor in found.items():
            wide = f"optimizer.state.fp32_param.{name}"
            if name.startswith("optimizer.state.exp"):
                assert torch.equal(tensor, mean(two, four)[name] if optimizer == "average" else four[name]), name
            elif wide in found:
                assert torch.equal(tensor, found[wide].bfloat16()), name
            else:
                assert torch.equal(tensor, mean(two, four)[name]), name


def copied(tmp_path: Path) -> Path:
    return shutil.copytree(DATA / "tensor", tmp_path / "run")


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (
            lambda run: (run / "latest_checkpointed_iteration.txt").write_text("6"),
            FormatError,
            "names step 6, and iter_0000006",
        ),
        (lambda run: (run / "latest_checkpointed_iteration.txt").write_text("../x"), FormatError, "expected a number of steps"),
        (lambda run: (run / "iter_0000004" / ".metadata").unlink(), FormatError, "half-written"),
        (lambda run: (run / "iter_0000004" / "metadata.json").unlink(), FormatError, "half-written checkpoint of Megatron"),
        (lambda run: (run / "iter_0000004" / "metadata.json").write_text("[]"), FormatError, "metadata.json"),
        (lambda run: (run / "iter_0000004" / "__1_0.distcp").unlink(), FormatError, "__1_0.distcp"),
        (
            lambda run: (run / "iter_0000004" / "metadata.json").write_text('{"sharded_backend": "zarr"}'),
            UnsupportedError,
            "format zarr",
        ),
    ],
    ids=["step", "name", "metadata", "unfinished", "format", "shard", "zarr"],
)
def test_damaged_runs_are_refused(damage: object, kind: type[WarmkitError], words: str, tmp_path: Path) -> None:
    run = copied(tmp_path)
    damage(run)  # type: ignore[operator]
    with pytest.raises(kind, match=words):
        warmkit.open_checkpoint(run, allow_pickle=True)


def test_a_merge_under_megatrons_names_is_written_into_its_own_files_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which no loader of models knows; add --as same"):
        warmkit.average(DATA / "tensor", tmp_path / "out", allow_pickle=True)
    with pytest.raises(UsageError, match="the optimizer's state lies in the files of the weights"):
        warmkit.average(DATA / "optimizer", tmp_path / "out", allow_pickle=True, container="same")
    assert not (tmp_path / "out").exists()
