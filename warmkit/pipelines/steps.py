"""Steps of a pipeline, each with a manifest that says what it was made of; a finished one is not taken again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from warmkit.checkpoints.checkpoint import dump_json
from warmkit.training.run import write_whole


class Steps:
    """Manifests, `FOLDER/NAME.json`: `step`, `inputs`, `result` and `seconds`, written when a step is done.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recorded(self, name: str) -> dict[str, Any] | None:
        """Return the manifest of a finished step."""
        file = self.folder / f"{name}.json"
        return json.loads(file.read_text("utf-8")) if file.exists() else None

    def take(self, name: str, inputs: Mapping[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what a step found: from its manifest if it was made of the same inputs, else by doing its work.

        Args:
            name: Of the step.
            inputs: What it depends on, as JSON can hold it.
            work: Leaves its result on disk whole or not at all, and returns what is worth knowing of it.
        """
        known = self.recorded(name)
        if known is not None and known["inputs"] == json.loads(dump_json(dict(inputs))):
            return known["result"]
        began = time.perf_counter()
        result = json.loads(dump_json(work()))
        manifest = {"step": name, "inputs": inputs, "result": result, "seconds": time.perf_counter() - began}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / f"{name}.json", dump_json(manifest))
        return result
