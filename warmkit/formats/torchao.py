"""Weights of torchao as transformers saves them: int8, FP8 and codes of fewer bits in bytes, with scales of blocks.

What a weight is made of stands in the metadata of the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.coded import CodedTensor, one_a_block
from warmkit.formats.dtypes import DTYPES, E4M3, DType
from warmkit.formats.held import Recent
from warmkit.formats.tensors import Tensor
from warmkit.merging.codes import Grid

CODES, SCALE, ZERO = "qdata", "scale", "zero_point"  # each after `_weight_`, in place of `weight`
READ: dict[str, DType] = {"Int8Tensor": DTYPES["I8"], "Float8Tensor": E4M3, "IntxUnpackedToInt8Tensor": DTYPES["I8"]}
UNPACKED = "IntxUnpackedToInt8Tensor"  # of up to eight bits, with scales of the model's type or another


def dense_entries(checkpoint: Checkpoint, said: Mapping[str, Any], stands_for: DType) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint with its codes as the numbers they stand for.

    A number is (code - zero) * scale of its block in float32, as torchao computes before it rounds. What a weight is made of
    stands under its name in the metadata of the files.

    Args:
        checkpoint: With codes and scales.
        said: Its `quantization_config`; what the metadata says is enough.
        stands_for: Type of the model's weights.

    Raises:
        FormatError: If a part is missing, or of another type or shape than the metadata says.
        UnsupportedError: If it is of another form: int4 packed for a GPU, for instance.
    """
    entries, grids = dict(checkpoint.entries), Recent[Grid]()
    for name, content in checkpoint.metadata.items():
        described = _described(checkpoint, name, content)
        if described is None:
            continue
        kind, block = described
        prefix = ".".join([*name.split(".")[:-1], f"_{name.split('.')[-1]}_"])
        codes, scales, zeros = (entries.pop(prefix + each, None) for each in (CODES, SCALE, ZERO))
        _check(checkpoint, name, kind, block, codes, scales, zeros)
        assert codes is not None
        assert scales is not None
        entries[name] = CodedTensor(name, DTYPES["F32"], stands_for, codes, scales, zeros, (block[0], block[1]), grids)
    return entries


def _described(checkpoint: Checkpoint, name: str, content: str) -> tuple[str, list[int]] | None:
    """Return the kind of a tensor and the size of its blocks, None of metadata that describes none."""
    try:
        said = json.loads(content)
    except ValueError:
        return None
    kind: Any = said.get("_type") if isinstance(said, dict) else None
    if kind in (None, "Tensor"):
        return None
    if kind not in READ:
        raise UnsupportedError(
            f"{checkpoint.source}: {name!r} is a {kind!r:.40} of torchao, which is not read (read are {', '.join(READ)}); "
            "merge the models it was made from, and quantise the result"
        )
    parts: Any = said.get("_data")
    block: Any = parts.get("block_size") if isinstance(parts, dict) else None
    if not isinstance(block, list) or len(block) != 2 or not all(type(each) is int and 0 < each < 1 << 31 for each in block):
        raise FormatError(
            f"{checkpoint.source}: {name!r} has blocks of {block!r:.40} in the metadata, expected rows and columns"
        )
    return kind, block


def _check(
    checkpoint: Checkpoint,
    name: str,
    kind: str,
    block: list[int],
    codes: Tensor | None,
    scales: Tensor | None,
    zeros: Tensor | None,
) -> None:
    needed = ((CODES, codes), (SCALE, scales), *([(ZERO, zeros)] if kind == UNPACKED else []))
    missing = next((each for each, part in needed if part is None), None)
    if codes is None or scales is None or missing:
        raise FormatError(f"{checkpoint.source}: the {missing} of {name!r} is missing; copy the checkpoint again")
    types = ("F32", "BF16", "F16") if kind == UNPACKED else ("F32",)
    right = len(codes.shape) == 2 and codes.dtype == READ[kind] and scales.dtype.name in types
    size = (block[0], block[1])
    if not right or not one_a_block(codes.shape, size, scales.shape):
        raise FormatError(
            f"{codes.file}: {name!r} is {codes.dtype.name} {list(codes.shape)} with scales {scales.dtype.name} "
            f"{list(scales.shape)}, which are not {kind} in blocks of {block}, as the metadata says; copy the checkpoint again"
        )
    if zeros is not None and (zeros.dtype.name != "I8" or not one_a_block(codes.shape, size, zeros.shape)):
        raise FormatError(
            f"{zeros.file}: {zeros.name!r} is {zeros.dtype.name} {list(zeros.shape)}, expected I8, one for each scale"
        )
