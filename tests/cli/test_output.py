"""Files beside what commands print: none is replaced unasked, and what is written is what is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import json_lines
from warmkit.cli.output import DocumentFile, refuse_existing, write_rows
from warmkit.errors import OutputError


def test_a_file_in_the_way_needs_force(tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    refuse_existing([None, there], force=False)
    there.touch()
    with pytest.raises(OutputError, match=r"there\.json: already exists; choose another name, or replace it with --force"):
        refuse_existing([None, there], force=False)
    refuse_existing([there], force=True)


def test_documents_and_rows_read_back_from_new_folders(tmp_path: Path) -> None:
    document = {"name": "grün", "values": [1, 0.1, None]}
    DocumentFile(tmp_path / "a" / "document.json").write(document)
    assert json.loads((tmp_path / "a" / "document.json").read_text("utf-8")) == document
    write_rows(tmp_path / "b" / "rows.jsonl", iter([document, {"line": "one\ntwo"}]))
    assert json_lines((tmp_path / "b" / "rows.jsonl").read_text("utf-8")) == [document, {"line": "one\ntwo"}]


def test_what_was_not_asked_for_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    DocumentFile().write({})
    write_rows(None, [{}])
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"document\.json"):
        DocumentFile(tmp_path / "file" / "document.json").write({})
