"""A file that is one of several which hold a model together: a shard, a split, one rank's part. Alone it is no model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from warmkit.common.json_files import read_object
from warmkit.errors import UnsupportedError, WarmkitError

_OF = re.compile(r"(?P<number>\d+)-of-(?P<count>\d+)(?=\.|$)")
_SHARD_OF_WRITER = re.compile(r"shard-\d+-")  # torch's HuggingFaceStorageWriter, which its metadata tell
# Of one rank: alone it may be all there is if its number is 0 and no world is named.
_RANK = re.compile(
    r"(?:mp|tp|pp|ep|dp)_rank_(\d+)|^consolidated\.(\d+)\.|^pytorch_model(?:_\d+)?_rank(\d+)\.|^model(\d+)-mp\d+\."
)
_WORLD = re.compile(r"world_size_(\d+)_rank_\d+|^model\d+-mp(\d+)\.")
_LAYER = re.compile(r"^layer_\d+-model_\d+-model_states\.")  # DeepSpeed's pipelines


def refuse_piece(file: Path) -> None:
    """Refuse a local file that is one of several, unless an index beside it says that it is all.

    Raises:
        UnsupportedError: Saying how that is known, and what to give instead.
    """
    for index in sorted(file.parent.glob("*.index.json")):
        named = _named_by(index)
        if named == {file.name}:
            return
        if file.name in named:
            how = f"as {index.name} beside it says"
            raise UnsupportedError(f"{file}: one of {len(named)} files of a model, {how}; give its folder, {file.parent}")
    refuse_name(file.name, file)
    if (other := _other_rank(file)) is not None:
        raise UnsupportedError(_rank_message(file, f"beside {other}"))


def refuse_name(name: str, place: object) -> None:
    """Refuse a file whose name alone says that there are others; `place` is for the message."""
    found = _OF.search(name)
    if found and int(found["count"]) > 1 and not _SHARD_OF_WRITER.match(name):
        raise UnsupportedError(
            f"{place}: number {int(found['number'])} of {int(found['count'])} files of a model, by its name; give the folder "
            "with all of them and their index"
        )
    if _highest(_WORLD, name) > 1 or _highest(_RANK, name) or _LAYER.match(name):
        raise UnsupportedError(_rank_message(place, "as its name says"))


def _named_by(index: Path) -> set[str]:
    """Return the files that an index names, none if it is no index."""
    try:
        mapping = read_object(index).get("weight_map")
    except (WarmkitError, OSError):
        return set()  # who reads it says what is wrong
    return {name for name in mapping.values() if isinstance(name, str)} if isinstance(mapping, dict) else set()


def _highest(form: re.Pattern[str], name: str) -> int:
    """Return the highest number in what is found of a form, 0 where there is none."""
    return max((int(each) for found in form.finditer(name) for each in found.groups() if each), default=0)


def _other_rank(file: Path) -> str | None:
    """Return the part of another rank: a file of the same form beside it, or beside its folder (Megatron's `mp_rank_00`)."""
    if _RANK.search(file.name) or _WORLD.search(file.name):
        return _alike(file.name, (each.name for each in file.parent.iterdir()))
    home = file.absolute().parent
    return _alike(home.name, (each.name for each in home.parent.iterdir())) if _RANK.search(home.name) else None


def _alike(name: str, others: Iterable[str]) -> str | None:
    """Return a name that differs in its numbers alone."""
    form = re.sub(r"\d+", "#", name)
    return next((each for each in sorted(others) if each != name and re.sub(r"\d+", "#", each) == form), None)


def _rank_message(place: object, how: str) -> str:
    return f"{place}: one rank's part of a model, {how}; put the parts together first, with a tool of what wrote them"
