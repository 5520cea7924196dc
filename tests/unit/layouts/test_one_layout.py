"""Inputs of several layouts are read as of one; files are what transformers and mlx-lm wrote of one model."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import warmkit
from tests.unit.sources.web import Web, serving
from warmkit.engine.manifest import MANIFEST
from warmkit.errors import MismatchError, UnsupportedError, UsageError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.layouts.opening import open_checkpoint, open_inputs
from warmkit.sources.files import Files

FILES = Path(__file__).parents[2] / "data" / "layouts"
MODELS = sorted(folder.parent for folder in FILES.glob("*/memory"))
PAIRS = [
    pytest.param(one, two, id=f"{model.name}-{two.name}-as-{one.name}")
    for model in MODELS
    for one, two in itertools.permutations(sorted(each for each in model.iterdir() if each.is_dir()), 2)
]


def numbers(checkpoint: Checkpoint, pieces: int = 1) -> dict[str, np.ndarray]:
    """Read every tensor, in pieces whose ends fall anywhere."""
    found = {}
    with Files() as files:
        for name, tensor in checkpoint.entries.items():
            out = np.empty(tensor.elements, tensor.dtype.storage)
            step = max(1, tensor.elements // pieces)
            for start in range(0, tensor.elements, step):
                part = out[start : start + step]
                tensor.ahead(files, start, step)
                tensor.read(files, start, part.data.cast("B"))
            found[name] = out.reshape(tensor.shape)
    return found


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_a_model_reads_as_it_is_in_another_layout(one: Path, two: Path) -> None:
    _, read = open_inputs([one, two], {})
    wanted = load_file(one / "model.safetensors")
    for pieces in (1, 7):
        found = numbers(read, pieces)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize(("one", "two", "name"), [("5", "mlx", "gate_up_proj"), ("mlx", "5", "gate_proj.weight")])
def test_what_lies_transposed_on_a_server_is_asked_for_once(one: str, two: str, name: str) -> None:
    home, name = FILES / "gpt_oss", f"model.layers.0.mlp.experts.{name}"
    with serving(Web(home)) as web:
        _, read = open_inputs([home / one, f"{web.address}/{two}"], {})
        before = len(web.ranges)
        found = numbers(replace(read, entries={name: read.entries[name]}), 7)
        assert len(web.ranges) - before <= 6  # of three experts a matrix each, or gate and up
    np.testing.assert_array_equal(found[name], load_file(home / one / "model.safetensors")[name])


def changed(source: Path, folder: Path, seed: int = 0) -> Path:
    """Copy a model with other numbers in its tensors."""
    shutil.copytree(source, folder)
    noise = np.random.default_rng(seed)
    tensors = load_file(source / "model.safetensors")
    moved = {name: (value + noise.normal(size=value.shape)).astype(value.dtype) for name, value in tensors.items()}
    save_file(moved, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("method", ["slerp", "ties"])
@pytest.mark.parametrize("layout", ["memory", "mlx"])
def test_a_merge_through_views_writes_the_bytes_of_a_plain_one(tmp_path: Path, layout: str, method: str) -> None:
    home = FILES / "mixtral"
    init, one = home / "5", changed(home / "5", tmp_path / "one")
    plain = warmkit.merge([one, home / "5"], tmp_path / "plain", init=init, method=method)
    viewed = warmkit.merge([one, home / layout], tmp_path / "viewed", init=home / layout, method=method, layout="canonical")
    found, wanted = (load_file(made.path / "model.safetensors") for made in (viewed, plain))
    assert {name: value.tobytes() for name, value in found.items()} == {k: v.tobytes() for k, v in wanted.items()}
    assert warmkit.verify(viewed.path)


def test_the_manifest_and_one_line_say_what_was_mapped(tmp_path: Path) -> None:
    home = FILES / "mixtral"
    made = warmkit.soup([home / "5", home / "memory"], tmp_path / "out")
    said = "read in the layout of"
    assert [note for note in made.notes if said in note] == [
        f"{home / 'memory'}: read in the layout of {home / '5'}: 18 tensors cut out of others, 2 tensors under other names"
    ]
    manifest = json.loads((made.path / MANIFEST).read_text())
    assert ["layout" in each for each in manifest["models"]] == [False, True]


@pytest.mark.parametrize(("layout", "same"), [("canonical", "5"), ("memory", "memory")])
def test_the_layout_of_the_result_can_be_chosen(tmp_path: Path, layout: str, same: str) -> None:
    for model in ("mixtral", "llava", "qwen2_vl"):
        home = FILES / model
        made = warmkit.soup([home / "4", home / "4"], tmp_path / model, layout=layout)
        found, wanted = (load_file(folder / "model.safetensors") for folder in (made.path, home / same))
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], value) for name, value in wanted.items())


def test_an_unknown_layout_is_refused_with_the_nearest(tmp_path: Path) -> None:
    home = FILES / "mixtral"
    with pytest.raises(UsageError, match=r"unknown layout 'cannonical'.*canonical"):
        warmkit.soup([home / "4", home / "5"], tmp_path / "out", layout="cannonical")


def without(source: Path, folder: Path, lost: str) -> Path:
    shutil.copytree(source, folder)
    tensors = load_file(source / "model.safetensors")
    left = {name: value for name, value in tensors.items() if lost not in name}
    save_file(left, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_missing_experts_are_named(tmp_path: Path) -> None:
    home = FILES / "mixtral"
    short = without(home / "5", tmp_path / "short", "layers.1.block_sparse_moe.experts.1.")
    said = r"(?s)short does not fit.*layers\.1\.mlp\.experts\.down_proj' is of 3 experts, and expert 1 is missing"
    with pytest.raises(MismatchError, match=said):
        warmkit.soup([home / "memory", short], tmp_path / "out")
    one = without(home / "5", tmp_path / "one", "experts.2.w3.")
    said = (
        r"'model\.layers\.\*\.mlp\.experts\.gate_up_proj' is of 3 experts, and expert 2 is not whole: "
        r"'model\.layers\.\*\.block_sparse_moe\.experts\.\*\.w1\.weight' is there without what belongs to it \(2 such tensors\)"
    )
    with pytest.raises(MismatchError, match=said):
        warmkit.soup([home / "memory", one], tmp_path / "out")


def test_other_numbers_of_experts_are_named(tmp_path: Path) -> None:
    home = FILES / "mixtral"
    two = without(home / "5", tmp_path / "two", "experts.2.")
    with pytest.raises(MismatchError, match=r"gate_up_proj' is of 2 experts, and it has 3"):
        warmkit.soup([two, home / "memory"], tmp_path / "out")


def test_squares_are_turned_as_the_stacks_beside_them(tmp_path: Path) -> None:
    config = json.loads((FILES / "qwen3_vl_moe" / "5" / "config.json").read_text())
    name = "model.language_model.layers.0.mlp.experts"
    up, down = (np.random.default_rng(0).normal(size=(3, 8, size)).astype("f4") for size in (8, 4))
    for folder, turn in ((tmp_path / "5", (0, 1, 2)), (tmp_path / "4", (0, 2, 1))):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        tensors = {f"{name}.gate_up_proj": up.transpose(turn), f"{name}.down_proj": down.transpose(turn)}
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / "model.safetensors")
    _, read = open_inputs([tmp_path / "5", tmp_path / "4"], {})
    found = numbers(read)
    assert np.array_equal(found[f"{name}.gate_up_proj"], up)
    assert np.array_equal(found[f"{name}.down_proj"], down)


def test_what_is_stored_once_is_found_under_its_other_name(tmp_path: Path) -> None:
    head, other = "model.decoder.embed_tokens.weight", "lm_head.out_proj.weight"
    value = np.arange(12, dtype="f4").reshape(4, 3)
    save_file({head: value}, tmp_path / "a.safetensors")
    save_file({other: value}, tmp_path / "b.safetensors", {head: other})
    a, b = open_inputs([tmp_path / "a.safetensors", tmp_path / "b.safetensors"], {})
    assert list(b.entries) == [head]
    b, a = open_inputs([tmp_path / "b.safetensors", tmp_path / "a.safetensors"], {})
    assert list(a.entries) == [other]


def test_inputs_of_one_layout_stay_as_they_are() -> None:
    home = FILES / "mixtral"
    opened = [open_checkpoint(home / "memory") for _ in range(2)]
    read = open_inputs(opened, {})
    assert all(one is two for one, two in zip(opened, read))


@pytest.mark.parametrize("larger", [False, True])
def test_tensors_of_other_shapes_are_never_cut(tmp_path: Path, larger: bool) -> None:
    home = FILES / "mixtral"
    tensors = load_file(home / "5" / "model.safetensors")
    for layout, parts in (("5", ("norm.weight",)), ("memory", ("norm.weight", "w1.weight", "w3.weight"))):
        odd = without(home / "5", tmp_path / layout, "nothing")
        cut = {name: np.concatenate([value, value]) if larger else value[::2] for name, value in tensors.items()}
        kept = {name: cut[name] if name.endswith(parts) else value for name, value in tensors.items()}
        save_file({name: np.ascontiguousarray(value) for name, value in kept.items()}, odd / "model.safetensors")
        for pair in ([home / layout, odd], [odd, home / layout]):
            with pytest.raises(MismatchError, match="does not fit"):
                warmkit.soup(pair, tmp_path / "out")


def test_a_claim_is_verified_in_another_layout(tmp_path: Path) -> None:
    home = FILES / "mixtral"
    models = [home / "5", changed(home / "5", tmp_path / "b")]
    made = warmkit.soup(models, tmp_path / "out", layout="memory")
    assert warmkit.verify_claim(made.path, models=models, method="uniform").answer == "contains"


def test_in_memory_models_of_two_layouts_merge() -> None:
    home = FILES / "llava"
    wanted = load_file(home / "4" / "model.safetensors")
    merged = warmkit.merged_state_dict([home / "4", home / "memory"], method="uniform")
    assert merged.keys() == wanted.keys()
    assert all(np.array_equal(merged[name].numpy(), value) for name, value in wanted.items())


def test_the_same_files_are_not_written_from_tensors_of_another_layout(tmp_path: Path) -> None:
    home = FILES / "mixtral"
    with pytest.raises(UnsupportedError, match="--as same writes tensors as they lie there, and these were read in the layout"):
        warmkit.merge([home / "memory"], tmp_path / "out", init=home / "5", method="slerp", eta=0.5, container="same")
    assert not (tmp_path / "out").exists()
