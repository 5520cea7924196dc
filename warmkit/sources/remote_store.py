"""Models in an object store, or anywhere else that fsspec reads."""

from __future__ import annotations

from pathlib import PurePosixPath

from warmkit.errors import CheckpointError
from warmkit.sources.beside import modules_of, weights_beside
from warmkit.sources.fsspec_file import FsspecFile, Store
from warmkit.sources.remote import Remote, check_single, choose, is_plain, read_mapping, save, several, temporary_folder
from warmkit.sources.small_files import KEPT
from warmkit.sources.weight_names import SINGLE


def open_store(url: str) -> Remote:
    """Open a model folder, or one `.safetensors` file, at an address that fsspec reads.

    Raises:
        CheckpointError: If it is not there, or it is not clear which files are its weights.
    """
    store = Store(url)
    folder, names = temporary_folder(store), list(filter(is_plain, store.names()))
    if names == [""]:
        if not store.path.endswith(".safetensors"):
            raise CheckpointError(f"{store.place}: expected a folder or a .safetensors file")
        return Remote(store.place, folder / PurePosixPath(store.path).name, [FsspecFile(store, "")], None)
    weights, index = choose(names, store.place)
    companions = [name for name in names if name.endswith(KEPT) or name.upper().startswith(("LICENSE", "NOTICE"))]
    save(folder, dict(zip(companions, several(store.small_file, companions))))
    mapping = read_mapping((folder / index).read_bytes(), f"{store.place}/{index}") if index else None
    check_single(names, mapping or {SINGLE: SINGLE}, store.place)
    files = several(lambda name: FsspecFile(store, name), sorted(set(mapping.values())) if mapping else weights)
    beside = weights_beside(names, [file.name for file in files], modules_of(folder), store.place)
    others = several(lambda name: FsspecFile(store, name), beside.files)
    return Remote(store.place, folder, [*files], mapping, beside, [*others])
