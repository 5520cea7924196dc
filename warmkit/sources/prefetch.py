"""Reading ahead: connections fetch what was announced while the threads that asked for it compute.

A file is cut into pieces of a fixed size. An announcement says how many bytes of each piece will be read; a piece is fetched
once its turn has come and a buffer is free, and its buffer is handed on when as many bytes have been read. What is read
before its turn, or without having been announced, is fetched by the reader itself, without a buffer where none is free: so
nobody can wait for a buffer that another one holds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TypeAlias

from warmkit.errors import TransferError
from warmkit.sources.remote_file import RemoteFile

PIECE = 1 << 22  # a request's answer takes ten milliseconds and more, so that its latency weighs little
CONNECTIONS = 16
BUDGET = 40 * PIECE

Key: TypeAlias = tuple[RemoteFile, int]


class _Piece:
    """A part of a file: `wanted` bytes of it are announced and not read yet; `buffer` is None until it is being fetched."""

    def __init__(self) -> None:
        self.wanted = self.readers = 0
        self.buffer: bytearray | None = None
        self.arrived = False
        self.error: BaseException | None = None


class Prefetcher:
    """Fetches announced pieces in the order of their announcements.

    Args:
        budget: Bytes of all buffers.
        connections: Requests in flight.
    """

    def __init__(self, budget: int = BUDGET, connections: int = CONNECTIONS) -> None:
        self._pieces: dict[Key, _Piece] = {}
        self._queue: deque[Key] = deque()
        self._free: list[bytearray] = []
        self._unused, self._connections = budget // PIECE, connections
        self._threads: list[threading.Thread] = []
        self._files: set[RemoteFile] = set()
        self._state = threading.Condition()
        self._stop = threading.Event()

    def ahead(self, file: RemoteFile, offset: int, size: int) -> None:
        """Announce that these bytes will be read once."""
        with self._state:
            if self._stop.is_set():
                return
            self._files.add(file)
            for number, _, count in _parts(offset, min(size, file.size - offset)):
                if (file, number) not in self._pieces:
                    self._pieces[file, number] = _Piece()
                    self._queue.append((file, number))
                    self._start_thread()
                self._pieces[file, number].wanted += count
            self._state.notify_all()

    def read(self, file: RemoteFile, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes of a file from `offset` on.

        Raises:
            CheckpointError: As `RemoteFile.read`.
        """
        self._files.add(file)
        done = 0
        for number, start, count in _parts(offset, view.nbytes):
            self._read_part(file, number, start, view[done : done + count])
            done += count

    def _read_part(self, file: RemoteFile, number: int, start: int, view: memoryview) -> None:
        with self._state:
            piece = self._pieces.get((file, number))
            mine = False
            if piece is not None:
                piece.readers += 1  # nobody takes its buffer away now
                mine = piece.buffer is None and self._give_buffer(piece)
        if piece is None:
            file.read(number * PIECE + start, view, self._stop)
            return
        if mine:
            self._fetch(file, number, piece)
        if self._arrives(file, piece):
            view[:] = memoryview(piece.buffer or b"")[start : start + view.nbytes]
        else:
            file.read(number * PIECE + start, view, self._stop)
        self._was_read(file, number, piece, view.nbytes)

    def _arrives(self, file: RemoteFile, piece: _Piece) -> bool:
        """Wait for a piece that is being fetched; say whether it is one that has a buffer."""
        with self._state:
            while piece.buffer is not None and not piece.arrived:
                if piece.error is not None:
                    raise piece.error
                if self._stop.is_set():
                    raise TransferError(f"{file}: reading was stopped")
                self._state.wait()
            return piece.buffer is not None

    def _was_read(self, file: RemoteFile, number: int, piece: _Piece, count: int) -> None:
        with self._state:
            piece.wanted -= count
            piece.readers -= 1
            if piece.arrived or piece.buffer is None:
                self._drop_if_done(file, number, piece)

    def _drop_if_done(self, file: RemoteFile, number: int, piece: _Piece) -> None:
        if piece.wanted > 0 or piece.readers:
            return
        if self._pieces.get((file, number)) is piece:
            del self._pieces[file, number]
        if piece.buffer is not None:
            self._free.append(piece.buffer)
            piece.buffer = None
            self._state.notify_all()

    def _start_thread(self) -> None:
        if len(self._threads) < self._connections:
            self._threads.append(threading.Thread(target=self._work, daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            self._fetch(*taken)

    def _take(self) -> tuple[RemoteFile, int, _Piece] | None:
        """Wait for a piece whose turn has come and a buffer for it; None when all is over."""
        with self._state:
            while not self._stop.is_set():
                while self._queue and (self._free or self._unused):
                    file, number = self._queue.popleft()
                    piece = self._pieces.get((file, number))
                    if piece is not None and piece.buffer is None and self._give_buffer(piece):
                        return file, number, piece
                self._state.wait()
            return None

    def _give_buffer(self, piece: _Piece) -> bool:
        if self._free:
            piece.buffer = self._free.pop()
        elif self._unused:
            piece.buffer, self._unused = bytearray(PIECE), self._unused - 1
        return piece.buffer is not None

    def _fetch(self, file: RemoteFile, number: int, piece: _Piece) -> None:
        assert piece.buffer is not None
        start = number * PIECE
        try:
            file.read(start, memoryview(piece.buffer)[: min(PIECE, file.size - start)], self._stop)
        except BaseException as error:  # raised again where the piece is read
            piece.error = error
        with self._state:
            piece.arrived = piece.error is None
            if piece.arrived:
                self._drop_if_done(file, number, piece)  # where its readers did not wait
            self._state.notify_all()

    def close(self) -> None:
        """End all transfers; whoever waits for one gets an error."""
        with self._state:
            self._stop.set()
            self._state.notify_all()
        for file in self._files:
            file.close()
        deadline = time.monotonic() + 2
        for thread in self._threads:  # one that is still connecting ends by itself
            thread.join(max(0.0, deadline - time.monotonic()))


def _parts(offset: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, first byte within the piece, and bytes, of every piece that a range touches."""
    end = offset + size
    while offset < end:
        number, start = divmod(offset, PIECE)
        count = min(PIECE - start, end - offset)
        yield number, start, count
        offset += count
