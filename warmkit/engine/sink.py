"""Files of a result while they are written, and the journal of what is on disk for certain.

The flushing runs in a thread of its own every few hundred megabytes: it keeps the kernel's dirty pages few, so that writers
are never throttled, and leaves little to flush at the end.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from warmkit.common.whole_files import writing
from warmkit.engine.digests import Digests
from warmkit.engine.job import Done
from warmkit.engine.plan import Plan
from warmkit.engine.staging import Staging
from warmkit.errors import OutputError
from warmkit.merging.types import Gram
from warmkit.sources.file_identity import Identity, identity, identity_of
from warmkit.sources.handles import Handles

FLUSH_BYTES = 1 << 28


def shards_in(staging: Staging, plan: Plan, folders: Sequence[str]) -> list[list[Path]]:
    """Return the paths of all shards of every output."""
    return [[staging.result / folder / shard.file for shard in plan.shards] for folder in folders]


def still_there(done: Done, staging: Staging, plan: Plan, folders: Sequence[str]) -> Done:
    """Return what a journal says is done, without the tensors whose files were removed since."""
    whole = set(range(len(plan.shards)))
    for folder in shards_in(staging, plan, folders):
        found = [identity(path) for path in folder]
        whole -= {place for place, (each, shard) in enumerate(zip(found, plan.shards)) if not each or each.size != shard.size}
    return Done(done.grams, {name: each for name, each in done.tensors.items() if plan.outputs[name].shard in whole})


class FileSink:
    """Writes the shards of every output, and the journal.

    Args:
        staging: The directory.
        plan: Of one output.
        folders: Of the outputs.
        journal: By default that of the directory; a part of a merge has one of its own.

    Attributes:
        written: The files, as they were made.
    """

    def __init__(self, staging: Staging, plan: Plan, folders: Sequence[str], journal: Path | None = None) -> None:
        self._plan = plan
        self._where = staging.destination
        self._shards = shards_in(staging, plan, folders)
        self.written: dict[Path, Identity] = {}
        for folder in self._shards:
            self._make(folder)
        self._handles = Handles(os.O_RDWR, self._opened, os.fdatasync)
        self._journal = (journal or staging.journal).open("ab", buffering=0)
        self._dirty = set[Path]()
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._records: list[dict[str, Any]] = []
        self._pending = 0
        self._closing = False
        self._error: BaseException | None = None
        self._flusher = threading.Thread(target=self._flush_now_and_then, daemon=True)
        self._flusher.start()

    def _make(self, folder: Sequence[Path]) -> None:
        with writing(self._where):
            for path, shard in zip(folder, self._plan.shards):
                path.parent.mkdir(parents=True, exist_ok=True)  # modules of a model lie in folders
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
                try:
                    os.ftruncate(descriptor, shard.size)
                    os.pwrite(descriptor, shard.header, 0)
                    self.written[path] = identity_of(os.fstat(descriptor))
                finally:
                    os.close(descriptor)

    def _opened(self, path: Path, descriptor: int) -> None:
        if os.fstat(descriptor).st_ino != self.written[path].inode:
            raise OutputError(f"{path}: was replaced while it was written; give the same command again")

    def write(self, output: int, tensor: str, start: int, data: memoryview) -> None:
        place = self._plan.outputs[tensor]
        path, offset = self._shards[output][place.shard], place.offset + start * place.dtype.itemsize
        with writing(self._where), self._handles.use(path) as descriptor:
            while data.nbytes:
                count = os.pwrite(descriptor, data, offset)
                data, offset = data[count:], offset + count
        with self._lock:
            self._dirty.add(path)

    def solved(self, group: str, gram: Gram) -> None:
        with self._lock:
            self._records.append({"group": group, "gram": gram.tolist()})

    def finished(self, tensor: str, digests: Digests, nbytes: int) -> None:
        with self._lock:
            self._records.append({"tensor": tensor, "inputs": digests.inputs, "outputs": digests.outputs})
            self._pending += nbytes * len(self._shards)
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
                    dirty, self._dirty = self._dirty, set()
                    closing = self._closing
                self._commit(records, dirty)
                if closing:
                    return
        except BaseException as error:  # raised again by `finished` or `close`
            self._error = error

    def _commit(self, records: list[dict[str, Any]], dirty: set[Path]) -> None:
        with writing(self._where):
            for path in dirty:
                with self._handles.use(path) as descriptor:
                    os.fdatasync(descriptor)
            self._journal.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
            os.fdatasync(self._journal.fileno())

    def close(self) -> None:
        """Flush what is pending, so that an interrupted run resumes from here, and close all files."""
        with self._lock:
            self._closing = True
            self._wake.notify()
        self._flusher.join()
        self._journal.close()
        with writing(self._where):
            self._handles.close()
        if self._error is not None:
            raise self._error
