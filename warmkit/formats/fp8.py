"""FP8 weights with scales of blocks, as DeepSeek-V3 and transformers' FineGrainedFP8 write them: weight * weight_scale_inv."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.byte_scales import ByteScales
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.coded import Block, CodedTensor, blocks_of, one_a_block
from warmkit.formats.dtypes import DTYPES, E4M3, E8M0, DType
from warmkit.formats.held import Recent
from warmkit.formats.tensors import Tensor
from warmkit.merging import codes
from warmkit.merging.codes import Grid

SCALE = "_scale_inv"  # after the name of a weight; it is what to multiply by, whatever it is called
ACTIVATIONS = ".activation_scale"
EXPONENTS = "ue8m0"  # what `scale_fmt` says of scales that are exponents, a byte each


def dense_entries(checkpoint: Checkpoint, said: Mapping[str, Any], stands_for: DType) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint with its FP8 weights as the numbers they stand for.

    A number is the float32 product of an FP8 number (E4M3) and the scale of its block, as in DeepSeek's kernel and in
    transformers, which round it to the model's type then; a scale may be an exponent (ue8m0). Blocks at the edges of a matrix
    may be cut. Scales of activations are left out.

    Args:
        checkpoint: With codes and scales.
        said: Its `quantization_config`.
        stands_for: Type of the model's weights.

    Raises:
        FormatError: If a scale or its weight is missing, or has another shape than the blocks ask for.
        UnsupportedError: If scales are of another kind than numbers.
    """
    entries, block = checkpoint.entries, _block_size(checkpoint, said)
    grids: Recent[Grid] = Recent()
    found = dict[str, Tensor]()
    for name, tensor in entries.items():
        if tensor.dtype == E4M3:
            scales = entries.get(name + SCALE)
            _check_form(name, tensor, entries)
            if scales is not None and said.get("scale_fmt") == EXPONENTS and scales.dtype in (E8M0, DTYPES["U8"]):
                scales = ByteScales(scales, codes.E8M0)
            _check(name, tensor, scales, block)
            assert scales is not None
            rows, columns = tensor.shape[-2:]
            size = block or (max(1, rows), max(1, columns))
            found[name] = CodedTensor(name, DTYPES["F32"], stands_for, tensor, scales, None, size, grids)
        elif name.endswith(SCALE):
            _check_weight(name, tensor, entries.get(name.removesuffix(SCALE)))
        elif not name.endswith(ACTIVATIONS):
            found[name] = tensor
    return found


def _block_size(checkpoint: Checkpoint, said: Mapping[str, Any]) -> Block | None:
    """Return rows and columns of a block, None where a whole matrix has one scale."""
    size = said.get("weight_block_size", [128, 128])
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != 2 or not all(type(each) is int and 0 < each < 1 << 31 for each in size):
        raise FormatError(
            f"{checkpoint.source}: weight_block_size in quantization_config must be two natural numbers, found {size!r:.40}"
        )
    return size[0], size[1]


def _check_form(name: str, weight: Tensor, entries: Mapping[str, Tensor]) -> None:
    """Refuse a form of other writers: `weight_scale` beside a weight."""
    if name + SCALE not in entries and f"{name}_scale" in entries:
        raise UnsupportedError(
            f"{weight.file}: {name!r} has scales called {f'{name}_scale'!r}, as AutoFP8 and Quark write them, which is not "
            "read (transformers and DeepSeek call them weight_scale_inv); merge the bfloat16 model and quantise the result"
        )


def _check(name: str, weight: Tensor, scales: Tensor | None, block: Block | None) -> None:
    """Refuse FP8 numbers whose scales are not one for each block."""
    if scales is None:
        raise FormatError(
            f"{weight.file}: {name!r} is FP8 and its scales {name + SCALE!r} are missing; without them nobody knows the "
            "weights: copy the checkpoint again, or merge the bfloat16 model"
        )
    if scales.dtype.name not in ("F32", "BF16", "F16"):
        raise UnsupportedError(
            f"{scales.file}: {name + SCALE!r} is {scales.dtype.name}, expected numbers (F32, BF16), or exponents that "
            "scale_fmt in quantization_config calls ue8m0; merge the bfloat16 model and quantise the result"
        )
    if len(weight.shape) < 2:
        raise FormatError(f"{weight.file}: {name!r} is FP8 of shape {list(weight.shape)}, expected a matrix")
    size = block or (max(1, weight.shape[-2]), max(1, weight.shape[-1]))
    if not one_a_block(weight.shape, size, scales.shape):
        blocks = f"blocks of {list(block)}" if block else "one block (weight_block_size null)"
        raise FormatError(
            f"{scales.file}: {name + SCALE!r} has shape {list(scales.shape)}; {name!r} {list(weight.shape)} in {blocks} needs "
            f"{list(blocks_of(weight.shape, size))}: weight_block_size in config.json is wrong, or the two are not of one model"
        )


def _check_weight(name: str, scales: Tensor, weight: Tensor | None) -> None:
    """Refuse scales that belong to no FP8 weight."""
    if weight is not None and weight.dtype == E4M3:
        return
    what = f"its weight is {weight.dtype.name}, not F8_E4M3" if weight is not None else "its weight is missing"
    raise FormatError(
        f"{scales.file}: {name!r} holds scales, and {what}; copy the checkpoint again, or remove what is not its own"
    )
