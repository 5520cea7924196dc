"""Look-ahead: what a stream will read, announced across tensors, so that a network always has something to bring."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from warmkit.engine.inputs import Source

WINDOW = 128 << 20  # bytes announced and not read yet; the prefetcher has room for them and for what shares their pieces

Read: TypeAlias = tuple[str, str, int, int]
"""One read of every row: which pass, the tensor, first element and number of elements."""


class Lookahead:
    """Announces reads in the order in which a stream is going to make them, a window ahead of it.

    Args:
        rows: The inputs.
        places: Every read to come.
        window: Bytes to be ahead.
    """

    def __init__(self, rows: Sequence[Source], places: Iterator[Read], window: int = WINDOW) -> None:
        self._rows, self._places, self._window = rows, places, window
        self._announced: set[Read] = set()
        self._early: set[Read] = set()
        self._ahead = 0
        self._lock = threading.Lock()

    def reached(self, place: Read) -> None:
        """Take note that a read begins; it may be one whose turn had not come, and is not announced then any more."""
        with self._lock:
            if place in self._announced:
                self._announced.remove(place)
                self._ahead -= self._bytes(place)
            else:
                self._early.add(place)
            self._fill()

    def start(self) -> None:
        """Announce the first reads."""
        with self._lock:
            self._fill()

    def _fill(self) -> None:
        while self._ahead < self._window and (place := next(self._places, None)) is not None:
            if place in self._early:
                self._early.remove(place)
                continue
            _, tensor, start, elements = place
            for row in self._rows:
                row.ahead(tensor, start, elements)
            self._announced.add(place)
            self._ahead += self._bytes(place)

    def _bytes(self, place: Read) -> int:
        return place[3] * sum(row.dtype(place[1]).itemsize for row in self._rows)
