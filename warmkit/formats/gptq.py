"""Weights of GPTQ: codes of 4 or 8 bits in words down the columns of [in, out], scales and zero points of groups, an order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.coded import CodedTensor
from warmkit.formats.dtypes import DType
from warmkit.formats.held import Recent
from warmkit.formats.packed_codes import BITS, WORD, PackedCodes, PackedZeros
from warmkit.formats.tensors import Tensor
from warmkit.formats.turned import Turned, refuse_conv1d
from warmkit.merging.codes import Grid

CODES, PARTS = ".qweight", (".qzeros", ".scales", ".g_idx")
LESS_ONE, AS_THEY_ARE = "gptq", "gptq_v2"  # how zero points are stored
ONES = {4: 0x11111111, 8: 0x01010101}  # one more for every number of a word, with a carry, as gptqmodel adds it
KEPT = 4  # matrices of codes in memory


def dense_entries(checkpoint: Checkpoint, said: Mapping[str, Any], stands_for: DType) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint with its codes as the numbers they stand for.

    A number is (code - zero) * scale of its group, in the type of the scales, as gptqmodel computes it. A group is what `g_idx`
    says, else `group_size` columns. The format `gptq` stores zero points less one, `gptq_v2` as they are.

    Args:
        checkpoint: With codes and scales.
        said: Its `quantization_config`.
        stands_for: Type of the model's weights.

    Raises:
        FormatError: If a part is missing, or has another shape than `bits` and `group_size` ask for.
        UnsupportedError: If a format, or the number of bits, is not read.
    """
    if not has_codes(checkpoint, "GPTQ"):
        return dict(checkpoint.entries)
    bits, size, plus = _form(checkpoint, said)
    entries, grids, kept, found = checkpoint.entries, Recent[Grid](), Recent[NDArray[Any]](KEPT), dict[str, Tensor]()
    for name, tensor in entries.items():
        module, dot, part = name.rpartition(".")
        if dot + part == CODES:
            weight = f"{module}.weight"
            parts = parts_of(module, entries, (*PARTS[:2],))
            order = entries.get(module + PARTS[2])
            words = WORD // bits
            _check(tensor, parts, order, words, size)
            columns, rows = tensor.shape[0] * words, tensor.shape[1]
            group = (1, columns if size == -1 else min(size, columns))
            codes = PackedCodes(Turned(tensor, kept), bits, (rows, columns))
            small = Recent[NDArray[Any]](1)
            zeros = PackedZeros(Turned(parts[0], small, plus), bits, (rows, parts[1].shape[0]))
            scales = Turned(parts[1], small)
            found[weight] = CodedTensor(weight, scales.dtype, stands_for, codes, scales, zeros, group, grids, order)
        elif dot + part not in PARTS or module + CODES not in entries:
            found[name] = tensor
    return found


def has_codes(checkpoint: Checkpoint, method: str) -> bool:
    """Say whether a checkpoint holds codes, of a model whose layers lie as they are expected to.

    Raises:
        UnsupportedError: If they do not.
    """
    found = any(name.endswith(CODES) for name in checkpoint.entries)
    if found:
        refuse_conv1d(checkpoint, method)
    return found


def parts_of(module: str, entries: Mapping[str, Tensor], names: tuple[str, ...]) -> list[Tensor]:
    """Return what belongs to the codes of a module, by the ends of names.

    Raises:
        FormatError: If one is missing, is of another type than such a part has, or a dense weight is there too.
    """
    codes = entries[module + CODES]
    missing = next((module + each for each in names if module + each not in entries), None)
    if missing is not None:
        raise FormatError(
            f"{codes.file}: {codes.name!r} holds codes, and {missing!r} is missing; copy the checkpoint again, or merge the "
            "models it was made from"
        )
    if f"{module}.weight" in entries:
        raise FormatError(f"{codes.file}: both {codes.name!r} and {module + '.weight'!r} are there; remove what is not its own")
    parts = [entries[module + each] for each in names]
    zeros, scales = parts
    if scales.dtype.name not in ("F16", "BF16", "F32") or {codes.dtype.name, zeros.dtype.name} != {"I32"}:
        raise UnsupportedError(
            f"{codes.file}: {codes.name!r} is {codes.dtype.name}, its zero points {zeros.dtype.name}, its scales "
            f"{scales.dtype.name}; expected I32, I32 and numbers (F16, BF16, F32)"
        )
    return parts


def _form(checkpoint: Checkpoint, said: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the bits of a code, the size of a group (-1: all columns), and what to add to words of zero points."""
    form = said.get("checkpoint_format") or said.get("format") or LESS_ONE
    bits, size = said.get("bits"), said.get("group_size", -1)
    if form not in (LESS_ONE, AS_THEY_ARE) or said.get("is_marlin_format") or bits not in BITS:
        raise UnsupportedError(
            f"{checkpoint.source}: GPTQ of {bits!r:.20} bits in the format {form!r:.20} is not read (read are 4 and 8 bits, "
            f"{LESS_ONE} and {AS_THEY_ARE}); merge the models it was made from, and quantise the result"
        )
    return bits, group_size(checkpoint, size), ONES[bits] if form == LESS_ONE else 0


def group_size(checkpoint: Checkpoint, size: Any) -> int:
    """Check a size of groups.

    Raises:
        FormatError: If it is none.
    """
    if type(size) is not int or not (size == -1 or 0 < size < 1 << 31):
        raise FormatError(f"{checkpoint.source}: group_size in quantization_config must be -1 or natural, found {size!r:.40}")
    return size


def _check(codes: Tensor, parts: list[Tensor], order: Tensor | None, words: int, size: int) -> None:
    zeros, scales = parts
    rows = codes.shape[1] if len(codes.shape) == 2 else 0
    columns = codes.shape[0] * words if len(codes.shape) == 2 else 0
    groups = 1 if size == -1 else -(-columns // size)
    right = scales.shape == (groups, rows) and zeros.shape == (groups, -(-rows // words)) and rows > 0
    if not right or (order is not None and (order.shape != (columns,) or order.dtype.name not in ("I32", "I64"))):
        said = f"{order.dtype.name} {list(order.shape)}" if order is not None else "none"
        raise FormatError(
            f"{codes.file}: {codes.name!r} {list(codes.shape)} with zero points {list(zeros.shape)}, scales "
            f"{list(scales.shape)} and g_idx {said} is nothing of bits and group_size in config.json (`dynamic`, other ones "
            "for some layers, is not read); the config is wrong, or they are not of one model"
        )
