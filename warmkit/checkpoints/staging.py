"""Crash safety: everything is written beside the destination and renamed into place at the end.

    .OUT.warmkit/           next to OUT, on the same file system
        lock                held while a run works here
        journal.jsonl       what is on disk for certain: the plan's fingerprint, Gram matrices, finished tensors
        result/             becomes OUT

A tensor enters the journal after its bytes were flushed, so a journal that survives a power loss tells the truth. The
flushing runs in a thread of its own every few hundred megabytes: it keeps the kernel's dirty pages few, so that writers
are never throttled, and leaves little to flush at the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import threading
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from warmkit.checkpoints.digests import Digests
from warmkit.checkpoints.job import Done
from warmkit.checkpoints.plan import Plan
from warmkit.errors import OutputError
from warmkit.merging.types import Gram

FLUSH_BYTES = 1 << 28


PART_JOURNAL = "metrics.jsonl"  # the name under which progress of jobs is looked for


class Staging:
    """The staging directory of one destination, locked while open.

    Args:
        destination: What will be created.
        force: Whether it may replace a checkpoint that is there.

    Raises:
        OutputError: If the destination is taken, cannot be written, or another run works on it.
    """

    def __init__(self, destination: Path, force: bool = False) -> None:
        self.destination = destination.absolute()
        self.force = force
        self.root = self.destination.parent / f".{self.destination.name}.warmkit"
        self.result = self.root / "result"
        self.journal = self.root / "journal.jsonl"
        self.parts = self.root / "parts"  # of a merge over several machines, each with a journal of its own
        self._lock: int | None = None

    def finished_before(self, fingerprint: str) -> bool:
        """Say whether a run of the same plan was killed after its result was in place, and only left its journal."""
        if not self.destination.exists() or self._fingerprint() != fingerprint:
            return False
        last = self.journal.read_bytes().splitlines()[-1]
        return last == _publishing(self.destination).strip()

    def check(self) -> None:
        """Refuse a destination that must not be replaced, before anything is written."""
        if not self.destination.exists() and not self.destination.is_symlink():
            return
        if not self.force:
            raise OutputError(f"{self.destination}: already exists; choose another -o, or replace it with --force")
        if not self.destination.is_dir() or not _is_checkpoint(self.destination):
            raise OutputError(f"{self.destination}: --force replaces checkpoints, and this is something else")

    def open(self, fingerprint: str, resume: bool) -> Done:
        """Create or reopen the directory; return what an earlier run of the same plan left in it."""
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise OutputError(f"{self.destination}: another warmkit is writing it") from None
        if resume and self._fingerprint() == fingerprint:
            read_journal(self.journal)
            return self.adopt_parts()
        with writing(self.root):
            shutil.rmtree(self.parts, ignore_errors=True)  # what another plan has written is gone with its result
            shutil.rmtree(self.result, ignore_errors=True)
            self.result.mkdir()
            self.journal.write_text(json.dumps({"fingerprint": fingerprint}) + "\n")
        return Done()

    def _fingerprint(self) -> str | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), self.journal.open() as file:
            return json.loads(file.readline())["fingerprint"]
        return None

    def adopt_parts(self) -> Done:
        """Take over what parts have written into the result, by their journals; return all that is done."""
        with writing(self.root):
            with self.journal.open("ab") as journal:
                for each in sorted(self.parts.glob(f"*/{PART_JOURNAL}")):
                    journal.writelines(_whole_lines(each))
                os.fsync(journal.fileno())
            shutil.rmtree(self.parts, ignore_errors=True)
        return _done(_whole_lines(self.journal))

    def publish(self) -> None:
        """Flush the result and rename it into place; on return it is on disk."""
        with writing(self.destination):
            for folder, _, files in os.walk(self.result):
                for name in files:
                    _flush(Path(folder) / name)
                _flush(Path(folder))
            with self.journal.open("ab") as journal:
                journal.write(_publishing(self.result))
            if self.destination.exists():
                _exchange(self.result, self.destination)
            else:
                self.result.rename(self.destination)
            _flush(self.destination.parent)
        self.remove()

    def remove(self) -> None:
        """Remove the staging directory."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Give the lock back, keeping what is there for a later run."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def read_journal(journal: Path) -> Done:
    """Return what an interrupted part has written, nothing if it has no journal yet; a torn end is cut off."""
    if not journal.exists():
        return Done()
    whole = _whole_lines(journal)
    os.truncate(journal, sum(map(len, whole)))
    return _done(whole)


def _whole_lines(journal: Path) -> list[bytes]:
    """Return the lines of a journal up to the one that a crash tore: nothing after it counts."""
    lines: list[bytes] = []
    for line in journal.read_bytes().splitlines(keepends=True):
        try:
            json.loads(line if line.endswith(b"\n") else b"")
        except ValueError:
            break
        lines.append(line)
    return lines


def _done(lines: Iterable[bytes]) -> Done:
    done = Done()
    for record in map(json.loads, lines):
        if "gram" in record:
            done.grams[record["group"]] = np.array(record["gram"], dtype=np.float64)
        elif "tensor" in record:
            done.tensors[record["tensor"]] = Digests(tuple(record["inputs"]), tuple(record["outputs"]))
    return done


def _is_checkpoint(directory: Path) -> bool:
    """Recognise what --force may delete: an empty directory, a checkpoint, or a folder of nothing but `eta-*` ones."""
    children = list(directory.iterdir())
    names = {child.name for child in children}
    if not names or "warmkit.json" in names or any(name.endswith(".safetensors") for name in names):
        return True
    return all(child.is_dir() and child.name.startswith("eta-") for child in children)


@contextlib.contextmanager
def writing(path: Path) -> Generator[None, None, None]:
    """Turn what the system says of a failed write into an OutputError about `path`."""
    full = f"{path}: the disk is full; free some space and run the same command again: it goes on from here"
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(full) from None
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    except Exception as error:  # safetensors and torch have exceptions of their own for a failed write
        if any(words in str(error) for words in ("No space left on device", "PytorchStreamWriter failed")):
            raise OutputError(full) from None
        raise


def _publishing(directory: Path) -> bytes:
    """Return the journal's last line: which directory is about to be renamed. It keeps its inode where it goes."""
    return json.dumps({"publishing": directory.stat().st_ino}).encode() + b"\n"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(new: Path, old: Path) -> None:
    """Swap two directories in one step where the system can; then `new` holds the old content."""
    libc = ctypes.CDLL(None, use_errno=True)
    at_cwd, exchange = -100, 2
    if hasattr(libc, "renameat2"):
        if libc.renameat2(at_cwd, os.fsencode(new), at_cwd, os.fsencode(old), exchange) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code))
    aside = new.with_name("replaced")
    old.rename(aside)
    new.rename(old)


class FileSink:
    """Writes the shards of every output, and the journal.

    Args:
        staging: The directory.
        plan: Of one output.
        folders: Of the outputs.
        journal: By default that of the directory; a part of a merge has one of its own.
    """

    def __init__(self, staging: Staging, plan: Plan, folders: Sequence[str], journal: Path | None = None) -> None:
        self._plan = plan
        self._journal = (journal or staging.journal).open("ab", buffering=0)
        self._where = staging.destination
        self._files = [self._open(staging.result / folder) for folder in folders]
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._records: list[dict[str, Any]] = []
        self._pending = 0
        self._closing = False
        self._error: BaseException | None = None
        self._flusher = threading.Thread(target=self._flush_now_and_then, daemon=True)
        self._flusher.start()

    def _open(self, folder: Path) -> list[int]:
        with writing(self._where):
            folder.mkdir(parents=True, exist_ok=True)
            descriptors: list[int] = []
            for shard in self._plan.shards:
                descriptor = os.open(folder / shard.file, os.O_RDWR | os.O_CREAT, 0o666)
                descriptors.append(descriptor)
                os.ftruncate(descriptor, shard.size)
                os.pwrite(descriptor, shard.header, 0)
            return descriptors

    def write(self, output: int, tensor: str, start: int, data: memoryview) -> None:
        place = self._plan.outputs[tensor]
        descriptor = self._files[output][place.shard]
        offset = place.offset + start * place.dtype.itemsize
        with writing(self._where):
            while data.nbytes:
                count = os.pwrite(descriptor, data, offset)
                data, offset = data[count:], offset + count

    def solved(self, group: str, gram: Gram) -> None:
        with self._lock:
            self._records.append({"group": group, "gram": gram.tolist()})

    def finished(self, tensor: str, digests: Digests, nbytes: int) -> None:
        with self._lock:
            self._records.append({"tensor": tensor, "inputs": digests.inputs, "outputs": digests.outputs})
            self._pending += nbytes * len(self._files)
            if self._pending >= FLUSH_BYTES:
                self._wake.notify()
        if self._error is not None:
            raise self._error

    def _flush_now_and_then(self) -> None:
        try:
            while True:
                with self._lock:
                    while self._pending < FLUSH_BYTES and not self._closing:
                        self._wake.wait()
                    records, self._records, self._pending = self._records, [], 0
                    closing = self._closing
                self._commit(records)
                if closing:
                    return
        except BaseException as error:  # raised again by `finished` or `close`
            self._error = error

    def _commit(self, records: list[dict[str, Any]]) -> None:
        with writing(self._where):
            for descriptors in self._files:
                for descriptor in descriptors:
                    os.fdatasync(descriptor)
            self._journal.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
            os.fdatasync(self._journal.fileno())

    def close(self) -> None:
        """Flush what is pending, so that an interrupted run resumes from here, and close all files."""
        with self._lock:
            self._closing = True
            self._wake.notify()
        self._flusher.join()
        for descriptors in self._files:
            for descriptor in descriptors:
                os.close(descriptor)
        self._journal.close()
        if self._error is not None:
            raise self._error
