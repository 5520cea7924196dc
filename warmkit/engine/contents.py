"""Contents of a checkpoint: the digests of all files that it is read from, the same on every machine.

A record of them, `FOLDER.digests.json` beside a model's folder, says later whether that is still what was left there. It also
holds what the file system said of each file, so that a digest is taken again only of a file that was touched, or moved here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import xxhash

from warmkit.common.json_files import dump_json
from warmkit.common.records import Form, dict_of, either, having, is_natural, is_text, list_of, read_record
from warmkit.common.whole_files import write_whole
from warmkit.engine.digests import file_digest
from warmkit.errors import ChangedError, CheckpointError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.layouts.companions import small_files
from warmkit.layouts.opening import open_checkpoint
from warmkit.sources.file_identity import identity

DIGEST, SEEN, REVISION = "xxh3-128", "seen", "revision"
Contents: TypeAlias = Mapping[str, Mapping[str, Any]]
"""By the name of a file: its digest, and its identity when that was taken. By that of a Hub repository: its revision."""
CONTENTS: Form = dict_of(either(having(**{DIGEST: is_text, SEEN: list_of(is_natural)}), having(**{REVISION: is_text})))

_COMMIT = re.compile(r"[0-9a-f]{40}")


def contents(source: str, known: Contents | None = None) -> Contents:
    """Return what a checkpoint holds: weights, config, tokenizer, chat template, and those of its adapters.

    A Hub repository has its revision instead. A file that is still the one in `known` is not hashed again.

    Args:
        source: As for `open_checkpoint`.
        known: What it held before.

    Raises:
        CheckpointError: If it cannot be opened.
    """
    checkpoint = open_checkpoint(source, allow_pickle=os.path.exists(os.path.expanduser(source)))  # noqa: PTH110, PTH111
    try:
        return dict(_content(name, file, known or {}) for name, file in _files(checkpoint))
    except OSError as error:
        raise CheckpointError(f"{error.filename or source}: cannot be read: {error.strerror}") from None


def _files(checkpoint: Checkpoint) -> Iterator[tuple[str, Path]]:
    """Yield the files of a checkpoint by names that say nothing of where its directories lie."""
    homes = [checkpoint.path, *checkpoint.adapters] if checkpoint.directory else []
    small = [file for home in homes for file in small_files(home)]
    for file in dict.fromkeys((*checkpoint.files, *small)):
        assert isinstance(file, Path), "what is trained is no stream"
        holds = [place for place, home in enumerate(homes) if file.is_relative_to(home)]
        inner = file.relative_to(homes[holds[-1]]).as_posix() if holds else file.name
        yield f"adapter {holds[-1]}: {inner}" if holds and holds[-1] else inner, file


def _content(name: str, file: Path, known: Contents) -> tuple[str, Mapping[str, Any]]:
    if (version := _version(file)) is not None:
        return version[0], {REVISION: version[1]}
    before, seen = known.get(name, {}), list(identity(file) or ())
    return name, before if before.get(SEEN) == seen else {DIGEST: file_digest(file), SEEN: seen}


def _version(file: Path) -> tuple[str, str] | None:
    """Return repository and commit of a file in the Hub's cache, `models--OWNER--NAME/snapshots/COMMIT/...`."""
    for folder in file.parents:
        if folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name):
            return folder.parent.parent.name.removeprefix("models--").replace("--", "/"), folder.name
    return None


def changes(before: Contents, now: Contents) -> list[str]:
    """Say what is not as it was, a file each: what was expected, and what was found."""
    return [
        _change(name, before.get(name), now.get(name))
        for name in dict.fromkeys((*before, *now))
        if _told(before.get(name)) != _told(now.get(name))
    ]


def _change(name: str, before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    if before is None or now is None:
        return f"{name} {'is new' if before is None else 'is gone'}"
    return f"{name} has another content ({_told(before)} expected, {_told(now)} found)"


def _told(content: Mapping[str, Any] | None) -> str | None:
    if content is None:
        return None
    return f"{DIGEST} {content[DIGEST]}" if DIGEST in content else f"{REVISION} {content[REVISION]}"


def digest_of(found: Contents) -> str:
    """Return one digest of everything that a checkpoint holds."""
    return xxhash.xxh3_64_hexdigest("\n".join(f"{name} {_told(found[name])}" for name in sorted(found)).encode())


# ---- what was left in a folder ---------------------------------------------------------------------------------------


def record_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.digests.json")


def write_contents(folder: Path) -> None:
    """Record what a model's folder holds, now that it is finished."""
    write_whole(record_of(folder), dump_json({"files": contents(str(folder))}))


def recorded_contents(folder: Path) -> Contents | None:
    """Return what a folder held when it was finished; None where an older version left it.

    Raises:
        FormatError: If the record is of another form.
    """
    file = record_of(folder)
    if not file.exists():
        return None
    return read_record(file, {"files": CONTENTS}, "put it back, or delete it: the folder is then taken as it is")["files"]


def check_contents(folder: Path) -> bool:
    """Check that a finished model is still what was left in its folder; say whether that is known.

    Raises:
        ChangedError: Naming what is not.
        FormatError: If the record is of another form.
    """
    if (known := recorded_contents(folder)) is None:
        return False
    try:
        found = changes(known, contents(str(folder), known))
    except ChangedError:
        raise
    except CheckpointError as error:
        found = [str(error)]
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise ChangedError(
            f"{folder}: was changed after it was finished: {found[0]}{more}. Put back what was there, or delete "
            f"{record_of(folder)} if the change is meant"
        )
    return True
