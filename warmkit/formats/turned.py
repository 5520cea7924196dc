"""Matrices that lie transposed in a file, read row by row: as GPTQ and AWQ store what belongs to a linear layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import UnsupportedError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.formats.held import Recent, read_whole
from warmkit.formats.tensors import Derived
from warmkit.sources.files import Files

# Models with layers of transformers' Conv1D, whose weights lie [in, out] where quantisers make [out, in] of them.
CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")


@dataclass(frozen=True, eq=False)
class Turned(Derived):
    """The transpose of a stored matrix, which stays in memory while its numbers are read: they lie all over it.

    Attributes:
        own: [columns, rows].
        kept: Those in memory, shared by the tensors of a model.
        plus: What to add to every element, wrapping around.
    """

    kept: Recent[NDArray[Any]]
    plus: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        columns, rows = self.own.shape
        return rows, columns

    def read(self, files: Files, start: int, view: memoryview) -> None:
        out = np.frombuffer(view, self.dtype.storage)
        if not out.size:
            return
        columns = self.shape[1]
        whole = self.kept.get(self.name, lambda: read_whole(files, self.own, self.dtype))
        first, last = start // columns, (start + out.size - 1) // columns
        rows = np.ascontiguousarray(whole[:, first : last + 1].T).reshape(-1)
        np.add(rows[start - first * columns :][: out.size], out.dtype.type(self.plus), out=out)

    def ahead(self, files: Files, start: int, elements: int) -> None:
        """Announce nothing: it is read once, whole, at a moment that the order of reads does not tell."""


def refuse_conv1d(checkpoint: Checkpoint, method: str) -> None:
    """Refuse codes of models whose dense weights lie the other way round.

    Raises:
        UnsupportedError: If they are of such a model.
    """
    kind = checkpoint.config.get("model_type")
    if kind in CONV1D:
        raise UnsupportedError(
            f"{checkpoint.source}: {method} codes of {kind} lie transposed, which is not read; merge the models they were made "
            "from, and quantise the result"
        )
