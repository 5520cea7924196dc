"""Parts of matrices in memory while their numbers are read in another order; threads that need one read it together."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.formats.tensors import Tensor
from warmkit.sources.files import Files

SIZE, LEAST = 32 << 20, 4 << 20  # bytes of a band where one model has such matrices, and where many do
CHUNK = 1 << 20  # bytes that a thread reads at a time
TASK = 4 << 20  # bytes that a thread of a merge works through before it goes on elsewhere

Load: TypeAlias = Callable[["NDArray[np.uint8]"], None]


class Content(NamedTuple):
    """What a band is to hold.

    Attributes:
        nbytes: All of it.
        loads: Each writes a part.
        columns: Where every column of the matrix begins, in elements.
    """

    nbytes: int
    loads: Sequence[Load]
    columns: NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """Stretches of a tensor's elements, as far apart from each other, that are to follow each other in memory.

    Attributes:
        tensor: Whose they are.
        first: The first element.
        apart: Elements from where one begins to where the next one does.
        length: Elements of each; of the last one what is left.
        total: Elements of all.
        at: Where the first element is to be, counted in elements.
    """

    tensor: Tensor
    first: int
    apart: int
    length: int
    total: int
    at: int

    def loads(self, files: Files) -> list[Load]:
        """Return what reads them, some at a time."""
        runs, some = -(-self.total // self.length), max(1, CHUNK // (self.length * self.tensor.dtype.itemsize))
        return [partial(self._read, files, range(run, min(runs, run + some))) for run in range(0, runs, some)]

    def announce(self, files: Files) -> None:
        """Announce what will be read, and what lies between, some at a time: the kernel reads ahead no more than that."""
        size = self.tensor.dtype.itemsize
        span = (-(-self.total // self.length) - 1) * self.apart + self.length
        end = self.first + (self.total if self.apart == self.length else span)
        for first in range(self.first, end, CHUNK // size):
            self.tensor.ahead(files, first, min(CHUNK // size, end - first))

    def _read(self, files: Files, runs: range, raw: NDArray[np.uint8]) -> None:
        size = self.tensor.dtype.itemsize
        for run in runs:
            done = run * self.length
            view = raw[(self.at + done) * size : (self.at + min(self.total, done + self.length)) * size]
            self.tensor.read(files, self.first + run * self.apart, view.data)


def together(tensor: Tensor, first: int, at: int, total: int) -> Runs:
    """Return elements that follow each other in a tensor, and are to do so in memory."""
    chunk = max(1, CHUNK // tensor.dtype.itemsize)
    return Runs(tensor, first, chunk, chunk, total, at)


class _Band:
    def __init__(self, content: Content, memory: NDArray[np.uint8]) -> None:
        self.memory, self.raw, self.columns = memory, memory[: content.nbytes], content.columns
        self.users = 0
        self._loads = iter(content.loads)
        self._left = len(content.loads)
        self._error: BaseException | None = None
        self._state = threading.Condition()

    def fill(self) -> None:
        """Load parts until all are taken, and wait for those that other threads took."""
        while (load := self._take()) is not None:
            try:
                load(self.raw)
            except BaseException as error:  # raised in every thread that needs it
                self._end(error)
                raise
            self._end(None)
        with self._state:
            while self._left and self._error is None:
                self._state.wait()
        if self._error is not None:
            raise self._error

    def _take(self) -> Load | None:
        with self._state:
            return next(self._loads, None) if self._left and self._error is None else None

    def _end(self, error: BaseException | None) -> None:
        with self._state:
            self._left, self._error = self._left - 1, self._error or error
            self._state.notify_all()


class Bands:
    """Bands by their places, shared by the threads of a merge; those used longest ago make room for others.

    Args:
        models: How many models are read through it.
    """

    def __init__(self, models: int = 1) -> None:
        self.size = max(LEAST, SIZE // max(1, models))
        self._models = models
        self._bands: OrderedDict[tuple[Any, ...], _Band] = OrderedDict()
        self._held = self._largest = self._users = self._most_users = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def use(
        self, place: tuple[Any, ...], content: Callable[[], Content]
    ) -> Generator[tuple[NDArray[np.uint8], NDArray[np.int64]], None, None]:
        """Lend a band and the starts of its columns; it is loaded if it was not used lately."""
        with self._lock:
            band = self._bands.get(place) or self._new(place, content())
            self._bands.move_to_end(place)
            self._count(band, 1)
        try:
            band.fill()
            yield band.raw, band.columns
        finally:
            with self._lock:
                self._count(band, -1)

    def _count(self, band: _Band, change: int) -> None:
        band.users += change
        self._users += change
        self._most_users = max(self._most_users, self._users)

    def _new(self, place: tuple[Any, ...], content: Content) -> _Band:
        self._largest = max(self._largest, content.nbytes)
        most = self._models * (3 * self._largest + self._most_users * TASK)  # two of a pass, one of another
        spare = np.empty(0, np.uint8)
        for other in [other for other, band in self._bands.items() if not band.users]:
            if self._held + content.nbytes <= most:
                break
            spare = self._bands.pop(other).memory
            self._held -= spare.nbytes
        # used again where it fits: fresh memory costs as much as what is read into it
        fits = content.nbytes <= spare.nbytes <= 2 * content.nbytes
        band = _Band(content, spare if fits else np.empty(content.nbytes, np.uint8))
        self._held += band.memory.nbytes
        self._bands[place] = band
        return band
