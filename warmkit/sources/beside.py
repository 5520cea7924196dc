"""Weights beside the model's own file or shards: merged under their file where they belong to it, named where they do not.

A value head of its own (`value_head.safetensors`) and the modules that sentence-transformers lists in `modules.json`
(`2_Dense/model.safetensors`) are half of what they lie beside. Their tensors are called `FILE:NAME` in a checkpoint.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from warmkit.common.json_files import parse_json
from warmkit.errors import FormatError, UnsupportedError

MODULES = "modules.json"
VALUE_HEAD = "value_head.safetensors"  # a server lists nothing, so it is asked for by name
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# Other forms of the same weights, and shards that no index names.
_OTHER_FORMS = (
    *("adapter_model*.safetensors", "consolidated*.safetensors", "consolidated*.pth", "model.*.safetensors", "*.gguf"),
    *("model-*-of-*.safetensors", "pytorch_model*.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "model.onnx"),
    "shard-*-model-*-of-*.safetensors",
)
# What a trainer leaves, which describes the run.
_OF_A_RUN = (
    *("training_args*", "optimizer*", "scheduler*", "scaler*", "rng_state*", "random_states*", "*optim_states*"),
    *("*model_states.pt", "optim_world_size_*", "extra_state_world_size_*", "data.pt"),
)
_HOME = re.compile(r"(?P<file>.+\.safetensors):(?P<name>.*)", re.DOTALL)


@dataclass(frozen=True)
class Beside:
    """What lies beside the weights of a model directory.

    Attributes:
        files: Weights that belong to the model, relative to the directory, sorted.
        aside: Weights that take no part.
    """

    files: tuple[str, ...]
    aside: tuple[str, ...]

    def notes(self, source: str) -> list[str]:
        """Say what takes no part."""
        if not self.aside:
            return []
        more = f" and {len(self.aside) - 4} more" if len(self.aside) > 4 else ""
        return [f"{source}: {', '.join(self.aside[:4])}{more} beside the weights: left aside, not merged and not copied"]


def weights_beside(names: Iterable[str], main: Collection[str], modules: Collection[str], source: str) -> Beside:
    """Sort the files of a model directory.

    Args:
        names: All of them, relative, with slashes.
        main: The model's own weights.
        modules: Folders that `modules.json` names.
        source: The directory, for messages.

    Raises:
        UnsupportedError: If weights that belong to the model are a pickle.
    """
    files, aside = list[str](), list[str]()
    for name in sorted(set(names) - set(main)):
        path = PurePosixPath(name)
        of_module = any(path.is_relative_to(folder) for folder in modules)
        if (len(path.parts) > 1 and not of_module) or any(fnmatch.fnmatch(path.name, each) for each in _OF_A_RUN):
            continue
        if len(path.parts) == 1 and any(fnmatch.fnmatch(name, each) for each in _OTHER_FORMS):
            aside.append(name)
        elif path.suffix == ".safetensors":
            files.append(name)
        elif path.suffix in _PICKLES and (of_module or is_head(name)):
            if _saved_twice(path, names):
                continue
            raise UnsupportedError(
                f"{source}: {name} holds weights of the model and is a pickle, which is not read beside others; save it as "
                f"{path.with_suffix('.safetensors').name if not of_module else 'model.safetensors'} there, or take it away"
            )
        elif path.suffix in _PICKLES:
            aside.append(name)
    return Beside(tuple(files), tuple(aside))


def _saved_twice(path: PurePosixPath, names: Iterable[str]) -> bool:
    """Say whether a pickle lies beside the same weights as safetensors."""
    same = path.with_suffix(".safetensors") if len(path.parts) == 1 else path.parent / "model.safetensors"
    return str(same) in set(names)


def module_folders(content: Any, place: object) -> list[str]:
    """Return the folders that `modules.json` names, without the model's own.

    Raises:
        FormatError: If it is malformed, or leads out of the model.
    """
    rows: list[Any] = content if isinstance(content, list) else [None]
    if not all(isinstance(row, dict) and isinstance(row.get("path"), str) for row in rows):
        raise FormatError(f"{place}: expected a list of modules, each with its path")
    folders = [row["path"] for row in rows if row["path"]]
    for folder in folders:
        if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts or "\\" in folder or ":" in folder:
            raise FormatError(f"{place}: points outside its directory: {folder!r}")
    return folders


def is_head(name: str) -> bool:
    """Say whether a file of weights is that of a head, which is no model alone."""
    return "head" in name


def modules_of(directory: Path) -> list[str]:
    """Return the folders that the `modules.json` of a directory names; none without one."""
    path = directory / MODULES
    return module_folders(parse_json(path.read_bytes(), path), path) if path.is_file() else []


def files_of(directory: Path, modules: Iterable[str]) -> list[str]:
    """Return the files of a directory and of its modules, relative, with slashes."""
    inner = (path for folder in modules if (directory / folder).is_dir() for path in (directory / folder).rglob("*"))
    return [path.relative_to(directory).as_posix() for path in (*directory.iterdir(), *inner) if path.is_file()]


def full_name(file: str, name: str) -> str:
    """Return what a tensor of a file beside the weights is called."""
    return f"{file}:{name}"


def split_name(name: str) -> tuple[str | None, str]:
    """Return the file beside the weights that a tensor lies in, None for the model's own, and its name there."""
    match = _HOME.fullmatch(name)
    return (match["file"], match["name"]) if match else (None, name)
