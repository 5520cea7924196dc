"""Layout of DeepSpeed's ZeRO: where in the flat partitions of all ranks the elements of each parameter lie.

With stages 1 and 2 the parameters of a group lie in a row, padding behind them (with `parameter_alignment` of DeepSpeed 0.19.8
behind each of them too), and the row is cut into parts, one a rank; so a part may begin and end anywhere in a parameter. With
stage 3 each parameter is cut into as many equal parts as there are ranks, padding in the last, and a rank has its part of every
one in a row.

Source: `_get_fp32_state_dict_from_zero_checkpoint` of DeepSpeed 0.19.8, `deepspeed/utils/zero_to_fp32.py`, which differs in two
ways: it leaves out what stage 1 does not train, and widens buffers to float32.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from warmkit.errors import FormatError
from warmkit.formats.pieces import GatheredTensor, JoinedTensor, Stretch
from warmkit.formats.state_dicts import element_type, entry, plain_names
from warmkit.formats.tensors import StoredTensor, Tensor
from warmkit.formats.torch_zip import TorchTensor
from warmkit.formats.zero_files import ModelFile, OptimizerFile

ALIGNMENT = 2  # a row of stage 1 or 2 is padded to a multiple of this for every rank


class _Row:
    """Flat tensors end to end."""

    def __init__(self, tensors: Iterable[TorchTensor]) -> None:
        self.tensors = list(tensors)
        self.ends = list(itertools.accumulate(each.shape[0] for each in self.tensors))
        self.length = self.ends[-1] if self.ends else 0

    def stretches(self, start: int, count: int, first: int, itemsize: int) -> Iterator[Stretch]:
        """Yield where elements [start, start + count) lie, which are those of a parameter from `first` on."""
        place, end = bisect.bisect_right(self.ends, start), start + count
        while start < end:
            tensor, stop = self.tensors[place], min(end, self.ends[place])
            inside = start - self.ends[place] + tensor.shape[0]
            if stop > start:
                yield Stretch(tensor.file, tensor.offset + itemsize * inside, first, stop - start)
            start, first, place = stop, first + stop - start, place + 1


class Found(NamedTuple):
    """What a step of ZeRO holds.

    Attributes:
        entries: Every tensor by its name.
        tied: Names of which the tensor has another name, with that.
        notes: What the user should know.
        replicas: Further tensors with the same numbers: of the model as it computes, in 16 bits for instance.
    """

    entries: dict[str, Tensor]
    tied: dict[str, str]
    notes: list[str]
    replicas: dict[str, tuple[Tensor, ...]]


def tensors_of(models: Sequence[ModelFile], optimizers: Sequence[OptimizerFile]) -> Found:
    """Return every tensor by its name, and where else its numbers lie.

    Args:
        models: The files of the model, in the order of the ranks.
        optimizers: Those of the optimizers, in the order of the ranks.

    Raises:
        FormatError: If parts are missing, or sizes do not add up.
    """
    first, sharded = models[0], optimizers[0].sharded
    parameters = {name: name for group in (*(first.groups or ()), first.frozen or {}) for name in group}
    if sum(map(len, first.groups or ())) + len(first.frozen or {}) > len(parameters):
        raise FormatError(f"{first.file}: a parameter is in two groups")
    shared = {name: kept for name, kept in first.shared.items() if kept in {**parameters, **first.module}}
    plain, notes = plain_names({**parameters, **first.module, **shared}, str(first.file))
    names = {**parameters, **dict(zip(shared, shared)), **plain}
    entries = _of_stage_3(models, optimizers, names) if sharded else _of_stages_1_and_2(first, optimizers, names)
    entries |= _others(first, {**entries, **shared}, names, sharded)
    missing = next((kept for kept in shared.values() if kept not in entries), None)
    if missing is not None:
        raise FormatError(f"{first.file}: {missing!r}, to which others are tied, is tied itself")
    entries |= {name: _renamed(entries[kept], names[name]) for name, kept in shared.items()}
    tied = {names[name]: names[kept] for name, kept in shared.items()}
    return Found({each.name: each for each in entries.values()}, tied, notes, _replicas(models, entries, names))


def _replicas(
    models: Sequence[ModelFile], entries: Mapping[str, Tensor], names: Mapping[str, str]
) -> dict[str, tuple[Tensor, ...]]:
    found: dict[str, list[Tensor]] = {}
    for model in models:
        for name, tensor in (*model.module.items(), *model.fragments.items()):
            known = entries.get(name)
            if known is None or known.shape != tensor.shape or not known.elements:
                continue
            if isinstance(known, StoredTensor) and (known.file, known.offset) == (tensor.file, tensor.offset):
                continue  # what is read
            found.setdefault(names[name], []).append(entry(names[name], tensor))
    return {name: tuple(each) for name, each in found.items()}


def _of_stages_1_and_2(first: ModelFile, optimizers: Sequence[OptimizerFile], names: Mapping[str, str]) -> dict[str, Tensor]:
    entries: dict[str, Tensor] = {}
    groups, gaps = first.groups or [], optimizers[0].gaps
    if len(groups) != len(optimizers[0].flat) or (gaps is not None and [*map(len, gaps)] != [*map(len, groups)]):
        raise FormatError(f"{optimizers[0].file}: other groups of parameters than in {first.file.name}: files of two saves")
    for number, group in enumerate(groups):
        row, start = _Row(each.flat[number] for each in optimizers), 0
        behind = [0] * len(group) if gaps is None else gaps[number]
        needed, unit = sum(map(math.prod, group.values())) + sum(behind), ALIGNMENT * len(optimizers)
        if row.length < needed or -(-row.length // unit) != -(-needed // unit):
            raise FormatError(
                f"{first.file.parent}: the parts of all ranks have {row.length:,} numbers in group {number} of the parameters, "
                f"whose sizes in {first.file.name} ask for {needed:,}: files of two saves"
            )
        for (name, shape), gap in zip(group.items(), behind, strict=True):
            if name in first.module and first.module[name].shape != shape:
                raise FormatError(f"{first.file}: {name!r} has shape {list(first.module[name].shape)}, and {list(shape)} in it")
            count = math.prod(shape)
            _check_addresses(name, number, start, count, optimizers, row)
            entries[name] = _joined(names[name], shape, row.tensors, row.stretches(start, count, 0, _size(row.tensors)))
            start += count + gap
    return entries


def _check_addresses(name: str, number: int, start: int, count: int, optimizers: Sequence[OptimizerFile], row: _Row) -> None:
    """Compare where a parameter lies with what DeepSpeed noted of it: it tells files that were given another rank's name."""
    for rank, each in enumerate(optimizers):
        noted = each.addresses[number].get(name) if each.addresses is not None and number < len(each.addresses) else None
        if noted is None:
            continue
        begin, end = row.ends[rank] - each.flat[number].shape[0], row.ends[rank]
        low, high = max(begin, start), min(end, start + count)
        if noted != (low - begin, high - low):
            raise FormatError(
                f"{each.file}: says that {noted[1]:,} numbers of {name!r} lie at {noted[0]:,} of its part; by the sizes of all "
                f"parts {max(0, high - low):,} do, at {low - begin:,}: files of two saves, or of ranks that were renamed"
            )


def _of_stage_3(
    models: Sequence[ModelFile], optimizers: Sequence[OptimizerFile], names: Mapping[str, str]
) -> dict[str, Tensor]:
    first, world = models[0], len(optimizers)
    sizes = [each.shape for each in optimizers[0].flat]
    for each in optimizers:
        if [part.shape for part in each.flat] != sizes:
            raise FormatError(f"{each.file}: parts of other sizes than in {optimizers[0].file.name}: files of two saves")
    shapes = {name: shape for group in first.groups or () for name, shape in group.items()}
    rows, start = [_Row(each.flat) for each in optimizers], 0
    needed = sum(-(-math.prod(shape) // world) for shape in shapes.values())
    if needed != rows[0].length:
        raise FormatError(
            f"{optimizers[0].file}: has {rows[0].length:,} numbers, by the sizes in {first.file.name} a rank has {needed:,}: "
            "files of two saves, or a part is missing"
        )
    entries: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        part = -(-math.prod(shape) // world)
        entries[name] = _cut(names[name], shape, rows, start, part)
        start += part
    for name, shape in (first.frozen or {}).items():
        entries[name] = _frozen(names[name], name, shape, models)
    return entries


def _cut(name: str, shape: tuple[int, ...], rows: Sequence[_Row], start: int, part: int) -> Tensor:
    """Return a parameter of which every rank has a part at one place of its row."""
    count, stretches = math.prod(shape), list[Stretch]()
    for rank, row in enumerate(rows):
        first = rank * part
        stretches += row.stretches(start, max(0, min(part, count - first)), first, _size(row.tensors))
    return _joined(name, shape, rows[0].tensors, stretches)


def _frozen(plain: str, name: str, shape: tuple[int, ...], models: Sequence[ModelFile]) -> Tensor:
    """Return a parameter that is not trained: every rank's file of the model has a part."""
    part, parts = -(-math.prod(shape) // len(models)), list[TorchTensor]()
    for each in models:
        found = each.fragments.get(name)
        if found is None or found.shape != (part,) or (found.strides != (1,) and part > 1):
            what = "nothing" if found is None else f"shape {list(found.shape)}"
            raise FormatError(f"{each.file}: expected {part:,} numbers of {name!r}, which is not trained, found {what}")
        parts.append(found)
    return _cut(plain, shape, [_Row([each]) for each in parts], 0, part)


def _joined(name: str, shape: tuple[int, ...], among: Sequence[TorchTensor], stretches: Iterable[Stretch]) -> Tensor:
    where = tuple(stretches)
    kinds = {each.type_name for each in among}
    dtype = element_type(among[0].type_name, str(among[0].file), name)
    if len(kinds) > 1:
        raise FormatError(f"{among[0].file}: parts of {' and '.join(sorted(kinds))} for {name!r}, expected one type")
    if len(where) > 1:
        return JoinedTensor(name, dtype, shape, where)
    return StoredTensor(name, dtype, shape, *(where[0][:2] if where else (among[0].file, 0)))


def _renamed(tensor: Tensor, name: str) -> Tensor:
    assert isinstance(tensor, StoredTensor | JoinedTensor | GatheredTensor)
    return replace(tensor, name=name)


def _size(among: Sequence[TorchTensor]) -> int:
    return element_type(among[0].type_name, str(among[0].file), "a part").itemsize


def _others(first: ModelFile, known: Mapping[str, object], names: Mapping[str, str], sharded: bool) -> dict[str, Tensor]:
    """Return buffers and, with stages 1 and 2, parameters that no optimizer trains: they lie in the file of the model."""
    entries: dict[str, Tensor] = {}
    for name, tensor in {**first.module, **({} if sharded else first.fragments)}.items():
        if name in known or name not in names:
            continue
        if sharded and name not in first.buffers and tensor.shape == (0,):
            raise FormatError(f"{first.file}: {name!r} is empty there, and in no optimizer: its weights are not in the save")
        if not sharded and first.frozen and first.frozen.get(name, tensor.shape) != tensor.shape:
            raise FormatError(f"{first.file}: {name!r} has shape {list(tensor.shape)}, and {list(first.frozen[name])} in it")
        entries[name] = entry(names[name], tensor)
    if not sharded and (lost := next((name for name in first.frozen or () if name not in entries), None)):
        raise FormatError(f"{first.file}: {lost!r}, which is not trained, is not in it")
    return entries
