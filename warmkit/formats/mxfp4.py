"""Experts of GPT-OSS in MXFP4: FP4 codes with an exponent for every 32 of them, stored [out, in], read as [in, out]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.held import Recent
from warmkit.formats.tensors import Counted, Tensor
from warmkit.merging import codes
from warmkit.sources.files import Files, WeightFile

BLOCKS, SCALES = "_blocks", "_scales"
BYTES, NUMBERS = 16, 32  # of a block

Expert: TypeAlias = "tuple[NDArray[np.uint8], NDArray[np.float32]]"


@dataclass(frozen=True, eq=False)
class ExpertsTensor(Counted):
    """A stack of matrices [experts, in, out], of codes that lie transposed.

    Codes and scales of an expert stay in memory while its numbers are read, which lie all over them: a few megabytes.

    Attributes:
        blocks: [experts, out, in / 32, 16] bytes, each with two codes.
        scales: [experts, out, in / 32] bytes.
        experts: Those in memory, shared by the tensors of a model.
    """

    name: str
    stands_for: DType
    blocks: Tensor
    scales: Tensor
    experts: Recent[Expert]

    @property
    def dtype(self) -> DType:
        return DTYPES["BF16"]

    @property
    def shape(self) -> tuple[int, ...]:
        experts, out, across, _ = self.blocks.shape
        return experts, across * NUMBERS, out

    @property
    def file(self) -> WeightFile:
        return self.blocks.file

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out, done = np.frombuffer(view, self.dtype.storage), 0
        _, columns, rows = self.shape
        while done < out.size:
            expert, first = divmod(start + done, rows * columns)
            part = out[done : done + rows * columns - first]
            packed, scales = self.experts.get(f"{self.name} {expert}", lambda expert=expert: self._load(files, expert))
            codes.decode_fours(packed, scales, first, (rows, columns), part)
            done += part.size

    def _load(self, files: Files, expert: int) -> Expert:
        _, columns, rows = self.shape
        packed, scales = np.empty(rows * columns // 2, np.uint8), np.empty(rows * columns // NUMBERS, np.uint8)
        self.blocks.read(files, expert * packed.size, packed.data)
        self.scales.read(files, expert * scales.size, scales.data)
        return packed, codes.E8M0[scales]

    def ahead(self, files: Files, start: int, elements: int) -> None:
        """Announce nothing: an expert is read once, whole, at a moment that the order of reads does not tell."""


def dense_entries(checkpoint: Checkpoint, said: Mapping[str, Any], stands_for: DType) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint with its experts as the numbers they stand for.

    A number is an FP4 number (E2M1) times two to the power of its block's exponent, less 127: exact in bfloat16.

    Args:
        checkpoint: With codes and scales.
        said: Its `quantization_config`.
        stands_for: Type of the model's weights.

    Raises:
        FormatError: If blocks or scales are missing, or do not fit each other.
        UnsupportedError: If it is another model than GPT-OSS, whose experts alone are known to lie so.
    """
    entries, found, experts = checkpoint.entries, dict[str, Tensor](), Recent[Expert](4)
    for name, tensor in entries.items():
        if name.endswith(BLOCKS):
            weight = name.removesuffix(BLOCKS)
            scales = entries.get(weight + SCALES)
            _check(checkpoint, name, tensor, scales)
            assert scales is not None
            found[weight] = ExpertsTensor(weight, stands_for, tensor, scales, experts)
        elif not name.endswith(SCALES):
            found[name] = tensor
        elif name.removesuffix(SCALES) + BLOCKS not in entries:
            raise FormatError(f"{tensor.file}: {name!r} holds scales, and its blocks are missing; copy the checkpoint again")
    return found


def _check(checkpoint: Checkpoint, name: str, blocks: Tensor, scales: Tensor | None) -> None:
    if checkpoint.config.get("model_type") != "gpt_oss":
        kind = checkpoint.config.get("model_type")
        raise UnsupportedError(
            f"{checkpoint.source}: MXFP4 of another model than GPT-OSS (model_type {kind!r:.40}) is not read; merge the models "
            "it was made from, and quantise the result"
        )
    if scales is None:
        raise FormatError(f"{blocks.file}: {name!r} holds codes, and its scales are missing; copy the checkpoint again")
    right = len(blocks.shape) == 4 and blocks.shape[-1] == BYTES and scales.shape == blocks.shape[:-1]
    if not right or {blocks.dtype.name, scales.dtype.name} != {"U8"}:
        raise FormatError(
            f"{blocks.file}: {name!r} is {blocks.dtype.name} {list(blocks.shape)}, its scales {scales.dtype.name} "
            f"{list(scales.shape)}; expected U8 [experts, out, blocks, {BYTES}] and U8 [experts, out, blocks]"
        )
