"""Directories of torch.distributed.checkpoint: of one process, of two with FSDP2 and tensor parallelism, half-written ones."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

import warmkit
from tests import forks
from tests.conftest import Family, Run, tensors_of, weights
from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.pieces import GatheredTensor


def save(state: dict[str, Any], folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process
        dcp.save(state, checkpoint_id=folder)
    return folder


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def training_state(seed: int) -> dict[str, Any]:
    return {
        "model": weights(seed),
        "optimizer": {"state": {"w": {"exp_avg": torch.zeros(3), "step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
    }


def test_weights_are_found_beside_an_optimizer(tmp_path: Path) -> None:
    folder = save(training_state(1), tmp_path / "step-100")
    same(tensors_of(folder, allow_pickle=True), weights(1))
    (note,) = warmkit.open_checkpoint(folder, allow_pickle=True).notes
    assert "read model, left aside" in note
    assert "optimizer" in note
    assert "epoch" in note


def test_a_flat_state_dict_with_views_and_scalars(tmp_path: Path) -> None:
    state = {
        "t": torch.arange(6.0).reshape(2, 3).t(),
        "s": torch.tensor(2.5),
        "b": torch.ones(3).bfloat16(),
        "e": torch.empty(0, 4),
    }
    same(tensors_of(save(dict(state), tmp_path / "flat"), allow_pickle=True), state)


def test_a_merge_takes_config_and_tokenizer_from_the_first_input_that_has_them(family: Family, tmp_path: Path) -> None:
    sharded = [save({"model": load_file(each / "model.safetensors")}, tmp_path / "d" / each.name) for each in family.models[:2]]
    warmkit.soup(family.models[:2], tmp_path / "expected")
    result = warmkit.soup([*sharded, *family.models[2:]], tmp_path / "three", allow_pickle=True)
    assert any(f"config and tokenizer are those of {family.c}" in note for note in result.notes)
    assert json.loads((tmp_path / "three" / "config.json").read_text()) == json.loads((family.c / "config.json").read_text())
    warmkit.soup(sharded, tmp_path / "out", allow_pickle=True)
    same(load_file(tmp_path / "out" / "model.safetensors"), load_file(tmp_path / "expected" / "model.safetensors"))


def test_the_folder_that_transformers_makes_is_found(tmp_path: Path) -> None:
    save({"model": weights(1)}, tmp_path / "checkpoint-5" / "pytorch_model_fsdp_0")
    save({"optimizer": {"x": torch.zeros(2)}}, tmp_path / "checkpoint-5" / "optimizer_0")
    torch.save({}, tmp_path / "checkpoint-5" / "scheduler.pt")
    same(tensors_of(tmp_path / "checkpoint-5", allow_pickle=True), weights(1))


TITAN = Path(__file__).parents[2] / "data" / "torchtitan"


def test_of_a_step_of_torchtitan_the_weights_are_read_under_its_own_names() -> None:
    same(tensors_of(TITAN / "run" / "step-2", allow_pickle=True), load_file(TITAN / "said.safetensors"))
    (note,) = warmkit.open_checkpoint(TITAN / "run" / "step-2", allow_pickle=True).notes
    assert "read the top, left aside optimizer" in note


def test_torchtitans_last_step_in_safetensors_is_a_model_of_hugging_faces_names() -> None:
    found, said = tensors_of(TITAN / "run" / "step-3"), load_file(TITAN / "said.safetensors")
    assert torch.equal(found["model.embed_tokens.weight"], said["tok_embeddings.weight"])
    assert torch.equal(found["model.layers.0.mlp.down_proj.weight"], said["layers.0.feed_forward.w2.weight"])
    assert len(found) == len(said)


def test_metadata_as_older_versions_of_torch_pickled_it(tmp_path: Path) -> None:
    from torch.distributed._shard.sharded_tensor.metadata import TensorProperties

    folder = save({"model": weights(1)}, tmp_path / "old")
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    for described in metadata.state_dict_metadata.values():
        described.properties = TensorProperties(dtype=described.properties.dtype)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    same(tensors_of(folder, allow_pickle=True), weights(1))


# ---- two processes ----------------------------------------------------------------------------------------------------

TWO = """
import sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, Replicate, distribute_tensor
folder = sys.argv[1]
dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 3))
if dist.get_rank() == 0:
    torch.save(model.state_dict(), folder + "/whole.pt")
fully_shard(model, mesh=mesh)
dcp.save({"model": get_model_state_dict(model)}, checkpoint_id=folder + "/fsdp")
whole = {"columns": torch.arange(35.0).reshape(5, 7), "deep": torch.arange(60).reshape(3, 4, 5), "copy": torch.ones(4)}
places = {"columns": [Shard(1)], "deep": [Shard(1)], "copy": [Replicate()]}
dcp.save({n: distribute_tensor(t, mesh, places[n]) for n, t in whole.items()}, checkpoint_id=folder + "/parallel")
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes with gloo save."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        forks.Popen([sys.executable, "-c", TWO, str(folder)], env={**environment, "RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    return folder


def test_shards_of_fsdp_are_the_whole_model(two: Path) -> None:
    found = warmkit.open_checkpoint(two / "fsdp", allow_pickle=True)
    assert isinstance(found.entries["0.weight"], GatheredTensor)
    assert len({piece.file for piece in found.entries["0.weight"].pieces}) == 2
    same(tensors_of(two / "fsdp", allow_pickle=True), torch.load(two / "whole.pt"))


def test_shards_of_tensor_parallelism_are_the_whole_tensors(two: Path) -> None:
    whole = {"columns": torch.arange(35.0).reshape(5, 7), "deep": torch.arange(60).reshape(3, 4, 5), "copy": torch.ones(4)}
    same(tensors_of(two / "parallel", allow_pickle=True), whole)


def test_a_merge_of_shards_has_the_bytes_of_the_merge_of_what_they_are_of(two: Path, tmp_path: Path) -> None:
    warmkit.liti(two / "whole.pt", tmp_path / "expected", init=two / "whole.pt", eta=0.3, allow_pickle=True)
    warmkit.liti(two / "fsdp", tmp_path / "out", init=two / "whole.pt", eta=0.3, allow_pickle=True)
    file = "model.safetensors"
    assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "expected" / file).read_bytes()


# ---- half-written ones, and worse ----------------------------------------------------------------------------------------


def refusal(path: Path, kind: type[Exception] = FormatError) -> str:
    with pytest.raises(kind) as error:
        warmkit.open_checkpoint(path, allow_pickle=True)
    assert "\n" not in str(error.value)
    return str(error.value)


Damage = Callable[[Path], Any]
HALVES: dict[str, tuple[Damage, str]] = {
    "no metadata": (
        lambda folder: (folder / ".metadata").unlink(),
        "half-written .* .metadata, which is written last, is missing",
    ),
    "no shard": (lambda folder: (folder / "__0_0.distcp").unlink(), "half-written .* __0_0.distcp is missing"),
    "short shard": (lambda folder: os.truncate(folder / "__0_0.distcp", 5000), "half-written .* has 5,000 bytes of"),
    "short metadata": (lambda folder: os.truncate(folder / ".metadata", 500), "broken one"),
    "zeros": (lambda folder: (folder / "__0_0.distcp").write_bytes(bytes(1 << 20)), "expected what torch.save writes"),
}


@pytest.mark.parametrize("name", HALVES)
def test_a_half_written_one_is_one_line_and_nothing_is_lost(name: str, family: Family, tmp_path: Path) -> None:
    damage, expected = HALVES[name]
    good, bad = save(training_state(1), tmp_path / "good"), save(training_state(2), tmp_path / "bad")
    damage(bad)
    before = {path: path.read_bytes() for path in good.iterdir()}
    out = warmkit.soup([family.a, family.b], tmp_path / "out").path
    kept = (out / "model.safetensors").read_bytes()
    with pytest.raises(FormatError, match=expected) as error:
        warmkit.soup([good, bad], out, force=True, allow_pickle=True)
    assert "\n" not in str(error.value)
    assert (out / "model.safetensors").read_bytes() == kept
    assert {path: path.read_bytes() for path in good.iterdir()} == before


def test_files_of_two_saves_are_told_apart(tmp_path: Path) -> None:
    one = save({"a": torch.zeros(40), "b": torch.zeros(3, 3)}, tmp_path / "one")
    two = save({"a": torch.zeros(3, 3), "b": torch.zeros(40)}, tmp_path / "two")
    (two / "__0_0.distcp").rename(one / "__0_0.distcp")
    assert "files of two saves" in refusal(one) or "truncated" in refusal(one)


def test_without_the_option_it_is_refused_and_with_it_the_command_runs(run: Run, tmp_path: Path) -> None:
    folder = save({"model": weights(1)}, tmp_path / "d")
    with pytest.raises(UnsupportedError, match="--allow-pickle"):
        warmkit.open_checkpoint(folder)
    done = run("liti", folder, "--init", folder, "-o", "out", "--allow-pickle")
    assert done.returncode == 0, done.stderr
    same(load_file(tmp_path / "out" / "model.safetensors"), weights(1))


def test_code_in_the_metadata_is_named_and_not_run(tmp_path: Path) -> None:
    folder = save({"model": weights(1)}, tmp_path / "d")

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "proof"),)

    (folder / ".metadata").write_bytes(pickle.dumps(Bomb()))
    assert "posix.mkdir" in refusal(folder, UnsupportedError)
    assert not (tmp_path / "proof").exists()


# ---- folders of trainers -------------------------------------------------------------------------------------------------


def slime(step: Path, seed: int) -> dict[str, torch.Tensor]:
    """Write a step as slime's FSDP backend lays it out, by its source (`fsdp_utils/checkpoint.py`); it needs a GPU to run."""
    model, moments = weights(seed), {name: {"exp_avg": each / 2, "exp_avg_sq": each**2} for name, each in weights(seed).items()}
    save({"model_state": {"model": model}}, step / "model")
    save({"optim_state": {"optim": {"state": moments, "param_groups": []}}}, step / "optimizer")
    save({"lr_scheduler_state": {"lr_scheduler": {"last_epoch": seed}}}, step / "lr_scheduler")
    torch.save({"torch": torch.get_rng_state()}, step / "rng.pt")
    (step / "meta.json").write_text(json.dumps({"iteration": seed}))
    (step.parent / "latest_checkpointed_iteration.txt").write_text(str(seed))
    return model


def test_a_run_of_slime_is_read_and_written_again_with_its_scheduler_and_moments(tmp_path: Path) -> None:
    saved = [slime(tmp_path / "run" / f"iter_{number:07d}", number) for number in (3, 6)]
    same(tensors_of(tmp_path / "run", allow_pickle=True), saved[1])
    out = tmp_path / "out"
    warmkit.average(tmp_path / "run", out, allow_pickle=True, container="same", optimizer="average")
    mean = {name: ((saved[0][name].double() + saved[1][name].double()) / 2).float() for name in saved[0]}
    same(tensors_of(out, allow_pickle=True), mean)
    moments = {name: torch.empty_like(each) for name, each in saved[0].items()}
    state = {"optim_state": {"optim": {"state": {name: {"exp_avg": each} for name, each in moments.items()}}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(state, checkpoint_id=out / "optimizer")
    same(moments, {name: ((saved[0][name] / 2).double() + (saved[1][name] / 2).double()).div(2).float() for name in moments})
    for file in ("rng.pt", "meta.json", "lr_scheduler/.metadata"):
        assert (out / file).read_bytes() == (tmp_path / "run" / "iter_0000006" / file).read_bytes()


def test_the_weights_of_nemo_rl_are_found_in_the_folder_of_the_policy(tmp_path: Path) -> None:
    model = weights(1)
    save({"model": model}, tmp_path / "step_10" / "policy" / "weights")
    save({"optim": {"state": model}}, tmp_path / "step_10" / "policy" / "optimizer")
    same(tensors_of(tmp_path / "step_10", allow_pickle=True), model)
