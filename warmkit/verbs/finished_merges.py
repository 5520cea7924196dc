"""Record of merges that follow each other, so that an interrupted run of all goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash

from warmkit.common.json_files import dump_json
from warmkit.common.records import dict_of, is_text, read_record
from warmkit.common.whole_files import write_whole
from warmkit.errors import OutputError
from warmkit.layouts.opening import open_inputs


class FinishedMerges:
    """What is done of several merges: a file beside the last result, until that is there too.

    Args:
        last: Where the last result goes.
    """

    def __init__(self, last: Path) -> None:
        self._file = last.parent / f".{last.name}.merges.json"
        self._known: dict[str, str] = {}
        if self._file.exists():
            cure = "delete it, and all are merged again"
            self._known = read_record(self._file, {"merges": dict_of(is_text)}, cure)["merges"]

    def check_room(self, place: Path) -> None:
        """Refuse to write where something else lies.

        Raises:
            OutputError: If it does.
        """
        if place.exists() and str(place) not in self._known:
            raise OutputError(f"{place}: already exists; choose another -o, or replace it with --force")

    def has(self, place: Path, said: Mapping[str, Any], models: Sequence[str], options: Mapping[str, Any]) -> bool:
        """Say whether a merge is done: the same recipe of the same files, whose result is what it left."""
        return str(place) in self._known and place.exists() and self._known[str(place)] == _state(place, said, models, options)

    def add(self, place: Path, said: Mapping[str, Any], models: Sequence[str], options: Mapping[str, Any]) -> None:
        """Record a merge that is done."""
        self._known[str(place)] = _state(place, said, models, options)
        write_whole(self._file, dump_json({"merges": self._known}))

    def forget(self) -> None:
        """Remove the record: all is done."""
        self._file.unlink(missing_ok=True)


def _state(place: Path, said: Mapping[str, Any], models: Sequence[str], options: Mapping[str, Any]) -> str:
    files = [open_inputs([each], options)[0].fingerprint() for each in (*models, str(place))]
    return xxhash.xxh3_128_hexdigest(dump_json({"recipe": said, "files": files}))
