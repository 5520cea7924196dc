"""Things that one seed of the testbed has made: each once, whichever process asks first, and what it cost."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TypeVar

from warmkit.common.records import is_number, read_record
from warmkit.common.whole_files import write_whole, writing

T = TypeVar("T")


class Products:
    """Things made once in a folder, by processes that wait for each other.

    Args:
        folder: Of one seed.

    Attributes:
        used: Seconds of a processor that everything asked for took to make, by name, whenever that was.
        inside: Seconds of a processor that this process spent in here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: dict[str, float] = {}
        self.inside = 0.0

    def once(self, name: str, work: Callable[[], T], wait: bool = True) -> T:
        """Do `work`, which returns at once what it finds done, while no other process does the same.

        What a killed process had spent on it before is not counted.

        Args:
            name: Of the thing.
            work: What makes it, or finds it.
            wait: For a process that is making it.

        Raises:
            BlockingIOError: If there is one and it is not waited for.
        """
        entered = time.process_time()
        record = self.folder / "made" / f"{name.replace('/', ' ')}.json"
        with self._locked(record.with_suffix(".lock"), wait):
            began = time.process_time()
            result = work()
            if not record.exists():
                write_whole(record, json.dumps({"seconds": time.process_time() - began}).encode())
            self.used[name] = read_record(record, {"seconds": is_number}, "delete it")["seconds"]
        self.inside += time.process_time() - entered
        return result

    def all(self, works: Mapping[str, Callable[[], T]]) -> list[T]:
        """Do several things, first those that no other process is doing; return them in their order."""
        done: dict[str, T] = {}
        for name in works:
            with contextlib.suppress(BlockingIOError):
                done[name] = self.once(name, works[name], wait=False)
        return [done[name] if name in done else self.once(name, work) for name, work in works.items()]

    def part(self, name: str) -> Products:
        """Return the products of a folder inside, whose time counts here."""
        return _Part(self, name)

    @contextlib.contextmanager
    def _locked(self, file: Path, wait: bool) -> Generator[None]:
        with writing(self.folder):
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
        finally:
            os.close(descriptor)


class _Part(Products):
    """Products of a folder inside of another's."""

    def __init__(self, whole: Products, name: str) -> None:
        super().__init__(whole.folder / name)
        self._whole, self._name = whole, name

    def once(self, name: str, work: Callable[[], T], wait: bool = True) -> T:
        return self._whole.once(f"{self._name}/{name}", work, wait)
