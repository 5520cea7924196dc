"""Plain lines about long work, where stderr is no terminal and no bar would be seen: of every stage, and every half minute."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator

from warmkit.common.units import duration, size

FIRST, EVERY = 10.0, 30.0
"""Seconds after which a command speaks for the first time, and then again."""


class Stage:
    """A part of a command's work, and what can be said of it.

    Args:
        label: What is done.
        unit: What is counted: `bytes`, or another word, which stands behind the count.
        done: What parts before it have counted already.
    """

    def __init__(self, label: str, unit: str = "", done: int = 0) -> None:
        self.label, self.unit, self.before, self.done, self.total = label, unit, done, done, 0
        self.began = time.monotonic()
        self._first: tuple[float, int] | None = None  # what a resumed run counts at once took no time

    def advance(self, count: int, total: int) -> None:
        """Count what was done since the last call; a total of 0 is one that nobody knows."""
        self.done, self.total = self.done + count, total
        self._first = self._first or (time.monotonic(), self.done)

    def line(self) -> str:
        """Say how far it is, and how long the rest takes if it goes on like this."""
        spent = f"{duration(time.monotonic() - self.began)} so far"
        if self._first is None:
            return f"{self.label}: {spent}"
        if not self.total:
            return f"{self.label}: {self._count(self.done)}, {spent}"
        share = f"{self._count(self.done, self.total)} ({100 * self.done // self.total}%)"
        left = self._left()
        return f"{self.label}: {share}, {spent if left is None else f'about {duration(left)} left' if left else 'finishing'}"

    def ending(self) -> str:
        """Say that it is over."""
        what = f", {self._count(self.done - self.before)}" if self.done > self.before + 1 else ""
        return f"{self.label}: done{what} in {duration(time.monotonic() - self.began)}"

    def _count(self, done: int, of: int | None = None) -> str:
        if self.unit == "bytes":
            return size(done) if of is None else f"{size(done)} of {size(of)}"
        return f"{done} {self.unit}" if of is None else f"{done} of {of} {self.unit}"

    def _left(self) -> float | None:
        """Return the seconds that are left; None where that is not known yet."""
        if self.done >= self.total:
            return 0.0
        since, before = self._first or (0.0, self.done)
        return (time.monotonic() - since) * (self.total - self.done) / (self.done - before) if self.done > before else None


class Narrator:
    """Says how far a command is, from a thread of its own.

    Args:
        say: Takes a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._write, self._lock, self._over = say, threading.RLock(), threading.Event()
        self._stage, self._told = Stage("working"), False  # whether a line named the stage
        self._speaks = self._due = time.monotonic() + FIRST

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Speak in time as long as the block runs."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    @contextlib.contextmanager
    def stage(self, label: str, unit: str) -> Generator[None]:
        """Make the block a stage."""
        self._begin(Stage(label, unit))
        yield
        self._end()
        self._stage, self._told = Stage("working"), False

    def rename(self, label: str) -> None:
        """End a part of a stage and begin another one, which counts on."""
        self._end()
        self._begin(Stage(label, self._stage.unit, self._stage.done))

    def advance(self, count: int, total: int) -> None:
        """Count what was done of a stage since the last call."""
        with self._lock:
            self._stage.advance(count, total)

    def _begin(self, stage: Stage) -> None:
        with self._lock:
            self._stage, self._told = stage, False
            if time.monotonic() >= self._speaks:
                self._say(f"{stage.label}: begins")

    def _end(self) -> None:
        with self._lock:
            if self._told:
                self._say(self._stage.ending())

    def _watch(self) -> None:
        while not self._over.wait(max(0.0, self._due - time.monotonic())):
            with self._lock:
                if time.monotonic() >= self._due:
                    self._say(self._stage.line())

    def _say(self, line: str) -> None:
        self._told, self._due = True, time.monotonic() + EVERY
        with contextlib.suppress(OSError, ValueError):  # nobody reads stderr any more
            self._write(line)
