"""Files of rows: lines, arrays, compressed, tables; what is broken is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from warmkit.data.rows import is_plain_lines, read_rows
from warmkit.errors import DataError

ROWS: list[dict[str, Any]] = [{"prompt": "é", "chosen": "a"}, {"prompt": "2", "chosen": "b"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
ARRAYS = {
    "one line": json.dumps(ROWS),
    "indented": json.dumps(ROWS, indent=2),
    "mark": "\ufeff" + json.dumps(ROWS, indent=1),
}


def read(path: Path) -> list[tuple[dict[str, Any], str]]:
    return read_rows(path, lambda row, where: (row, where.rpartition(":")[2]))


def numbered() -> list[tuple[dict[str, Any], str]]:
    return [(row, str(number)) for number, row in enumerate(ROWS, 1)]


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.jsonl.gz", "d.json.gz"])
@pytest.mark.parametrize("kind", ["lines", *ARRAYS])
def test_lines_and_arrays_are_read_compressed_or_not(kind: str, name: str, tmp_path: Path) -> None:
    content = LINES if kind == "lines" else ARRAYS[kind].encode("utf-8")
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read(path) == numbered()
    assert is_plain_lines(path) == (kind == "lines" and not name.endswith(".gz"))


def test_an_array_of_one_row_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps(ROWS[:1]) + "\n")
    assert read(tmp_path / "d.json") == numbered()[:1]


def test_a_row_of_an_array_that_is_no_object_is_refused_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps([ROWS[0], 3], indent=1))
    with pytest.raises(DataError, match=r"1 of 2 rows are bad:\n.*d\.json:2: expected a JSON object, found 3"):
        read(tmp_path / "d.json")


def test_an_array_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text(json.dumps(ROWS, indent=1)[:-3])
    with pytest.raises(DataError, match=r"d\.json: expected a JSON array of objects, or an object a line; found "):
        read(tmp_path / "d.json")


@pytest.mark.parametrize(
    "broken", [gzip.compress(LINES)[:-9], LINES, b"\x1f\x8b\x08" + b"x" * 30], ids=["cut", "plain", "noise"]
)
def test_a_broken_compressed_file_is_refused(broken: bytes, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl.gz").write_bytes(broken)
    with pytest.raises(DataError, match=r"d\.jsonl\.gz: cannot be read: "):
        read(tmp_path / "d.jsonl.gz")
