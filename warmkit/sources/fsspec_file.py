"""Files in object stores and on other file systems, through fsspec: s3://, gs://, az://, memory://, ..."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, TypeVar

from warmkit.common.addresses import shown, without_secrets
from warmkit.errors import CheckpointError, FormatError, TransferError, UnsupportedError
from warmkit.sources.http_file import BEGINNING, Room
from warmkit.sources.remote_file import ATTEMPTS_TO_OPEN, PassingError, Patience, RemoteFile

T = TypeVar("T")

# What changes with a file, by the names that stores give it; the first that is there counts.
VERSIONS = (
    "ETag",
    "etag",
    "generation",
    "md5Hash",
    "content_md5",
    "VersionId",
    "mtime",
    "LastModified",
    "last_modified",
    "created",
)


class Store:
    """One place in a file system of fsspec: a folder, or a file.

    Args:
        url: `s3://bucket/prefix`, or any that fsspec knows; credentials and endpoints come from where its file system looks.

    Raises:
        UnsupportedError: If fsspec does not know the protocol, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        self.place, self.patience, self._room = shown(url).rstrip("/"), Patience(), Room()
        self.system, path = _opened(url, self.place)
        self.path = str(path).rstrip("/")

    def names(self) -> list[str]:
        """Return the names of all files, those in sub-folders with their path; [""] where the place is itself a file."""

        def attempt() -> list[str]:
            found = [str(path) for path in self.system.find(self.path, maxdepth=2)]
            if found in ([self.path], [f"/{self.path}"]):
                return [""]
            home = f"{self.path}/" if self.path else ""
            return sorted(path.removeprefix("/").removeprefix(home.removeprefix("/")) for path in found)

        return self.patience.persist(self.place, lambda: passing(self.place, attempt), ATTEMPTS_TO_OPEN)

    def small_file(self, name: str) -> bytes:
        """Return a small file whole."""
        place, path = f"{self.place}/{name}", f"{self.path}/{name}"

        def attempt() -> bytes:
            size = int(self.system.info(path)["size"])
            with self._room.taken(place, size):
                return self.system.cat_file(path, start=0, end=size) if size else b""

        return self.patience.persist(place, lambda: passing(place, attempt), ATTEMPTS_TO_OPEN)


class FsspecFile(RemoteFile):
    """A file of a store.

    Args:
        store: Where it is.
        name: Its path inside the model; "" for the place of the store itself.
    """

    def __init__(self, store: Store, name: str) -> None:
        place = f"{store.place}/{name}" if name else store.place
        super().__init__(place, name or PurePosixPath(store.path).name, store.patience)
        self._store, self._path = store, f"{store.path}/{name}" if name else store.path
        self.size, self.version = self._patience.persist(place, self._describe, ATTEMPTS_TO_OPEN)
        if not self.size:
            raise FormatError(f"{place}: expected a safetensors file, found 0 bytes")
        first = bytearray(min(BEGINNING, self.size))
        self._patience.persist(place, lambda: self.receive(0, memoryview(first)), ATTEMPTS_TO_OPEN)
        self.beginning = bytes(first)

    def _describe(self) -> tuple[int, str]:
        def ask() -> tuple[int, str]:
            self._store.system.invalidate_cache()  # a listing that is kept tells what the file was
            info: dict[str, Any] = self._store.system.info(self._path)
            return int(info["size"]), str(next((info[key] for key in VERSIONS if info.get(key)), ""))

        return passing(self.place, ask)

    def receive(self, offset: int, view: memoryview) -> None:
        """Ask for one range."""
        end = offset + view.nbytes
        got = passing(self.place, lambda: self._store.system.cat_file(self._path, start=offset, end=end))
        if len(got) > view.nbytes:
            raise TransferError(f"{self.place}: {view.nbytes:,} bytes were asked for, the store gave {len(got):,}")
        view[: len(got)] = got
        if len(got) < view.nbytes:
            raise PassingError(f"the store ended {view.nbytes - len(got):,} bytes early", len(got))

    def check(self) -> None:
        """Compare size and version with those of the opening: a range does not tell which version it is of."""
        if self._patience.persist(self.place, self._describe, ATTEMPTS_TO_OPEN) != (self.size, self.version):
            raise CheckpointError(f"{self.place}: was replaced while it was read; run the command again")

    def close(self) -> None:
        """The file system keeps its connections."""


def _opened(url: str, place: str) -> tuple[Any, Any]:
    """Return the file system of an address, and the path in it."""
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url)
    except ImportError as error:
        raise UnsupportedError(f"{place}: needs another package: {_said(error)}; or pip install 'warmkit[remote]'") from None
    except Exception as error:  # every file system has errors of its own
        raise UnsupportedError(f"{place}: cannot be opened: {_said(error)}") from None


def passing(place: str, ask: Callable[[], T]) -> T:
    """Return what `ask` returns; every store has errors of its own, and most of them pass."""
    try:
        return ask()
    except (CheckpointError, PassingError):
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{place}: no such file or folder") from None
    except PermissionError as error:
        raise TransferError(f"{place}: access denied: {_said(error)}") from None
    except Exception as error:
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"):
            raise TransferError(f"{place}: no credentials: {_said(error)}") from None
        raise PassingError(_said(error)) from None


def _said(error: BaseException) -> str:
    return without_secrets(" ".join(str(error).split()))[:200] or type(error).__name__
