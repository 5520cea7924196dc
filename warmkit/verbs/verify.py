"""Read a result again and check it against its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.common.addresses import shown
from warmkit.common.display import Displayed
from warmkit.common.progress import Advance, progress
from warmkit.common.units import size
from warmkit.engine.devices import cores
from warmkit.engine.digests import BLOCK, block_digests, file_digest, tensor_digest
from warmkit.engine.manifest import MANIFEST, read_manifest
from warmkit.engine.merge_options import PathLike
from warmkit.engine.recode import is_coded
from warmkit.engine.replaceable import parts_of
from warmkit.errors import CheckpointError, FormatError, VerificationError, listed
from warmkit.formats.tensors import Tensor
from warmkit.layouts.opening import open_checkpoint
from warmkit.sources.files import Files


@dataclass(frozen=True, repr=False)
class VerifyReport(Displayed):
    """Report of a check that found everything as it was written; `verify` raises where something is not.

    Attributes:
        tensors: How many were read.
        files: How many were read.
        nbytes: Bytes of the files.
    """

    tensors: int
    files: int
    nbytes: int

    def _facts(self) -> Mapping[str, object]:
        return {"tensors": self.tensors, "files": self.files, "size": size(self.nbytes)}


def verify(output: PathLike, *, threads: int | None = None, advance: Advance | bool | None = None) -> VerifyReport:
    """Verify a result on disk, or every one of a sweep: read every tensor and file, and compare them with the manifest.

    Args:
        output: A directory that warmkit wrote.
        threads: Worker threads; by default one per core.
        advance: Called with the bytes read since the last call and the total; True draws a bar, False none; by default there
            is one in a notebook.

    Raises:
        CheckpointError: If `output` is no directory.
        FormatError: If it was not written by warmkit.
        VerificationError: Listing what is missing, altered or extra.
    """
    output = Path(output)
    if not output.is_dir():
        found = "a file" if output.exists() else "nothing"
        raise CheckpointError(f"{output}: expected a directory that warmkit wrote, found {found}")
    parts = parts_of(output)
    folders = [output] if (output / MANIFEST).is_file() or not parts else parts
    manifests = {folder: read_manifest(folder) for folder in folders}
    total = sum(record["bytes"] for manifest in manifests.values() for record in manifest["files"].values())
    problems: list[str] = []
    tensors = files = 0
    with progress(advance, "verifying") as report:
        for folder, manifest in manifests.items():
            problems += _check_files(folder, manifest)
            problems += _check_tensors(folder, manifest, threads or cores(), lambda size: report(size, total))
            tensors += len(manifest["tensors"])
            files += len(manifest["files"])
    if problems:
        raise VerificationError(f"{output} is not what was written:\n{listed(problems)}")
    return VerifyReport(tensors, files, total)


def _check_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    recorded = manifest["files"]
    found = {shown(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    present = found.keys() - {MANIFEST}
    problems = [f"{folder / name}: missing" for name in sorted(recorded.keys() - present)]
    problems += [f"{folder / name}: not in the manifest" for name in sorted(present - recorded.keys())]
    for name in sorted(present & recorded.keys()):
        path, record = found[name], recorded[name]
        if path.stat().st_size != record["bytes"]:
            problems.append(f"{path}: {path.stat().st_size:,} bytes, {record['bytes']:,} were written")
            continue
        algorithms = (algorithm for algorithm in ("xxh3-128", "sha256") if algorithm in record)
        problems += [f"{path}: altered ({name})" for name in algorithms if file_digest(path, name) != record[name]]
    return problems


def _check_tensors(folder: Path, manifest: dict[str, Any], threads: int, report: Any) -> list[str]:
    try:
        entries = _written(folder, manifest)
    except (CheckpointError, FormatError) as error:
        return [str(error)]
    recorded = manifest["tensors"]
    problems = [f"tensor {name!r}: missing" for name in sorted(recorded.keys() - entries.keys())]
    problems += [f"tensor {name!r}: not in the manifest" for name in sorted(entries.keys() - recorded.keys())]
    again = "requantised" in (manifest.get("container") or {})  # the digests of files alone tell of codes
    both = [name for name in sorted(recorded.keys() & entries.keys()) if not (again and is_coded(entries[name]))]
    with ThreadPoolExecutor(threads) as pool:
        digests = pool.map(lambda name: _digest(entries[name], report), both)
        problems += [
            f"{entries[name].file}: tensor {name!r} was altered"
            for name, digest in zip(both, digests)
            if digest != recorded[name]["output"]
        ]
    return problems


def _written(folder: Path, manifest: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of an output; of the files of a trainer, those that were merged: the others are tied to them."""
    container = manifest.get("container")
    if container is None:
        return open_checkpoint(folder).entries
    where, state_dict = folder / container["path"], container.get("state_dict")
    entries = open_checkpoint(where, allow_pickle=True, state_dict=state_dict).entries
    return {name: each for name, each in entries.items() if name in manifest["tensors"]}


def _digest(entry: Tensor, report: Any) -> str:
    size = entry.dtype.itemsize
    buffer, digests = bytearray(min(BLOCK * size, entry.nbytes)), list[bytes]()
    with Files() as files:
        for start in range(0, entry.elements, BLOCK):
            view = memoryview(buffer)[: size * min(BLOCK, entry.elements - start)]
            entry.read(files, start, view)
            digests += block_digests(view, entry.dtype.itemsize)
            report(view.nbytes)
    return tensor_digest(digests)
