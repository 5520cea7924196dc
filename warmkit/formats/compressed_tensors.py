"""Weights as compressed-tensors (llm-compressor, vLLM) writes them: (code - zero) * scale, in the type of the scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.byte_scales import ByteScales
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.coded import Block, CodedTensor, blocks_of, one_a_block
from warmkit.formats.compressed_groups import Weights, weights_of_groups
from warmkit.formats.dtypes import DTYPES, E4M3, DType
from warmkit.formats.fours import FourBits
from warmkit.formats.held import Recent, read_whole
from warmkit.formats.packed_codes import WORD, PackedCodes, PackedZeros, words_for
from warmkit.formats.tensors import Tensor
from warmkit.merging import codes as numbers_of
from warmkit.merging.codes import Grid
from warmkit.sources.files import Files

SCALE, ZERO = "_scale", "_zero_point"  # after the name of a weight
PACKED, SHAPE, WHOLE = "_packed", "_shape", "_global_scale"
# What is said of activations and of the cache of keys and values: the dense weights do not need it.
ACTIVATIONS = tuple(f".{what}_{part}" for what in ("input", "output") for part in ("scale", "zero_point", "global_scale"))
CACHE = tuple(f".{what}_scale" for what in "kvq")


def dense_entries(checkpoint: Checkpoint, said: Mapping[str, Any], stands_for: DType) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint with its codes as the numbers they stand for.

    A number is (code - zero) * scale in the type of the scale, bfloat16 mostly, as compressed-tensors decompresses it; a zero
    point is used where one is stored. FP4 (E2M1) of NVFP4 is computed in float32, of MXFP4 in bfloat16, which is exact. Scales
    of activations and of the cache of keys and values are left out.

    Args:
        checkpoint: With codes and scales.
        said: Its `quantization_config`.
        stands_for: Type of the model's weights.

    Raises:
        FormatError: If a scale or its weight is missing, or has another shape than every group of the config asks for.
        UnsupportedError: If a format, or what is beside it, is not read.
    """
    groups = list(weights_of_groups(checkpoint, said))
    entries, grids, found = checkpoint.entries, Recent[Grid](), dict[str, Tensor]()
    for name, tensor in entries.items():
        if (tensor.dtype == E4M3 and not name.endswith(SCALE)) or (tensor.dtype.name == "I8" and name + SCALE in entries):
            found[name] = _coded(name, entries, groups, stands_for, grids)
        elif name.endswith(f".weight{PACKED}"):
            weight = name.removesuffix(PACKED)
            read = _fours if _is_fours(tensor) else _packed
            found[weight] = read(weight, entries, groups, stands_for, grids)
        elif name.endswith(tuple(f".weight{each}" for each in (SCALE, ZERO, SHAPE))):
            _check_weight(name, tensor, entries)
        elif name.endswith(WHOLE) and _is_fours(entries.get(name.removesuffix(WHOLE) + PACKED)):
            continue
        elif not name.endswith(ACTIVATIONS) and not (said.get("kv_cache_scheme") and name.endswith(CACHE)):
            found[name] = tensor
    return found


# ---- the tensors ---------------------------------------------------------------------------------------------------------


def _coded(
    name: str, entries: Mapping[str, Tensor], groups: list[Weights], stands_for: DType, grids: Recent[Grid]
) -> CodedTensor:
    codes, zeros = entries[name], entries.get(name + ZERO)
    scales = _scales(name, codes, entries)
    block = _block(name, codes, scales, groups)
    alike = [each for each in groups if each.holds(codes.dtype) and each.block(*codes.shape[-2:]) == block]
    _check_zeros(name, codes, zeros, alike)
    if zeros is not None and (zeros.dtype.name != "I8" or not one_a_block(codes.shape, block, zeros.shape)):
        raise FormatError(
            f"{zeros.file}: {name + ZERO!r} is {zeros.dtype.name} {list(zeros.shape)}, expected I8 "
            f"{list(blocks_of(codes.shape, block))}, one for each scale"
        )
    return CodedTensor(name, scales.dtype, stands_for, codes, scales, zeros, block, grids)


def _check_zeros(name: str, codes: Tensor, zeros: Tensor | None, groups: Sequence[Weights]) -> None:
    """Refuse codes without zero points where they are needed."""
    if zeros is None and not any(each.symmetric for each in groups):
        raise FormatError(
            f"{codes.file}: {name + ZERO!r} is missing, and config_groups in config.json says that {codes.name!r} has "
            "zero points (symmetric false); copy the checkpoint again, or merge the bfloat16 model"
        )


def _scales(name: str, codes: Tensor, entries: Mapping[str, Tensor]) -> Tensor:
    scales = entries.get(name + SCALE)
    if scales is None:
        raise FormatError(
            f"{codes.file}: {codes.name!r} holds codes ({codes.dtype.name}) and its scales {name + SCALE!r} are missing; "
            "without them nobody knows the weights: copy the checkpoint again, or merge the bfloat16 model"
        )
    if scales.dtype.name not in ("F32", "BF16", "F16"):
        raise UnsupportedError(f"{scales.file}: {name + SCALE!r} is {scales.dtype.name}, expected numbers (F32, BF16, F16)")
    return scales


def _packed(
    name: str, entries: Mapping[str, Tensor], groups: list[Weights], stands_for: DType, grids: Recent[Grid]
) -> CodedTensor:
    words, scales = entries[name + PACKED], _scales(name, entries[name + PACKED], entries)
    if words.dtype.name != "I32" or len(words.shape) != 2:
        raise FormatError(f"{words.file}: {words.name!r} is {words.dtype.name} {list(words.shape)}, expected I32, a matrix")
    shape = _stored_shape(name, words, entries)
    rows, columns = shape
    fitting = {
        (each.bits, each.block(rows, columns)): each
        for each in groups
        if each.packed
        and each.kind == "int"
        and words.shape == (rows, words_for(columns, each.bits))
        and one_a_block(shape, each.block(rows, columns), scales.shape)
    }
    if len(fitting) != 1:
        found = f"{words.name!r} {list(words.shape)} with scales {list(scales.shape)}"
        raise FormatError(
            f"{words.file}: {found} is no weight of {list(shape)} that {'one' if fitting else 'a'} group in config_groups "
            "describes; config.json is wrong, or they are of two models"
        )
    (_, block), group = fitting.popitem()
    codes = PackedCodes(words, group.bits, shape)
    _check_zeros(name, words, entries.get(name + ZERO), [group])
    zeros = _packed_zeros(name, entries, group, blocks_of(shape, block))
    return CodedTensor(name, scales.dtype, stands_for, codes, scales, zeros, block, grids)


def _is_fours(packed: Tensor | None) -> bool:
    return packed is not None and packed.dtype.name == "U8"


def _fours(
    name: str, entries: Mapping[str, Tensor], groups: list[Weights], stands_for: DType, grids: Recent[Grid]
) -> CodedTensor:
    """Return FP4 codes with FP8 scales of groups and one of the whole matrix (NVFP4), or with exponents (MXFP4)."""
    packed, scales, whole = entries[name + PACKED], entries.get(name + SCALE), entries.get(name + WHOLE)
    shape = (*packed.shape[:-1], 2 * packed.shape[-1])
    fitting = [
        each.size
        for each in groups
        if each.packed and each.kind == "float" and scales and each.size and one_a_block(shape, each.size, scales.shape)
    ]
    whole_fits = whole is not None and (whole.dtype.name, whole.shape) == ("F32", (1,))
    nvidia = scales is not None and scales.dtype == E4M3 and whole_fits
    if scales is None or len(shape) != 2 or not fitting or not (nvidia or (scales.dtype.name == "U8" and whole is None)):
        parts = {each: entries.get(name + each) for each in (SCALE, WHOLE)}
        said = ", ".join(
            f"{each} {part.dtype.name} {list(part.shape)}" if part else f"no {each}" for each, part in parts.items()
        )
        raise FormatError(
            f"{packed.file}: {packed.name!r} {list(packed.shape)} with {said}: expected FP8 scales of a group in config_groups "
            "and a global scale F32 [1] (NVFP4), or exponents U8 (MXFP4); copy the checkpoint again, or correct the config"
        )
    if name + ZERO in entries:
        raise UnsupportedError(
            f"{packed.file}: {packed.name!r} is FP4 with zero points, which is not read; merge the bfloat16 model"
        )
    numbers = ByteScales(scales, numbers_of.e4m3() if nvidia else numbers_of.E8M0, whole)
    dtype = DTYPES["F32"] if nvidia else DTYPES["BF16"]
    return CodedTensor(
        name, dtype, stands_for, FourBits(packed, shape, numbers_of.FP4, upper_first=False), numbers, None, fitting[0], grids
    )


def _stored_shape(name: str, words: Tensor, entries: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Read the shape of a matrix, of which the words alone do not tell where its rows end."""
    stored = entries.get(name + SHAPE)
    if stored is None or stored.dtype.name not in ("I64", "I32") or stored.shape != (2,):
        found = "is missing" if stored is None else f"is {stored.dtype.name} {list(stored.shape)}, expected I64 [2]"
        raise FormatError(f"{words.file}: {name + SHAPE!r}, the shape of {words.name!r}, {found}; copy the checkpoint again")
    with Files() as files:
        rows, columns = read_whole(files, stored, stored.dtype).tolist()
    if rows != words.shape[0] or not 0 <= columns <= words.shape[1] * WORD:
        raise FormatError(f"{words.file}: {name + SHAPE!r} says [{rows}, {columns}], {words.name!r} is {list(words.shape)}")
    return rows, columns


def _packed_zeros(name: str, entries: Mapping[str, Tensor], group: Weights, shape: tuple[int, ...]) -> Tensor | None:
    zeros = entries.get(name + ZERO)
    if zeros is None or (group.symmetric and (zeros.dtype.name, zeros.shape) == ("I8", shape)):
        return zeros
    expected = (words_for(shape[0], group.bits), shape[1])
    if group.strategy not in ("group", "channel") or (zeros.dtype.name, zeros.shape) != ("I32", expected):
        raise FormatError(
            f"{zeros.file}: {name + ZERO!r} is {zeros.dtype.name} {list(zeros.shape)}, expected I32 {list(expected)}, packed "
            "zero points of groups or channels"
        )
    return PackedZeros(zeros, group.bits, shape)


def _block(name: str, codes: Tensor, scales: Tensor, groups: list[Weights]) -> Block:
    """Return rows and columns of what has a scale of its own: what all groups say that the shapes fit."""
    if len(codes.shape) < 2:
        raise FormatError(f"{codes.file}: {name!r} holds codes of shape {list(codes.shape)}, expected a matrix")
    alike = [each for each in groups if each.holds(codes.dtype)]
    sizes = {each.block(*codes.shape[-2:]) for each in alike}
    fitting = {size for size in sizes if one_a_block(codes.shape, size, scales.shape)}
    if len(fitting) != 1:
        said = ", ".join(f"{each.strategy} {list(each.size)}" if each.size else each.strategy for each in alike)
        what = f"fits none of its groups ({said or f'none has 8-bit codes of {codes.dtype.name}'})"
        raise FormatError(
            f"{scales.file}: {name + SCALE!r} has shape {list(scales.shape)}, which for {name!r} {list(codes.shape)} "
            f"{'fits several of its groups' if fitting else what}: config_groups in config.json is wrong, or the two are not "
            "of one model"
        )
    return fitting.pop()


def _check_weight(name: str, tensor: Tensor, entries: Mapping[str, Tensor]) -> None:
    """Refuse a scale, a zero point or a shape of a weight that holds no codes."""
    base = name[: name.rindex(".weight")] + ".weight"
    weight = entries.get(base)
    if base + PACKED in entries or (weight is not None and weight.dtype in (E4M3, DTYPES["I8"])):
        return
    what = "is missing"
    if weight is not None:
        what = f"is {weight.dtype.name} and not compressed (quantization_status other than compressed)"
    raise FormatError(
        f"{tensor.file}: {name!r} belongs to a weight, which {what}; save the model compressed, or merge the bfloat16 model"
    )
