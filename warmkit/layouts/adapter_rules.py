"""A change of a tensor that is no product, as an adapter's kind says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warmkit.formats.dtypes import DType
from warmkit.formats.tensors import Tensor
from warmkit.layouts.adapted import Edit
from warmkit.sources.files import Files


@dataclass(frozen=True)
class Rule:
    """A change of a tensor that is no product.

    Attributes:
        own: The adapter's tensor that says how.
        shape: Of the tensor that is changed.
        load: As that of `Edited`.
        unit: As that of `Edited`.
    """

    own: Tensor
    shape: tuple[int, ...]
    load: Callable[[Files, DType], Edit]
    unit: int = 1
