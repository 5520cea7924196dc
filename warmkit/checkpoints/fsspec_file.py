"""Files in object stores and on other file systems, through fsspec: s3://, gs://, az://, memory://, ..."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, TypeVar

from warmkit.checkpoints.http_file import BEGINNING
from warmkit.checkpoints.remote_file import ATTEMPTS_TO_OPEN, PassingError, Patience, RemoteFile
from warmkit.errors import CheckpointError, FormatError, TransferError, UnsupportedError

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
        from fsspec.core import url_to_fs

        self.url, self.patience = url.rstrip("/"), Patience()
        try:
            self.system, path = url_to_fs(url)
        except ImportError as error:
            wanted = str(error).splitlines()[0]
            raise UnsupportedError(f"{url}: needs another package: {wanted}; or pip install 'warmkit[remote]'") from None
        except ValueError as error:
            raise UnsupportedError(f"{url}: {str(error).splitlines()[0]}") from None
        self.path = str(path).rstrip("/")

    def names(self) -> list[str]:
        """Return the names of all files, those in sub-folders with their path; [""] where the place is itself a file."""

        def attempt() -> list[str]:
            found = [str(path) for path in self.system.find(self.path, maxdepth=2)]
            if found in ([self.path], [f"/{self.path}"]):
                return [""]
            home = PurePosixPath("/", self.path)
            return sorted(str(PurePosixPath("/", path).relative_to(home)) for path in found)

        return self.patience.persist(self.url, lambda: passing(self.url, attempt), ATTEMPTS_TO_OPEN)

    def small_file(self, name: str) -> bytes:
        """Return a small file whole."""
        place, path = f"{self.url}/{name}", f"{self.path}/{name}"
        return self.patience.persist(place, lambda: passing(place, lambda: self.system.cat_file(path)), ATTEMPTS_TO_OPEN)


class FsspecFile(RemoteFile):
    """A file of a store.

    Args:
        store: Where it is.
        name: Its path inside the model; "" for the place of the store itself.
    """

    def __init__(self, store: Store, name: str) -> None:
        place = f"{store.url}/{name}" if name else store.url
        super().__init__(place, name or PurePosixPath(store.path).name, store.patience)
        self._store, self._path = store, f"{store.path}/{name}" if name else store.path
        self.size, self.version = self._patience.persist(place, self._describe, ATTEMPTS_TO_OPEN)
        if not self.size:
            raise FormatError(f"{place}: expected a safetensors file, found 0 bytes")
        first = bytearray(min(BEGINNING, self.size))
        self._patience.persist(place, lambda: self.receive(0, memoryview(first)), ATTEMPTS_TO_OPEN)
        self.beginning = bytes(first)

    def _describe(self) -> tuple[int, str]:
        def ask() -> dict[str, Any]:
            self._store.system.invalidate_cache()  # a listing that is kept tells what the file was
            return self._store.system.info(self._path)

        info = passing(self.place, ask)
        return int(info["size"]), str(next((info[key] for key in VERSIONS if info.get(key)), ""))

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


def passing(place: str, ask: Callable[[], T]) -> T:
    """Return what `ask` returns; every store has errors of its own, and most of them pass."""
    try:
        return ask()
    except FileNotFoundError:
        raise CheckpointError(f"{place}: no such file or folder") from None
    except PermissionError as error:
        raise TransferError(f"{place}: access denied: {_said(error)}") from None
    except Exception as error:
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"):
            raise TransferError(f"{place}: no credentials: {_said(error)}") from None
        raise PassingError(_said(error)) from None


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
