"""Weights of AWQ in the order `gemm`: codes of 4 bits, eight outputs in a word in an order of their own, down [in, out / 8]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import FormatError, UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.coded import CodedTensor
from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.gptq import CODES, KEPT, group_size, has_codes, parts_of
from warmkit.formats.held import Recent, read_whole
from warmkit.formats.tensors import Counted, Tensor
from warmkit.formats.turned import Turned
from warmkit.merging import codes
from warmkit.merging.codes import Grid
from warmkit.sources.files import Files, WeightFile

PARTS = (".qzeros", ".scales")
PLACES = [0, 4, 1, 5, 2, 6, 3, 7]  # of the eight outputs of a word, from its lowest bits on


@dataclass(frozen=True, eq=False)
class Interleaved(Counted):
    """Codes of 4 bits that lie [in, out / 8], read as [out, in] int8, less 8; the stored ones stay in memory meanwhile.

    Attributes:
        packed: The words, int32.
        kept: Those in memory, shared by the tensors of a model.
    """

    packed: Tensor
    kept: Recent[NDArray[Any]]

    @property
    def name(self) -> str:
        return self.packed.name

    @property
    def dtype(self) -> DType:
        return DTYPES["I8"]

    @property
    def shape(self) -> tuple[int, ...]:
        columns, words = self.packed.shape
        return words * len(PLACES), columns

    @property
    def file(self) -> WeightFile:
        return self.packed.file

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out, columns = np.frombuffer(view, np.int8), self.shape[1]
        if not out.size:
            return
        whole = self.kept.get(self.name, lambda: read_whole(files, self.packed, self.packed.dtype))
        eight = columns * len(PLACES)  # codes of a column of words
        low, high = start // eight, -(-(start + out.size) // eight)
        packed = np.ascontiguousarray(whole[:, low:high])
        found = np.empty((columns, high - low, len(PLACES)), np.int8)
        codes.unpack(packed.reshape(-1).view(np.uint8), 0, 4, found.reshape(-1))
        rows = found.transpose(1, 2, 0)[:, PLACES].reshape(-1)
        out[:] = rows[start - low * eight :][: out.size]

    def ahead(self, files: Files, start: int, elements: int) -> None:
        """Announce nothing: it is read once, whole, at a moment that the order of reads does not tell."""


def dense_entries(checkpoint: Checkpoint, said: Mapping[str, Any], stands_for: DType) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint with its codes as the numbers they stand for.

    A number is (code - zero) * scale of its group of `group_size` columns, in the type of the scales, as AutoAWQ and gptqmodel
    compute it.

    Args:
        checkpoint: With codes and scales.
        said: Its `quantization_config`.
        stands_for: Type of the model's weights.

    Raises:
        FormatError: If a part is missing, or has another shape than `group_size` asks for.
        UnsupportedError: If a version, or the number of bits, is not read.
    """
    if not has_codes(checkpoint, "AWQ"):
        return dict(checkpoint.entries)
    version, bits = said.get("version", "gemm"), said.get("bits")
    if str(version).lower() != "gemm" or bits != 4:
        raise UnsupportedError(
            f"{checkpoint.source}: AWQ of {bits!r:.20} bits in the version {version!r:.20} is not read (read are 4 bits, "
            "gemm); merge the models it was made from, and quantise the result"
        )
    size = group_size(checkpoint, said.get("group_size", 128))
    entries, grids, kept, found = checkpoint.entries, Recent[Grid](), Recent[NDArray[Any]](KEPT), dict[str, Tensor]()
    for name, tensor in entries.items():
        module, dot, part = name.rpartition(".")
        if dot + part == CODES:
            weight = f"{module}.weight"
            zeros, scales = parts_of(module, entries, PARTS)
            _check(tensor, zeros, scales, size)
            group = (1, tensor.shape[0] if size == -1 else min(size, tensor.shape[0]))
            small = Recent[NDArray[Any]](1)
            found[weight] = CodedTensor(
                weight,
                scales.dtype,
                stands_for,
                Interleaved(tensor, kept),
                Turned(scales, small),
                Interleaved(zeros, small),
                group,
                grids,
            )
        elif dot + part not in PARTS or module + CODES not in entries:
            found[name] = tensor
    return found


def _check(words: Tensor, zeros: Tensor, scales: Tensor, size: int) -> None:
    columns, across = words.shape if len(words.shape) == 2 else (0, 0)
    groups = 1 if size == -1 else -(-columns // size)
    if not across or zeros.shape != (groups, across) or scales.shape != (groups, across * len(PLACES)):
        raise FormatError(
            f"{words.file}: {words.name!r} {list(words.shape)} with zero points {list(zeros.shape)} and scales "
            f"{list(scales.shape)} is nothing in groups of group_size {size} in config.json; the config is wrong, or they are "
            "not of one model"
        )
