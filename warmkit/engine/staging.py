"""Crash safety: everything is written beside the destination and renamed into place at the end.

    .OUT.warmkit/           next to OUT, on the same file system
        lock                held while a run works here
        journal.jsonl       what is on disk for certain: the plan's fingerprint, Gram matrices, finished tensors
        result/             becomes OUT

A tensor enters the journal after its bytes were flushed, so a journal that survives a power loss tells the truth. Nothing
that another put at OUT is replaced without being asked for, whenever it came.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import xxhash

from warmkit.common.records import checked, either, having, is_matrix, is_natural, is_text, list_of, parsed
from warmkit.common.renaming import exchange, rename_into_nothing
from warmkit.common.whole_files import flush, writing
from warmkit.engine.digests import Digests
from warmkit.engine.job import Done
from warmkit.engine.replaceable import check_replaceable
from warmkit.errors import FormatError, OutputError
from warmkit.sources.file_identity import Identity, identities_at, identity

LOCK = "lock"
_LINE = either(
    having(fingerprint=is_text),
    having(group=is_text, gram=is_matrix),
    having(tensor=is_text, inputs=list_of(is_text), outputs=list_of(is_text)),
    having(publishing=is_natural, content=is_text),
)
PART_JOURNAL = "metrics.jsonl"  # the name under which progress of jobs is looked for


class Staging:
    """The staging directory of one destination, locked while open.

    What is at the destination now is what --force may replace; make it before work begins that may take hours.

    Args:
        destination: What will be created.
        force: Whether it may replace a checkpoint that is there.

    Raises:
        OutputError: If the destination is taken, cannot be written, or another run works on it.
    """

    def __init__(self, destination: Path, force: bool = False) -> None:
        self.destination = destination.absolute()
        self.force = force
        self.root = staging_place(destination)
        self.result = self.root / "result"
        self.journal = self.root / "journal.jsonl"
        self.copies = self.root / "copies"  # of a trainer's files, with the result in them
        self.parts = self.root / "parts"  # of a merge over several machines, each with a journal of its own
        self._lock: int | None = None
        self._replaces, self._held = _place(self.destination), identities_at(self.destination)
        self._made: tuple[int, int] | None = None

    def finished_before(self, fingerprint: str) -> bool:
        """Say whether a run of the same plan was killed after its result was in place, and only left its journal."""
        if not self.destination.exists() or self._fingerprint() != fingerprint:
            return False
        last = self.journal.read_bytes().splitlines()[-1]
        return last == _publishing(self.destination).strip()

    def check(self) -> None:
        """Refuse a destination that must not be replaced, before anything is written."""
        if blocked := next((each for each in self.destination.parents if each.exists() and not each.is_dir()), None):
            raise OutputError(f"{self.destination}: {blocked} is a file, not a directory; choose another -o")
        now = _place(self.destination)
        if now is None:
            return
        if now != self._replaces:
            raise self._taken("made")
        if not self.journal.exists():
            self._remove_what_is_left()
        if not self.force:
            raise OutputError(f"{self.destination}: already exists; choose another -o, or replace it with --force")
        check_replaceable(self.destination)

    def _remove_what_is_left(self) -> None:
        """Remove the directory of a run that was killed when all but this was done: it holds a lock, which nobody has."""
        with contextlib.suppress(OSError, OutputError):
            if not self.root.is_symlink() and {each.name for each in self.root.iterdir()} <= {LOCK}:
                self._lock = self._locked()
                self.remove()

    def open(self, fingerprint: str, resume: bool) -> Done:
        """Create or reopen the directory; return what an earlier run of the same plan left in it."""
        with writing(self.root):
            self.root.parent.mkdir(parents=True, exist_ok=True)
            make_own_directory(self.root)
            self._lock = self._locked()
        if resume and self._fingerprint() == fingerprint and _place(self.result) is not None and not self.result.is_symlink():
            self._made = _place(self.result)
            read_journal(self.journal)
            return self.adopt_parts()
        with writing(self.root):
            for old in (self.parts, self.result):  # what another plan has written is gone with its result
                _remove(old)
            self.result.mkdir()
            self._made = _place(self.result)
            self.journal.write_text(json.dumps({"fingerprint": fingerprint}) + "\n")
        return Done()

    def _locked(self) -> int:
        """Open the lock and take it; one that was removed meanwhile, with all of its run, is no lock."""
        while True:
            lock = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                raise OutputError(f"{self.destination}: another warmkit is writing it") from None
            found = os.fstat(lock)
            if _place(self.root / LOCK) == (found.st_dev, found.st_ino):
                return lock
            os.close(lock)
            make_own_directory(self.root)

    def _fingerprint(self) -> str | None:
        with contextlib.suppress(OSError, FormatError), self.journal.open("rb") as file:
            return checked(parsed(file.readline(), self.journal), {"fingerprint": is_text}, self.journal)["fingerprint"]
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

    def begin_anew(self) -> Path:
        """Return an empty directory that becomes OUT in place of the result, which is kept for a run that is killed now."""
        with writing(self.root):
            _remove(self.copies)
            self.copies.mkdir()
        self.result, self._made = self.copies, _place(self.copies)
        return self.result

    def publish(self, written: Mapping[Path, Identity]) -> None:
        """Flush the result and rename it into place; on return it is on disk.

        Args:
            written: The weight files, which must still be there.

        Raises:
            OutputError: If they are not, or something was put at the destination meanwhile: it stays, as does the result.
        """
        with writing(self.destination):
            for folder, _, files in os.walk(self.result):
                for name in files:
                    flush(Path(folder) / name)
                flush(Path(folder))
            self._check_written(written)
            with self.journal.open("ab") as journal:
                journal.write(_publishing(self.result))
            self._put_in_place()
            flush(self.destination.parent)
        self.remove()

    def _check_written(self, written: Mapping[Path, Identity]) -> None:
        """Check that the result is where it was written: what cleans up temporary folders may have taken it."""
        gone = self.result if _place(self.result) != self._made else None
        for file, known in written.items():
            found = identity(file)
            if found is None or (found.inode, found.size) != (known.inode, known.size):
                gone = gone or file
        if gone is not None:
            raise OutputError(f"{gone}: was removed or replaced before the result was finished; give the same command again")

    def _put_in_place(self) -> None:
        now = _place(self.destination)
        if now is None:
            if not rename_into_nothing(self.result, self.destination):
                raise self._taken("made")
            return
        if now != self._replaces:
            raise self._taken("made")
        check_replaceable(self.destination)
        if identities_at(self.destination) != self._held:
            raise self._taken("changed")
        exchange(self.result, self.destination)
        try:
            check_replaceable(self.result)  # what came in between
        except OutputError:
            exchange(self.result, self.destination)
            raise

    def _taken(self, how: str) -> OutputError:
        waits = f"; the result waits in {self.root}" if self.journal.exists() else ""
        return OutputError(
            f"{self.destination}: was {how} by something else while this ran, and stays as it is{waits}: move "
            f"{self.destination.name} away, or add --force, and give the same command again"
        )

    def remove(self) -> None:
        """Remove the staging directory: the journal at the end, so that a run that is killed here is known to be finished."""
        last = {self.journal: 1, self.root / LOCK: 2}
        with contextlib.suppress(OSError):
            for each in sorted(self.root.iterdir(), key=lambda path: last.get(path, 0)):
                _remove(each)
            self.root.rmdir()
        self.close()

    def close(self) -> None:
        """Give the lock back, keeping what is there for a later run."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def staging_place(destination: Path) -> Path:
    """Return where the staging directory of a destination is."""
    absolute = destination.absolute()
    return absolute.parent / f".{absolute.name}.warmkit"


def read_journal(journal: Path) -> Done:
    """Return what an interrupted part has written, nothing if it has no journal yet; a torn end is cut off."""
    if not journal.exists():
        return Done()
    whole = _whole_lines(journal)
    os.truncate(journal, sum(map(len, whole)))
    return _done(whole)


def _whole_lines(journal: Path) -> list[bytes]:
    """Return the lines of a journal up to one that a crash tore, or that is of another form: nothing after it counts."""
    return list(itertools.takewhile(_is_whole, journal.read_bytes().splitlines(keepends=True)))


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and _LINE(parsed(line, "journal"))
    except FormatError:
        return False


def _done(lines: Iterable[bytes]) -> Done:
    done = Done()
    for record in map(json.loads, lines):
        if "gram" in record:
            done.grams[record["group"]] = np.array(record["gram"], dtype=np.float64)
        elif "tensor" in record:
            done.tensors[record["tensor"]] = Digests(tuple(record["inputs"]), tuple(record["outputs"]))
    return done


def _publishing(directory: Path) -> bytes:
    """Return the journal's last line: which directory is about to be renamed, and what is in it."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    content = [[str(path.relative_to(directory)), *(identity(path) or ())] for path in files]
    digest = xxhash.xxh3_128_hexdigest(json.dumps(content).encode())
    return json.dumps({"publishing": directory.stat().st_ino, "content": digest}).encode() + b"\n"


def _place(path: Path) -> tuple[int, int] | None:
    """Return what tells a path's file or directory from others; a link is not followed."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _remove(path: Path) -> None:
    """Remove a file, a link or a directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_own_directory(path: Path) -> None:
    """Create a directory, or take one that is there if it is this user's: no link, and nobody else's.

    Raises:
        OutputError: If it is neither.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        return
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise OutputError(f"{path}: expected a directory for work in progress, found something else; remove it")
    if found.st_uid not in (os.geteuid(), _owner_of_new_files(path)):
        raise OutputError(f"{path}: work in progress of another user; choose another -o")


def _owner_of_new_files(folder: Path) -> int | None:
    """Return who owns what this process creates in a directory: some network file systems give it to another user."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_uid
    return None
