"""Rank files of FSDP runs: those that verl wrote (tests/data/rank_files/make.py), every way to cut tensors, broken ones."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

import warmkit
from tests.conftest import Run, tensors_of
from tests.unit.formats.ranks import save_ranks
from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.formats.pieces import GatheredTensor
from warmkit.layouts.adapted import AdaptedTensor

DATA = Path(__file__).parents[2] / "data" / "rank_files"
DENSE = ("fsdp1", "fsdp2", "fsdp1-tied", "columns", "hsdp1", "hsdp2", "three", "alone", "full", "run")
LORA = ("lora1", "lora2")
STEPS = [
    (name, int(file.stem.rpartition("-")[2])) for name in DENSE for file in sorted((DATA / name).glob("whole-*.safetensors"))
]


def read(path: Path) -> dict[str, torch.Tensor]:
    return tensors_of(path, allow_pickle=True)


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A save of two ranks that may be broken: `global_step_2`."""
    return Path(shutil.copytree(DATA / "fsdp1" / "global_step_2", tmp_path / "global_step_2"))


# ---- what verl wrote -----------------------------------------------------------------------------------------------------


def test_there_is_a_save_of_every_kind() -> None:
    assert {name for name, _ in STEPS} == set(DENSE)
    assert sum(name == "run" for name, _ in STEPS) == 3


@pytest.mark.parametrize(("name", "step"), STEPS)
def test_tensors_are_those_that_torch_gathers_to_the_last_bit(name: str, step: int) -> None:
    expected = load_file(DATA / name / f"whole-{step}.safetensors")
    found = read(DATA / name / f"global_step_{step}")
    if "tied" in name or name == "fsdp2":
        assert torch.equal(expected.pop("lm_head.weight"), expected["model.embed_tokens.weight"])
        head = found.pop("lm_head.weight", found["model.embed_tokens.weight"])  # FSDP1 stores a copy of its own
        assert torch.equal(head, expected["model.embed_tokens.weight"])
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize(("name", "step"), STEPS)
def test_rounded_to_bfloat16_they_are_what_verls_model_merger_writes(name: str, step: int) -> None:
    merged = json.loads((DATA / name / f"merged-{step}.json").read_text())
    found = read(DATA / name / f"global_step_{step}")
    assert merged.keys() == found.keys() - ({"lm_head.weight"} if "tied" in name else set())
    for key, (dtype, shape, expected) in merged.items():
        assert (dtype, shape) == ("torch.bfloat16", list(found[key].shape))
        assert digest(found[key].bfloat16()) == expected, key


def test_tensors_lie_in_every_rank_and_config_and_tokenizer_in_their_folder() -> None:
    found = warmkit.open_checkpoint(DATA / "three" / "global_step_2", allow_pickle=True)
    tensor = found.entries["lm_head.weight"]
    assert isinstance(tensor, GatheredTensor)
    assert [piece.file.name for piece in tensor.pieces] == [f"model_world_size_3_rank_{rank}.pt" for rank in range(3)]
    assert found.config["architectures"] == ["LlamaForCausalLM"]
    assert found.tokenizer_home == DATA / "three" / "global_step_2" / "actor" / "huggingface"


def test_copies_of_hsdp_are_read_once() -> None:
    found = warmkit.open_checkpoint(DATA / "hsdp2" / "global_step_2", allow_pickle=True).entries["lm_head.weight"]
    assert isinstance(found, GatheredTensor)
    assert len(found.pieces) == 2


def test_the_whole_model_beside_the_config_is_named_and_not_read() -> None:
    home = DATA / "full" / "global_step_2" / "actor"
    assert (home / "huggingface" / "model.safetensors").is_file()
    (note,) = warmkit.open_checkpoint(home, allow_pickle=True).notes
    assert (
        note == f"{home}: read the rank files, left aside huggingface/model.safetensors; give {home / 'huggingface'} for those"
    )
    rounded = read(home / "huggingface")
    assert all(torch.equal(rounded[key].float(), each.to(rounded[key].dtype).float()) for key, each in read(home).items())


def test_a_merge_of_rank_files_has_the_numbers_of_the_merge_of_what_torch_gathers(run: Run, tmp_path: Path) -> None:
    whole = []
    for step in (1, 2, 3):
        shutil.copytree(DATA / "run" / f"global_step_{step}" / "huggingface", tmp_path / f"w{step}")
        save_file(load_file(DATA / "run" / f"whole-{step}.safetensors"), tmp_path / f"w{step}" / "model.safetensors")
        whole.append(tmp_path / f"w{step}")
    steps = [DATA / "run" / f"global_step_{step}" for step in (1, 2, 3)]
    for out, models, more in (("a", whole, []), ("b", steps, ["--allow-pickle"])):
        done = run("merge", "--method", "slerp", *models[1:], "--init", models[0], "-o", out, *more)
        assert done.returncode == 0, done.stderr
    for name in ("config.json", "tokenizer.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    one, two = (load_file(tmp_path / out / "model.safetensors") for out in ("a", "b"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_without_the_option_nothing_is_read(run: Run) -> None:
    done = run("inspect", DATA / "fsdp1" / "global_step_2")
    assert done.returncode == 1
    assert "only pickle files (actor/model_world_size_2_rank_0.pt, actor/model_world_size_2_rank_1.pt)" in done.stderr
    assert "--allow-pickle" in done.stderr


# ---- where they lie ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["actor", "policy", ""])
def test_the_step_can_be_given_whatever_its_folder_is_called(home: str, saved: Path, tmp_path: Path) -> None:
    place = shutil.move(saved / "actor", tmp_path / "step" / home)
    assert read(tmp_path / "step").keys() == read(place).keys() == read(DATA / "fsdp1" / "global_step_2").keys()


def test_a_critic_beside_the_policy_is_left_aside_and_can_be_given(saved: Path) -> None:
    critic = {"score.weight": (torch.arange(24.0).reshape(2, 12), [Shard(0)])}
    save_ranks(saved / "critic", (2,), critic)
    found = warmkit.open_checkpoint(saved, allow_pickle=True)
    assert found.notes == (f"{saved}: read actor, left aside critic",)
    assert "score.weight" not in found
    assert read(saved / "critic").keys() == {"score.weight"}
    shutil.rmtree(saved / "actor")
    with pytest.raises(UnsupportedError, match=f"holds rank files of a critic alone, no policy; give {saved / 'critic'}"):
        warmkit.open_checkpoint(saved, allow_pickle=True)


def test_the_file_of_one_rank_is_refused_and_its_folder_named(saved: Path) -> None:
    file = saved / "actor" / "model_world_size_2_rank_1.pt"
    assert refusal(file, UnsupportedError) == (
        f"{file}: one rank's part of a model, as its name says; give its folder, {saved / 'actor'}"
    )


def test_the_file_of_the_only_rank_is_the_model() -> None:
    file = DATA / "alone" / "global_step_2" / "actor" / "model_world_size_1_rank_0.pt"
    assert read(file).keys() == read(file.parent).keys()


# ---- every way to cut ----------------------------------------------------------------------------------------------------


def test_any_mesh_and_any_placements_give_the_whole_tensor(tmp_path: Path) -> None:
    draw = random.Random(5)
    kinds = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64", "int64")}
    for number in range(12):
        sizes = [draw.randint(1, 4) for _ in range(draw.randint(1, 2))]
        tensors = {}
        for place, (name, kind) in enumerate(kinds.items()):
            shape = [draw.randint(1, 7) for _ in range(draw.randint(1, 3))]
            whole = torch.arange(1.0 + place, 1.0 + place + torch.Size(shape).numel()).reshape(shape).to(kind)
            tensors[name] = whole, [draw.choice([Replicate(), Shard(draw.randrange(len(shape)))]) for _ in sizes]
        home = save_ranks(tmp_path / str(number), sizes, tensors, {"buffer": torch.tensor(2.5)})
        found = read(home)
        assert torch.equal(found.pop("buffer"), torch.tensor(2.5))
        for name, (whole, placements) in tensors.items():
            assert torch.equal(found[name], whole), (sizes, whole.shape, placements)


def test_more_ranks_than_rows_leave_some_without_a_part(tmp_path: Path) -> None:
    whole = torch.arange(15.0).reshape(3, 5)
    home = save_ranks(tmp_path / "many", (5,), {"w": (whole, [Shard(0)]), "e": (torch.empty(0, 4), [Shard(0)])})
    found = read(home)
    assert torch.equal(found["w"], whole)
    assert found["e"].shape == (0, 4)


def test_names_of_torch_before_2_5_are_known(tmp_path: Path) -> None:
    """Written by torch 2.13 and renamed: what older versions wrote could not be made here."""
    whole = torch.arange(20.0).reshape(5, 4)
    home = save_ranks(tmp_path / "old", (2,), {"w": (whole, [Shard(0)])})
    old = {
        b"ctorch.distributed.tensor\nDTensor\n": b"ctorch.distributed._tensor.api\nDTensor\n",
        b"ctorch.distributed.tensor._dtensor_spec\nDTensorSpec\n": b"ctorch.distributed._tensor.placement_types\nDTensorSpec\n",
        b"ctorch.distributed.tensor._dtensor_spec\nTensorMeta\n": b"ctorch.distributed._tensor.placement_types\nTensorMeta\n",
        b"ctorch.distributed.tensor.placement_types\nShard\n": b"ctorch.distributed._tensor.placement_types\nShard\n",
    }
    for file in home.iterdir():
        repickle(file, lambda content: replaced(content, old))
    assert torch.equal(read(home)["w"], whole)


def test_a_file_that_does_not_say_its_place_has_it_by_its_rank(tmp_path: Path) -> None:
    whole = torch.arange(20.0).reshape(5, 4)
    home = save_ranks(tmp_path / "silent", (2,), {"w": (whole, [Shard(0)])})
    for file in home.iterdir():
        repickle(
            file, lambda content: content.replace(b"_coordinate_on_dim", b"_coordinate_of_dim").replace(b"_rank", b"_renk")
        )
    assert torch.equal(read(home)["w"], whole)


@pytest.mark.parametrize(
    ("placements", "sizes", "said"),
    [
        ([Partial()], (2,), "is a sum that is not taken yet"),
        ([_StridedShard(0, split_factor=2), Shard(0)], (2, 2), "is cut with strides"),
    ],
)
def test_what_is_no_part_of_a_tensor_is_refused_by_name(
    placements: list[Any], sizes: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    home = save_ranks(tmp_path / "global_step_4", sizes, {"w": (torch.ones(8, 3), placements)})
    world = len(list(home.iterdir()))
    assert f"global_step_4/model_world_size_{world}_rank_0.pt: tensor 'w' {said}" in refusal(home, UnsupportedError)


# ---- LoRA ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LORA)
def test_an_adapter_in_the_files_is_added_to_its_base_as_peft_merges_it(name: str) -> None:
    step, expected = DATA / name / "global_step_2", load_file(DATA / name / "whole-2.safetensors")
    found = warmkit.open_checkpoint(step, allow_pickle=True)
    assert found.keys() == expected.keys() - ({"lm_head.weight"} if name == "lora2" else set())
    for key, tensor in found.items():
        torch.testing.assert_close(tensor.load(), expected[key], rtol=1e-6, atol=1e-6)
    adapted = [key for key, each in found.entries.items() if isinstance(each, AdaptedTensor)]
    assert len(adapted) == 6  # q, v and down of two layers
    note = f"{step / 'actor'}: holds a base and a LoRA adapter; read W + 1.5 B A (lora_train_meta.json)"
    assert note in found.notes


@pytest.mark.parametrize("name", LORA)
def test_verls_model_merger_takes_the_base_alone_for_the_model(name: str) -> None:
    """verl #7285. Where this fails, what `docs/inputs.md` says of it is out of date."""
    merged = json.loads((DATA / name / "merged-2.json").read_text())
    found = read(DATA / name / "global_step_2")
    differing = {key for key, (_, _, expected) in merged.items() if digest(found[key].bfloat16()) != expected}
    assert {key.split(".")[-2] for key in differing} == {"q_proj", "v_proj", "down_proj"}


def apart(step: Path, folder: Path, **config: Any) -> tuple[Path, Path]:
    """Write base and adapter of a save apart, read by torch."""
    base, adapter = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for name, tensor in whole_of(step / "actor").items():
        if "lora_" in name:
            adapter[name.replace(".default", "")] = tensor
        else:
            base[name.removeprefix("base_model.model.").replace(".base_layer", "")] = tensor
    shutil.copytree(step / "actor" / "huggingface", folder / "base")
    (folder / "adapter").mkdir()
    save_file(base, folder / "base" / "model.safetensors")
    save_file(adapter, folder / "adapter" / "adapter_model.safetensors")
    content = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, **config}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(content))
    return folder / "base", folder / "adapter"


def whole_of(home: Path) -> dict[str, torch.Tensor]:
    """Return what torch itself reads: the parts of all ranks, put together by their placements."""
    ranks = [torch.load(file, weights_only=False) for file in sorted(home.glob("model_world_size_*.pt"))]
    return {name: joined([each[name] for each in ranks]) for name in ranks[0]}


def joined(parts: list[Any]) -> torch.Tensor:
    axis = parts[0].placements[0].dim
    return torch.cat([each.to_local() for each in parts], axis)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LORA)
def test_it_is_what_base_and_adapter_are_that_lie_apart(name: str, tmp_path: Path) -> None:
    base, adapter = apart(DATA / name / "global_step_2", tmp_path)
    expected, found = tensors_of(f"{base}+{adapter}"), read(DATA / name / "global_step_2")
    assert all(torch.equal(found[key], each) for key, each in expected.items() if key in found)


@pytest.mark.filterwarnings("ignore")
def test_the_config_of_the_adapter_tells_more_than_its_rank_and_alpha(tmp_path: Path) -> None:
    step = Path(shutil.copytree(DATA / "lora2" / "global_step_2", tmp_path / "step"))
    base, adapter = apart(step, tmp_path, use_rslora=True)
    (step / "actor" / "lora_adapter").mkdir()
    shutil.copy(adapter / "adapter_config.json", step / "actor" / "lora_adapter")
    expected, found = tensors_of(f"{base}+{adapter}"), read(step)
    assert all(torch.equal(found[key], each) for key, each in expected.items() if key in found)
    assert "read W + 3 B A (lora_adapter/adapter_config.json)" in warmkit.open_checkpoint(step, allow_pickle=True).notes[-1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no lora_train_meta.json"),
        ('{"r": 4, "lora_alpha": 0}', "says r 4, lora_alpha 0"),
        ('{"r": 4}', "says r 4, lora_alpha None"),
        ('{"lora_alpha": 8}', "says r None, lora_alpha 8"),
    ],
)
def test_an_adapter_that_nothing_scales_is_refused_never_left_out(content: str | None, said: str, tmp_path: Path) -> None:
    step = Path(shutil.copytree(DATA / "lora2" / "global_step_2", tmp_path / "global_step_2"))
    meta = step / "actor" / "lora_train_meta.json"
    meta.unlink() if content is None else meta.write_text(content)
    text = refusal(step, UnsupportedError)
    assert "holds a base and a LoRA adapter, and nothing that tells by how much to scale it" in text
    assert said in text
    assert f"of that run to {meta}" in text


def test_a_rank_that_the_factors_do_not_have_is_refused(tmp_path: Path) -> None:
    step = Path(shutil.copytree(DATA / "lora2" / "global_step_2", tmp_path / "global_step_2"))
    (step / "actor" / "lora_train_meta.json").write_text('{"r": 8, "lora_alpha": 16}')
    assert "lora_train_meta.json says rank 8" in refusal(step, FormatError)


def test_an_adapter_saved_without_its_base_is_refused() -> None:
    assert "rank files of an adapter alone (save_lora_only), without its base" in refusal(
        DATA / "lora-only" / "global_step_2", UnsupportedError
    )


def test_modules_that_were_trained_whole_stand_in_for_those_of_the_base(tmp_path: Path) -> None:
    new, old = torch.arange(6.0).reshape(2, 3), torch.zeros(2, 3)
    tensors = {
        "base_model.model.score.original_module.weight": (old, [Shard(0)]),
        "base_model.model.score.modules_to_save.default.weight": (new, [Shard(0)]),
        "base_model.model.q.base_layer.weight": (torch.ones(4, 4), [Shard(0)]),
        "base_model.model.q.lora_A.default.weight": (torch.ones(2, 4), [Shard(0)]),
        "base_model.model.q.lora_B.default.weight": (torch.ones(4, 2), [Shard(0)]),
    }
    home = save_ranks(tmp_path / "s", (2,), tensors)
    (home / "lora_train_meta.json").write_text('{"r": 2, "lora_alpha": 1}')
    found = read(home)
    assert found.keys() == {"score.weight", "q.weight"}
    assert torch.equal(found["score.weight"], new)
    assert torch.equal(found["q.weight"], torch.full((4, 4), 2.0))
    second = {"base_model.model.q.lora_A.other.weight": (torch.ones(2, 4), [Shard(0)])}
    save_ranks(home, (2,), {**tensors, **second})
    assert "holds several adapters (default, other)" in refusal(home, UnsupportedError)


# ---- bad input -----------------------------------------------------------------------------------------------------------


def refusal(path: Path, kind: type[CheckpointError] = FormatError) -> str:
    with pytest.raises(kind) as error:
        warmkit.open_checkpoint(path, allow_pickle=True)
    assert "\n" not in str(error.value)
    return str(error.value)


def repickle(file: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the pickle in a torch file."""
    import zipfile

    with zipfile.ZipFile(file) as before:
        records = {name: before.read(name) for name in before.namelist()}
    with zipfile.ZipFile(file, "w") as after:
        for name, content in records.items():
            after.writestr(name, change(content) if name.endswith("data.pkl") else content)


def replaced(content: bytes, table: dict[bytes, bytes]) -> bytes:
    for old, new in table.items():
        content = content.replace(old, new)
    return content


def other_step(step: Path) -> None:
    for kind in ("model", "extra_state"):
        name = f"{kind}_world_size_2_rank_1.pt"
        shutil.copy(DATA / "run" / "global_step_3" / name, step / "actor" / name)
        shutil.copy(DATA / "run" / "global_step_1" / name.replace("rank_1", "rank_0"), step / "actor")


def two_models(step: Path) -> None:
    shutil.copy(DATA / "fsdp2" / "global_step_2" / "actor" / "model_world_size_2_rank_1.pt", step / "actor")


def swapped(step: Path) -> None:
    one, two = (step / "actor" / f"model_world_size_2_rank_{rank}.pt" for rank in range(2))
    one.rename(step / "kept")
    two.rename(one)
    (step / "kept").rename(two)


def twice(step: Path) -> None:
    shutil.copy(step / "actor" / "model_world_size_2_rank_0.pt", step / "actor" / "model_world_size_2_rank_1.pt")


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no rank 1": (
        lambda step: (step / "actor" / "model_world_size_2_rank_1.pt").unlink(),
        r"global_step_2/actor: rank 1 of 2 is missing \(model_world_size_2_rank_1.pt\)",
    ),
    "no rank 0": (lambda step: (step / "actor" / "model_world_size_2_rank_0.pt").unlink(), "rank 0 of 2 is missing"),
    "two worlds": (
        lambda step: shutil.copy(DATA / "three/global_step_2/actor/model_world_size_3_rank_0.pt", step / "actor"),
        "global_step_2/actor: holds rank files of 2 and 3 ranks",
    ),
    "another world in the config": (
        lambda step: (step / "actor" / "fsdp_config.json").write_text('{"FSDP_version": 1, "world_size": 4}'),
        "its rank files are of 2 ranks, fsdp_config.json says 4",
    ),
    "a rank too many": (
        lambda step: (step / "actor" / "model_world_size_2_rank_7.pt").write_bytes(b""),
        "holds rank 7 of 2 ranks",
    ),
    "truncated": (
        lambda step: os.truncate(step / "actor" / "model_world_size_2_rank_1.pt", 9000),
        "global_step_2/actor/model_world_size_2_rank_1.pt: a torch file that was truncated",
    ),
    "empty": (
        lambda step: (step / "actor" / "model_world_size_2_rank_1.pt").write_bytes(b""),
        "global_step_2/actor/model_world_size_2_rank_1.pt: expected what torch.save writes",
    ),
    "another model": (
        two_models,
        "global_step_2/actor/model_world_size_2_rank_1.pt: tensor .* not in both; files of two saves",
    ),
    "another step": (
        other_step,
        "global_step_2/actor/model_world_size_2_rank_1.pt: was saved at step 3, model_world_size_2_rank_0.pt at step 1",
    ),
    "swapped": (swapped, "model_world_size_2_rank_0.pt: is of rank 0 by its name, of rank 1 by its content"),
    "one rank twice": (twice, "model_world_size_2_rank_1.pt: is of rank 1 by its name, of rank 0 by its content"),
    "no state dict": (
        lambda step: torch.save([1], step / "actor" / "model_world_size_2_rank_1.pt"),
        "model_world_size_2_rank_1.pt: expected a state dict of tensors, found list",
    ),
    "numbers beside tensors": (
        lambda step: [torch.save({"step": 3}, file) for file in (step / "actor").glob("model_*.pt")],
        "model_world_size_2_rank_0.pt: expected a state dict of tensors, found a int under 'step'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_one_line_that_names_the_file_and_nothing_is_written(name: str, saved: Path, run: Run) -> None:
    damage, expected = BROKEN[name]
    damage(saved)
    with pytest.raises(CheckpointError, match=expected):
        warmkit.open_checkpoint(saved, allow_pickle=True)
    done = run("soup", DATA / "fsdp1" / "global_step_2", saved, "-o", "out", "--allow-pickle")
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert not (saved.parent / "out").exists()


@pytest.mark.parametrize("name", ["hsdp1", "hsdp2"])
def test_copies_that_differ_are_files_of_two_saves(name: str, tmp_path: Path) -> None:
    step = Path(shutil.copytree(DATA / name / "global_step_2", tmp_path / "global_step_2"))
    file = step / "actor" / "model_world_size_4_rank_3.pt"
    state = torch.load(file, weights_only=False)
    tensor = state["model.norm.weight"]
    tensor._local_tensor.add_(1.0)
    torch.save(state, file)
    assert f"{file}: tensor 'model.norm.weight' is not the copy of that in model_world_size_4_rank_1.pt" in refusal(step)


def test_buffers_that_differ_are_files_of_two_saves(tmp_path: Path) -> None:
    tensors = {"w": (torch.ones(4, 2), [Shard(0)])}
    home = save_ranks(tmp_path / "one", (2,), tensors, {"b": torch.tensor([1.0])})
    other = save_ranks(tmp_path / "two", (2,), tensors, {"b": torch.tensor([2.0])})
    shutil.copy(other / "model_world_size_2_rank_1.pt", home)
    assert "tensor 'b' is not the copy of that in model_world_size_2_rank_0.pt that it should be" in refusal(home)


def test_shapes_types_and_kinds_that_differ_are_files_of_two_saves(tmp_path: Path) -> None:
    kinds = [torch.ones(4, 2), torch.ones(4, 3), torch.ones(4, 2).bfloat16()]
    homes = [save_ranks(tmp_path / str(n), (2,), {"w": (each, [Shard(0)])}) for n, each in enumerate(kinds)]
    homes.append(save_ranks(tmp_path / "plain", (2,), {}, {"w": kinds[0]}))
    for one, two in itertools.permutations(homes, 2):
        mixed = Path(shutil.copytree(one, tmp_path / "mixed"))
        shutil.copy(two / "model_world_size_2_rank_1.pt", mixed)
        assert f"{mixed / 'model_world_size_2_rank_1.pt'}: tensor 'w'" in refusal(mixed)
        shutil.rmtree(mixed)


def test_steps_that_skyrl_counts_tell_two_saves_apart(tmp_path: Path) -> None:
    """With the keys of SkyRL's save_ckpt, which needs a GPU and was not run."""
    home = save_ranks(tmp_path / "policy", (2,), {"w": (torch.ones(4, 2), [Shard(0)])})
    for rank, step in enumerate((40, 20)):
        extra = {"lr_scheduler": {}, "client_state": {}, "tag": None, "fsdp_strategy": "fsdp2", "global_step": step}
        torch.save(extra, home / f"extra_state_world_size_2_rank_{rank}.pt")
    assert "rank_1.pt: was saved at step 20, model_world_size_2_rank_0.pt at step 40" in refusal(home)
    torch.save({**extra, "global_step": 40}, home / "extra_state_world_size_2_rank_1.pt")
    assert read(home).keys() == {"w"}
    (home / "extra_state_world_size_2_rank_1.pt").write_bytes(b"half")  # nothing that is needed
    assert read(home).keys() == {"w"}


def test_a_tensor_of_another_class_is_refused_by_name(tmp_path: Path) -> None:
    """The name is FSDP1's without a device mesh; the rest of the file is not what it writes."""
    home = save_ranks(tmp_path / "sharded", (2,), {"w": (torch.ones(4, 2), [Shard(0)])})
    name = b"ctorch.distributed._shard.sharded_tensor.api\nShardedTensor\n"
    for file in home.iterdir():
        repickle(file, lambda content: content.replace(b"ctorch.distributed.tensor\nDTensor\n", name))
    assert "sharded_tensor.api.ShardedTensor" in refusal(home, UnsupportedError)


def test_ranks_of_two_meshes_are_files_of_two_saves(tmp_path: Path) -> None:
    tensors = {"w": (torch.ones(8, 2), [Shard(0)])}
    flat = save_ranks(tmp_path / "flat", (4,), tensors)
    square = save_ranks(tmp_path / "square", (2, 2), {"w": (torch.ones(8, 2), [Replicate(), Shard(0)])})
    shutil.copy(square / "model_world_size_4_rank_3.pt", flat)
    assert "its ranks are on meshes of different dimensions; files of two saves" in refusal(flat)


def test_code_in_a_rank_file_is_named_and_not_run(saved: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "proof"),)

    torch.save({"w": Bomb()}, saved / "actor" / "model_world_size_2_rank_1.pt")
    assert "posix.mkdir" in refusal(saved, UnsupportedError)
    assert not (tmp_path / "proof").exists()


# ---- a run ---------------------------------------------------------------------------------------------------------------


def test_the_steps_of_a_run_are_averaged(run: Run, tmp_path: Path) -> None:
    done = run("average", DATA / "run", "--schedule", "uniform", "-o", "out", "--allow-pickle")
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "out" / "model.safetensors")
    steps = [load_file(DATA / "run" / f"whole-{step}.safetensors") for step in (1, 2, 3)]
    assert found.keys() == steps[0].keys()
    for key, tensor in found.items():
        mean = sum(each[key].double() for each in steps) / 3
        torch.testing.assert_close(tensor, mean.float(), rtol=1e-7, atol=1e-8)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_a_step_of_a_run_that_is_broken_is_named_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    shutil.copytree(DATA / "run", tmp_path / "run")
    (tmp_path / "run" / "global_step_2" / "model_world_size_2_rank_1.pt").unlink()
    done = run("average", "run", "-o", "out", "--allow-pickle")
    assert done.returncode == 1
    assert "global_step_2: rank 1 of 2 is missing" in done.stderr
    assert not (tmp_path / "out").exists()
