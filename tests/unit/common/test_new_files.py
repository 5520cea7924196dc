"""Files appear whole, and replace nothing that they must not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from warmkit.common.new_files import check_free, whole_file
from warmkit.errors import OutputError


@pytest.mark.parametrize("force", [True, False])
def test_a_file_that_came_while_another_was_written_is_replaced_by_force_alone(force: bool, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"

    def write() -> None:
        with whole_file(path, force) as file:
            file.write("ours")
            path.write_text("theirs")

    if force:
        write()
    else:
        with pytest.raises(OutputError, match=r"out\.jsonl: already exists; choose another -o"):
            write()
    assert path.read_text() == ("ours" if force else "theirs")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("force", [True, False])
def test_what_is_no_file_is_never_replaced(force: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to(os.devnull)
    (tmp_path / "folder").mkdir()
    for name, said in (("pipe", "a pipe"), ("device", "a device"), ("folder", "a directory")):
        with pytest.raises(OutputError, match=f"{name}: cannot be written: it is {said}"):
            check_free(tmp_path / name, force)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["device", "folder", "pipe"]
