"""Pickles are read as Python reads them where they hold plain values, and refused where they ask for more."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import warmkit
from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.pickle_reader import Inert, counter, ordered, plain_set, unpickle

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = SCALARS | st.tuples(SCALARS, SCALARS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner) | st.lists(inner, max_size=5).map(tuple) | st.sets(KEYS),
    max_leaves=20,
)
NAMES = {
    ("collections", "OrderedDict"): ordered,
    ("collections", "Counter"): counter,
    ("builtins", "set"): plain_set,
    ("__builtin__", "set"): plain_set,
}


def read(content: bytes, names: Any = NAMES) -> Any:
    return unpickle(content, "FILE", names)


def refusal(content: bytes, names: Any = NAMES, kind: type[Exception] = FormatError) -> str:
    with pytest.raises(kind) as error:
        unpickle(content, "FILE", names)
    assert str(error.value).startswith("FILE: ")
    assert "\n" not in str(error.value)
    return str(error.value)


@given(VALUES, st.integers(2, 5))
def test_plain_values_are_those_that_python_reads(value: Any, protocol: int) -> None:
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_values_that_are_shared_and_containers_of_the_standard_library(protocol: int) -> None:
    shared = [1, 2.5, "x"]
    value = {"a": shared, "b": (shared, shared), "o": OrderedDict(x=1), "c": Counter("aab"), "long": 1 << 130, "n": -(1 << 40)}
    found = read(pickle.dumps(value, protocol))
    assert found == value
    assert found["a"] is found["b"][0]
    assert isinstance(found["o"], OrderedDict)


@given(VALUES, st.data())
def test_any_damage_is_read_or_refused_in_one_line(value: Any, data: st.DataObject) -> None:
    content = bytearray(pickle.dumps(value, data.draw(st.integers(2, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    said = ""
    try:
        read(bytes(content))
    except (FormatError, UnsupportedError) as error:
        said = str(error)
    assert "\n" not in said


# ---- states that are set from outside --------------------------------------------------------------------------------


class Own:
    """A class of the test's, whose instances no pickle may change."""

    offset = 7


@pytest.mark.parametrize("state", [{"offset": 1}, (None, {"offset": 1})])
def test_a_state_for_anything_but_the_two_harmless_kinds_is_refused(state: Any) -> None:
    own = Own()
    body = pickle.dumps(state, 2)[2:-1]
    assert "a state for a Own" in refusal(b"\x80\x02cm\nown\n)R" + body + b"b.", {("m", "own"): lambda: own})
    assert own.offset == 7
    assert not vars(own)


def test_the_metadata_of_a_state_dict_is_passed_over_and_an_inert_object_keeps_its_state() -> None:
    content = OrderedDict(w=1)
    content._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    assert vars(read(pickle.dumps(content, 2))) == {}
    found = read(b"\x80\x02cm\nx\n)\x81}U\x01aK\x01sb.", {("m", "x"): Inert})
    assert found.state == {"a": 1}


def test_a_tensor_keeps_its_place_whatever_state_a_pickle_has_for_it(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(4.0)}, tmp_path / "w.pt")
    state = b"}U\x06offsetK\x00sb"
    with zipfile.ZipFile(tmp_path / "w.pt") as plain, zipfile.ZipFile(tmp_path / "moved.pt", "w") as moved:
        for name in plain.namelist():
            record = plain.read(name)
            if name.endswith("data.pkl"):
                record = record.replace(b"s.", state + b"s.")
            moved.writestr(name, record)
    with pytest.raises(FormatError, match="a state for a TorchTensor"):
        warmkit.open_checkpoint(tmp_path / "moved.pt", allow_pickle=True)


# ---- what the length cannot justify -----------------------------------------------------------------------------------


def test_sizes_are_compared_with_the_bytes_that_are_left() -> None:
    for opcode, size in ((b"X", "<I"), (b"\x8d", "<Q"), (b"\x8e", "<Q"), (b"B", "<I"), (b"\x8b", "<I"), (b"T", "<I")):
        claimed = (1 << 8 * struct.calcsize(size)) - 1
        assert f"{claimed:,} bytes are claimed, 2 are left" in refusal(
            b"\x80\x04" + opcode + struct.pack(size, claimed) + b"a."
        )
    assert "a frame past its end" in refusal(b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.")
    assert read(b"\x80\x02Nr\xff\xff\xff\xff.") is None  # a place in the memo takes no memory before it


def test_a_number_of_many_bytes_is_refused() -> None:
    assert "a number of 2,000 bytes" in refusal(b"\x80\x02\x8b" + struct.pack("<I", 2000) + bytes(2000) + b".")


def test_values_that_repeat_each_other_are_refused() -> None:
    doubled = b"\x80\x02]q\x00" + b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(40)) + b"."
    assert "more values than its length can justify" in refusal(doubled)
    tuples = b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(40)) + b"."
    assert "more values than its length can justify" in refusal(tuples)


def test_a_key_that_takes_for_ever_to_hash_is_refused() -> None:
    tuples = b"\x80\x02})q\x000" + b"".join(b"h%ch%c\x86q%c0" % (n, n, n + 1) for n in range(60)) + b"h<Ns."
    assert "a tuple as a key" in refusal(tuples)


def test_calls_that_copy_what_they_are_given_are_counted() -> None:
    content = pickle.dumps(list(range(200)), 2)[:-1] + b"q\x010" + b"cm\nt\nh\x01\x85R0" * 5000 + b"N."
    assert "more values than its length can justify" in refusal(content, {("m", "t"): tuple})


def test_nesting_and_values_that_hold_themselves_are_refused() -> None:
    assert "nested 100 deep" in refusal(b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".")
    assert "holds itself" in refusal(b"\x80\x02]q\x00h\x00a.")


@pytest.mark.parametrize("content", [b"", b".", b"\x80\x02", b"\x80\x09N.", b"\x80\x02(.", b"\x80\x02\x82\x01.", b"\x80\x02e."])
def test_what_is_no_pickle_is_refused(content: bytes) -> None:
    refusal(content)


def test_names_and_storages_that_are_not_on_the_list_are_named() -> None:
    assert "'os.getcwd'" in refusal(b"\x80\x02cos\ngetcwd\n)R.", kind=UnsupportedError)
    assert "a storage outside of the file" in refusal(b"\x80\x02NQ.", kind=UnsupportedError)


# ---- the zip ---------------------------------------------------------------------------------------------------------


def rewritten(path: Path, change: Any) -> Path:
    other = path.with_name("other.pt")
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(other, "w") as changed:
        for name in plain.namelist():
            changed.writestr(*change(name, plain.read(name)))
    return other


def zip_refusal(path: Path) -> str:
    with pytest.raises(FormatError) as error:
        warmkit.open_checkpoint(path, allow_pickle=True)
    return str(error.value)


def test_a_tensor_that_repeats_its_storage_beyond_reason_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(100, 7)}, tmp_path / "w.pt")
    assert warmkit.open_checkpoint(tmp_path / "w.pt", allow_pickle=True)["w"].shape == (100, 7)
    torch.save({"w": torch.zeros(1).expand(1 << 40, 7)}, tmp_path / "w.pt")
    assert "stands for 30,786,325,577,728 bytes, in a file of" in zip_refusal(tmp_path / "w.pt")


def test_records_of_one_name_or_one_place_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(40), "b": torch.ones(40)}, tmp_path / "w.pt")
    content = (tmp_path / "w.pt").read_bytes()
    directory = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/1"))
    with zipfile.ZipFile(tmp_path / "w.pt") as archive:
        first = next(info.header_offset for info in archive.infolist() if info.filename.endswith("data/0"))
    moved = content[: directory + 42] + struct.pack("<I", first) + content[directory + 46 :]
    (tmp_path / "moved.pt").write_bytes(moved)
    assert "has another name where the zip says it is" in zip_refusal(tmp_path / "moved.pt")
    (tmp_path / "same.pt").write_bytes(moved.replace(b"data/1", b"data/0"))
    assert "two records of one name" in zip_refusal(tmp_path / "same.pt")


def test_a_record_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4)}, tmp_path / "w.pt")
    content = (tmp_path / "w.pt").read_bytes()
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data.pkl")) + 20
    (tmp_path / "w.pt").write_bytes(content[:at] + struct.pack("<II", 50_000_000, 50_000_000) + content[at + 8 :])
    assert "data.pkl claims 50,000,000 bytes" in zip_refusal(tmp_path / "w.pt")


def test_a_storage_of_two_types_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4), "b": torch.zeros(2, dtype=torch.int64)}, tmp_path / "w.pt")
    path = rewritten(
        tmp_path / "w.pt", lambda name, content: (name, content.replace(b"X\x01\x00\x00\x001", b"X\x01\x00\x00\x000"))
    )
    assert "storage '0' has two types" in zip_refusal(path)


def test_a_lone_tensor_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.zeros(4), tmp_path / "w.pt")
    assert "holds one tensor without a name" in zip_refusal(tmp_path / "w.pt")


def test_a_tensor_under_a_key_that_is_no_name_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4), ("b",): torch.zeros(4)}, tmp_path / "w.pt")
    assert "holds a tensor under a tuple, expected names as keys" in zip_refusal(tmp_path / "w.pt")


def test_a_number_and_a_text_of_one_name_are_refused(tmp_path: Path) -> None:
    torch.save({0: torch.zeros(4), "0": torch.ones(4)}, tmp_path / "w.pt")
    assert "keys of one name" in zip_refusal(tmp_path / "w.pt")
