"""Weights of GPTQ: the numbers that gptqmodel computes, or an error that names why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import warmkit
from tests.conftest import CONFIG, save, tensors_of, weights
from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.formats import coded
from warmkit.formats.dtypes import DTYPES
from warmkit.formats.tensors import result_dtype

DATA = Path(__file__).parents[2] / "data" / "quantised"
WRITTEN = sorted(each.name for each in DATA.glob("gptq-*"))
Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"
Change = Callable[[dict[str, torch.Tensor]], object]


def changed(folder: Path, name: str, change: Change = lambda _: None, kind: str = "llama", **said: Any) -> Path:
    """Write a copy of a model with other tensors, or another `quantization_config`."""
    tensors = load_file(DATA / name / "model.safetensors")
    change(tensors)
    config = json.loads((DATA / name / "config.json").read_text())
    return save(folder, tensors, config | {"model_type": kind, "quantization_config": config["quantization_config"] | said})


def digests(folder: Path, names: Any) -> dict[str, str]:
    opened = warmkit.open_checkpoint(folder)
    return {name: hashlib.sha256(opened[name].load().view(torch.int16).numpy().tobytes()).hexdigest() for name in names}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("piece", [1 << 18, 37])
def test_every_number_is_that_of_gptqmodel(name: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded, "PIECE", piece)
    expected = json.loads((DATA / "said" / f"{name}.json").read_text())
    assert len(expected) == 7
    assert digests(DATA / name, expected) == expected
    opened = warmkit.open_checkpoint(DATA / name)
    assert len(opened) == 12
    assert (opened[f"{DOWN}.weight"].shape, opened[f"{DOWN}.weight"].dtype) == ((64, 32), DTYPES["F16"])
    assert result_dtype(opened[f"{DOWN}.weight"].entry) == DTYPES["BF16"]


def test_a_merge_is_that_of_the_exact_weights_rounded_once(tmp_path: Path) -> None:
    one, two = (tensors_of(DATA / name) for name in ("gptq-4", "gptq-order"))
    models = [DATA / "gptq-4", DATA / "gptq-order"]
    warmkit.merge(models, output=tmp_path / "out", method="lerp", coefficients=[0.25, 0.75])
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        exact = 0.25 * one[name].double() + 0.75 * two[name].double()
        assert torch.equal(tensor, exact.float().bfloat16()), name
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_groups_that_follow_each_other_may_be_unsaid(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", "gptq-4", lambda each: [each.pop(name) for name in list(each) if name.endswith("g_idx")])
    expected = json.loads((DATA / "said" / "gptq-4.json").read_text())
    assert digests(folder, expected) == expected


def test_the_oldest_configs_name_no_format(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", "gptq-4", checkpoint_format=None, format=None)
    expected = json.loads((DATA / "said" / "gptq-4.json").read_text())
    assert digests(folder, expected) == expected


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_dense_weights_under_such_a_config_are_what_they_are(method: str, tmp_path: Path) -> None:
    config = {**CONFIG, "quantization_config": {"quant_method": method}}
    opened = warmkit.open_checkpoint(save(tmp_path / "m", weights(1), config))
    assert "all of its weights are dense: read as they are" in opened.notes[0]
    assert not opened.rescaled


WRONG: dict[str, tuple[Change, dict[str, Any], str]] = {
    "no scales": (lambda each: each.pop(f"{Q}.scales"), {}, f"'{Q}.qweight' holds codes, and '{Q}.scales' is missing"),
    "no zero points": (lambda each: each.pop(f"{Q}.qzeros"), {}, f"'{Q}.qweight' holds codes, and '{Q}.qzeros' is missing"),
    "no codes": (lambda each: each.pop(f"{Q}.qweight"), {}, f"quantised weights (packed: tensor '{Q}."),
    "a weight too": (lambda each: each.update({f"{Q}.weight": torch.ones(32, 64)}), {}, f"'{Q}.weight' are there"),
    "other groups": (lambda _: None, {"group_size": 16}, "is nothing of bits and group_size in config.json"),
    "other bits": (lambda _: None, {"bits": 8}, "qweight' [4, 64] with zero points [1, 8], scales [1, 64]"),
    "three bits": (lambda _: None, {"bits": 3}, "GPTQ of 3 bits in the format 'gptq' is not read"),
    "Marlin": (lambda _: None, {"checkpoint_format": "marlin"}, "GPTQ of 4 bits in the format 'marlin' is not read"),
    "Marlin of old": (lambda _: None, {"is_marlin_format": True}, "is not read (read are 4 and 8 bits"),
    "no size": (lambda _: None, {"group_size": "all"}, "group_size in quantization_config must be -1 or natural, found 'all'"),
    "short order": (lambda each: each.update({f"{Q}.g_idx": torch.zeros(63, dtype=torch.int32)}), {}, "and g_idx I32 [63]"),
    "codes of bytes": (
        lambda each: each.update({f"{Q}.qweight": each[f"{Q}.qweight"].view(torch.uint8)}),
        {},
        "is U8, its zero points I32, its scales F16; expected I32, I32 and numbers",
    ),
    "Conv1D": (lambda _: None, {"kind": "gpt2"}, "GPTQ codes of gpt2 lie transposed"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named(what: str, tmp_path: Path) -> None:
    change, said, expected = WRONG[what]
    with pytest.raises(CheckpointError) as refusal:
        warmkit.open_checkpoint(changed(tmp_path / "m", "gptq-4", change, **said))
    assert isinstance(refusal.value, FormatError | UnsupportedError)
    assert expected in str(refusal.value)


@pytest.mark.parametrize("group", [-1, 4])
def test_an_order_of_groups_that_are_not_there_is_named(group: int, tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", "gptq-order", lambda each: each[f"{Q}.g_idx"].__setitem__(5, group))
    with pytest.raises(FormatError, match=rf"'{Q}.g_idx' names groups from -?\d to \d, expected 0 to 3"):
        warmkit.merge([folder], output=tmp_path / "out", method="uniform")
    assert not (tmp_path / "out").exists()
