"""Small tensors that stay in memory while large ones stream: factors of adapters, scales of codes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from warmkit.formats.dtypes import DType
from warmkit.formats.tensors import Tensor
from warmkit.merging.kernels import NumbaKernels
from warmkit.sources.files import Files

KEPT = 12  # tensors whose small ones stay in memory: more than the threads of a merge work on at once
T = TypeVar("T")

_scratch = threading.local()


class Recent(Generic[T]):
    """What was used last, by the name of a tensor. One for every model, shared by threads.

    Args:
        most: How many stay; by default as many as there is work on at once.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._recent: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, load: Callable[[], T]) -> T:
        """Return what belongs to a tensor, loading it if it was not used lately."""
        with self._lock:
            if name not in self._recent:
                self._recent[name] = load()
            self._recent.move_to_end(name)
            if len(self._recent) > (self._most or KEPT):
                self._recent.popitem(last=False)
            return self._recent[name]


def read_whole(files: Files, tensor: Tensor, dtype: DType) -> NDArray[Any]:
    """Read a small tensor whole, converted to `dtype`."""
    stored = np.empty(tensor.elements, tensor.dtype.storage)
    if stored.size:
        tensor.read(files, 0, stored.data.cast("B"))
    if tensor.dtype.storage == dtype.storage:
        return stored.reshape(tensor.shape)
    values = np.empty(stored.size, dtype.storage)
    if stored.size:
        NumbaKernels().convert(stored, values)
    return values.reshape(tensor.shape)


def buffer(elements: int, storage: str, use: str = "base") -> NDArray[Any]:
    """Return this thread's buffer of a type and use, the same at every call: fresh memory would cost as much as the sum."""
    buffers: dict[tuple[str, str], NDArray[Any]] = _scratch.__dict__.setdefault("buffers", {})
    key = (use, storage)
    if key not in buffers or buffers[key].size < elements:
        buffers[key] = np.empty(elements, storage)
    return buffers[key][:elements]
