"""The files beside the weights: copied from one checkpoint, edited only where the merge makes them untrue."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from warmkit.common.json_files import dump_json, read_object
from warmkit.errors import FormatError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.dtypes import DType
from warmkit.sources.beside import files_of, modules_of
from warmkit.sources.model_index import stays_inside
from warmkit.sources.small_files import DROPPED, KEPT, TOKENIZER_FILES


def companion_donor(checkpoints: Sequence[Checkpoint]) -> tuple[Checkpoint, list[str]]:
    """Return the first checkpoint, or, where that is a directory without a config (FSDP's shards), the first that has one.

    Returns:
        The donor, and a note where it is not the first.
    """
    first = checkpoints[0]
    found = first.directory is None or bool(first.config)
    donor = first if found else next((each for each in checkpoints if each.config), first)
    companion_files(donor)  # what is wrong with them is said before a weight is read
    notes = (
        [f"{first.source} has no config.json; config and tokenizer are those of {donor.source}"] if donor is not first else []
    )
    return donor, notes


def companion_files(donor: Checkpoint) -> list[Path]:
    """Return the files to copy, relative to the donor's directory, sorted.

    An adapter's tokenizer, which is elsewhere, is only checked: `copy_companions` takes it.

    Raises:
        FormatError: If one is a link that leaves its directory.
    """
    home = donor.directory
    if home is None:
        return []
    found = small_files(home)
    for path in found:
        refuse_link_out(path, home)
    for path in own_tokenizer(donor):
        refuse_link_out(path, path.parent)
    return [path.relative_to(home) for path in found]


def small_files(home: Path) -> list[Path]:
    """Return the files of a model directory that are no weights, and belong to it, sorted.

    Config, tokenizer, chat template, remote code and licence; sub-folders one deep (sentence-transformers' `1_Pooling`,
    `additional_chat_templates`) where they hold nothing but such files, and the folders of its modules.
    """
    top = [path for path in home.iterdir() if path.is_file() and _kept(path)]
    nested = [path for folder in home.iterdir() if folder.is_dir() and _plain(folder) for path in folder.iterdir()]
    inner = [path for path in (home / name for name in files_of(home, modules_of(home))) if _kept(path)]
    return sorted({*top, *nested, *inner})


def own_tokenizer(checkpoint: Checkpoint) -> list[Path]:
    """Return the files of a tokenizer that an adapter brought; none where the tokenizer lies in the checkpoint's directory."""
    home = checkpoint.tokenizer_home
    return [] if home is None or home == checkpoint.directory else [home / name for name in TOKENIZER_FILES]


def refuse_link_out(path: Path, home: Path) -> None:
    """Refuse a small file of a model that is a link to somewhere else: whatever lies there would be copied and published.

    Raises:
        FormatError: Naming the link.
    """
    if not stays_inside(path, home):
        raise FormatError(
            f"{path}: is a link that leaves the directory of its model, so it is not copied; put the file itself there"
        )


def _kept(path: Path) -> bool:
    if path.name in DROPPED or path.name.startswith(".") or path.name.endswith(".index.json"):
        return False
    return path.suffix in KEPT or path.name.upper().startswith(("LICENSE", "NOTICE"))


def _plain(folder: Path) -> bool:
    files = list(folder.iterdir())
    return bool(files) and not folder.name.startswith(".") and all(path.is_file() and _kept(path) for path in files)


def copy_companions(donor: Checkpoint, files: list[Path], target: Path, dtype: DType | None) -> None:
    """Copy the donor's companions byte for byte; `config.json` changes only if the merge changes the type, layers or head."""
    home = donor.directory
    if home is None:
        return
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(home / file, target / file)
    if own_tokenizer(donor) and donor.tokenizer_home is not None:
        copy_tokenizer(donor.tokenizer_home, target)
    edited, stored = dict(donor.config), home / "config.json"
    if dtype is not None and edited:
        keys = [key for key in ("dtype", "torch_dtype") if key in edited] or ["torch_dtype"]
        edited |= dict.fromkeys(keys, dtype.torch_name)
    if edited and edited != read_object(stored):
        (target / "config.json").write_bytes(dump_json(edited))


def copy_tokenizer(home: Path, target: Path) -> None:
    """Put the tokenizer of `home` into `target`, in place of the one that is there."""
    for name in TOKENIZER_FILES:
        (target / name).unlink(missing_ok=True)
        if (home / name).is_file():
            shutil.copyfile(home / name, target / name)
