"""Weights of bitsandbytes: the numbers that it computes, or an error that names why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import warmkit
from tests.conftest import save, tensors_of
from warmkit.errors import CheckpointError, FormatError, UnsupportedError
from warmkit.formats import coded
from warmkit.formats.tensors import result_dtype

DATA = Path(__file__).parents[2] / "data" / "quantised"
WRITTEN = sorted(each.name for each in DATA.glob("bnb-*"))
Q, DOWN = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"
STATE = f"{Q}.quant_state.bitsandbytes__nf4"
Change = Callable[[dict[str, torch.Tensor]], object]


def changed(folder: Path, name: str, change: Change = lambda _: None, **config: Any) -> Path:
    """Write a copy of a model with other tensors."""
    tensors = load_file(DATA / name / "model.safetensors")
    change(tensors)
    return save(folder, tensors, {**json.loads((DATA / name / "config.json").read_text()), **config})


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("name", WRITTEN)
def test_every_number_is_that_of_bitsandbytes(name: str) -> None:
    opened, expected = warmkit.open_checkpoint(DATA / name), json.loads((DATA / "said" / f"{name}.json").read_text())
    assert len(expected) == 7
    assert {each: digest(opened[each].load()) for each in expected} == expected
    assert not any(part in each for each in opened for part in ("absmax", "quant_", "SCB", "weight_format"))
    assert {result_dtype(opened[each].entry).torch_name for each in opened} == {"bfloat16"}
    assert opened[DOWN].shape == (64, 24), "no block of 64 goes on from one row to the next"


@pytest.mark.parametrize("name", WRITTEN)
def test_a_merge_is_dense_rounded_once_and_the_same_in_any_pieces(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = tensors_of(DATA / name)
    for piece in (1 << 18, 37):
        monkeypatch.setattr(coded, "PIECE", piece)
        warmkit.merge([DATA / name], output=tmp_path / f"{piece}", method="uniform")
    for piece in (1 << 18, 37):
        found = load_file(tmp_path / f"{piece}" / "model.safetensors")
        assert found.keys() == exact.keys()
        assert all(torch.equal(found[each], exact[each].bfloat16()) for each in exact)
    config = json.loads((tmp_path / "37" / "config.json").read_text())
    assert (config.get("quantization_config"), config["dtype"]) == (None, "bfloat16")


def test_an_adapter_is_added_to_the_dense_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coded, "PIECE", 100)
    (tmp_path / "adapter").mkdir()
    a, b = torch.randn(2, 24), torch.randn(64, 2)
    module = f"base_model.model.{DOWN.removesuffix('.weight')}"
    factors = {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    found = warmkit.open_checkpoint(f"{DATA / 'bnb-nf4'}+{tmp_path / 'adapter'}")
    expected = tensors_of(DATA / "bnb-nf4")[DOWN].double() + 2 * b.double() @ a.double()
    torch.testing.assert_close(found[DOWN].load().double(), expected, rtol=1e-6, atol=1e-6)


def test_every_256_codes_of_absmax_have_an_absmax_of_their_own(tmp_path: Path) -> None:
    stored = load_file(DATA / "bnb-nf4-nested" / "model.safetensors")
    said = json.loads(stored[STATE].numpy().tobytes()) | {"nested_blocksize": 10}  # as if it were 256
    nested = torch.rand(4)

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[STATE] = torch.from_numpy(np.frombuffer(json.dumps(said).encode(), np.uint8).copy())
        tensors[f"{Q}.nested_absmax"] = nested

    found = tensors_of(changed(tmp_path / "m", "bnb-nf4-nested", change))[Q]
    table, codes = stored[f"{Q}.nested_quant_map"], stored[f"{Q}.absmax"].long()
    absmax = table[codes] * nested.repeat_interleave(10)[:32] + torch.tensor(said["nested_offset"])
    pairs = torch.stack([stored[Q].long() >> 4, stored[Q].long() & 15], -1).reshape(-1)
    assert torch.equal(found.reshape(-1), stored[f"{Q}.quant_map"][pairs] * absmax.repeat_interleave(64))


def words(text: str) -> torch.Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


WRONG: dict[str, tuple[str, Change, dict[str, Any], str]] = {
    "no weight": ("bnb-nf4", lambda each: each.pop(Q), {}, f"'{STATE}' belongs to '{Q}', which is missing"),
    "no rows": (
        "bnb-int8",
        lambda each: each.pop(Q.replace("weight", "SCB")),
        {},
        f"quantised weights (packed: tensor '{Q}')",
    ),
    "no weight of rows": ("bnb-int8", lambda each: each.pop(Q), {}, f"belongs to '{Q}', which is missing"),
    "no absmax": ("bnb-nf4", lambda each: each.pop(f"{Q}.absmax"), {}, f"'{Q}.absmax' is missing"),
    "no table": ("bnb-nf4", lambda each: each.pop(f"{Q}.quant_map"), {}, f"'{Q}.quant_map' is missing"),
    "no state": ("bnb-nf4", lambda each: each.pop(STATE), {}, f"quantised weights (packed: tensor '{Q}.absmax')"),
    "no inner table": ("bnb-nf4-nested", lambda each: each.pop(f"{Q}.nested_quant_map"), {}, "nested_quant_map' is missing"),
    "no inner absmax": ("bnb-nf4-nested", lambda each: each.pop(f"{Q}.nested_absmax"), {}, "is U8 [32], expected F32 [32]"),
    "other absmax": (
        "bnb-nf4",
        lambda each: each.update({f"{Q}.absmax": torch.ones(31)}),
        {},
        f"'{Q}.absmax' is F32 [31], expected F32 [32]",
    ),
    "other codes": (
        "bnb-nf4",
        lambda each: each.update({Q: each[Q][1:].clone()}),
        {},
        f"'{Q}' is U8 [1023, 1], of 1,023 bytes; 4 bits of [32, 64]",
    ),
    "turned codes": ("bnb-nf4", lambda each: each.update({Q: each[Q].T.contiguous()}), {}, "take 1,024 in a column"),
    "no JSON": ("bnb-nf4", lambda each: each.update({STATE: words("{")}), {}, "holds no shape and blocksize of a matrix"),
    "no blocksize": ("bnb-nf4", lambda each: each.update({STATE: words('{"shape": [32, 64]}')}), {}, "holds no shape and"),
    "no offset": (
        "bnb-nf4-nested",
        lambda each: each.update({STATE: words('{"shape": [32, 64], "blocksize": 64, "nested_blocksize": 256}')}),
        {},
        "says no nested_blocksize and nested_offset",
    ),
    "rows of another kind": (
        "bnb-int8",
        lambda each: each.update({Q.replace("weight", "SCB"): torch.ones(31)}),
        {},
        "F32 [31]; expected I8 [rows, columns] and F32 [rows]",
    ),
    "an order of GPUs": (
        "bnb-int8",
        lambda each: each.update({Q.replace("weight", "weight_format"): torch.tensor(1, dtype=torch.uint8)}),
        {},
        "says that codes lie in an order of some GPU",
    ),
    "Conv1D": ("bnb-nf4", lambda _: None, {"model_type": "gpt2"}, "bitsandbytes codes of gpt2 lie transposed"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named(what: str, tmp_path: Path) -> None:
    name, change, config, expected = WRONG[what]
    with pytest.raises(CheckpointError) as refusal:
        warmkit.open_checkpoint(changed(tmp_path / "m", name, change, **config))
    assert isinstance(refusal.value, FormatError | UnsupportedError)
    assert expected in str(refusal.value)
