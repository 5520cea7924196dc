"""Weights of AWQ: the numbers that gptqmodel computes, never averaged with those of another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import warmkit
from tests.conftest import save, tensors_of
from tests.unit.formats.test_gptq import DATA, Change, Q, digests
from tests.unit.formats.test_gptq import changed as changed_as
from warmkit.errors import CheckpointError, FormatError, MismatchError, UnsupportedError
from warmkit.formats import coded


def changed(folder: Path, change: Change = lambda _: None, **said: Any) -> Path:
    return changed_as(folder, "awq", change, **said)


@pytest.mark.parametrize("piece", [1 << 18, 100])
def test_every_number_is_that_of_gptqmodel(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded, "PIECE", piece)
    expected = json.loads((DATA / "said" / "awq.json").read_text())
    assert len(expected) == 7
    assert digests(DATA / "awq", expected) == expected


def test_alone_it_is_written_as_dense_weights(tmp_path: Path) -> None:
    warmkit.merge([DATA / "awq"], output=tmp_path / "out", method="uniform")
    exact = tensors_of(DATA / "awq")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == exact.keys()
    assert all(torch.equal(found[name], each) for name, each in exact.items())


def test_another_model_is_in_other_units_and_refused(tmp_path: Path) -> None:
    config = json.loads((DATA / "awq" / "config.json").read_text())
    del config["quantization_config"]
    dense = save(tmp_path / "dense", tensors_of(DATA / "awq"), config)
    for models, init in (([DATA / "awq", dense], None), ([dense, DATA / "awq"], None), ([DATA / "awq"], dense)):
        with pytest.raises(MismatchError, match=r"awq was quantised by AWQ, .* not in the units of .*dense; merge"):
            warmkit.merge(models, init=init, output=tmp_path / "out", method="uniform", eta=1.0 if init is None else 0.5)


def test_adapters_on_one_such_base_are_merged(tmp_path: Path) -> None:
    models = list[str]()
    for seed in (1, 2):
        folder = tmp_path / f"adapter-{seed}"
        folder.mkdir()
        torch.manual_seed(seed)
        factors = {
            f"base_model.model.{Q}.lora_A.weight": torch.randn(2, 64),
            f"base_model.model.{Q}.lora_B.weight": torch.randn(64, 2),
        }
        save_file(factors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))
        models.append(f"{DATA / 'awq'}+{folder}")
    warmkit.merge(models, init=DATA / "awq", output=tmp_path / "out", method="uniform")
    exact = torch.stack([tensors_of(each)[f"{Q}.weight"].double() for each in models]).mean(0)
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")[f"{Q}.weight"], exact.float().bfloat16())


WRONG: dict[str, tuple[Change, dict[str, Any], str]] = {
    "no scales": (lambda each: each.pop(f"{Q}.scales"), {}, f"'{Q}.qweight' holds codes, and '{Q}.scales' is missing"),
    "no codes": (lambda each: each.pop(f"{Q}.qweight"), {}, f"quantised weights (packed: tensor '{Q}."),
    "other groups": (
        lambda _: None,
        {"group_size": 16},
        "qweight' [64, 8] with zero points [2, 8] and scales [2, 64] is",
    ),
    "other bits": (lambda _: None, {"bits": 8}, "AWQ of 8 bits in the version 'gemm' is not read"),
    "gemv": (lambda _: None, {"version": "gemv"}, "AWQ of 4 bits in the version 'gemv' is not read (read are 4 bits, gemm)"),
    "no size": (lambda _: None, {"group_size": 0}, "group_size in quantization_config must be -1 or natural, found 0"),
    "Conv1D": (lambda _: None, {"kind": "gpt2"}, "AWQ codes of gpt2 lie transposed"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named(what: str, tmp_path: Path) -> None:
    change, said, expected = WRONG[what]
    with pytest.raises(CheckpointError) as refusal:
        warmkit.open_checkpoint(changed(tmp_path / "m", change, **said))
    assert isinstance(refusal.value, FormatError | UnsupportedError)
    assert expected in str(refusal.value)
