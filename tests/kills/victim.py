"""A command in a process of its own that kills itself before the n-th change of the file system, or is killed from outside."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MARK = "WARMKIT_KILLS"  # in the environment of whatever a command starts
CHANGES = ("rename", "replace", "remove", "unlink", "rmdir", "mkdir", "fsync", "fdatasync", "pwrite", "ftruncate", "truncate")


@dataclass
class Clock:
    """Counts changes of the file system; at the one that is chosen, the process dies before it is made."""

    last: int | None = None
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def tick(self) -> None:
        with self.lock:
            self.count += 1
            if self.count == self.last:
                os.kill(os.getpid(), signal.SIGKILL)

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.tick()
            return function(*arguments, **named)

        return call

    def opened(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self.tick()

    def watch(self) -> None:
        """Count from now on, in this process."""
        from warmkit.common import renaming

        for name in CHANGES:
            setattr(os, name, self.counted(getattr(os, name)))
        renaming._rename = self.counted(renaming._rename)
        sys.addaudithook(self.opened)


def start(arguments: Sequence[str], folder: Path, said: Path, mark: str, clock: Clock) -> int:
    """Run `warmkit ARGUMENTS` in a copy of this process, which has imported what takes long; return its number."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    try:
        code = _run(arguments, folder, said, mark, clock)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _run(arguments: Sequence[str], folder: Path, said: Path, mark: str, clock: Clock) -> int:
    atexit._clear()  # what the first process will want to remove
    os.setsid()
    os.chdir(folder)
    os.environ[MARK] = mark
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    counter = Path(f"{said}.count")
    clock.watch()
    sys.argv = ["warmkit", *arguments]
    from warmkit.cli.app import main

    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    atexit._run_exitfuncs()
    counter.write_text(str(clock.count))
    return code


def ended(number: int, seconds: float) -> int | None:
    """Wait for a process; return its exit code, negative for a signal, None if it goes on."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def left(mark: str, seconds: float) -> list[int]:
    """Return the processes that a command has started and that live on after a while."""
    end = time.monotonic() + seconds
    while (found := _marked(mark)) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def _marked(mark: str) -> list[int]:
    found: list[int] = []
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (each / "environ").read_bytes():
                    found.append(int(each.name))
            except OSError:
                continue
    return found
