"""Parts of tensors as torch saves them on each rank: a DTensor names the whole, its mesh, and this rank's part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.pickle_reader import Inert, Names, Refused
from warmkit.formats.pieces import Index
from warmkit.formats.torch_zip import MAX_DIMENSIONS, TorchTensor, rebuilt_with_attributes


class _Wrapper(Inert):
    """Stands for `torch._utils._rebuild_wrapper_subclass`, which is named and not called."""


class DTensor(Inert): ...


class _Placement(Inert):
    """How a mesh dimension cuts a tensor; its class says the kind."""


class Shard(_Placement): ...


class Replicate(_Placement): ...


class Partial(_Placement): ...


class StridedShard(_Placement): ...


class _Order(Inert):
    """In which order the dimensions of a mesh cut one of a tensor, since torch 2.10."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()
        self.mesh_dimensions = arguments[1] if len(arguments) == 2 else None


@dataclass(frozen=True)
class PartOfTensor:
    """This rank's part of a tensor.

    Attributes:
        shape: Of the whole.
        local: The part, as it lies in the file.
        placements: How each dimension of the mesh cuts the whole.
        coordinate: Where on the mesh this rank is; None where the file does not say.
        rank: Which one wrote it; None where the file does not say.
    """

    shape: Index
    local: TorchTensor
    placements: tuple[_Placement, ...]
    coordinate: Index | None
    rank: int | None


def _rebuilt(function: Any, kind: Any, arguments: Any, state: Any) -> PartOfTensor | TorchTensor:
    """Stand for `torch._tensor._rebuild_from_type_v2`, of a DTensor above all."""
    if function is not _Wrapper or kind is not DTensor:
        return rebuilt_with_attributes(function, kind, arguments, state)
    state = state[1] if isinstance(state, tuple) and len(state) == 2 else state
    if not isinstance(state, Mapping) or not isinstance(arguments, tuple) or len(arguments) < 3:
        raise ValueError("a DTensor without a state")
    local, spec, shape = state.get("_local_tensor"), _state(state.get("_spec")), arguments[2]
    if not isinstance(local, TorchTensor) or not _sizes(shape):
        raise ValueError("a DTensor without its part or shape")
    if arguments[1] != local.type_name:
        raise ValueError("a DTensor whose part has another type")
    placements, mesh = spec.get("placements"), _state(spec.get("mesh"))
    if not isinstance(placements, tuple) or not all(isinstance(each, _Placement) for each in placements):
        raise ValueError("a DTensor without placements")
    _check_order(spec.get("shard_order"))
    found, rank = mesh.get("_coordinate_on_dim"), mesh.get("_rank")
    coordinate = tuple(found) if isinstance(found, list | tuple) and _sizes(tuple(found)) else None
    return PartOfTensor(tuple(shape), local, placements, coordinate, rank if type(rank) is int else None)


def _state(value: Any) -> Mapping[str, Any]:
    return value.state if isinstance(value, Inert) and isinstance(value.state, Mapping) else {}


def _check_order(orders: Any) -> None:
    """Refuse cuts whose order is not that of the mesh's dimensions."""
    for each in orders or ():
        dimensions = each.mesh_dimensions if isinstance(each, _Order) else None
        if not isinstance(dimensions, tuple) or list(dimensions) != sorted(dimensions):
            raise Refused("a DTensor cut in another order than that of its mesh")


def _sizes(values: Any) -> bool:
    known = isinstance(values, tuple) and len(values) <= MAX_DIMENSIONS
    return known and all(type(each) is int and 0 <= each < 1 << 63 for each in values)


_TENSOR, _OLD = "torch.distributed.tensor", "torch.distributed._tensor"  # up to torch 2.4 it was private
_CLASSES = (_TENSOR, f"{_TENSOR}._api", f"{_OLD}.api")
_SPECS = (f"{_TENSOR}._dtensor_spec", f"{_OLD}.placement_types")
_PLACES = (f"{_TENSOR}.placement_types", f"{_OLD}.placement_types")
_KINDS = {
    "Shard": Shard,
    "_StridedShard": StridedShard,
    "Replicate": Replicate,
    "Partial": Partial,
    "_Partial": Partial,
    "_MaskPartial": Partial,
}
DTENSOR_NAMES: Names = {
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuilt,
    ("torch._utils", "_rebuild_wrapper_subclass"): _Wrapper,
    **{(home, "DTensor"): DTensor for home in _CLASSES},
    **{(home, name): Inert for home in _SPECS for name in ("DTensorSpec", "TensorMeta")},
    (f"{_TENSOR}._dtensor_spec", "ShardOrderEntry"): _Order,
    **{(home, name): kind for home in _PLACES for name, kind in _KINDS.items()},
    ("torch.distributed.device_mesh", "DeviceMesh"): Inert,
    ("torch.distributed._mesh_layout", "_MeshLayout"): Inert,
    ("torch.distributed._mesh_layout", "_FlatLayout"): Inert,
}
"""What a pickle of DTensors may name."""


def box(where: str, name: str, part: PartOfTensor, coordinate: Sequence[int], mesh: Sequence[int]) -> tuple[Index, Index]:
    """Return which box of its tensor a part is: first corner, and sizes.

    A dimension of n elements that a mesh dimension of size k shards is cut into chunks of ceil(n / k), the last ones shorter or
    empty; the next mesh dimension cuts what is left of it.

    Args:
        where: The file, for messages.
        name: Of the tensor, for messages.
        part: Which part.
        coordinate: Of its rank on the mesh.
        mesh: Sizes of the mesh.

    Raises:
        UnsupportedError: If it is a sum that is still to be taken, or cut with strides.
        FormatError: If the part has another size.
    """
    origin, sizes = [0] * len(part.shape), list(part.shape)
    for place, placement in enumerate(part.placements):
        if isinstance(placement, Replicate):
            continue
        if not isinstance(placement, Shard):
            raise UnsupportedError(f"{where}: tensor {name!r} {_why_not(placement)}")
        axis = _state(placement).get("dim")
        if type(axis) is not int or not -len(sizes) <= axis < len(sizes):
            raise FormatError(f"{where}: tensor {name!r} is cut along a dimension that it does not have")
        chunk = math.ceil(sizes[axis] / mesh[place])
        begin = min(chunk * coordinate[place], sizes[axis])
        origin[axis] += begin
        sizes[axis] = min(chunk, sizes[axis] - begin)
    if part.local.shape != tuple(sizes):
        raise FormatError(
            f"{where}: tensor {name!r} has a part of {list(part.local.shape)}, expected {sizes} of {list(part.shape)} at place "
            f"{list(coordinate)} of a mesh of {list(mesh)}"
        )
    return tuple(origin), tuple(sizes)


def _why_not(placement: _Placement) -> str:
    if isinstance(placement, Partial):
        return "is a sum that is not taken yet (Partial); save it once it is: full_tensor()"
    return "is cut with strides (_StridedShard: FSDP on tensor parallelism); save it with torch.distributed.checkpoint"
