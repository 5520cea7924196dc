"""Origins of a run: what the checkpoints held that it started from, or learned from, when it began.

A run that goes on from other weights would be a mixture of two. Contents are compared, not places or times, so that another
machine may go on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from warmkit.common.json_files import dump_json
from warmkit.common.records import dict_of, having, is_text, list_of, read_record
from warmkit.common.whole_files import write_whole
from warmkit.engine.contents import CONTENTS, Contents, changes, contents
from warmkit.errors import ChangedError, CheckpointError, OutputError
from warmkit.training.run_identity import RunIdentity

IDENTITY, ORIGINS = "identity.yaml", "origins.json"
UNKNOWN = (
    "an older warmkit began this run, without a record of what its checkpoints held: they were taken as they are now, and are "
    "compared from here on"
)
CURE = "put back what it began with, choose another output.path, or delete it and start again with --force"
_FORM = {"checkpoints": dict_of(having(keys=list_of(is_text), files=CONTENTS))}
Origins = Mapping[str, Contents]
"""What checkpoints hold, by their sources."""


def recorded_origins(run: Path) -> Origins | None:
    """Return what a run began with; None where an older version began it.

    Raises:
        FormatError: If the record is of another form.
    """
    if not (run / ORIGINS).exists():
        return None
    found = read_record(run / ORIGINS, _FORM, f"put it back, or delete {run} and start again")
    return {source: each["files"] for source, each in found["checkpoints"].items()}


def write_origins(run: Path, sources: Mapping[str, Sequence[str]], found: Origins) -> None:
    content = {source: {"keys": [*keys], "files": found[source]} for source, keys in sources.items() if source in found}
    write_whole(run / ORIGINS, dump_json({"checkpoints": content}))


def origins_now(sources: Mapping[str, Sequence[str]], known: Origins, done: bool) -> Origins:
    """Return what checkpoints hold now.

    Args:
        sources: Which.
        known: What they held when the run began.
        done: Whether the run is done: then it needs none of them, and what is gone counts as it was.

    Raises:
        CheckpointError: If one cannot be opened.
    """
    found = dict(known)
    for source in sources:
        with contextlib.suppress(*((CheckpointError,) if done else ())):
            found[source] = contents(source, known.get(source))
    return found


def check_same(run: Path, identity: RunIdentity, cure: str = CURE, free: Collection[str] = ()) -> Origins | None:
    """Check that a run which has begun is the same as one that is wanted.

    Args:
        run: Its directory.
        identity: Of the one that is wanted.
        cure: What to do where it is not.
        free: Sections of the recipe that may be others.

    Returns:
        What it starts from, as it lies there now; None where an older version began it, and nothing is known.

    Raises:
        ChangedError: If what it began with is another now.
        CheckpointError: If a checkpoint that it needs cannot be opened.
        OutputError: If it is a run of another recipe or of other data.
    """
    if not (run / IDENTITY).exists() or not _same_text((run / IDENTITY).read_bytes(), identity.text, free):
        raise OutputError(f"{run}: holds a run of another recipe or of other data; {cure}")
    if (known := recorded_origins(run)) is None:
        return None
    now = origins_now(identity.sources, known, (run / "summary.json").exists())
    for source, keys in identity.sources.items():
        if source in known and (found := changes(known[source], now[source])):
            raise _another(run, source, keys, found, cure)
    return now


def _same_text(before: bytes, now: str, free: Collection[str]) -> bool:
    if before == now.encode():
        return True
    try:
        (one, data), (other, of) = _parts(before.decode()), _parts(now)
    except (ValueError, AttributeError, RecursionError, yaml.YAMLError):
        return False
    return data == of and all(one.get(key) == other.get(key) for key in {*one, *other} - set(free))


def _parts(text: str) -> tuple[dict[str, Any], str]:
    """Return the recipe of an identity, and its last line, the digest of the data."""
    return yaml.safe_load(text), text.splitlines()[-1]


def _another(run: Path, source: str, keys: Sequence[str], found: Sequence[str], cure: str) -> ChangedError:
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return ChangedError(
        f"{run}: holds a run that began with another {', '.join(keys)}: in {source}, {found[0]}{more}. Going on would mix the "
        f"two: {cure}"
    )
