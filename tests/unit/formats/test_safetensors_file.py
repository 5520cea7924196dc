"""Headers that lie in thousands of ways: each a clean error, or a read that the reference library agrees with."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

import warmkit
from warmkit.engine.plan import Output, plan_output
from warmkit.errors import CheckpointError, WarmkitError
from warmkit.formats.dtypes import BY_TORCH_NAME, DTYPES
from warmkit.formats.safetensors_file import build_header, read_header

VALID = save(
    {"a.0.w": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2]), "c": torch.ones(3, dtype=torch.bfloat16)},
    metadata={"format": "pt"},
)
MANY = settings(
    max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def check_clean_or_correct(content: bytes, path: Path) -> bool:
    """Open a file: refuse it cleanly, or read what the reference library reads. Returns whether it was read."""
    path.write_bytes(content)
    try:
        checkpoint = warmkit.open_checkpoint(path)
        mine = {name: lazy.load() for name, lazy in checkpoint.items()}
    except CheckpointError as error:
        if str(path.parent) not in str(error):
            raise AssertionError("the error does not name the file") from error
        return False
    theirs = load_file(path)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == theirs[name].dtype
        assert tensor.shape == theirs[name].shape
        assert tensor.reshape(-1).view(torch.uint8).tolist() == theirs[name].reshape(-1).view(torch.uint8).tolist()
    return True


@MANY
@given(edits=st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes_are_refused_or_read_alike(edits: list[tuple[int, int]], tmp_path: Path) -> None:
    content = bytearray(VALID)
    for place, value in edits:
        content[place] = value
    check_clean_or_correct(bytes(content), tmp_path / "x.safetensors")


@MANY
@given(cut=st.integers(0, len(VALID)), tail=st.binary(max_size=40))
def test_cut_and_extended_files_are_refused_or_read_alike(cut: int, tail: bytes, tmp_path: Path) -> None:
    read = check_clean_or_correct(VALID[:cut] + tail, tmp_path / "x.safetensors")
    if len(VALID[:cut] + tail) != len(VALID):
        assert not read


odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(-9, 99), max_size=4),
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from([*DTYPES, "F8_E4M3", "C64", "f32"]), odd),
        "shape": st.one_of(st.lists(st.integers(-1, 7), max_size=3), odd),
        "data_offsets": st.one_of(st.lists(st.integers(-4, 60), min_size=2, max_size=2), odd),
        "extra": odd,
    },
)


@MANY
@given(
    name=st.sampled_from(["a.0.w", "b", "c", "new", "__metadata__"]),
    change=fields,
    drop=st.sets(st.sampled_from(["dtype", "shape", "data_offsets"]), max_size=1),
)
def test_changed_entries_are_refused_or_read_alike(name: str, change: dict[str, Any], drop: set[str], tmp_path: Path) -> None:
    header, data = split(VALID)
    entry = {**header.get(name, {}), **change}
    header[name] = {key: value for key, value in entry.items() if key not in drop}
    check_clean_or_correct(join(header, data), tmp_path / "x.safetensors")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60).map(str.encode),
        st.recursive(odd, lambda x: st.lists(x) | st.dictionaries(st.text(max_size=3), x)).map(
            lambda x: json.dumps(x).encode()
        ),
    )
)
def test_any_header_text_is_refused_or_read_alike(text: bytes, tmp_path: Path) -> None:
    check_clean_or_correct(struct.pack("<Q", len(text)) + text + bytes(8), tmp_path / "x.safetensors")


def test_deep_nesting_is_an_error_and_no_crash(tmp_path: Path) -> None:
    text = b'{"a":' * 50_000
    assert not check_clean_or_correct(struct.pack("<Q", len(text)) + text, tmp_path / "x.safetensors")


def test_valid_files_are_read(tmp_path: Path) -> None:
    assert check_clean_or_correct(VALID, tmp_path / "x.safetensors")
    header = read_header(tmp_path / "x.safetensors")
    assert header.metadata == {"format": "pt"}
    assert {entry.name: entry.shape for entry in header.entries} == {"a.0.w": (2, 3), "b": (2,), "c": (3,)}


def test_the_reference_library_refuses_what_the_gap_test_builds(tmp_path: Path) -> None:
    header, data = split(VALID)
    header["c"]["data_offsets"] = [offset + 2 for offset in header["c"]["data_offsets"]]
    (tmp_path / "x.safetensors").write_bytes(join(header, data + b"\0\0"))
    with pytest.raises(SafetensorError), safe_open(tmp_path / "x.safetensors", "pt"):
        pass
    with pytest.raises(WarmkitError, match="leaves a gap"):
        warmkit.open_checkpoint(tmp_path / "x.safetensors")


# ---- writing -----------------------------------------------------------------------------------------------------------

tensors = st.lists(
    st.tuples(st.text(min_size=1, max_size=8), st.sampled_from(sorted(BY_TORCH_NAME)), st.lists(st.integers(0, 5), max_size=3)),
    min_size=1,
    max_size=8,
    unique_by=lambda row: row[0],
).filter(lambda rows: all(row[0] != "__metadata__" for row in rows))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=tensors, limit=st.integers(1, 300))
def test_planned_files_are_read_by_the_reference_library(
    rows: list[tuple[str, str, list[int]]], limit: int, tmp_path: Path
) -> None:
    outputs = [Output(name, BY_TORCH_NAME[dtype], tuple(shape)) for name, dtype, shape in rows]
    plan = plan_output(outputs, limit, {"format": "pt"})
    seen: set[str] = set()
    for number, shard in enumerate(plan.shards):
        path = tmp_path / "shard.safetensors"
        path.write_bytes(shard.header + bytes(shard.size - len(shard.header)))
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                assert plan.outputs[name].shard == number
                assert list(file.get_slice(name).get_shape()) == list(plan.outputs[name].shape)
                seen.add(name)
        here = [output for output in plan.outputs.values() if output.shard == number]
        assert sum(output.nbytes for output in here) <= limit or len(here) == 1 or all(o.nbytes == 0 for o in here[1:])
        assert all(output.offset % output.dtype.itemsize == 0 for output in here)
    assert seen == {name for name, _, _ in rows}
    assert list(plan.outputs) == [name for name, _, _ in rows]


def test_a_header_is_padded_to_eight_bytes() -> None:
    for name in ("a", "ab", "abc", "ü"):
        assert len(build_header([(name, DTYPES["F32"], (1,))], {})) % 8 == 0
