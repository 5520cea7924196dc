"""Weights of schedule-free optimizers: the file that was saved in train mode says so, and its weights are y."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import warmkit
from tests.conftest import save, weights
from warmkit.formats import schedule_free

INSIDE = Path(__file__).parents[2] / "data" / "averages_inside"
SAID = "schedule-free optimizer in train mode: the weights are y"


def notes(path: Path) -> str:
    return "\n".join(warmkit.open_checkpoint(path, allow_pickle=True).notes)


@pytest.mark.parametrize(("mode", "weights_are"), [("train", "live"), ("eval", "average")])
def test_what_schedulefree_saved_in_train_mode_is_y_and_a_note_says_so(mode: str, weights_are: str) -> None:
    file = INSIDE / f"schedulefree_{mode}.pt"
    said = load_file(INSIDE / "schedulefree.said.safetensors")
    for name, tensor in warmkit.open_checkpoint(file, allow_pickle=True).items():
        assert torch.equal(tensor.load(), said[f"{weights_are}.{name}"])
    assert (SAID in notes(file)) == (mode == "train")
    assert ("call optimizer.eval() before saving" in notes(file)) == (mode == "train")


@pytest.mark.parametrize("name", ["optimizer.pt", "optimizer.bin"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_an_optimizer_beside_the_weights_says_it_too(name: str, mode: str, tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoint-5", weights(1))
    torch.save(torch.load(INSIDE / f"schedulefree_{mode}.pt", weights_only=True)["optimizer"], path / name)
    assert (SAID in notes(path)) == (mode == "train")


def test_an_optimizer_that_is_long_or_broken_or_of_another_kind_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "m", weights(1))
    for content in (b"", b"PK", b"\x80\x02cos\nsystem\n."):
        (path / "optimizer.pt").write_bytes(content)
        assert notes(path) == ""
    torch.save({"param_groups": [{"train_mode": "yes"}, 3], "state": {}}, path / "optimizer.pt")
    assert notes(path) == ""
    torch.save({"param_groups": [{"train_mode": True}], "state": {}}, path / "optimizer.pt")
    assert SAID in notes(path)
    monkeypatch.setattr(schedule_free, "LONGEST", 50)
    assert notes(path) == ""


def test_no_code_of_an_optimizers_pickle_runs(tmp_path: Path) -> None:
    path = save(tmp_path / "m", weights(1))

    class Evil:
        def __reduce__(self) -> object:
            return shutil.rmtree, (str(path),)

    torch.save({"param_groups": [{"train_mode": True, "more": Evil()}]}, path / "optimizer.pt")
    assert notes(path) == ""
    assert path.is_dir()
