"""Zip that is not compressed: every record is a range of bytes of its file.

Neither the list at the end of a zip nor the headers before its records are trusted: names, sizes and places are compared with
each other and with the file.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from typing_extensions import Self

from warmkit.errors import FormatError, UnsupportedError

MAX_DIRECTORY_BYTES = 32_000_000  # of the zip's own list: half a million records
MAGIC = b"PK\x03\x04"


class _Window(io.RawIOBase):
    """A part of a file that looks like a file."""

    def __init__(self, path: Path, start: int, length: int) -> None:
        self._file, self._start, self._length, self._at = path.open("rb"), start, length, 0
        self.limit = MAX_DIRECTORY_BYTES  # of one read

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        left = self._length - self._at
        count = left if size < 0 else min(size, left)
        if count > self.limit:
            raise ValueError(f"{count:,} bytes at once")
        return super().read(count) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")[: max(0, self._length - self._at)]
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view)
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class StoredZip:
    """Zip in a file or a part of it, opened by `with`: what it holds, and where.

    A damaged zip raises anything (`zipfile` promises no more); the caller makes a `FormatError` of it.

    Attributes:
        records: What the zip's list says of every record, by its name.

    Raises:
        FormatError: If two records have one name.
    """

    def __init__(self, path: Path, start: int, length: int, writer: str) -> None:
        """Read the list of a zip.

        Args:
            path: The file.
            start: First byte of the zip in it.
            length: Bytes of the zip.
            writer: What writes such files uncompressed, for messages: `torch.save`.
        """
        self._path, self._start, self._length, self._writer = path, start, length, writer
        self._places: dict[str, tuple[int, int]] = {}  # of the records that were asked for
        self._window = _Window(path, start, length)
        try:
            self._archive = zipfile.ZipFile(self._window)
            self.records = {info.filename: info for info in self._archive.infolist()}
            if len(self.records) < len(self._archive.infolist()):
                raise FormatError(f"{path}: a zip with two records of one name")
        except BaseException:
            self._window.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._window.close()

    def content(self, name: str, most: int) -> bytes:
        """Return a small record of at most `most` bytes, once its size was compared with the file's.

        Raises:
            FormatError: If its sizes contradict each other, the file or the limit.
            UnsupportedError: If it is compressed.
        """
        info = self.records[name]
        self._check_stored(info)
        if info.file_size > most or info.file_size > self._length:
            short = name.rpartition("/")[2]
            raise FormatError(f"{self._path}: {short} claims {info.file_size:,} bytes, the file has {self._length:,}")
        self._window.limit = max(most, MAX_DIRECTORY_BYTES)
        return self._archive.read(info)

    def place(self, name: str) -> tuple[int, int]:
        """Return the first byte of a record, from the start of the file, and how many bytes there are.

        Raises:
            FormatError: If the record is not where the list says, or ends past the end.
            UnsupportedError: If it is compressed.
        """
        if name not in self._places:
            self._places[name] = self._place(self.records[name])
        begin, size = self._places[name]
        return self._start + begin, size

    def check_apart(self) -> None:
        """Refuse records that share bytes, among those whose place was asked for: a writer gives each its own.

        Raises:
            FormatError: If two do.
        """
        end = 0
        for begin, size in sorted(self._places.values()):
            if begin < end and size:
                raise FormatError(f"{self._path}: a zip whose records overlap")
            end = max(end, begin + size)

    def mend_checksums(self, file: int) -> None:
        """Write the checksum of every record that is not what its bytes give, everywhere a zip has it.

        Args:
            file: Descriptor of the same file, for writing.
        """
        place = self._start + self._archive.start_dir
        for name, info in self.records.items():
            head = os.pread(file, 46, place)
            if head[:4] != b"PK\x01\x02":
                raise FormatError(f"{self._path}: the list of its zip is not where the zip says")
            begin, size = self.place(name)
            old, new = (value.to_bytes(4, "little") for value in (info.CRC, _checksum(file, begin, size)))
            if old != new:
                after = begin + size + (4 if os.pread(file, 4, begin + size) == b"PK\x07\x08" else 0)
                for spot in (place + 16, self._start + info.header_offset + 14, after):
                    if os.pread(file, 4, spot) == old and (spot != after or info.flag_bits & 8):
                        os.pwrite(file, new, spot)
            place += 46 + sum(int.from_bytes(head[at : at + 2], "little") for at in (28, 30, 32))

    def _check_stored(self, info: zipfile.ZipInfo) -> None:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise UnsupportedError(
                f"{self._path}: a compressed zip, which cannot be read in parts; save it again with {self._writer}"
            )
        if info.compress_size != info.file_size:
            raise FormatError(f"{self._path}: {info.filename!r} has two sizes")
        if info.external_attr & 0x10:  # torch's own reader gives memory that it has not filled
            raise FormatError(f"{self._path}: {info.filename!r} is marked as a directory")

    def _place(self, info: zipfile.ZipInfo) -> tuple[int, int]:
        """Return where in the zip a record's bytes begin, and how many there are."""
        self._check_stored(info)
        self._window.seek(info.header_offset)
        header = self._window.read(30)
        if header[:4] != MAGIC or len(header) < 30:
            raise FormatError(f"{self._path}: {info.filename!r} is not where the zip says")
        name, extra = int.from_bytes(header[26:28], "little"), int.from_bytes(header[28:30], "little")
        encoding = "utf-8" if info.flag_bits & 0x800 else "cp437"
        if self._window.read(name).decode(encoding, "replace") != info.orig_filename:
            raise FormatError(f"{self._path}: {info.filename!r} has another name where the zip says it is")
        begin = info.header_offset + 30 + name + extra
        if begin + info.file_size > self._length:
            raise FormatError(f"{self._path}: truncated: {info.filename!r} ends past the end")
        return begin, info.file_size


def is_zip(file: Path) -> bool:
    """Say whether a file begins as a zip does."""
    with file.open("rb") as opened:
        return opened.read(len(MAGIC)) == MAGIC


def _checksum(file: int, begin: int, size: int) -> int:
    found, at = 0, begin
    while at < begin + size:
        part = os.pread(file, min(1 << 22, begin + size - at), at)
        if not part:
            break
        found, at = zlib.crc32(part, found), at + len(part)
    return found
