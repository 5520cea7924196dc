"""Records of a zip as ranges of bytes, against what zipfile wrote."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.stored_zip import StoredZip

RECORDS = {"a.npy": b"first", "folder/b.npy": b"second one", "ü.npy": b""}


def written(path: Path, how: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in RECORDS.items():
            archive.writestr(name, content)
    return path.read_bytes()


@pytest.mark.parametrize("before", [b"", b"another file"])
def test_a_record_is_a_range_of_its_file(before: bytes, tmp_path: Path) -> None:
    content = written(tmp_path / "z")
    (tmp_path / "z").write_bytes(before + content)
    with StoredZip(tmp_path / "z", len(before), len(content), "numpy.savez") as archive:
        assert list(archive.records) == list(RECORDS)
        for name, expected in RECORDS.items():
            begin, size = archive.place(name)
            assert (tmp_path / "z").read_bytes()[begin : begin + size] == archive.content(name, 100) == expected
        archive.check_apart()


def test_a_compressed_record_is_refused_with_what_writes_it_plain(tmp_path: Path) -> None:
    length = len(written(tmp_path / "z", zipfile.ZIP_DEFLATED))
    archive = StoredZip(tmp_path / "z", 0, length, "numpy.savez")
    with archive, pytest.raises(UnsupportedError, match=r"compressed zip, which cannot be read in parts; .* with numpy.savez"):
        archive.place("a.npy")


def test_a_record_longer_than_the_limit_is_not_read(tmp_path: Path) -> None:
    length = len(written(tmp_path / "z"))
    archive = StoredZip(tmp_path / "z", 0, length, "numpy.savez")
    with archive, pytest.raises(FormatError, match=r"b.npy claims 10 bytes"):
        archive.content("folder/b.npy", 9)


def test_a_record_with_another_name_where_it_lies_is_refused(tmp_path: Path) -> None:
    content = written(tmp_path / "z")
    (tmp_path / "z").write_bytes(content.replace(b"a.npy", b"x.npy", 1))
    archive = StoredZip(tmp_path / "z", 0, len(content), "numpy.savez")
    with archive, pytest.raises(FormatError, match=r"'a.npy' has another name where the zip says it is"):
        archive.place("a.npy")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_records_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("a", b"2")
    with pytest.raises(FormatError, match="two records of one name"):
        StoredZip(tmp_path / "z", 0, (tmp_path / "z").stat().st_size, "numpy.savez")
