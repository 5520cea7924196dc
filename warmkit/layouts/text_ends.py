"""Ends of text of a merged language model: those of any of its models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from warmkit.common.json_files import dump_json, read_object
from warmkit.formats.checkpoint import Checkpoint

FILE = "generation_config.json"
KEY = "eos_token_id"


def added_ends(donor: Checkpoint, models: Sequence[Checkpoint]) -> list[int]:
    """Return the ids that end a completion of the merge and that its companions would not name.

    A base model as the init does not know the end of a turn that its fine-tuned models learned: other engines would sample on.

    Args:
        donor: Whose companions the result gets.
        models: What is merged, of the same vocabulary.
    """
    known = _ids(_said(donor).get(KEY, donor.config.get(KEY)))
    found = [each for model in models for each in _ids(_said(model).get(KEY))]
    return [each for each in dict.fromkeys(found) if each not in known] if donor.directory is not None else []


def write_ends(added: Sequence[int], donor: Checkpoint, target: Path) -> None:
    """Add ids to what the generation config of a result says, if there are any."""
    if not added:
        return
    file = target / FILE
    said = read_object(file) if file.is_file() else {}
    known = _ids(said.get(KEY, donor.config.get(KEY)))
    file.write_bytes(dump_json({**said, KEY: [*known, *added]}))


def _said(checkpoint: Checkpoint) -> dict[str, Any]:
    file = None if checkpoint.directory is None else checkpoint.directory / FILE
    return read_object(file) if file is not None and file.is_file() else {}


def _ids(said: Any) -> list[int]:
    values = cast("list[Any]", said if isinstance(said, list) else [said])
    return [each for each in values if isinstance(each, int) and not isinstance(each, bool)]
