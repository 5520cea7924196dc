"""Rank files of FSDP runs, as verl and SkyRL save them: every rank's part of every tensor, in a torch file of its own.

    DIR/model_world_size_4_rank_0.pt, ...   state dicts of DTensors
    DIR/huggingface/                        config and tokenizer
    DIR/fsdp_config.json                    how many ranks there were
    DIR/lora_train_meta.json                rank and alpha, where adapters are trained

DIR is `global_step_40/actor` with verl, `global_step_40/policy` with SkyRL; the folder above it can be given as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warmkit.common.json_files import read_object
from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.dtensors import DTENSOR_NAMES, PartOfTensor
from warmkit.formats.peft_names import halves
from warmkit.formats.rank_parts import Parts, Saved, gathered, mesh_of
from warmkit.formats.rank_steps import check_steps
from warmkit.formats.state_dicts import plain_names
from warmkit.formats.torch_zip import TorchTensor, read_torch_zip

RANK_FILE = re.compile(r"model_world_size_(?P<world>\d+)_rank_(?P<rank>0|[1-9]\d*)\.pt")
POLICIES, CRITIC = ("actor", "policy"), "critic"
CONFIG, SMALL_FILES = "fsdp_config.json", "huggingface"


def files_at(path: Path) -> list[str]:
    """Return the names of the rank files at a path; a lone file that is named as one counts."""
    if not path.is_dir():
        return [path.name] if RANK_FILE.fullmatch(path.name) else []
    home = _home(path)
    return [] if home is None else [str(each.relative_to(path)) for each in _rank_files(home).values()]


def open_model(source: str, path: Path) -> Checkpoint:
    """Open the rank files of one save; torch is not needed.

    Raises:
        CheckpointError: If ranks are missing, are of two saves or meshes, or do not cover every tensor once.
    """
    home = _home(path) if path.is_dir() else _home_of_one(path)
    if home is None or (home.name == CRITIC and home != path):
        raise UnsupportedError(f"{path}: holds rank files of a critic alone, no policy; give {path / CRITIC}")
    files = _every_rank(home)
    check_steps(files)
    trees = [_state_dict(file) for file in files]
    for file, tree in zip(files[1:], trees[1:]):
        if odd := set(tree) ^ set(trees[0]):
            raise FormatError(f"{file}: tensor {min(odd)!r} is here or in {files[0].name}, not in both; files of two saves")
    mesh = mesh_of(files, trees)
    parts = {name: [(file, tree[name]) for file, tree in zip(files, trees)] for name in trees[0]}
    names, notes = plain_names(parts, str(home))
    both = halves(names.values(), str(home))
    base, adapter = (both.base, both.adapter) if both else ({name: name for name in names.values()}, dict[str, str]())
    if not base:
        raise UnsupportedError(
            f"{home}: rank files of an adapter alone (save_lora_only), without its base; save it with peft's save_pretrained, "
            "and give BASE+ADAPTER"
        )
    saved = {plain: parts[name] for name, plain in names.items()}
    found = {short: gathered(short, saved[name], mesh) for name, short in base.items()}
    return Checkpoint(
        source,
        home / SMALL_FILES if (home / SMALL_FILES / "config.json").is_file() else path,
        {short: tensor for short, (tensor, _) in found.items()},
        tuple(files),
        notes=(*notes, *_left_aside(path, home)),
        tied=_tied({short: saved[name] for name, short in base.items()}),
        replicas={short: copies for short, (_, copies) in found.items()},
        adapter_parts={short: gathered(short, saved[name], mesh)[0] for name, short in adapter.items()},
    )


def _left_aside(path: Path, home: Path) -> list[str]:
    """Say what else lies there: a critic beside the policy, the whole model in the folder of the config."""
    notes = list[str]()
    if home != path and (path / CRITIC).is_dir():
        notes.append(f"{path}: read {home.name}, left aside {CRITIC}")
    whole = sorted((home / SMALL_FILES).glob("*.safetensors")) if (home / SMALL_FILES).is_dir() else []
    if whole:
        notes.append(
            f"{home}: read the rank files, left aside {SMALL_FILES}/{whole[0].name}; give {home / SMALL_FILES} for those"
        )
    return notes


def _tied(saved: Mapping[str, Parts]) -> dict[str, str]:
    """Return which names are, on every rank, the same part in the same place as an earlier name: tied weights."""
    first: dict[tuple[TorchTensor, ...], str] = {}
    found = {
        name: tuple(each.local if isinstance(each, PartOfTensor) else each for _, each in parts)
        for name, parts in saved.items()
    }
    return {name: kept for name, where in found.items() if (kept := first.setdefault(where, name)) != name}


# ---- files ---------------------------------------------------------------------------------------------------------------


def _home(path: Path) -> Path | None:
    """Return where the rank files lie: in a directory itself, or in the folder of the policy, the critic last."""
    places = [path, *(path / name for name in (*POLICIES, CRITIC))]
    return next((each for each in places if each.is_dir() and _rank_files(each)), None)


def _home_of_one(file: Path) -> Path:
    """Return the directory of a lone rank file that is all there is.

    Raises:
        UnsupportedError: If there are others.
    """
    match = RANK_FILE.fullmatch(file.name)
    if match is None or int(match["world"]) != 1:
        raise UnsupportedError(f"{file}: one rank's part of a model, as its name says; give its folder, {file.parent}")
    return file.parent


def _rank_files(home: Path) -> dict[tuple[int, int], Path]:
    """Return the rank files of a directory by world and rank, in their order."""
    found = {}
    for each in home.iterdir():
        if match := RANK_FILE.fullmatch(each.name):
            found[int(match["world"]), int(match["rank"])] = each
    return dict(sorted(found.items()))


def _every_rank(home: Path) -> list[Path]:
    """Return the files of all ranks, in their order.

    Raises:
        FormatError: If one is missing, or files are of two worlds.
    """
    found = _rank_files(home)
    worlds = sorted({world for world, _ in found})
    if len(worlds) > 1:
        raise FormatError(f"{home}: holds rank files of {' and '.join(map(str, worlds))} ranks, two saves; keep one of them")
    (world,), ranks = worlds, [rank for _, rank in found]
    config = read_object(home / CONFIG) if (home / CONFIG).is_file() else {}
    if (said := config.get("world_size", world)) != world:
        raise FormatError(f"{home}: its rank files are of {world} ranks, {CONFIG} says {str(said)[:40]}; files of two saves")
    if ranks[-1] >= world:
        raise FormatError(f"{home}: holds rank {ranks[-1]} of {world} ranks, which there cannot be; files of two saves")
    missing = next((place for place, rank in enumerate([*ranks, world]) if place != rank), None)
    if missing is not None:
        raise FormatError(
            f"{home}: rank {missing} of {world} is missing (model_world_size_{world}_rank_{missing}.pt); copy the files of all "
            "ranks, or use a checkpoint whose save was finished"
        )
    return list(found.values())


def _state_dict(file: Path) -> Mapping[str, Saved]:
    tree: Any = read_torch_zip(file, more=DTENSOR_NAMES)
    if not isinstance(tree, Mapping) or not tree:
        raise FormatError(
            f"{file}: expected a state dict of tensors, found {'an empty one' if tree == {} else type(tree).__name__}"
        )
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, TorchTensor | PartOfTensor):
            kind = type(value).__name__
            raise FormatError(f"{file}: expected a state dict of tensors, found a {kind} under {str(name)[:60]!r}")
    return tree
