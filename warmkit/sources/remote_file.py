"""A weight file somewhere else, read by byte ranges that are tried again until they arrive."""

from __future__ import annotations

import abc
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from warmkit.errors import TransferError

T = TypeVar("T")

BACKOFF, LONGEST_BACKOFF = 0.5, 30.0  # seconds; doubled for each further failure, random between half of that and all
LONGEST_WAIT = 300.0  # a Retry-After beyond it ends the run
ATTEMPTS_TO_OPEN, ATTEMPTS_TO_READ = 4, 8  # eight failures in a row take a minute
PROGRESS = 1 << 16  # an attempt that brought so many bytes is no failure: the next goes on behind them


class PassingError(Exception):
    """An attempt failed in a way that may pass.

    Attributes:
        got: Bytes that arrived before.
        wait: Seconds that the server asks for.
    """

    def __init__(self, reason: str, got: int = 0, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.got, self.wait = got, wait


class Patience:
    """How long to go on with a server; shared by all that ask it, so that all of them pause when it says so."""

    def __init__(self) -> None:
        self._until = 0.0

    def persist(self, place: str, attempt: Callable[[], T], attempts: int, stop: threading.Event | None = None) -> T:
        """Return what the first attempt that succeeds returns.

        Args:
            place: What is asked, for the message.
            attempt: Raises PassingError where it is worth trying again.
            attempts: How many failures in a row end it.
            stop: Set by another thread to end it now.

        Raises:
            TransferError: If it was stopped, or failed too often.
        """
        failures = 0
        while True:
            self._wait(place, self._until - time.monotonic(), stop)
            try:
                return attempt()
            except PassingError as failure:
                failures = 0 if failure.got >= PROGRESS else failures + 1
                if failures >= attempts:
                    raise TransferError(f"{place}: {failure} ({failures} attempts)") from None
                if failure.wait > LONGEST_WAIT:
                    raise TransferError(f"{place}: {failure}, and asks for a pause of {failure.wait:.0f} s") from None
                if failure.wait:
                    self._until = max(self._until, time.monotonic() + failure.wait)
                elif failures:
                    self._wait(place, _pause(failures), stop)

    @staticmethod
    def _wait(place: str, seconds: float, stop: threading.Event | None) -> None:
        if stop is None:
            time.sleep(max(0.0, seconds))
        elif stop.wait(max(0.0, seconds)):
            raise TransferError(f"{place}: reading was stopped")


def _pause(failures: int) -> float:
    longest = min(BACKOFF * 2.0 ** (failures - 1), LONGEST_BACKOFF)
    return random.uniform(longest / 2, longest)  # noqa: S311  (spreads load, guards nothing)


class RemoteFile(abc.ABC):
    """One file of a checkpoint that is not on this machine; any thread may read it.

    Args:
        place: Its address, without secrets.
        name: Its path inside the model.
        patience: Shared by all files of one server.

    Attributes:
        size: Bytes.
        version: What changes when the file does: an entity tag, a commit, a time.
        beginning: Its first bytes, which came when it was opened.
    """

    size: int
    version: str
    beginning: bytes

    def __init__(self, place: str, name: str, patience: Patience) -> None:
        self.place, self.name, self._patience = place, name, patience

    def __str__(self) -> str:
        return self.place

    def read(self, offset: int, view: memoryview, stop: threading.Event | None = None) -> None:
        """Fill `view` with the bytes from `offset` on.

        A connection that breaks is opened again where it stopped.

        Raises:
            TransferError: If they do not arrive, or it was stopped.
            CheckpointError: If the file is no longer what it was when it was opened.
        """
        done = 0

        def attempt() -> None:
            nonlocal done
            try:
                self.receive(offset + done, view[done:])
            except PassingError as failure:
                done += failure.got
                raise

        self._patience.persist(self.place, attempt, ATTEMPTS_TO_READ, stop)

    def open(self) -> _Reader:
        """Return what reads it from the start: its beginning without asking again."""
        return _Reader(self)

    @abc.abstractmethod
    def receive(self, offset: int, view: memoryview) -> None:
        """Fill `view` in one attempt.

        Raises:
            PassingError: With what arrived, if another attempt may bring the rest.
        """

    @abc.abstractmethod
    def check(self) -> None:
        """Ask whether the file is still what it was when it was opened, where reading it does not tell.

        Raises:
            CheckpointError: If it is not.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Close connections; a later read opens them again."""


class _Reader:
    def __init__(self, file: RemoteFile) -> None:
        self._file, self._place = file, 0

    def read(self, count: int) -> bytes:
        begin, end = self._place, self._place + count
        self._place = end
        known = self._file.beginning[begin:end]
        rest = bytearray(count - len(known))
        if rest:
            self._file.read(begin + len(known), memoryview(rest))
        return known + rest
