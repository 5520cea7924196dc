"""Steps of a pipeline, each with a manifest that says what it was made of; a finished one is not taken again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from warmkit.common.json_files import dump_json
from warmkit.common.records import Form, dict_of, having, is_anything, is_number, is_text, maybe, read_record
from warmkit.common.whole_files import write_whole
from warmkit.engine.contents import check_contents, write_contents

DIGESTS = "digests"
"""The input that older versions did not record."""
FOUND = dict_of(is_anything)
MERGED = having(path=is_text, eta=is_number, mean_angle=maybe(is_number))
"""What is worth knowing of a merge."""


class Steps:
    """Manifests, `FOLDER/NAME.json`: `step`, `inputs`, `result` and `seconds`, written when a step is done.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recorded(self, name: str, result: Form = FOUND) -> dict[str, Any] | None:
        """Return the manifest of a finished step.

        Args:
            name: Of the step.
            result: What it found.

        Raises:
            FormatError: If it is of another form.
        """
        file = self.folder / f"{name}.json"
        cure = "delete it, and the step is taken again"
        return read_record(file, {"inputs": dict_of(is_anything), "result": result}, cure) if file.exists() else None

    def made_of_others(self, name: str, inputs: Mapping[str, Any]) -> bool:
        """Say whether a step was taken, of other inputs than these."""
        known = self.recorded(name)
        return known is not None and not _same(known["inputs"], inputs)

    def take(
        self, name: str, inputs: Mapping[str, Any], work: Callable[[], dict[str, Any]], result: Form = FOUND
    ) -> dict[str, Any]:
        """Return what a step found: from its manifest if it was made of the same inputs, else by doing its work.

        Args:
            name: Of the step.
            inputs: What it depends on, as JSON can hold it.
            work: Leaves its result on disk whole or not at all, and returns what is worth knowing of it, as `path` its model.
            result: The form of that.

        Raises:
            ChangedError: If the model that it left was changed since.
            FormatError: If its manifest is of another form.
        """
        known = self.recorded(name, result)
        if known is not None and _same(known["inputs"], inputs) and _still_there(known["result"]):
            return known["result"]
        began = time.perf_counter()
        found = json.loads(dump_json(work()))
        if "path" in found:
            write_contents(Path(found["path"]))
        manifest = {"step": name, "inputs": inputs, "result": found, "seconds": time.perf_counter() - began}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / f"{name}.json", dump_json(manifest))
        return found


def _same(known: Mapping[str, Any], inputs: Mapping[str, Any]) -> bool:
    wanted = json.loads(dump_json(dict(inputs)))
    if DIGESTS not in known:
        wanted.pop(DIGESTS, None)
    return known == wanted


def _still_there(result: Mapping[str, Any]) -> bool:
    """Say whether the model that a step left is there, and check that it is what it left."""
    if "path" not in result:
        return True
    folder = Path(result["path"])
    if folder.exists():
        check_contents(folder)
    return folder.exists()
