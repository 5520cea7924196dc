"""Answers on disk, so that no question is paid for twice.

Each answer is a transaction of its own in an SQLite database: a process that is killed loses none that arrived, and two
processes may share a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

from typing_extensions import Self

from warmkit.errors import OutputError

BUSY_SECONDS = 30.0  # how long to wait while another process writes


class Cache:
    """A table from the digest of a request to its answer; threads may share it.

    Args:
        path: The database, created if need be; `:memory:` lasts as long as the object.

    Raises:
        OutputError: If it cannot be opened or is something else; every method raises it when the disk fails.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._explained():
            self._database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            with self._explained():
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS answers (request TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
                )
        except BaseException:
            self._database.close()
            raise

    def get(self, key: str) -> str | None:
        """Return the answer to a request, if it came before."""
        with self._lock, self._explained():
            row = self._database.execute("SELECT answer FROM answers WHERE request = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, key: str, answer: str) -> None:
        """Store an answer; on return it is on disk."""
        with self._lock, self._explained():
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer))

    def close(self) -> None:
        """Close the database; an answer that is just being stored gets there first."""
        with self._lock:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _explained(self) -> Generator[None, None, None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OutputError(f"{self.path}: cannot be used as the cache of answers: {error}") from None


def key_of(url: str, request: dict[str, Any]) -> str:
    """Return the digest of all that an answer depends on: where it came from, the model and the whole request."""
    return hashlib.sha256(json.dumps([url, request], sort_keys=True).encode()).hexdigest()
