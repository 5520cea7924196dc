"""Which of several state dicts in a file is read: what each library says of its own file is what is found under its key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

import warmkit
from tests.conftest import Family, Run, save, tensors_of, weights
from warmkit.errors import FormatError, StateDictError
from warmkit.formats.state_dict_choice import twice

INSIDE = Path(__file__).parents[2] / "data" / "averages_inside"
LIBRARIES = {  # file: (key of the average, key of the weights that training goes on from)
    "ema_pytorch.pt": ("ema_model", "online_model"),
    "lightning_ema.ckpt": ("state_dict", "current_model_state"),
    "lightning_swa.ckpt": ("callbacks.StochasticWeightAveraging.average_model_state", "state_dict"),
    "timm.pth.tar": ("state_dict_ema", "state_dict"),
}


def same(found: Any, expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name].load() if hasattr(found[name], "load") else found[name], tensor), name


def said(file: str, which: str) -> dict[str, torch.Tensor]:
    both = load_file(INSIDE / f"{file.partition('.')[0]}.said.safetensors")
    return {name.removeprefix(f"{which}."): each for name, each in both.items() if name.startswith(f"{which}.")}


def named(path: Path, key: str) -> warmkit.Checkpoint:
    return warmkit.open_checkpoint(path, allow_pickle=True, state_dict=key)


# ---- files that the libraries wrote ----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", LIBRARIES)
def test_what_is_under_a_key_is_what_the_library_itself_takes_for_it(file: str) -> None:
    for which, key in zip(("average", "live"), LIBRARIES[file]):
        same(named(INSIDE / file, key), said(file, which))


@pytest.mark.parametrize("file", LIBRARIES)
def test_without_a_key_both_are_named_and_none_is_taken(file: str) -> None:
    with pytest.raises(FormatError, match=r"could be meant|is there twice") as refusal:
        warmkit.open_checkpoint(INSIDE / file, allow_pickle=True)
    for key in LIBRARIES[file]:
        assert f"--state-dict {key}" in str(refusal.value)


@pytest.mark.parametrize("file", LIBRARIES)
def test_a_key_that_is_not_there_is_an_error_that_lists_those_that_are(file: str) -> None:
    with pytest.raises(StateDictError, match="holds no state dict that is called 'ema'; expected one of ") as refusal:
        named(INSIDE / file, "ema")
    listed = str(refusal.value).partition("expected one of ")[2].split(", ")
    assert set(listed) == set(LIBRARIES[file])


def test_of_lightnings_weight_averaging_it_is_said_which_one_is_the_average() -> None:
    with pytest.raises(FormatError, match=r"state_dict \(the average of Lightning's WeightAveraging\) and current_model_state"):
        warmkit.open_checkpoint(INSIDE / "lightning_ema.ckpt", allow_pickle=True)


def test_options_of_a_run_that_lie_beside_the_weights_are_left_aside() -> None:
    """timm saves its `argparse.Namespace`."""
    (note,) = named(INSIDE / "timm.pth.tar", "state_dict_ema").notes
    assert "read state_dict_ema, left aside state_dict" in note


# ---- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        ({"model": weights(1), "ema": weights(2)}, "ema"),
        ({"model": weights(1), "ema": {"decay": 0.9, "module": weights(2)}}, "ema"),
        ({"model": weights(1), "ema": {"decay": 0.9, "module": weights(2)}}, "ema.module"),
        ({"state_dict": {f"{k}.{n}": t for s, k in ((1, "net"), (2, "ema")) for n, t in weights(s).items()}}, "ema"),
        ({"state_dict": {f"{k}.{n}": t for s, k in ((1, "net"), (2, "ema")) for n, t in weights(s).items()}}, "state_dict.ema"),
        ({"state_dict": {f"{k}.{n}": t for s, k in ((1, "a"), (2, "b")) for n, t in weights(s).items()}}, "state_dict.b"),
        ({"ema": {"module.n": weights(1)}, "model": weights(1), **weights(2)}, "."),
        ({"a": {"b.c": weights(2)}, "model": weights(1)}, "a.b.c"),
        (
            {"model": weights(1), "swa": {**{f"module.{n}": t for n, t in weights(2).items()}, "n_averaged": torch.tensor(3)}},
            "swa",
        ),
    ],
)
def test_a_key_a_path_of_keys_a_first_name_or_the_top(tree: Any, key: str, tmp_path: Path) -> None:
    torch.save(tree, tmp_path / "two.pt")
    same(named(tmp_path / "two.pt", key), weights(2))


@pytest.mark.parametrize("key", ["model", "lm_head", "model.layers"])
def test_the_first_part_of_a_models_own_names_is_no_key(key: str, tmp_path: Path) -> None:
    path = save(tmp_path / "m", weights(1))
    torch.save(weights(1), tmp_path / "m.pt")
    for place in (path, tmp_path / "m.pt"):
        with pytest.raises(StateDictError, match="holds one state dict, and none that is called"):
            named(place, key)


def test_safetensors_that_hold_a_model_twice_are_read_by_its_first_name(tmp_path: Path) -> None:
    both = {f"{k}.{n}": t for s, k in ((1, "online_model"), (2, "ema_model")) for n, t in weights(s).items()}
    save_file({**both, "step": torch.tensor(3)}, tmp_path / "ema.safetensors")
    same(warmkit.open_checkpoint(tmp_path / "ema.safetensors", state_dict="ema_model"), weights(2))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_distributed_checkpoint_has_keys_too(tmp_path: Path) -> None:
    dcp.save({"model": weights(1), "ema": weights(2)}, checkpoint_id=tmp_path / "step-5", no_dist=True)
    same(named(tmp_path / "step-5", "ema"), weights(2))
    with pytest.raises(FormatError, match="--state-dict model, or --state-dict ema"):
        warmkit.open_checkpoint(tmp_path / "step-5", allow_pickle=True)


def test_a_model_is_there_twice_where_a_name_says_average_and_most_names_agree() -> None:
    assert list(twice(["net.a.w", "net.b.w", "ema.a.w", "ema.b.w", "step"])) == [("net", "ema")]
    assert list(twice(["net.a.w", "net.b.w", "net.c.w", "ema.a.w"])) == []
    assert list(twice(["net.a.w", "other.a.w"])) == []


# ---- merges ----------------------------------------------------------------------------------------------------------


def trained(folder: Path, seed: int) -> Path:
    folder.mkdir()
    torch.save({"state_dict": weights(seed), "state_dict_ema": weights(seed + 10), "epoch": 3}, folder / "last.ckpt")
    return folder / "last.ckpt"


def test_a_merge_reads_the_averages_of_runs_and_an_init_that_is_a_model_alone(tmp_path: Path, run: Run) -> None:
    runs = [trained(tmp_path / name, seed) for seed, name in enumerate("ab", 1)]
    init = save(tmp_path / "init", weights(0))
    plain = [save(tmp_path / f"plain-{seed}", weights(seed)) for seed in (11, 12)]
    warmkit.merge(plain, tmp_path / "expected", init=init)
    how = ("--allow-pickle", "--state-dict", "state_dict_ema")
    done = run("merge", "--init", init, *runs, "-o", tmp_path / "out", *how)
    assert done.returncode == 0, done.stderr
    assert "holds one state dict, which was read" in done.stderr
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "expected" / "model.safetensors").read_bytes()
    manifest = json.loads((tmp_path / "out" / "warmkit.json").read_text())
    assert [each.get("state_dict") for each in (manifest["init"], *manifest["models"])] == [None, *["state_dict_ema"] * 2]


def test_another_key_is_another_merge_which_does_not_go_on_from_the_first(tmp_path: Path) -> None:
    runs = [trained(tmp_path / name, seed) for seed, name in enumerate("ab", 1)]
    opened = [warmkit.open_checkpoint(runs[0], allow_pickle=True, state_dict=key) for key in ("state_dict", "state_dict_ema")]
    assert opened[0].fingerprint() != opened[1].fingerprint()


def test_a_key_that_one_run_of_several_lacks_is_an_error(tmp_path: Path) -> None:
    runs = [trained(tmp_path / name, seed) for seed, name in enumerate("ab", 1)]
    torch.save({"state_dict": weights(2), "optimizer_states": [{"state": {0: {"m": torch.ones(2)}}}]}, runs[1])
    with pytest.raises(StateDictError, match=r"b/last.ckpt: holds no state dict .* expected one of state_dict$"):
        warmkit.soup(runs, tmp_path / "out", allow_pickle=True, state_dict="state_dict_ema")
    assert not (tmp_path / "out").exists()


def test_a_key_that_no_input_has_is_an_error(family: Family, tmp_path: Path) -> None:
    with pytest.raises(StateDictError, match="holds one state dict, and none that is called 'ema'"):
        warmkit.soup(family.models, tmp_path / "out", state_dict="ema")


def test_comparisons_merges_in_memory_and_recipes_take_a_key(tmp_path: Path, run: Run) -> None:
    runs = [trained(tmp_path / name, seed) for seed, name in enumerate("ab", 1)]
    init = save(tmp_path / "init", weights(0))
    how: dict[str, Any] = {"allow_pickle": True, "state_dict": "state_dict_ema"}
    plain = [save(tmp_path / f"plain-{seed}", weights(seed)) for seed in (11, 12)]
    found, expected = (warmkit.compare(each, init=init, **how) for each in (runs, [*plain, runs[0]]))
    assert found.groups[0].pairs[0].task_vector_angle == expected.groups[0].pairs[0].task_vector_angle
    merged = warmkit.Merger(runs, init=init, method="lerp", **how).state_dict(eta=1.0)
    same(merged, warmkit.Merger(plain, init=init, method="lerp").state_dict(eta=1.0))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"merge: {{models: [{runs[0]}, {runs[1]}], init: {init}, method: lerp, allow_pickle: true, "
        "state_dict: state_dict_ema}\n"
    )
    done = run("merge", recipe, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    same(tensors_of(tmp_path / "out"), merged)
    shown = run("inspect", runs[0], "--allow-pickle", "--state-dict", "state_dict_ema")
    assert "read state_dict_ema, left aside state_dict" in shown.stderr
