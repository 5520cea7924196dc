"""Directories that --force may replace: checkpoints, and nothing that one does not consist of."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

from warmkit.errors import OutputError
from warmkit.merging.schedules import MANUAL, SCHEDULES

MANIFEST = "warmkit.json"
_PART = re.compile(f"eta-.+|({'|'.join((*SCHEDULES, MANUAL))})(-[0-9]+)?")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "*.bin.index.json", "adapter_model.bin")
SMALL = (
    *("*config.json", "config_*.json", "config.*.json", "modules.json", "*.jinja", "chat_template.json", "chat_template.txt"),
    *("*token*.json", "vocab.*", "merges.txt", "*.model", "*.tiktoken", "*.spm", "*.bpe", "normalizer.json"),
    *("configuration_*.py", "modeling_*.py", "modular_*.py", "tokenization_*.py", "processing_*.py", "image_processing_*.py"),
    *("README.md", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*", ".gitattributes", "training_args.bin", MANIFEST),
)


def is_part(name: str) -> bool:
    """Say whether a folder is called as one of several results of one reading.

    Examples:
        >>> [is_part(name) for name in ("eta-0.3", "minus-sqrt-5", "ema", "uniform-mine")]
        [True, True, True, False]
    """
    return _PART.fullmatch(name) is not None


def parts_of(output: Path) -> list[Path]:
    """Return the results that one reading wrote into a directory: of several etas, or schedules and windows."""
    return sorted(child for child in output.iterdir() if is_part(child.name) and (child / MANIFEST).is_file())


def check_replaceable(directory: Path) -> None:
    """Check that a directory is a checkpoint, a sweep of them, or empty, with nothing else in it.

    Raises:
        OutputError: Naming what is not of a checkpoint.
    """
    if directory.is_symlink():
        raise OutputError(f"{directory}: is a link, which --force does not replace; give the place that it leads to")
    if not directory.is_dir():
        raise OutputError(f"{directory}: --force replaces checkpoints, and this is something else")
    children = sorted(directory.iterdir())
    if children and all(_is_folder(child) and is_part(child.name) for child in children):
        for child in children:
            _check(child)
    else:
        _check(directory)


def _check(directory: Path) -> None:
    foreign = _foreign(directory, "", _written_by_us(directory))
    if foreign is not None:
        raise OutputError(
            f"{directory / foreign}: is not part of a checkpoint, and --force would delete it; move it, or choose another -o"
        )
    files = [child.name for child in directory.iterdir()]
    if files and not any(_like(name, WEIGHTS) or name == MANIFEST for name in files):
        raise OutputError(f"{directory}: --force replaces checkpoints, and this is something else: it holds no weights")


def _foreign(directory: Path, within: str, ours: frozenset[str]) -> str | None:
    """Return the first name that no checkpoint has; folders of modules and templates lie one deep."""
    for child in sorted(directory.iterdir()):
        name = within + child.name
        if _is_folder(child) and (not within or any(each.startswith(f"{name}/") for each in ours)):
            if (found := _foreign(child, f"{name}/", ours)) is not None or not any(child.iterdir()):
                return found or name
        elif not child.is_file() or not (name in ours or _like(child.name, (*WEIGHTS, *SMALL))):
            return name
    return None


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _like(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _written_by_us(directory: Path) -> frozenset[str]:
    """Return the files that a manifest says were written."""
    try:
        files = json.loads((directory / MANIFEST).read_bytes())["files"]
        return frozenset(map(str, files))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return frozenset()
