"""Rows that are said for single tokens, and padding: in which models they take part, and what is no such row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import warmkit
from tests.unit.layouts.test_vocabularies import EMBEDDING, HEAD, by_token, check_consistent, make, tensors
from warmkit.errors import MismatchError, UsageError
from warmkit.formats.dtypes import BY_TORCH_NAME
from warmkit.formats.tensors import StoredTensor
from warmkit.layouts.token_rows import PaddedTensor
from warmkit.sources.files import Files


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("zoo")
    return {
        "init": make(folder / "init", [], 0),
        "a": make(folder / "a", ["<|im_start|>", "<|im_end|>"], 1),
        "b": make(folder / "b", ["<|tool|>", "<|im_end|>"], 2),
    }


def merged(zoo: dict[str, Path], output: Path, **more: Any) -> Path:
    return warmkit.merge([zoo["a"], zoo["b"]], output, method="lerp", lambda_=0.25, **{"vocabulary": "union", **more}).path


def test_a_model_that_has_the_token_keeps_its_row_unless_the_row_is_forced(zoo: dict[str, Path], tmp_path: Path) -> None:
    said: dict[str, Any] = {"model": str(zoo["a"]), "token": "</s>"}
    tokens = {"<|tool|>": said, "<|im_end|>": said, "<|im_start|>": {**said, "force": True}}
    out = merged(zoo, tmp_path / "out", token_rows=tokens)
    for name in (EMBEDDING, HEAD):
        found, a, b = by_token(out, name), by_token(zoo["a"], name), by_token(zoo["b"], name)
        torch.testing.assert_close(found["<|tool|>"], 0.75 * a["</s>"] + 0.25 * b["<|tool|>"], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(found["<|im_end|>"], 0.75 * a["<|im_end|>"] + 0.25 * b["<|im_end|>"], rtol=1e-6, atol=1e-7)
        assert torch.equal(found["<|im_start|>"], a["</s>"])
    check_consistent(out)


def test_a_new_token_gets_its_row_in_all_models(zoo: dict[str, Path], tmp_path: Path) -> None:
    how: dict[str, Any] = {"init": zoo["init"], "method": "task-arithmetic", "coefficients": [0.5, 0.5], "vocabulary": "init"}
    tokens = {
        "<new>": {"model": str(zoo["init"]), "id": 1},
        "<none>": {"model": "zero"},
        "<|im_end|>": {"model": str(zoo["b"])},
    }
    out = warmkit.merge([zoo["a"], zoo["b"]], tmp_path / "out", token_rows=tokens, **how).path
    found, init, a, b = (by_token(path) for path in (out, zoo["init"], zoo["a"], zoo["b"]))
    assert torch.equal(found["<new>"], init["</s>"])
    assert not found["<none>"].any()
    torch.testing.assert_close(found["<|im_end|>"], b["<|im_end|>"] + 0.5 * (a["<|im_end|>"] - b["<|im_end|>"]))
    tokenizer = check_consistent(out)
    assert {str(each): each.special for each in tokenizer.added_tokens_decoder.values()}["<|im_end|>"]  # as b has it
    assert "<|tool|>" not in tokenizer.get_vocab()


def test_rows_are_padded_with_their_mean_and_no_token_moves(zoo: dict[str, Path], tmp_path: Path) -> None:
    plain, padded = merged(zoo, tmp_path / "plain"), merged(zoo, tmp_path / "padded", pad_to_multiple_of=32)
    check_consistent(padded)
    for name in (EMBEDDING, HEAD):
        rows, more = tensors(plain)[name], tensors(padded)[name]
        assert len(more) == 64
        assert torch.equal(more[: len(rows)], rows)
        for row in more[len(rows) :]:
            torch.testing.assert_close(row, rows.mean(0), rtol=1e-5, atol=1e-6)


def test_one_vocabulary_is_padded_without_a_mode_and_old_padding_is_cut(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", [], 1, pad_to=64), make(tmp_path / "b", [], 2, pad_to=16)
    out = warmkit.soup([a, b], tmp_path / "out", pad_to_multiple_of=40).path
    assert len(tensors(out)[EMBEDDING]) == 40
    check_consistent(out)


def test_vocabularies_that_differ_need_a_mode(zoo: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="give --vocabulary union, init or common"):
        merged(zoo, tmp_path / "out", vocabulary="strict", pad_to_multiple_of=8)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"x": {"model": "@a", "tokn": "y"}}, "token_rows: 'x': unknown key 'tokn'; did you mean 'token'"),
        ({"x": {"token": "y"}}, "token_rows: 'x': expected model, one of the merge or zero, found None"),
        ({"x": {"model": "@a", "token": "y", "id": 1}}, "token and id both say which row"),
        ({"x": {"model": "@a", "id": True}}, "id a whole number"),
        ({"x": {"model": "@a", "id": 38}}, "has 38 rows, found row 38"),
        ({"x": {"model": "@a"}}, "has no token 'x'"),
        ({"x": {"model": "nowhere"}}, r"expected zero or one of the models of the merge \(.*\), found 'nowhere'"),
        ({"x": "zero"}, "expected a token with model: .*, found 'zero'"),
    ],
)
def test_what_is_no_row_is_refused(said: dict[str, Any], message: str, zoo: dict[str, Path], tmp_path: Path) -> None:
    tokens = {
        token: {key: str(zoo["a"]) if value == "@a" else value for key, value in where.items()}
        if isinstance(where, dict)
        else where
        for token, where in said.items()
    }
    with pytest.raises(UsageError, match=message):
        merged(zoo, tmp_path / "out", token_rows=tokens)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("multiple", [0, -8, 2.5, True, "8"])
def test_a_multiple_is_a_whole_number(multiple: Any, zoo: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pad_to_multiple_of must be a whole number at least 1"):
        merged(zoo, tmp_path / "out", pad_to_multiple_of=multiple)


@pytest.mark.parametrize(("start", "size"), [(0, 15), (4, 7), (7, 2), (11, 4), (15, 0)])
def test_any_range_of_a_padded_tensor(start: int, size: int, tmp_path: Path) -> None:
    values = np.arange(9, dtype=np.float32).reshape(3, 3)
    (tmp_path / "rows").write_bytes(values.tobytes())
    own = StoredTensor("t", BY_TORCH_NAME["float32"], (3, 3), tmp_path / "rows", 0)
    padded, buffer = PaddedTensor(own, 5), bytearray(4 * size)
    with Files() as files:
        padded.ahead(files, start, size)
        padded.read(files, start, memoryview(buffer))
    expected = np.vstack([values, values.mean(0), values.mean(0)]).ravel()
    assert np.frombuffer(buffer, np.float32).tolist() == expected[start : start + size].tolist()
