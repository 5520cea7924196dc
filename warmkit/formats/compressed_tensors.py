"""Weights as compressed-tensors (llm-compressor, vLLM) writes them: (code - zero) * scale, in the type of the scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.coded import Block, CodedTensor, blocks_of, one_a_block
from warmkit.formats.dtypes import DTYPES, E4M3, DType
from warmkit.formats.held import Recent, read_whole
from warmkit.formats.packed_codes import BITS, WORD, PackedCodes, PackedZeros, words_for
from warmkit.formats.tensors import Tensor
from warmkit.merging.codes import Grid
from warmkit.sources.files import Files

SCALE, ZERO = "_scale", "_zero_point"  # after the name of a weight
PACKED, SHAPE = "_packed", "_shape"
PACKING = "pack-quantized"
READ = ("float-quantized", "int-quantized", "naive-quantized", PACKING, "dense")
# What is said of activations and of the cache of keys and values: the dense weights do not need it.
ACTIVATIONS = tuple(f".{what}_{part}" for what in ("input", "output") for part in ("scale", "zero_point"))
CACHE = tuple(f".{what}_scale" for what in "kvq")


@dataclass(frozen=True)
class Weights:
    """What one of the `config_groups` says of its weights.

    Attributes:
        kind: `int` or `float`.
        bits: Of a code.
        strategy: What has a scale of its own: `tensor`, `channel`, `block` or `group`.
        size: Rows and columns of a block, or [1, columns] of a group; None for the others.
        packed: Whether codes lie packed in words.
    """

    kind: str
    bits: int
    strategy: str
    size: Block | None
    packed: bool

    def block(self, rows: int, columns: int) -> Block:
        """Return rows and columns of what has a scale of its own in a matrix."""
        whole = (max(1, rows), max(1, columns))
        size = {"tensor": whole, "channel": (1, whole[1])}.get(self.strategy, self.size or whole)
        return min(size[0], whole[0]), min(size[1], whole[1])

    def holds(self, codes: DType) -> bool:
        """Say whether codes of a type, each a byte, may be those of this group."""
        if self.packed:
            return False
        return self.kind == "float" and self.bits == 8 if codes == E4M3 else self.kind == "int" and self.bits <= 8


def dense_entries(checkpoint: Checkpoint, said: Mapping[str, Any], stands_for: DType) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint with its codes as the numbers they stand for.

    A number is (code - zero) * scale in the type of the scale, bfloat16 mostly, as compressed-tensors decompresses it; a zero
    point is used where one is stored. Scales of activations and of the cache of keys and values are left out.

    Args:
        checkpoint: With codes and scales.
        said: Its `quantization_config`.
        stands_for: Type of the model's weights.

    Raises:
        FormatError: If a scale or its weight is missing, or has another shape than every group of the config asks for.
        UnsupportedError: If a format, or what is beside it, is not read.
    """
    groups = list(_groups(checkpoint, said))
    entries, grids, found = checkpoint.entries, Recent[Grid](), dict[str, Tensor]()
    for name, tensor in entries.items():
        if tensor.dtype == E4M3 or (tensor.dtype.name == "I8" and name + SCALE in entries):
            found[name] = _coded(name, entries, groups, stands_for, grids)
        elif name.endswith(f".weight{PACKED}"):
            weight = name.removesuffix(PACKED)
            found[weight] = _packed(weight, entries, groups, stands_for, grids)
        elif name.endswith(tuple(f".weight{each}" for each in (SCALE, ZERO, SHAPE))):
            _check_weight(name, tensor, entries)
        elif not name.endswith(ACTIVATIONS) and not (said.get("kv_cache_scheme") and name.endswith(CACHE)):
            found[name] = tensor
    return found


# ---- the config ----------------------------------------------------------------------------------------------------------


def _groups(checkpoint: Checkpoint, said: Mapping[str, Any]) -> Iterator[Weights]:
    """Yield what the groups of a config say of weights.

    Raises:
        FormatError: If they are no groups.
        UnsupportedError: If their format is not read, or weights are transformed or sparse besides.
    """
    for key in ("sparsity_config", "transform_config", "moe_sparsity_config"):
        value = said.get(key)
        if value and not (isinstance(value, dict) and value.get("format") == "dense"):
            raise UnsupportedError(f"{checkpoint.source}: compressed-tensors with a {key}, {_advice('which is not read')}")
    groups = said.get("config_groups")
    if not isinstance(groups, dict) or not all(isinstance(each, dict) for each in groups.values()):
        raise FormatError(
            f"{checkpoint.source}: expected config_groups in quantization_config to map names to groups, found {groups!r:.60}"
        )
    for name, group in cast("dict[str, dict[str, Any]]", groups).items():
        form = group.get("format") or said.get("format")
        if form not in READ:
            raise UnsupportedError(
                f"{checkpoint.source}: compressed-tensors in the format {form!r}, {_advice('which is not read')}"
            )
        if isinstance(weights := group.get("weights"), dict):
            where = f"{checkpoint.source}: config_groups.{name}.weights in quantization_config"
            yield _weights(where, weights, packed=form == PACKING)


def _advice(why: str) -> str:
    return f"{why} (read are {', '.join(READ)}); merge the models they were made from, and quantise the result"


def _weights(where: str, said: Mapping[str, Any], packed: bool) -> Weights:
    kind, bits, strategy = said.get("type", "int"), said.get("num_bits", 8), said.get("strategy")
    if strategy is None:
        size = said.get("group_size")
        strategy = "tensor" if size is None else "channel" if size == -1 else "group"
    sizes: dict[Any, Any] = {"block": said.get("block_structure"), "group": [1, said.get("group_size")]}
    size = sizes.get(strategy)
    if strategy in sizes and not _is_block(size):
        raise FormatError(f"{where}: strategy {strategy!r} needs sizes that are natural numbers, found {size!r:.40}")
    if strategy not in ("tensor", "channel", "block", "group") or said.get("dynamic") or type(bits) is not int:
        raise UnsupportedError(f"{where}: num_bits {bits!r:.20}, strategy {strategy!r:.20}, {_advice('which is not read')}")
    if packed and (kind != "int" or bits not in BITS):
        raise UnsupportedError(
            f"{where}: {kind!r:.20} of {bits} bits, packed, {_advice('which is not read: only 4 and 8 bits are')}"
        )
    return Weights(str(kind), bits, strategy, (size[0], size[1]) if size else None, packed)


def _is_block(size: Any) -> bool:
    return isinstance(size, list) and len(size) == 2 and all(type(each) is int and 0 < each < 1 << 31 for each in size)


# ---- the tensors ---------------------------------------------------------------------------------------------------------


def _coded(
    name: str, entries: Mapping[str, Tensor], groups: list[Weights], stands_for: DType, grids: Recent[Grid]
) -> CodedTensor:
    codes, zeros = entries[name], entries.get(name + ZERO)
    scales = _scales(name, codes, entries)
    block = _block(name, codes, scales, groups)
    if zeros is not None and (zeros.dtype.name != "I8" or not one_a_block(codes.shape, block, zeros.shape)):
        raise FormatError(
            f"{zeros.file}: {name + ZERO!r} is {zeros.dtype.name} {list(zeros.shape)}, expected I8 "
            f"{list(blocks_of(codes.shape, block))}, one for each scale"
        )
    return CodedTensor(name, scales.dtype, stands_for, codes, scales, zeros, block, grids)


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
    zeros = _packed_zeros(name, entries, group, blocks_of(shape, block))
    return CodedTensor(name, scales.dtype, stands_for, codes, scales, zeros, block, grids)


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
    if zeros is None:
        return None
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
