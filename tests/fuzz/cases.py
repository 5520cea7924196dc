"""One mutation, and what a reader did with it."""

from __future__ import annotations

import contextlib
import random
import resource
import signal
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.readers import Reader
from warmkit.errors import WarmkitError

SECONDS, BYTES = 5.0, 2 << 30
BAD = ("traceback", "hang", "memory", "misread", "no line")


class Hang(BaseException):
    """A case took too much CPU time."""


def _hangs(*_: Any) -> None:
    raise Hang


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Bound the memory of this process, and let the CPU time of a case be measured, while the block runs."""
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGPROF, _hangs)
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, before[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGPROF, handler)


def outcome(reader: Reader, seed: str) -> tuple[str, str]:
    """Damage a file, read it, put the right one back; return what happened, and the words of what should not.

    `read` is as the reference reads it, or where there is none; `read alone` is what the reference refuses; `refused` is one
    error of warmkit's that takes a line or a list of them.
    """
    right = reader.file.read_bytes()
    _put(reader.file, reader.damage(random.Random(seed), right))
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            found = reader.read()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        return _compared(reader, found)
    except WarmkitError as error:
        said = str(error)
        return ("refused", "") if 0 < len(said) < 4000 else ("no line", said[:200])
    except Hang:
        return "hang", ""
    except MemoryError:
        return "memory", ""
    except Exception as error:  # what is looked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {str(error)[:100]} ({last.filename.rpartition('/')[2]}:{last.lineno})"
    finally:
        _put(reader.file, right)


def _put(file: Path, content: bytes) -> None:
    """Write a file anew; ext4 takes milliseconds to write over one that is not empty."""
    file.unlink()
    file.write_bytes(content)


def _compared(reader: Reader, found: Any) -> tuple[str, str]:
    if reader.reference is None:
        return "read", ""
    try:
        expected = reader.reference()
    except Exception:  # a reference says no in its own way
        return "read alone", ""
    return ("read", "") if found == expected else ("misread", f"{str(found)[:80]} for {str(expected)[:80]}")
