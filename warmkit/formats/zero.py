"""Directories of DeepSpeed's ZeRO, stages 1 to 3: float32 weights out of the flat partitions of every rank's optimizer.

`DIR/latest` names the newest step. `DIR/global_step500` holds `mp_rank_00_model_states.pt` (names, shapes, what is not trained;
with stage 3 a file for every rank) and `zero_pp_rank_0_mp_rank_00_optim_states.pt`, ... (the weights, a part for every rank).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats import torch_model
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.zero_files import (
    ModelFile,
    OptimizerFile,
    Step,
    is_part,
    is_step,
    model_parallel,
    read_model,
    read_optimizer,
    step_at,
)
from warmkit.formats.zero_layout import tensors_of
from warmkit.sources.foreign_forms import GATHERER
from warmkit.sources.runs import step_of

LATEST = "latest"


def files_at(path: Path) -> list[str]:
    """Return the names of what at a path is a checkpoint of ZeRO, or a part of one."""
    if not path.is_dir():
        return [path.name] if is_part(path.name) else []
    if is_step(path):
        return sorted(each.name for each in path.iterdir() if each.name.endswith("_states.pt")) or [path.name]
    if torch_model.files_at(path):
        return []  # whole weights beside it
    named = (path / LATEST).is_file() and (path / GATHERER).is_file()
    return [LATEST] if named else [folder.name for folder in _steps(path)]


def open_model(source: str, path: Path) -> Checkpoint:
    """Open a checkpoint of ZeRO; neither DeepSpeed nor torch is needed.

    Raises:
        CheckpointError: If it is half-written, of two saves, or split in other ways than ZeRO's too.
    """
    if not path.is_dir():
        raise UnsupportedError(f"{path}: one rank's part of a model; give its folder with those of all ranks, {path.parent}")
    step = step_at(path if is_step(path) else _newest(path))
    models = {rank: read_model(file) for rank, file in sorted(step.models.items())}
    if not step.optimizers and all(each.groups is None for each in models.values()):
        return replace(torch_model.open_model(source, step.home), path=path)  # without ZeRO
    _refuse_missing(step, models)
    optimizers = [read_optimizer(file) for _, file in sorted(step.optimizers.items())]
    _check_ranks(optimizers)
    _check_models(step, list(models.values()), optimizers[0])
    entries, tied, notes, replicas = tensors_of(list(models.values()), optimizers)
    files = (*step.models.values(), *step.optimizers.values())
    return Checkpoint(source, path, entries, files, notes=tuple(notes), tied=tied, replicas=replicas)


def _steps(directory: Path) -> list[Path]:
    return sorted(each for each in directory.iterdir() if each.is_dir() and step_of(each.name) is not None and is_step(each))


def _newest(directory: Path) -> Path:
    """Return the folder that `latest` names, or the only one there is."""
    if not (directory / LATEST).is_file():
        steps = _steps(directory)
        if len(steps) > 1:
            names = ", ".join(each.name for each in steps[:4])
            raise FormatError(f"{directory}: {len(steps)} steps of a run ({names}), and no file {LATEST}; give one of them")
        return steps[0]
    name = (directory / LATEST).read_bytes()[:200].decode("utf-8", "replace").strip()
    if "/" in name or "\0" in name or name in ("", ".", ".."):
        raise FormatError(f"{directory / LATEST}: expected the name of a folder beside it, found {name!r}")
    if not (directory / name).is_dir():
        raise FormatError(f"{directory / LATEST}: names {name}, which is not there; give the folder of a step that is")
    return directory / name


# ---- are these the files of one save? --------------------------------------------------------------------------------


def _refuse_missing(step: Step, models: Mapping[int, ModelFile]) -> None:
    if not step.models:
        raise FormatError(f"{step.home}: no mp_rank_00_model_states.pt, which has the names of the weights; copy it again")
    if not step.optimizers:
        file = step.models[min(step.models)]
        whole = "" if file.name.startswith("zero_pp_") else f"; for the weights in the type of training give {file}"
        raise FormatError(
            f"{step.home}: no optimizer states (zero_pp_rank_0_mp_rank_00_optim_states.pt), which hold the float32 weights of "
            f"ZeRO{whole}"
        )
    if without := next((each.file for each in models.values() if each.groups is None), None):
        raise UnsupportedError(
            f"{without}: no shapes of parameters (param_shapes), as DeepSpeed saves bfloat16 without ZeRO; for the weights in "
            "the type of training give that file"
        )
    if parallel := next((each for each in models.values() if each.parallel > 1), None):
        raise model_parallel(parallel.file, f"one of {parallel.parallel} model-parallel ranks")


def _check_ranks(optimizers: Sequence[OptimizerFile]) -> None:
    """Refuse files of two saves, by what each says of itself."""
    first, world = optimizers[0], len(optimizers)
    for each in optimizers:
        for what, one, other in (
            ("ranks", max(first.ranks), max(each.ranks)),
            ("of stage", first.stage, each.stage),
            ("groups of parameters", len(first.flat), len(each.flat)),
            ("steps of the optimizer", first.step, each.step),
        ):
            if one != other and None not in (one, other):
                raise FormatError(f"{each.file}: says {other} {what}, {first.file.name} says {one}: files of two saves")
        if each.sharded != first.sharded or each.gaps != first.gaps:
            raise FormatError(f"{each.file}: lays its part out otherwise than {first.file.name}: files of two saves")
    if min(first.ranks) != max(first.ranks):
        raise UnsupportedError(f"{first.file}: groups over {sorted(set(first.ranks))} ranks, as of experts, which are not read")
    expected, there = max(first.ranks), {_rank(each.file) for each in optimizers}
    if missing := _missing(expected, there):
        raise FormatError(
            f"{first.file.parent}: the optimizer states of {missing} of {expected} are missing; copy them, or use a "
            "checkpoint whose save was finished"
        )
    if world > expected:
        raise FormatError(
            f"{first.file.parent}: optimizer states of {world} ranks, and {first.file.name} says {expected}; the others are of "
            "another save"
        )


def _rank(file: Path) -> int:
    return int(file.name.partition("rank_")[2].partition("_")[0])


def _missing(expected: int, there: set[int]) -> str:
    """Return which ranks are not there, in words; an empty text if all are."""
    ranks = list(itertools.islice((rank for rank in range(expected) if rank not in there), 4))
    count = expected - sum(rank < expected for rank in there)
    more = f" and {count - 4} more" if count > 4 else ""
    return f"rank{'s' if count > 1 else ''} {', '.join(map(str, ranks))}{more}" if ranks else ""


def _check_models(step: Step, models: Sequence[ModelFile], optimizer: OptimizerFile) -> None:
    """Refuse files of the model that are not those of these optimizers, or of one step."""
    expected = max(optimizer.ranks) if optimizer.sharded else 1
    if missing := _missing(expected, set(step.models)):
        raise FormatError(f"{step.home}: the model states of {missing} of {expected} are missing; copy them")
    if len(models) > expected:
        raise FormatError(f"{models[expected].file}: there are {expected} ranks; it is of another save")
    first, named = models[0], step_of(step.home.name)
    for each in models:
        if each.groups != first.groups or each.frozen != first.frozen:
            raise FormatError(f"{each.file}: other parameters than in {first.file.name}: files of two saves")
        if each.step != first.step:
            raise FormatError(f"{each.file}: says step {each.step}, {first.file.name} says {first.step}: files of two saves")
    if None not in (named, first.step) and named != first.step:
        raise FormatError(f"{first.file}: says step {first.step}, the name of its folder step {named}; which is right?")
    if first.frozen is None and (optimizer.stage or 0) > 1:
        raise UnsupportedError(
            f"{first.file}: saved with exclude_frozen_parameters, so parameters that are not trained are missing; save it "
            "without"
        )
