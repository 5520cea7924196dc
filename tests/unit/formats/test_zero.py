"""Directories of DeepSpeed's ZeRO, which DeepSpeed wrote: read as its own script reads them, or refused in one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import warmkit
from tests.conftest import Run, make_family, save, tensors_of, weights
from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.formats.pieces import JoinedTensor
from warmkit.formats.state_dicts import entry
from warmkit.formats.zero_files import read_model, read_optimizer
from warmkit.sources.files import Files

DATA = Path(__file__).parents[2] / "data" / "zero"
OPTIMIZER, MODEL = "zero_pp_rank_1_mp_rank_00_optim_states.pt", "zero_pp_rank_1_mp_rank_00_model_states.pt"
ONE_MODEL = "mp_rank_00_model_states.pt"
BUFFERS = ("mean", "seen")
RUNS = sorted(each.stem for each in (DATA / "said").iterdir())
LEFT_OUT = [name for name in RUNS if "without-frozen" in name]
WHOLE = [name for name in RUNS if name not in LEFT_OUT]


def place_of(name: str) -> Path:
    return DATA / name / "checkpoint-2" if name == "trainer" else DATA / name


# ---- what DeepSpeed wrote ------------------------------------------------------------------------------------------------


def test_there_are_runs_of_every_stage_and_of_two_versions() -> None:
    assert len(WHOLE) >= 12
    assert {name.removeprefix("0.15.4-")[:6] for name in WHOLE} >= {"stage1", "stage2", "stage3"}
    assert {name.removeprefix("0.15.4-")[:6] for name in WHOLE if name.startswith("0.15.4")} >= {"stage1", "stage2", "stage3"}


@pytest.mark.parametrize("name", WHOLE)
def test_every_tensor_is_what_deepspeeds_own_script_reads(name: str) -> None:
    found, said = tensors_of(place_of(name), allow_pickle=True), load_file(DATA / "said" / f"{name}.safetensors")
    left_out_by_it = {"frozen"} if "stage1" in name else set()
    assert found.keys() == said.keys() | left_out_by_it
    for key, tensor in said.items():
        assert found[key].dtype == tensor.dtype or key in BUFFERS  # which it widens to float32
        assert torch.equal(found[key].to(tensor.dtype), tensor), key


@pytest.mark.parametrize("name", [name for name in [*WHOLE, "stage1-wide-sums"] if "stage3" not in name and name != "trainer"])
def test_every_tensor_rounded_is_what_the_model_computed_with(name: str) -> None:
    found = tensors_of(place_of(name), allow_pickle=True)
    model = read_model(DATA / name / "global_step2" / "mp_rank_00_model_states.pt")
    assert found.keys() == model.module.keys()
    with Files() as files:
        for key, stored in model.module.items():
            there = entry(key, stored)
            buffer = bytearray(there.nbytes)
            there.read(files, 0, memoryview(buffer))
            computed = torch.frombuffer(buffer, dtype=getattr(torch, there.dtype.torch_name)).reshape(there.shape)
            assert torch.equal(found[key].to(computed.dtype), computed), key


def test_weights_are_stretches_that_end_in_the_middle_of_rows() -> None:
    opened = warmkit.open_checkpoint(DATA / "stage2-bfloat16", allow_pickle=True)
    tensor = opened.entries["embed.weight"]
    assert isinstance(tensor, JoinedTensor)
    assert any(each.first % tensor.shape[1] for each in tensor.stretches)
    third = warmkit.open_checkpoint(DATA / "stage3-bfloat16", allow_pickle=True).entries["embed.weight"]
    assert isinstance(third, JoinedTensor)
    assert len({each.file for each in third.stretches}) == 3


def test_padding_between_parameters_is_passed_over() -> None:
    gaps = read_optimizer(DATA / "stage1-aligned" / "global_step2" / f"bf16_{OPTIMIZER}").gaps
    assert gaps == [[3, 5, 0], [7, 3, 1, 0]]
    assert "stage1-aligned" in WHOLE  # it is compared with DeepSpeed's own script above


def test_tied_names_are_one_tensor() -> None:
    for name in ("stage1-float32", "stage2-float32", "stage3-float32"):
        opened = warmkit.open_checkpoint(DATA / name, allow_pickle=True)
        assert opened.tied == {"head.weight": "embed.weight"}
        assert torch.equal(opened["head.weight"].load(), opened["embed.weight"].load())


def test_the_folder_of_a_step_is_a_checkpoint_too() -> None:
    above, itself = DATA / "stage2-float32", DATA / "stage2-float32" / "global_step2"
    found, expected = tensors_of(itself, allow_pickle=True), tensors_of(above, allow_pickle=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_merge_of_a_trainers_checkpoints_has_its_config(run: Run, tmp_path: Path) -> None:
    checkpoint = DATA / "trainer" / "checkpoint-2"
    done = run("liti", checkpoint, "--init", checkpoint, "-o", "out", "--allow-pickle")
    assert done.returncode == 0, done.stderr
    said, merged = load_file(DATA / "said" / "trainer.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(merged[name], said[name]) for name in said)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"
    assert not list((tmp_path / "out").glob("global_step*"))


def test_without_the_option_it_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="--allow-pickle"):
        warmkit.open_checkpoint(DATA / "stage3-float32")


def test_whole_weights_beside_the_steps_come_first(tmp_path: Path) -> None:
    shutil.copytree(DATA / "stage2-float32", tmp_path / "run")
    torch.save(weights(1), tmp_path / "run" / "pytorch_model.bin")
    assert set(tensors_of(tmp_path / "run", allow_pickle=True)) == set(weights(1))


def test_a_save_without_zero_is_a_file_of_torch(tmp_path: Path) -> None:
    torch.save({"module": weights(1), "param_shapes": None, "optimizer": {}}, tmp_path / "mp_rank_00_model_states.pt")
    assert set(tensors_of(tmp_path, allow_pickle=True)) == set(weights(1))


# ---- half-written ones, and worse ----------------------------------------------------------------------------------------


def copy(name: str, folder: Path) -> Path:
    return shutil.copytree(DATA / name, folder / name) / "global_step2"


def refusal(path: Path, kind: type[CheckpointError] = FormatError) -> str:
    with pytest.raises(kind) as error:
        warmkit.open_checkpoint(path, allow_pickle=True)
    assert "\n" not in str(error.value)
    return str(error.value)


def edited(file: Path, change: Callable[[bytes], bytes]) -> None:
    """Change the pickle of a torch file."""
    with zipfile.ZipFile(file) as before:
        records = [(info.filename, before.read(info)) for info in before.infolist()]
    with zipfile.ZipFile(file, "w") as after:
        for name, record in records:
            after.writestr(name, change(record) if name.endswith("/data.pkl") else record)


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new)

    return change


def number(key: bytes, old: int, new: int) -> Callable[[bytes], bytes]:
    """Change a small number that follows a key, whatever place of the memo the key has."""

    def change(content: bytes) -> bytes:
        at = content.index(b"X" + len(key).to_bytes(4, "little") + key) + 5 + len(key)
        at += {b"q": 2, b"r": 5}[content[at : at + 1]]
        assert content[at : at + 2] == b"K" + bytes([old]), content[at : at + 2]
        return content[: at + 1] + bytes([new]) + content[at + 2 :]

    return change


Damage = Callable[[Path], Any]
HALVES: dict[str, tuple[str, Damage, str]] = {
    "no optimizer of a rank": (
        "stage2-bfloat16",
        lambda step: (step / f"bf16_{OPTIMIZER}").unlink(),
        "global_step2: the optimizer states of rank 1 of 3 are missing",
    ),
    "no optimizers": (
        "stage2-float32",
        lambda step: [each.unlink() for each in step.glob("*optim_states.pt")],
        "no optimizer states .* for the weights in the type of training give .*mp_rank_00_model_states.pt",
    ),
    "no optimizers of stage 3": (
        "stage3-float32",
        lambda step: [each.unlink() for each in step.glob("*optim_states.pt")],
        "no optimizer states .* which hold the float32 weights of ZeRO$",
    ),
    "no model": ("stage2-float32", lambda step: (step / ONE_MODEL).unlink(), "no mp_rank_00_model_states.pt"),
    "no model of a rank": (
        "stage3-float32",
        lambda step: (step / MODEL).unlink(),
        "the model states of rank 1 of 2 are missing",
    ),
    "a rank more": (
        "stage2-float32",
        lambda step: shutil.copy(step / OPTIMIZER, step / OPTIMIZER.replace("rank_1", "rank_2")),
        "optimizer states of 3 ranks, and .* says 2; the others are of another save",
    ),
    "a model more": (
        "stage3-float32",
        lambda step: shutil.copy(step / MODEL, step / MODEL.replace("rank_1", "rank_2")),
        "zero_pp_rank_2_.*: there are 2 ranks; it is of another save",
    ),
    "two of one rank": (
        "stage2-float32",
        lambda step: shutil.copy(step / OPTIMIZER, step / f"bf16_{OPTIMIZER}"),
        "are both of rank 1",
    ),
    "short optimizer": (
        "stage1-float32",
        lambda step: os.truncate(step / OPTIMIZER, 3000),
        f"{OPTIMIZER}: a torch file that was truncated",
    ),
    "short model": (
        "stage3-float32",
        lambda step: os.truncate(step / MODEL, 3000),
        f"{MODEL}: a torch file that was truncated",
    ),
    "zeros": ("stage3-float32", lambda step: (step / OPTIMIZER).write_bytes(bytes(9000)), "expected what torch.save writes"),
    "two worlds": (
        "stage2-round-robin",
        lambda step: shutil.copy(DATA / "stage2-float32" / "global_step2" / OPTIMIZER, step / OPTIMIZER),
        f"{OPTIMIZER}: says 2 ranks, zero_pp_rank_0_.* says 3: files of two saves",
    ),
    "two stages": (
        "stage1-float32",
        lambda step: shutil.copy(DATA / "stage2-float32" / "global_step2" / OPTIMIZER, step / OPTIMIZER),
        f"{OPTIMIZER}: says 2 of stage, .* says 1: files of two saves",
    ),
    "renamed ranks": (
        "stage2-float32",
        lambda step: [
            (step / OPTIMIZER).rename(step / "x"),
            (step / OPTIMIZER.replace("rank_1", "rank_0")).rename(step / OPTIMIZER),
            (step / "x").rename(step / OPTIMIZER.replace("rank_1", "rank_0")),
        ],
        "files of two saves, or of ranks that were renamed",
    ),
    "sizes of stage 2": (
        "stage2-float32",
        lambda step: edited(step / ONE_MODEL, replaced(b"K\x0bK\x07\x86", b"K\x0bK\x09\x86")),
        "have 147 numbers in group 0 of the parameters, whose sizes in .* ask for 169: files of two saves",
    ),
    "a part is missing": (
        "stage3-sub-groups",
        lambda step: shutil.copy(DATA / "stage3-float32" / "global_step2" / OPTIMIZER, step / OPTIMIZER),
        "says 2 groups of parameters, zero_pp_rank_0_.* says [3-7]",
    ),
    "sizes of stage 3": (
        "stage3-float32",
        lambda step: [edited(each, replaced(b"K\x0bK\x07\x86", b"K\x0bK\x09\x86")) for each in step.glob("*_model_states.pt")],
        "numbers, by the sizes in .* a rank has 9[0-9]",
    ),
    "two steps": (
        "stage3-float32",
        lambda step: edited(step / MODEL, number(b"global_steps", 2, 1)),
        f"{MODEL}: says step 1, zero_pp_rank_0_.* says 2: files of two saves",
    ),
    "another folder": (
        "stage2-float32",
        lambda step: [edited(step / ONE_MODEL, number(b"global_steps", 2, 7))],
        "says step 7, the name of its folder step 2; which is right",
    ),
    "no folder": ("stage2-float32", lambda step: step.rename(step.parent / "x"), "names global_step2, which is not there"),
    "out of the folder": (
        "stage2-float32",
        lambda step: (step.parent / "latest").write_text("../global_step2"),
        "expected the name of a folder beside it",
    ),
}


@pytest.mark.parametrize("name", HALVES)
def test_a_half_written_one_is_one_line_and_nothing_is_lost(name: str, tmp_path: Path) -> None:
    source, damage, expected = HALVES[name]
    good, step = DATA / source, copy(source, tmp_path)
    (step.parent / "zero_to_fp32.py").touch()  # which a real run has
    damage(step)
    out = warmkit.soup(make_family(tmp_path / "family").models[:2], tmp_path / "out").path
    kept = (out / "model.safetensors").read_bytes()
    with pytest.raises(FormatError, match=expected) as error:
        warmkit.soup([good, step.parent], out, force=True, allow_pickle=True)
    assert "\n" not in str(error.value)
    assert (out / "model.safetensors").read_bytes() == kept


def test_the_optimizers_of_two_steps_are_told_apart(tmp_path: Path) -> None:
    step = copy("stage3-float32", tmp_path)
    with zipfile.ZipFile(step / OPTIMIZER) as archive:
        content = (step / OPTIMIZER).read_bytes()
        counts = [info for info in archive.infolist() if archive.read(info) == torch.tensor(2.0).numpy().tobytes()]
    assert len(counts) == 2
    (step / OPTIMIZER).write_bytes(content.replace(torch.tensor(2.0).numpy().tobytes(), torch.tensor(5.0).numpy().tobytes()))
    assert f"{OPTIMIZER}: says 5 steps of the optimizer, zero_pp_rank_0_" in refusal(step)


def test_steps_without_a_latest_are_one_or_an_error(tmp_path: Path) -> None:
    step = copy("stage2-float32", tmp_path)
    (step.parent / "latest").unlink()
    assert set(tensors_of(step.parent, allow_pickle=True)) == set(tensors_of(step, allow_pickle=True))
    shutil.copytree(step, step.parent / "global_step4")
    assert "2 steps of a run (global_step2, global_step4), and no file latest; give one of them" in refusal(step.parent)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_save_without_frozen_parameters_is_no_whole_model(name: str) -> None:
    assert "exclude_frozen_parameters" in refusal(DATA / name, UnsupportedError)


@pytest.mark.parametrize("file", [OPTIMIZER, MODEL])
def test_the_file_of_one_rank_is_refused_alone(file: str) -> None:
    step = DATA / "stage3-float32" / "global_step2"
    assert f"one rank's part of a model; give its folder with those of all ranks, {step}" in refusal(
        step / file, UnsupportedError
    )


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("layer_1_expert_0_mp_rank_00_model_states.pt", "experts of DeepSpeed's MoE"),
        ("expp_rank_0_mp_rank_00_optim_states.pt", "experts of DeepSpeed's MoE"),
        ("zero_pp_rank_0_mp_rank_01_optim_states.pt", "model-parallel rank 1: ZeRO is read where every rank has the whole"),
        ("mp_rank_01_model_states.pt", "model-parallel rank 1: ZeRO is read where every rank has the whole"),
        ("layer_00-model_00-model_states.pt", "one layer of a pipeline"),
        ("zero/embed.weight/fp32.pt", "a universal checkpoint of DeepSpeed"),
    ],
)
def test_other_ways_to_split_a_model_are_refused_by_name(more: str, expected: str, tmp_path: Path) -> None:
    step = copy("stage2-float32", tmp_path)
    (step / more).parent.mkdir(parents=True, exist_ok=True)
    (step / more).touch()
    assert expected in refusal(step, UnsupportedError)
    assert expected in refusal(step.parent, UnsupportedError)


def test_model_parallelism_is_told_by_what_a_file_says(tmp_path: Path) -> None:
    step = copy("stage2-float32", tmp_path)
    edited(step / ONE_MODEL, number(b"mp_world_size", 1, 2))
    assert "one of 2 model-parallel ranks" in refusal(step, UnsupportedError)


def test_bfloat16_without_zero_has_no_shapes(tmp_path: Path) -> None:
    step = copy("stage1-wide-sums", tmp_path)
    torch.save({**torch.load(step / ONE_MODEL, weights_only=True), "param_shapes": None}, step / ONE_MODEL)
    assert "no shapes of parameters (param_shapes)" in refusal(step, UnsupportedError)


def test_what_a_program_adds_is_left_aside_if_it_is_known(tmp_path: Path) -> None:
    import argparse

    import numpy as np

    step = copy("stage2-float32", tmp_path)
    file = step / ONE_MODEL
    more = {"args": argparse.Namespace(lr=0.1), "random": np.random.default_rng(0).random(3), "best": np.float64(2.5)}
    state = torch.load(file, weights_only=True)
    torch.save({**state, **more}, file)
    expected = tensors_of(DATA / "stage2-float32", allow_pickle=True)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors_of(step, allow_pickle=True).items())


def test_code_in_a_file_is_named_and_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "proof"),)

    step = copy("stage2-float32", tmp_path)
    edited(step / OPTIMIZER, lambda _: pickle.dumps(Bomb(), protocol=2))
    assert "posix.mkdir" in refusal(step, UnsupportedError)
    assert not (tmp_path / "proof").exists()


def test_a_parameter_that_no_optimizer_has_is_missing_with_stage_3(tmp_path: Path) -> None:
    step = copy("stage3-float32", tmp_path)
    for file in step.glob("*_model_states.pt"):
        state = torch.load(file, weights_only=True)
        state["module"]["lost"] = torch.empty(0)
        torch.save(state, file)
    assert "'lost' is empty there, and in no optimizer" in refusal(step)


def test_config_and_tokenizer_are_those_of_the_first_input_that_has_them(tmp_path: Path) -> None:
    said = load_file(DATA / "said" / "trainer.safetensors")
    dense = save(tmp_path / "dense", said)
    step = DATA / "trainer" / "checkpoint-2" / "global_step2"
    result = warmkit.soup([step, dense], tmp_path / "out", allow_pickle=True)
    assert any(f"config and tokenizer are those of {dense}" in note for note in result.notes)
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(merged[name], said[name]) for name in said)
