"""The job: a merge of aligned sources, without where they come from or where it goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from warmkit.engine.digests import BLOCK, Digests
from warmkit.engine.inputs import FileSource, Source
from warmkit.engine.spec import MergeSpec
from warmkit.engine.twins import find_twins
from warmkit.errors import UsageError
from warmkit.formats.dtypes import DType
from warmkit.layouts.groups import group
from warmkit.merging.edits import Edit, Place
from warmkit.merging.kernels import Space
from warmkit.merging.types import Coefficients, Gram

# A task takes one block, or two where the rows still fit into this: each task takes the interpreter lock a dozen times, and
# threads that wait for it cost more than the cache that larger blocks overflow.
TASK_BYTES, MOST_BLOCKS = 1 << 24, 2
Solve: TypeAlias = Callable[[str, "Gram | None"], Coefficients]
"""From a group's name and Gram matrix (None if not needed) to the coefficients [outputs, rows]."""


@dataclass(frozen=True)
class Job:
    """What to compute, without where it comes from or goes.

    Attributes:
        rows: The inputs, in the order of the coefficients; the initialisation first where it takes part.
        groups: Names of the float tensors of each group.
        exact: Names of the integer and boolean tensors, copied from the first row after comparison.
        dtypes: Output type of every tensor.
        outputs: How many results are written from one reading.
        space: Whose Gram matrix to take, None for methods that need none.
        solve: Coefficients of a group.
        allow_nonfinite: Let NaN and infinity pass.
        edit: From a group to what makes its task vector; row 0 is the init then, coefficients are its factors, [outputs, 1].
        readings: How often a float tensor is read, at most.
        known: Gram matrices that need no reading, by tensor: adapters know the products of their task vectors.
        twins: Tensors that are in every row the same as another one, and are written with it; they are in no group.
    """

    rows: Sequence[Source]
    groups: Mapping[str, Sequence[str]]
    exact: Sequence[str]
    dtypes: Mapping[str, DType]
    outputs: int
    space: Space | None
    solve: Solve
    allow_nonfinite: bool = False
    edit: Callable[[str], Edit] | None = None
    readings: int = 1
    known: Mapping[str, Callable[[], Gram]] = field(default_factory=lambda: {})
    twins: Mapping[str, str] = field(default_factory=lambda: {})

    def elements(self, tensor: str) -> int:
        return math.prod(self.rows[0].shape(tensor))

    def blocks(self, tensor: str) -> int:
        return -(-self.elements(tensor) // BLOCK)

    def starts(self, tensor: str) -> range:
        """Return the first block of every task of a tensor."""
        row_bytes = sum(row.dtype(tensor).itemsize for row in self.rows)
        step = min(MOST_BLOCKS, max(1, TASK_BYTES // (row_bytes * BLOCK)))
        return range(0, self.blocks(tensor), step)

    def count(self, tensor: str, block: int) -> int:
        """Return the elements of the task that starts at a block."""
        return min(BLOCK * self.starts(tensor).step, self.elements(tensor) - block * BLOCK)

    def bytes_read(self, tensor: str) -> int:
        """Bytes that one pass over a tensor reads."""
        if tensor in self.twins:
            return 0
        return sum(self.elements(tensor) * row.dtype(tensor).itemsize for row in self.rows)

    def passes(self, tensor: str) -> int:
        products = self.space is not None and tensor not in self.known
        return 1 if tensor in self.exact else self.readings + products

    def places(self, names: Sequence[str], whole: Container[str] = ()) -> list[Place]:
        """Return the tasks of one pass over some tensors, in order; a tensor of `whole` is one task, whatever its size."""
        steps = {name: self.elements(name) if name in whole else self.starts(name).step * BLOCK for name in names}
        runs = [(name, start) for name in names for start in range(0, self.elements(name), max(1, steps[name]))]
        return [
            Place(number, name, self.rows[0].shape(name), start, min(start + steps[name], self.elements(name)))
            for number, (name, start) in enumerate(runs)
        ]


@dataclass
class Done:
    """What an earlier, interrupted run has already written."""

    grams: dict[str, Gram] = field(default_factory=lambda: {})
    tensors: dict[str, Digests] = field(default_factory=lambda: {})


def input_rows(spec: MergeSpec, init: Any | None, models: Sequence[Any]) -> list[Any]:
    """Return the inputs of a merge in the order of its coefficients, the init first where it takes part."""
    if not spec.reads_init:
        return list(models)
    if init is None:
        why = spec.name if spec.method.needs_init or spec.name == "liti" else "eta other than 1"
        without = "; without one there are lerp, uniform and slerp-weights" if spec.method.needs_init else ""
        raise UsageError(f"{why} needs --init, the model that the others were fine-tuned from{without}")
    return [init, *models]


def build_job(
    spec: MergeSpec,
    rows: Sequence[Source],
    names: Sequence[str],
    dtype: DType | None,
    allow_nonfinite: bool,
    kept: Collection[str] = (),
) -> Job:
    """Turn a checked merge of aligned sources into a job; of `kept` names all rows read the same tensor."""
    own = {name: rows[0].result_dtype(name) for name in names}
    twins = _twins(spec, rows, [name for name in names if own[name].kind == "float" and name not in kept])
    floats = [name for name in names if own[name].kind == "float" and name not in twins]
    # the others become another type
    copied = {name for name in kept if dtype in (None, own[name]) and rows[0].dtype(name) == own[name]}
    space = spec.method.space if spec.method.space != "none" else "task vectors" if spec.angles else None
    spec, groups = spec.localised(group([name for name in floats if name not in kept], spec.granularity))
    solve = spec.solve
    if space is not None and spec.from_zero:
        space = "weights"
    if space == "weights" and spec.reads_init:  # row 0 is the init, whose products the ablation does not read
        solve = _without_init(spec)
    same = {f"{name} (kept)": [name] for name in floats if name in kept and name not in copied}
    return Job(
        rows=rows,
        groups={**groups, **same},
        exact=[name for name in names if own[name].kind == "exact" or name in copied],
        dtypes={name: dtype if dtype and own[name].kind == "float" else own[name] for name in names},
        outputs=len(spec.outputs),
        space=space,
        solve=solve if spec.method.edits else _copying(same, solve, len(spec.outputs), len(rows)),
        allow_nonfinite=allow_nonfinite,
        edit=spec.edit if spec.method.edits else None,
        readings=spec.method.passes,
        known=_known(rows, floats) if space == "task vectors" else {},
        twins=twins,
    )


def _twins(spec: MergeSpec, rows: Sequence[Source], names: Sequence[str]) -> dict[str, str]:
    """Return what is stored twice; over a network only methods are worth the reading that would treat the two differently."""
    if any(row.far for row in rows) and not spec.method.edits:
        return {}
    return find_twins(rows, names)


def _known(rows: Sequence[Source], names: Sequence[str]) -> dict[str, Callable[[], Gram]]:
    """Return the products of task vectors that are known without reading: those of adapters on the init."""
    init, *models = rows
    files = [each for each in models if isinstance(each, FileSource)]
    if not isinstance(init, FileSource) or len(files) < len(models):
        return {}
    found = {name: init.known_products(name, files) for name in names}
    return {name: products for name, products in found.items() if products is not None}


def _copying(groups: Container[str], solve: Solve, outputs: int, rows: int) -> Solve:
    """Return coefficients that copy the first row of some groups; shares of the same tensor need not sum to 1."""
    copy = np.tile(np.eye(1, rows), (outputs, 1))
    return lambda name, gram: copy if name in groups else solve(name, gram)


def _without_init(spec: MergeSpec) -> Callable[[str, Gram | None], Any]:
    return lambda name, gram: spec.solve(name, None if gram is None else gram[1:, 1:])
