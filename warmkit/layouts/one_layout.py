"""Inputs of several layouts, read as of one: names of transformers 4 and 5, experts one by one or in stacks."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from warmkit.errors import MismatchError, UsageError, listed, nearest
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.pieces import row_major
from warmkit.formats.tensors import Tensor
from warmkit.layouts.bands import Bands
from warmkit.layouts.misfits import kind_of
from warmkit.layouts.name_rules import EXPERT, InMemory, Join, Rules, rules_for
from warmkit.layouts.views import AssembledTensor, Part, StrungTensor, TensorPiece, view_of

LAYOUTS = ("canonical", "memory")


class Axis(NamedTuple):
    """A dimension of a tensor in memory, and where a stored tensor has it.

    Attributes:
        places: Of the tensor in memory, those that the stored one holds.
        axis: Of the stored tensor; None where that is one place of this dimension.
        stored: Where the places are along that.
    """

    places: range
    axis: int | None
    stored: range


class Box(NamedTuple):
    """Numbers of a stored tensor, and where they are in memory.

    Attributes:
        whole: Name of the tensor in memory.
        axes: Its dimensions.
        turned: Whether files are around that have the last two the other way round.
        alone: Whether nothing else is in that tensor.
    """

    whole: str
    axes: tuple[Axis, ...]
    turned: bool = False
    alone: bool = False

    @property
    def plain(self) -> bool:
        """Whether the tensor in memory is the stored one as it is."""
        return self.alone and all(axis.places == axis.stored and axis.axis == place for place, axis in enumerate(self.axes))

    @property
    def expert(self) -> int | None:
        """The one expert that this is of, None where it is of several."""
        return self.axes[0].places.start if len(self.axes) and self.axes[0].axis is None else None


@dataclass(frozen=True)
class Layout:
    """Names and shapes of tensors, and where they are in memory.

    Attributes:
        shapes: By the tensors' names.
        boxes: Where they are in memory.
        also: Where those are that are there under a second name: tied ones, stored once.
    """

    shapes: dict[str, tuple[int, ...]]
    boxes: dict[str, tuple[Box, ...]]
    also: dict[str, tuple[Box, ...]]

    def all_boxes(self, name: str) -> tuple[Box, ...]:
        return self.boxes[name] + self.also.get(name, ())

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Return the sizes that the tensors in memory have."""
        found: dict[str, tuple[int, ...]] = {}
        for box in itertools.chain.from_iterable(map(self.all_boxes, self.boxes)):
            ends = tuple(axis.places[-1] + 1 if axis.places else 0 for axis in box.axes)
            found[box.whole] = tuple(map(max, found.get(box.whole, ends), ends))
        return found

    def experts(self) -> dict[str, set[int]]:
        """Return the experts that are there of every stack."""
        stacks: dict[str, set[int]] = {}
        for box in itertools.chain.from_iterable(self.boxes.values()):
            if box.expert is not None or (len(box.axes) > 2 and "experts" in box.whole):
                stacks.setdefault(box.whole, set()).update(box.axes[0].places)
        return stacks


def in_one_layout(checkpoints: Sequence[Checkpoint], layout: str | None = None) -> list[Checkpoint]:
    """Return checkpoints whose tensors have the names and shapes of the first's, or of the layout asked for.

    Those that have them stay as they are, and so do those that no rule leads to them.

    Args:
        checkpoints: The init or first model, then the others.
        layout: `canonical`, as transformers 5 writes this architecture; `memory`, as it holds it, experts in stacks.

    Raises:
        UsageError: If the layout is unknown, or that of this architecture.
        MismatchError: If experts are missing.
    """
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}{nearest(layout, LAYOUTS)}")
    if not checkpoints or (layout is None and all(shapes_of(each) == shapes_of(checkpoints[0]) for each in checkpoints[1:])):
        return [*checkpoints]
    first, *others = checkpoints
    if layout is not None and not any(each.config for each in checkpoints):
        raise UsageError(f"--layout {layout}: {first.source} has no config.json, which says what its names mean")
    rules = rules_for(each.config for each in checkpoints)
    wanted = layout_of(shapes_of(first), rules, _shared(first))
    if layout is None:
        bands = Bands(len(others))
        return [first, *(_viewed(wanted, each, rules, f"of {first.source}", bands) for each in others)]
    wanted, bands = written(wanted, rules, layout), Bands(len(checkpoints))
    return [_viewed(wanted, each, rules, f"{layout!r}", bands) for each in checkpoints]


def layout_of(shapes: Mapping[str, tuple[int, ...]], rules: Rules, shared: Mapping[str, str] | None = None) -> Layout:
    """Return where tensors on disk, or in memory, are in memory.

    Args:
        shapes: Of the tensors, by name.
        rules: Of their architecture.
        shared: Other names that they have in memory, and under which they lie in their file.
    """
    found = {name: rules.in_memory(name) for name in shapes}
    sizes: dict[tuple[str, int], int] = {}  # of the sources of a join, along the dimension in which they follow each other
    for name, each in found.items():
        if each.join and each.join.along is not None:
            sizes[each.name, each.source] = len(_axes(each, shapes[name])[each.join.along].stored)
    boxes = {name: _boxes(found[name], shape, sizes) for name, shape in shapes.items()}
    also = {kept: _boxes(rules.in_memory(name), shapes[kept], sizes) for name, kept in (shared or {}).items()}
    return Layout(dict(shapes), boxes, also)


def _shared(checkpoint: Checkpoint) -> dict[str, str]:
    """Return names that a file leaves out, with those under which their tensors lie: safetensors' `save_model` says them."""
    known = {**checkpoint.metadata, **checkpoint.tied}
    return {name: kept for name, kept in known.items() if name not in checkpoint.entries and kept in checkpoint.entries}


def _boxes(each: InMemory, shape: tuple[int, ...], sizes: Mapping[tuple[str, int], int]) -> tuple[Box, ...]:
    join, axes = each.join, _axes(each, shape)
    if join is None or join.along is None:
        return (Box(each.name, tuple(axes), join is not None and join.turned is None, each.expert is None),)
    if len(join.targets) > 1:
        return tuple(_chunk(each, axes, join, number) for number in range(len(join.targets)))
    _, axis, stored = axes[join.along]
    start = sum(sizes.get((each.name, before), 0) for before in range(each.source))
    places = range(start, start + len(stored))
    if join.alternating:
        places = range(each.source, len(stored) * len(join.sources), len(join.sources))
    axes[join.along] = Axis(places, axis, stored)
    return (Box(each.name, tuple(axes)),)


def _axes(each: InMemory, shape: Sequence[int]) -> list[Axis]:
    """Return the dimensions in memory of what a tensor on disk is alone there."""
    axes = [Axis(range(size), axis, range(size)) for axis, size in enumerate(shape)]
    if each.expert is not None:
        axes.insert(0, Axis(range(each.expert, each.expert + 1), None, range(1)))
    if each.join is not None and each.join.turned:
        axes[-2:] = axes[:-3:-1]
    return axes


def _chunk(each: InMemory, axes: Sequence[Axis], join: Join, number: int) -> Box:
    """Return one of the equal parts of a tensor that is several in memory."""
    along = join.along or 0
    size = len(axes[along].stored) // len(join.targets)
    part = Axis(range(size), axes[along].axis, range(number * size, (number + 1) * size))
    name = each.name.replace(join.targets[0], join.targets[number])
    return Box(name, (*axes[:along], part, *axes[along + 1 :]))


def written(given: Layout, rules: Rules, layout: str) -> Layout:
    """Return the layout in which transformers 5 writes, or holds, the tensors of another."""
    wholes = replace(given, also={}).sizes()
    if layout == "memory":
        return layout_of(wholes, rules)
    shapes: dict[str, tuple[int, ...]] = {}
    for whole, shape in wholes.items():
        join, names = rules.on_disk(whole)
        shapes |= _on_disk(join, names, shape)
    return layout_of(shapes, rules)


def _on_disk(join: Join | None, names: Sequence[str], shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes that a tensor in memory has on disk."""
    inner = [*shape]
    if join is not None and join.along is not None:
        if len(join.targets) > 1:
            inner[join.along] *= len(join.targets)
        else:
            inner[join.along] //= len(join.sources)
    if join is None or not join.stacked:
        return {name: tuple(inner) for name in names}
    experts = range(inner[0])
    return {name.replace(EXPERT, str(expert)): tuple(inner[1:]) for name in names for expert in experts}


def shapes_of(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a checkpoint's tensors."""
    return {name: each.shape for name, each in checkpoint.entries.items()}


# ---- one checkpoint in the layout of another --------------------------------------------------------------------------------


class Candidate(NamedTuple):
    tensor: Tensor
    box: Box


Near: TypeAlias = dict[str, dict[int | None, list[Candidate]]]
"""What a checkpoint has, by the name of the tensor in memory and the expert."""


def _viewed(wanted: Layout, given: Checkpoint, rules: Rules, called: str, bands: Bands) -> Checkpoint:
    """Return a checkpoint with the names and shapes of a layout, as far as it has the tensors."""
    if shapes_of(given) == wanted.shapes:
        return given
    own = layout_of(shapes_of(given), rules, _shared(given))
    own = _turned(own) if _is_turned(wanted, own) else own
    near: Near = {}
    for name in own.boxes:
        for box in own.all_boxes(name):
            near.setdefault(box.whole, {}).setdefault(box.expert, []).append(Candidate(given.entries[name], box))
    mine, theirs = wanted.sizes(), own.sizes()
    alike = {whole for whole, size in mine.items() if theirs.get(whole) == size}
    entries: dict[str, Tensor] = {}
    for name, shape in wanted.shapes.items():
        places = wanted.boxes[name], wanted.also.get(name, ())
        found = _view(name, shape, places[0], near, alike, bands) or _view(name, shape, places[1], near, alike, bands)
        if found is not None:
            entries[name] = found
    if all(given.entries.get(name) is each for name, each in entries.items()):
        return given
    _check_experts(wanted, own, given, called)
    _check_whole([name for name in wanted.shapes if name not in entries], wanted, near, given, called)
    met = {box.whole for name in entries for box in wanted.all_boxes(name)}
    extra = {name: each for name, each in given.entries.items() if not any(box.whole in met for box in own.all_boxes(name))}
    layout = f"read in the layout {called}: {_said(entries, given.entries)}"
    notes = (*given.notes, f"{given.source}: {layout}")
    return replace(given, entries={**entries, **extra}, notes=notes, layout=layout, metadata={})


def _view(
    name: str, shape: tuple[int, ...], boxes: Sequence[Box], near: Near, alike: Collection[str], bands: Bands
) -> Tensor | None:
    """Return the tensor of a name and shape out of those that are near it in memory; None where they do not make it.

    Args:
        name: Of the tensor.
        shape: Its shape.
        boxes: Where it is in memory.
        near: What a checkpoint has there.
        alike: Tensors in memory that have one size on both sides.
        bands: For what lies in another order.
    """
    parts: list[Part] = []
    for box in boxes:
        sides = near.get(box.whole, {})
        keys = [None, box.expert] if box.expert is not None else [*sides]
        found = [*itertools.chain.from_iterable(sides.get(key, ()) for key in keys)]
        if len(found) == len(boxes) == 1 and (found[0].box == box or (box.plain and found[0].box.plain)):
            return found[0].tensor  # of another shape perhaps, which is told later, or matched by token
        if box.whole in alike:
            parts += [part for each in found if (part := _part(len(shape), box, *each)) is not None]
    covered = sum(math.prod(part.piece.shape) for part in parts)
    same = len({part.piece.tensor.dtype for part in parts}) == 1
    return view_of(name, shape, parts, bands) if parts and same and covered == math.prod(shape) else None


def _part(dimensions: int, box: Box, tensor: Tensor, other: Box) -> Part | None:
    """Return what a tensor, which is `other` in memory, holds of one that is `box` there."""
    if len(box.axes) != len(other.axes):
        return None
    places, sizes, strides = ([range(1)] * dimensions, [1] * dimensions, [0] * dimensions)
    start, steps = 0, row_major(tensor.shape)
    for mine, its in zip(box.axes, other.axes):
        common = _common(mine.places, its.places)
        if not common:
            return None
        there = _along(its, common)
        start += 0 if its.axis is None else there.start * steps[its.axis]
        if mine.axis is not None:
            places[mine.axis], sizes[mine.axis] = _along(mine, common), len(common)
            strides[mine.axis] = 0 if its.axis is None else there.step * steps[its.axis]
    origin = (0,) * dimensions
    file = Path(tensor.file.name)
    piece = TensorPiece(file, start * tensor.dtype.itemsize, origin, tuple(sizes), tuple(strides), tensor)
    return Part(tuple(places), piece)


def _along(axis: Axis, places: range) -> range:
    """Return where some of the places of a dimension are in the stored tensor."""
    first, step = axis.stored[axis.places.index(places[0])], axis.stored.step * (places.step // axis.places.step)
    return range(first, first + step * (len(places) - 1) + 1, step)


def _is_turned(wanted: Layout, own: Layout) -> bool:
    """Say whether stacks have their last two dimensions the other way round; a square does not tell, the others do."""
    for name, boxes in own.boxes.items():
        shape = own.shapes[name]
        if boxes[0].turned and shape != (there := wanted.shapes.get(name)) and there == (*shape[:-2], shape[-1], shape[-2]):
            return True
    return False


def _turned(layout: Layout) -> Layout:
    """Return a layout whose stacks are in memory the other way round than they are stored."""

    def turn(box: Box) -> Box:
        if not box.turned:
            return box
        *rest, one, two = box.axes
        return box._replace(axes=(*rest, two, one))

    return replace(layout, boxes={name: tuple(map(turn, boxes)) for name, boxes in layout.boxes.items()})


def _common(one: range, two: range) -> range:
    """Return the places that are in both; of two steps one is 1, or they are equal."""
    step, start = max(one.step, two.step), max(one.start, two.start)
    first = next((each for each in range(start, start + step) if each in one and each in two), None)
    return range(0) if first is None else range(first, min(one.stop, two.stop), step)


def _check_experts(wanted: Layout, own: Layout, given: Checkpoint, called: str) -> None:
    """Refuse a checkpoint that lacks experts, or has more of them."""
    here, there = wanted.experts(), own.experts()
    problems: dict[str, str] = {}
    for whole in sorted(here.keys() & there.keys()):
        lost, more = sorted(here[whole] - there[whole]), sorted(there[whole] - here[whole])
        if lost or more:
            what = f"{_listed(lost)} missing" if lost else f"it has {len(there[whole])}"
            problems[whole] = f"of {len(here[whole])} experts, and {what}"
    _refuse(problems, given, called)


def _check_whole(names: Iterable[str], wanted: Layout, near: Near, given: Checkpoint, called: str) -> None:
    """Refuse a checkpoint that has some of an expert's matrices; names are those that it could not be read under."""
    sizes, problems = wanted.sizes(), dict[str, str]()
    for name in names:
        for box in wanted.boxes[name]:
            found = {expert: parts for expert, parts in near.get(box.whole, {}).items() if expert is not None}
            half = {each: parts for each, parts in found.items() if _covered(parts) < math.prod(sizes[box.whole][1:])}
            if 0 < len(half) < len(found):
                there = kind_of(next(iter(half.values()))[0].tensor.name)
                what = f"{_listed(sorted(half))} not whole: {there!r} is there without what belongs to it"
                problems[box.whole] = f"of {len(found)} experts, and {what}"
    _refuse(problems, given, called)


def _covered(parts: Iterable[Candidate]) -> int:
    """Return how many numbers of an expert there are."""
    return sum(math.prod(len(axis.places) for axis in each.box.axes[1:]) for each in parts)


def _refuse(problems: Mapping[str, str], given: Checkpoint, called: str) -> None:
    """Refuse a checkpoint with something wrong in stacks of experts; what is alike in several layers is said once."""
    alike: dict[tuple[str, str], list[str]] = {}
    for whole, said in problems.items():
        alike.setdefault((kind_of(whole), said), []).append(whole)
    lines = [
        f"{kind!r} is {said} ({len(wholes)} such tensors)" if len(wholes) > 1 else f"{wholes[0]!r} is {said}"
        for (kind, said), wholes in alike.items()
    ]
    if lines:
        raise MismatchError(
            f"{given.source} does not fit the layout {called}:\n{listed(lines)}\n"
            "Give models with the same experts; copy the checkpoint again if its files are not complete"
        )


def _listed(experts: Sequence[int]) -> str:
    shown = ", ".join(map(str, experts[:6])) + (", ..." if len(experts) > 6 else "")
    return f"expert {shown} is" if len(experts) == 1 else f"experts {shown} are"


def _said(entries: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    kinds: Counter[str] = Counter()
    for name, each in entries.items():
        if isinstance(each, StrungTensor | AssembledTensor):
            kinds[_how(each)] += 1
        elif given.get(name) is not each:
            kinds["under other names"] += 1
    return ", ".join(f"{count} {'tensor' if count == 1 else 'tensors'} {kind}" for kind, count in kinds.items())


def _how(view: StrungTensor | AssembledTensor) -> str:
    """Say what a view makes of the tensors that it reads."""
    starts = (
        [tensor for tensor, _ in view.starts] if isinstance(view, StrungTensor) else [each.piece.tensor for each in view.parts]
    )
    if any(each is not starts[0] for each in starts):
        return "put together"
    return "cut out of others" if view.elements < starts[0].elements else "turned round"
