"""Weights of bitsandbytes as transformers saves them: NF4 and FP4 times the absmax of a block, int8 times that of a row."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.coded import Block, CodedTensor
from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.fours import FourBits
from warmkit.formats.held import Recent, read_whole
from warmkit.formats.tensors import Counted, Tensor
from warmkit.formats.turned import refuse_conv1d
from warmkit.merging.codes import Grid
from warmkit.sources.files import Files, WeightFile

STATE = ".quant_state.bitsandbytes__"  # after the name of a weight; then nf4 or fp4
ABSMAX, MAP, NESTED, NESTED_MAP = ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"
PARTS = (ABSMAX, MAP, NESTED, NESTED_MAP)
SCB, FORMAT = "SCB", "weight_format"  # in place of `weight`
SEVENTH = np.float32(7.874015718698502e-3)  # 1 / 127 as bitsandbytes writes it


class RunsTensor(CodedTensor):
    """Codes whose blocks are runs of elements that go on from one row to the next."""

    @property
    def _matrix(self) -> Block:
        return 1, self.elements


class RowsTensor(CodedTensor):
    """Codes of 8 bits, 127 of which stand for the absmax of their row."""

    def read(self, files: Files, start: int, view: memoryview) -> None:
        super().read(files, start, view)
        out = np.frombuffer(view, np.float32)
        np.multiply(out, SEVENTH, out=out)


@dataclass(frozen=True)
class NestedAbsmax(Counted):
    """Absmax of blocks that are codes themselves: of a table, times the absmax of 256 of them, plus an offset.

    Attributes:
        codes: [blocks] U8.
        table: [256] F32.
        absmax: One for every `size` codes.
    """

    codes: Tensor
    table: Tensor
    absmax: Tensor
    size: int
    offset: float

    @property
    def name(self) -> str:
        return self.codes.name

    @property
    def dtype(self) -> DType:
        return DTYPES["F32"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def file(self) -> WeightFile:
        return self.codes.file

    def read(self, files: Files, start: int, view: memoryview) -> None:
        codes, table, absmax = (read_whole(files, each, each.dtype) for each in (self.codes, self.table, self.absmax))
        found = table[codes] * absmax.repeat(self.size)[: codes.size] + np.float32(self.offset)
        view[:] = found.data.cast("B")[4 * start : 4 * start + view.nbytes]

    def ahead(self, files: Files, start: int, elements: int) -> None:
        """Announce nothing: it is small, and read once."""


def dense_entries(checkpoint: Checkpoint, said: Mapping[str, Any], stands_for: DType) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint with its codes as the numbers they stand for.

    Of 4 bits a number is `quant_map[code]` times the absmax of its block, which may be codes itself (double quantisation); of
    8 bits it is the code times `SCB` of its row, divided by 127: all in float32, as bitsandbytes computes before it rounds.

    Args:
        checkpoint: With codes and scales.
        said: Its `quantization_config`; what the tensors say is enough.
        stands_for: Type of the model's weights.

    Raises:
        FormatError: If a part is missing, or has another shape or form than the others ask for.
        UnsupportedError: If matrices lie transposed, or in an order of GPUs.
    """
    entries, grids, found = checkpoint.entries, Recent[Grid](), dict[str, Tensor]()
    states = {name.partition(STATE)[0]: name for name in entries if STATE in name}
    rows = {name.removesuffix(SCB) + "weight": name for name in entries if name.endswith(f".{SCB}")}
    if states or rows:
        refuse_conv1d(checkpoint, "bitsandbytes")
    for name in states.keys() | rows.keys():
        if name not in entries:
            part = states.get(name) or rows[name]
            raise FormatError(
                f"{entries[part].file}: {part!r} belongs to {name!r}, which is missing; copy the checkpoint again"
            )
    for name, tensor in entries.items():
        if name in states:
            found[name] = _fours(name, states[name], entries, stands_for, grids)
        elif name in rows:
            found[name] = _rows(name, tensor, entries[rows[name]], entries, stands_for, grids)
        elif not _belongs(name, states, rows):
            found[name] = tensor
    return found


def _belongs(name: str, states: Mapping[str, str], rows: Mapping[str, str]) -> bool:
    """Say whether a tensor is a part of the form of another one."""
    weight, dot, part = name.rpartition(".")
    own = name in states.values() or name in rows.values()
    return own or (dot + part in PARTS and weight in states) or (part == FORMAT and f"{weight}.weight" in rows)


# ---- 8 bits --------------------------------------------------------------------------------------------------------------


def _rows(
    name: str, codes: Tensor, absmax: Tensor, entries: Mapping[str, Tensor], stands_for: DType, grids: Recent[Grid]
) -> CodedTensor:
    if codes.dtype.name != "I8" or len(codes.shape) != 2 or absmax.dtype.name != "F32" or absmax.shape != codes.shape[:1]:
        raise FormatError(
            f"{codes.file}: {name!r} is {codes.dtype.name} {list(codes.shape)}, its {absmax.name!r} {absmax.dtype.name} "
            f"{list(absmax.shape)}; expected I8 [rows, columns] and F32 [rows]"
        )
    order = entries.get(name.removesuffix("weight") + FORMAT)
    if order is not None and order.elements == 1:
        with Files() as files:
            if read_whole(files, order, order.dtype).item() != 0:
                raise UnsupportedError(
                    f"{order.file}: {order.name!r} says that codes lie in an order of some GPU, which is not read; load the "
                    "model and save it again with a newer bitsandbytes"
                )
    block = (1, max(1, codes.shape[1]))
    return RowsTensor(name, DTYPES["F32"], stands_for, codes, absmax, None, block, grids)


# ---- 4 bits --------------------------------------------------------------------------------------------------------------


def _fours(name: str, state: str, entries: Mapping[str, Tensor], stands_for: DType, grids: Recent[Grid]) -> CodedTensor:
    packed = entries[name]
    said, table = _state(name, state, entries)
    shape, size = tuple(said["shape"]), said["blocksize"]
    elements = math.prod(shape)
    if packed.nbytes != -(-elements // 2) or packed.shape[:1] != (packed.elements,):
        raise FormatError(
            f"{packed.file}: {name!r} is {packed.dtype.name} {list(packed.shape)}, of {packed.nbytes:,} bytes; 4 bits of "
            f"{list(shape)}, which {state!r} says, take {-(-elements // 2):,} in a column"
        )
    absmax = _part(name + ABSMAX, entries, "U8" if NESTED[1:] in _parts(name, entries) else "F32", -(-elements // size))
    if absmax.dtype.name == "U8":
        inner = said.get("nested_blocksize")
        if type(inner) is not int or inner < 1 or not isinstance(said.get("nested_offset"), float):
            raise FormatError(f"{packed.file}: {state!r} says no nested_blocksize and nested_offset, expected a number each")
        nested = _part(name + NESTED, entries, "F32", -(-absmax.elements // inner))
        absmax = NestedAbsmax(absmax, _part(name + NESTED_MAP, entries, "F32", 256), nested, inner, said["nested_offset"])
    codes = FourBits(packed, shape, table, upper_first=True)
    return RunsTensor(name, DTYPES["F32"], stands_for, codes, absmax, None, (1, size), grids)


def _parts(name: str, entries: Mapping[str, Tensor]) -> set[str]:
    return {each[1:] for each in PARTS if name + each in entries}


def _part(name: str, entries: Mapping[str, Tensor], kind: str, elements: int) -> Tensor:
    found = entries.get(name)
    if found is None:
        raise FormatError(f"{name!r} is missing; copy the checkpoint again, or merge the models it was made from")
    if found.dtype.name != kind or found.shape != (elements,):
        raise FormatError(
            f"{found.file}: {name!r} is {found.dtype.name} {list(found.shape)}, expected {kind} [{elements}]; the parts are "
            "not of one model"
        )
    return found


def _state(name: str, state: str, entries: Mapping[str, Tensor]) -> tuple[dict[str, Any], Any]:
    """Read what is said of a weight, JSON in bytes, and its table."""
    with Files() as files:
        content = read_whole(files, entries[state], entries[state].dtype).tobytes()
        table = read_whole(files, _part(name + MAP, entries, "F32", 16), DTYPES["F32"])
    try:
        said = json.loads(content)
        shape, size = said["shape"], said["blocksize"]
    except (ValueError, KeyError, TypeError):
        shape = size = None
        said = {}
    sizes = isinstance(shape, list) and len(shape) == 2 and all(type(each) is int and 0 < each < 1 << 31 for each in shape)
    if not sizes or type(size) is not int or not 0 < size < 1 << 31:
        raise FormatError(
            f"{entries[state].file}: {state!r} holds no shape and blocksize of a matrix, found {content[:60]!r}; copy the "
            "checkpoint again"
        )
    return said, table
