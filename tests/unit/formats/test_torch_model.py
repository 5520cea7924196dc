"""Checkpoints that torch saved with pickle: what torch would load, at the places where it lies, and no code."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import warmkit
from tests.conftest import CONFIG, Family, save, tensors_of, weights
from warmkit.errors import FormatError, MismatchError, UnsupportedError
from warmkit.formats.tensors import StoredTensor
from warmkit.sources.files import Files

TYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64),
]


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor), name


def pickled(folder: Path, tensors: Any, name: str = "pytorch_model.bin", config: dict[str, Any] = CONFIG) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, folder / name)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """A tensor of any type, whole or a view: sliced, stepped, transposed, expanded, empty, a parameter."""
    shape = draw(st.lists(st.integers(0, 5), max_size=3))
    dtype = draw(st.sampled_from(TYPES))
    tensor = torch.randint(0, 2 if dtype == torch.bool else 100, shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    for axis, size in enumerate(shape):
        first, step = draw(st.integers(0, max(0, size - 1))), draw(st.integers(1, 2))
        tensor = tensor[(slice(None),) * axis + (slice(first, None, step),)]
    tensor = tensor.permute(draw(st.permutations(range(tensor.ndim))))
    if draw(st.booleans()):
        tensor = tensor.expand(2, *tensor.shape)
    return torch.nn.Parameter(tensor) if dtype.is_floating_point and draw(st.booleans()) else tensor


@given(st.lists(tensors(), min_size=1, max_size=4))
def test_what_is_read_is_what_torch_loads(tmp_path_factory: pytest.TempPathFactory, drawn: list[torch.Tensor]) -> None:
    path = tmp_path_factory.mktemp("any") / "model.pt"
    torch.save({"one": torch.ones(1), **{f"t{place}": each for place, each in enumerate(drawn)}}, path)
    same(tensors_of(path, allow_pickle=True), torch.load(path, weights_only=True))


def test_a_tensor_of_a_pickle_is_a_range_of_its_file(tmp_path: Path) -> None:
    path = pickled(tmp_path / "m", weights(1))
    for name, entry in warmkit.open_checkpoint(path, allow_pickle=True).entries.items():
        assert isinstance(entry, StoredTensor)
        data = (path / "pytorch_model.bin").read_bytes()[entry.offset : entry.offset + entry.nbytes]
        assert data == weights(1)[name].numpy().tobytes()


def test_a_column_is_picked_in_small_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.arange(3000.0).reshape(100, 30)
    torch.save({"column": table[:, 7], "odd": table[:, 1::2], "last": table.t()[29, ::3]}, tmp_path / "model.pt")
    expected = torch.load(tmp_path / "model.pt")
    sizes: list[int] = []
    read = Files.read
    monkeypatch.setattr(Files, "read", lambda self, file, at, view: (sizes.append(view.nbytes), read(self, file, at, view))[1])
    monkeypatch.setattr("warmkit.formats.pieces.MOST_READ", 500)
    same(tensors_of(tmp_path / "model.pt", allow_pickle=True), expected)
    assert max(sizes) <= 500


def test_a_merge_of_pickles_has_the_bytes_of_the_merge_of_safetensors(family: Family, tmp_path: Path) -> None:
    paths = [pickled(tmp_path / "pickled" / each.name, load_file(each / "model.safetensors")) for each in family.models[:2]]
    warmkit.merge(family.models[:2], tmp_path / "expected", init=family.init)
    result = warmkit.merge(paths, tmp_path / "out", init=family.init, allow_pickle=True)
    assert result.bytes_read > 0
    file = "model.safetensors"
    assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "expected" / file).read_bytes()


def test_a_merge_of_pickles_imports_no_torch(family: Family, tmp_path: Path) -> None:
    paths = [str(pickled(tmp_path / name, weights(seed))) for seed, name in enumerate("xyz")]
    code = (
        "import sys, warmkit; init, *models, out = sys.argv[1:]; warmkit.merge(models, out, init=init, allow_pickle=True); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *paths, str(tmp_path / "out")], check=True)


def test_shards_and_their_index(tmp_path: Path) -> None:
    content, folder = weights(1), tmp_path / "sharded"
    names = list(content)
    mapping = {name: f"pytorch_model-{1 + place % 2:05d}-of-00002.bin" for place, name in enumerate(names)}
    for file in set(mapping.values()):
        pickled(folder, {name: content[name] for name in names if mapping[name] == file}, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": mapping}))
    found = tensors_of(folder, allow_pickle=True)
    same({name: found[name] for name in names}, content)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {**mapping, "ghost": mapping[names[0]]}}))
    with pytest.raises(FormatError, match="'ghost' is not in"):
        warmkit.open_checkpoint(folder, allow_pickle=True)


def test_a_trainers_state_dict_is_found_and_the_rest_left_aside(tmp_path: Path) -> None:
    content = weights(1)
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "state_dict": content, "optimizer_states": [optimizer]}, tmp_path / "last.ckpt")
    same(tensors_of(tmp_path / "last.ckpt", allow_pickle=True), content)
    (note,) = warmkit.open_checkpoint(tmp_path / "last.ckpt", allow_pickle=True).notes
    assert "read state_dict, left aside epoch, optimizer_states" in note


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module."])
def test_names_of_wrappers_are_left_out(prefix: str, tmp_path: Path) -> None:
    torch.save({prefix + name: tensor for name, tensor in weights(1).items()}, tmp_path / "wrapped.pt")
    same(tensors_of(tmp_path / "wrapped.pt", allow_pickle=True), weights(1))


def test_a_model_whose_names_all_start_with_model_keeps_them(tmp_path: Path) -> None:
    headless = {name: tensor for name, tensor in weights(1).items() if name.startswith("model.")}
    torch.save(headless, tmp_path / "tied.pt")
    same(tensors_of(tmp_path / "tied.pt", allow_pickle=True), headless)


@pytest.mark.parametrize(
    ("tree", "two"),
    [
        ({"model": weights(1), "ema": weights(2)}, "model and ema"),
        ({"state_dict": weights(1), "state_dict_ema": weights(2)}, "state_dict and state_dict_ema"),
        ({"ema_state_dict": weights(2), "state_dict": weights(1)}, "state_dict and ema_state_dict"),
        ({"state_dict": weights(1), "callbacks": {"EMA": {"weights": weights(2)}}}, "state_dict and callbacks.EMA.weights"),
        ({"current_model_state": weights(1), "state_dict": weights(2)}, "state_dict and current_model_state"),
        ({"model": {"a.weight": torch.ones(2)}, "module": {"b.weight": torch.ones(2)}}, "model and module"),
        (
            {**weights(1), "ema": {f"module.{k}": v for k, v in weights(2).items()}, "model": weights(3)},
            r"model and \. \(the top\)",
        ),
    ],
)
def test_of_two_state_dicts_of_a_model_the_first_is_not_taken(tree: Any, two: str, tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "two.pt")
    with pytest.raises(FormatError, match=rf"two state dicts could be meant, {two}; name one: --state-dict "):
        warmkit.open_checkpoint(tmp_path / "two.pt", allow_pickle=True)


def test_the_advice_on_two_state_dicts_works_as_it_is_written(tmp_path: Path) -> None:
    torch.save({"model": weights(1), "ema": weights(2)}, tmp_path / "two.pt")
    with pytest.raises(FormatError) as refusal:
        warmkit.open_checkpoint(tmp_path / "two.pt", allow_pickle=True)
    keys = re.findall(r"--state-dict (\S+?)(?:,|$)", str(refusal.value))
    opened = [warmkit.open_checkpoint(tmp_path / "two.pt", allow_pickle=True, state_dict=key) for key in keys]
    for found, seed in zip(opened, (1, 2), strict=True):
        same({name: found[name].load() for name in found}, weights(seed))


@pytest.mark.parametrize("kind", ["pickle", "safetensors"])
def test_of_torchs_averaged_model_the_average_is_read_and_its_counter_left_aside(kind: str, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.update_parameters(model)
    with torch.no_grad():
        next(model.parameters()).add_(1)  # the first layer's weight
    averaged.update_parameters(model)
    state = averaged.state_dict()
    assert "n_averaged" in state
    if kind == "pickle":
        torch.save(state, tmp_path / "swa.pt")
    else:
        save_file(state, tmp_path / "swa.safetensors")
    opened = warmkit.open_checkpoint(next(tmp_path.iterdir()), allow_pickle=True)
    same({name: opened[name].load() for name in model.state_dict()}, dict(averaged.module.state_dict()))
    assert len(opened) == 4
    assert "left aside n_averaged: torch's AveragedModel" in opened.notes[0]


def test_a_counter_of_a_model_of_its_own_stays(tmp_path: Path) -> None:
    content = {"n_averaged": torch.tensor(3), "a.weight": torch.ones(2)}
    torch.save(content, tmp_path / "own.pt")
    same(tensors_of(tmp_path / "own.pt", allow_pickle=True), content)


@pytest.mark.parametrize("names", [("online_model", "ema_model"), ("model", "model_ema"), ("net", "ema.module")])
def test_a_model_and_its_average_in_one_state_dict_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    learns, average = names
    state = {f"{learns}.{k}": v for k, v in weights(1).items()} | {f"{average}.{k}": v for k, v in weights(2).items()}
    if average == "model_ema":  # latent diffusion's drops the dots
        state = {
            k.replace(".", "").replace("model_ema", "model_ema.") if k.startswith(average) else k: v for k, v in state.items()
        }
    state |= {"initted": torch.tensor(True), "step": torch.tensor(3)}
    torch.save(state, tmp_path / "ema.pt")
    save_file(state, tmp_path / "ema.safetensors")
    for file in ("ema.pt", "ema.safetensors"):
        with pytest.raises(FormatError, match=rf"there twice, as {learns}\.\* and {average.split('.')[0]}\.\*"):
            warmkit.open_checkpoint(tmp_path / file, allow_pickle=True)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_forward_module.", "module."])
def test_wrappers_are_left_out_of_safetensors_too(prefix: str, tmp_path: Path) -> None:
    paths = [save(tmp_path / name, weights(seed)) for seed, name in enumerate("xy")]
    wrapped = save(tmp_path / "wrapped", {prefix + name: tensor for name, tensor in weights(1).items()})
    warmkit.merge([paths[0], wrapped], tmp_path / "out", method="lerp")
    warmkit.merge(paths, tmp_path / "expected", method="lerp")
    files = [tmp_path / name / "model.safetensors" for name in ("out", "expected")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_two_state_dicts_are_not_guessed_between(tmp_path: Path) -> None:
    torch.save({"generator": weights(1), "discriminator": weights(2)}, tmp_path / "gan.pt")
    with pytest.raises(FormatError, match="found tensors under generator, discriminator"):
        warmkit.open_checkpoint(tmp_path / "gan.pt", allow_pickle=True)


# ---- tied weights ----------------------------------------------------------------------------------------------------


def tied(seed: int) -> dict[str, torch.Tensor]:
    content = weights(seed)
    return {**content, "lm_head.weight": content["model.embed_tokens.weight"]}


def test_tied_weights_are_written_once_where_the_config_ties_them(tmp_path: Path) -> None:
    config = {**CONFIG, "tie_word_embeddings": True}
    paths = [pickled(tmp_path / name, tied(seed), config=config) for seed, name in enumerate("xyz")]
    warmkit.merge(paths[1:], tmp_path / "out", init=paths[0], allow_pickle=True)
    assert "lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")


@pytest.mark.parametrize(
    ("kind", "once"),
    [("gemma2", True), ("smollm3", True), ("t5", True), ("llama", False), ("qwen2", False), ("of_others", False)],
)
def test_where_a_config_is_silent_the_architecture_ties_or_does_not(kind: str, once: bool, tmp_path: Path) -> None:
    """What a class does not tie is read from the file, so a head that is left out would be drawn at random."""
    config = {"model_type": kind, "architectures": ["SomeForCausalLM"]}
    paths = [pickled(tmp_path / name, tied(seed), config=config) for seed, name in enumerate("xyz")]
    warmkit.merge(paths[1:], tmp_path / "out", init=paths[0], method="dare-linear", density=0.5, allow_pickle=True)
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert ("lm_head.weight" not in merged) is once
    assert torch.equal(merged.get("lm_head.weight", merged["model.embed_tokens.weight"]), merged["model.embed_tokens.weight"])


def test_a_lone_pickle_with_tied_weights_fits_a_model_that_stores_one(tmp_path: Path) -> None:
    config = {**CONFIG, "tie_word_embeddings": True}
    headless = {name: tensor for name, tensor in weights(0).items() if name != "lm_head.weight"}
    init = save(tmp_path / "init", headless, config)
    files = []
    for seed in (1, 2):
        torch.save({"state_dict": tied(seed)}, tmp_path / f"{seed}.ckpt")
        files.append(tmp_path / f"{seed}.ckpt")
    warmkit.merge(files, tmp_path / "out", init=init, allow_pickle=True)
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == headless.keys()


def test_tied_weights_of_an_untied_config_are_both_kept(tmp_path: Path) -> None:
    same(tensors_of(pickled(tmp_path / "m", tied(1)), allow_pickle=True), tied(1))


# ---- what is refused -------------------------------------------------------------------------------------------------


def refusal(path: Path, kind: type[Exception]) -> str:
    with pytest.raises(kind) as error:
        warmkit.open_checkpoint(path, allow_pickle=True)
    said = str(error.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    return said


class Bomb:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.proof),)


def test_code_is_named_and_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    torch.save({"w": torch.zeros(2), "x": Bomb(proof)}, tmp_path / "bad.pt")
    assert "posix.mkdir" in refusal(tmp_path / "bad.pt", UnsupportedError)
    assert not proof.exists()


@pytest.mark.parametrize("value", [Path("a"), torch.nn.Linear(2, 2), torch.zeros(2).to_sparse()])
def test_objects_of_other_classes_are_named(value: Any, tmp_path: Path) -> None:
    torch.save({"state_dict": weights(1), "more": value}, tmp_path / "more.pt")
    assert "save the weights alone" in refusal(tmp_path / "more.pt", UnsupportedError)


def test_types_that_cannot_be_averaged_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "c.pt")
    assert "'w' is complex64" in refusal(tmp_path / "c.pt", UnsupportedError)
    torch.save({"w": torch.zeros(2).to(torch.float8_e4m3fn)}, tmp_path / "f.pt")
    assert "'w' is float8_e4m3fn" in refusal(tmp_path / "f.pt", UnsupportedError)


def test_old_pickles_get_advice(tmp_path: Path) -> None:
    torch.save(weights(1), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "before 1.6" in refusal(tmp_path / "old.pt", UnsupportedError)
    (tmp_path / "plain.bin").write_bytes(pickle.dumps({"w": 1}))
    assert "before 1.6" in refusal(tmp_path / "plain.bin", UnsupportedError)


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "text.bin").write_text("hello")
    assert "found b'hell'" in refusal(tmp_path / "text.bin", FormatError)
    (tmp_path / "empty.bin").write_bytes(b"")
    refusal(tmp_path / "empty.bin", FormatError)
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a", "b")
    assert "not one that torch.save wrote" in refusal(tmp_path / "zip.pt", FormatError)


def test_a_compressed_zip_is_refused(tmp_path: Path) -> None:
    torch.save(weights(1), tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as plain, zipfile.ZipFile(tmp_path / "packed.pt", "w", 8) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert "compressed" in refusal(tmp_path / "packed.pt", UnsupportedError)


@given(st.data())
def test_any_truncation_and_any_flipped_byte_is_clean(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("broken") / "model.pt"
    torch.save({"a": torch.arange(6.0), "b": {"c": torch.ones(2, 3).t()}}, path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    path.write_bytes(content[:place] if cut else content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    said = ""
    try:
        checkpoint = warmkit.open_checkpoint(path, allow_pickle=True)
        with Files() as files:
            for entry in checkpoint.entries.values():
                entry.read(files, 0, memoryview(bytearray(entry.nbytes)))
    except (FormatError, UnsupportedError) as error:
        said = str(error)
    assert (said or not cut) and "\n" not in said  # noqa: PT018  (one claim)


def test_a_tensor_that_ends_past_its_storage_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(7)}, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as plain, zipfile.ZipFile(tmp_path / "long.pt", "w") as longer:
        for name in plain.namelist():
            record = plain.read(name)
            longer.writestr(name, record.replace(b"K\x07\x85", b"K\x70\x85") if name.endswith("data.pkl") else record)
    assert "ends at byte 448 of its storage, which has 28" in refusal(tmp_path / "long.pt", FormatError)


def test_a_pickle_beside_safetensors_is_not_read(family: Family) -> None:
    (family.a / "pytorch_model.bin").write_bytes(b"not read")
    same(tensors_of(family.a, allow_pickle=True), load_file(family.a / "model.safetensors"))


def test_names_that_differ_are_named(family: Family, tmp_path: Path) -> None:
    torch.save({**weights(1), "v_head": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(MismatchError, match="extra tensor 'v_head'"):
        warmkit.merge([tmp_path / "other.pt", family.a], tmp_path / "out", init=family.init, allow_pickle=True)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_several_pickles_asks_which(tmp_path: Path) -> None:
    for name in ("one.pt", "two.pt", "optimizer.pt"):
        torch.save(weights(1), tmp_path / name)
    assert "one.pt, two.pt" in refusal(tmp_path, FormatError)
