"""Rows of a file or a data set, parsed one by one and refused together."""

from __future__ import annotations

import gzip
import itertools
import json
import reprlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from warmkit.common.file_kinds import kind_of
from warmkit.errors import DataError, UsageError, listed

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]

JSON_LINES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
PARQUET = ".parquet"


def read_rows(source: str | Path, parse: Callable[[Row, str], T]) -> list[T]:
    """Parse every row of `source`; the first bad one does not hide the next.

    Args:
        source: A file of JSON objects, one a line (blank lines are skipped) or in one array (`.jsonl`, `.json`, and with `.gz`
            behind), a `.parquet` file, or else a data set for the `datasets` library: `name`, `name:split` or
            `name:config:split`, the name being a directory's or the Hub's. `name` alone is its only split, or `train`.
        parse: From a row and where it stands to a T; raises DataError, without the place.

    Raises:
        DataError: If the source cannot be read, has no rows, or `parse` refuses any; all that it refuses are listed.
        UsageError: If `source` is of no known kind, or a library that reads it is not installed.
    """
    parsed: list[T] = []
    problems: list[str] = []
    for number, raw in raw_rows(source):
        where = f"{source}:{number}"
        try:
            parsed.append(parse(row_of(raw), where))
        except DataError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise DataError(f"{source}: {len(problems)} of {len(problems) + len(parsed)} rows are bad:\n{listed(problems)}")
    if not parsed:
        raise DataError(f"{source}: expected rows, found none")
    return parsed


def row_of(raw: Any) -> Row:
    """Return a row as a dict; bytes are a line of JSON.

    Raises:
        DataError: If it is no JSON, or no object.
    """
    if isinstance(raw, bytes):
        try:
            raw = json.loads(raw.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            raise DataError(
                f"expected a line of JSON in UTF-8, found {reprlib.repr(raw.decode('utf-8', 'replace').strip())}"
            ) from None
    if not isinstance(raw, dict):
        raise DataError(f"expected a JSON object, found {reprlib.repr(raw)}")
    return cast("Row", raw)


def raw_rows(source: str | Path) -> Iterator[tuple[int, Any]]:
    """Yield each row with its number; lines and rows count from 1. A line is bytes, for `row_of`.

    Raises:
        DataError: If the source cannot be read.
        UsageError: If it is of no known kind, or a library that reads it is not installed.
    """
    path = Path(source)
    what = kind_at(path)
    if what not in (None, "a file") and (what != "a directory" or is_json(path) or path.suffix == PARQUET):
        raise DataError(f"{path}: expected a file of rows, found {what}")
    if is_json(path):
        return _lines(path)
    if path.suffix == PARQUET:
        return enumerate(_parquet(path), 1)
    if what == "a file":
        raise UsageError(f"{path}: expected a {', '.join(JSON_LINES)} or {PARQUET} file, or the name of a data set")
    return enumerate(_dataset(str(source)), 1)


def kind_at(path: Path) -> str | None:
    """Return what lies at a path, as `file_kinds.kind_of` says it; None where nothing does.

    Raises:
        DataError: If the system does not say.
    """
    try:
        return kind_of(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # no permission, a loop of links, a name that no file can have
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def is_json(path: Path) -> bool:
    """Say whether a file's name is that of JSON lines or of a JSON array."""
    return path.name.endswith(JSON_LINES)


def is_plain_lines(path: Path) -> bool:
    """Say whether a file's rows are its lines, as they are: not compressed, no array, no table."""
    if path.suffix in (".gz", PARQUET):
        return False
    if kind_at(path) != "a file":
        return True  # a pipe gives its lines once
    try:
        with path.open("rb") as file:
            return not _is_array(_first_line(file))
    except OSError:
        return True  # who reads it says what is wrong


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            first = _first_line(cast("IO[bytes]", file))
            file.seek(0)
            if _is_array(first):
                yield from enumerate(_array(path, file.read()), 1)
            else:
                yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or _one_line(error)}") from None


def _first_line(file: IO[bytes]) -> bytes:
    return next((line for line in itertools.islice(file, 1000) if line.strip()), b"")


def _is_array(first: bytes) -> bool:
    """Say whether a line opens an array that goes on behind it; one that ends there and holds objects is a file of one line."""
    if not first.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        return False
    try:
        whole: Any = json.loads(first)
    except (ValueError, RecursionError):
        return True
    return isinstance(whole, list) and all(isinstance(each, dict) for each in cast("list[Any]", whole))


def _array(path: Path, content: bytes) -> list[Any]:
    try:
        return cast("list[Any]", json.loads(content))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON array of objects, or an object a line; found {_one_line(error)}") from None


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise _missing("pyarrow", path) from None
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{path}: cannot be read: {_one_line(error)}") from None


def _dataset(source: str) -> Iterator[Row]:
    try:
        from datasets import DatasetDict, load_dataset
        from datasets.exceptions import DatasetGenerationError, DatasetsError
    except ImportError:
        raise _missing("datasets", source) from None
    name, config, split = _dataset_name(source)
    try:
        loaded = load_dataset(name, config, split=split)
    except DatasetGenerationError as error:  # says nothing itself
        raise DataError(f"{source}: cannot be read: {_one_line(error.__cause__ or error)}") from None
    except (OSError, ValueError, DatasetsError) as error:
        raise DataError(f"{source}: cannot be read: {_one_line(error)}") from None
    yield from cast("Iterator[Row]", _default_split(source, loaded) if isinstance(loaded, DatasetDict) else loaded)


def _dataset_name(source: str) -> tuple[str, str | None, str | None]:
    """Return name, config and split."""
    if Path(source).exists():
        return source, None, None
    name, *rest = source.split(":")
    if len(rest) > 2 or not all((name, *rest)):
        raise UsageError(f"expected a file or a data set (name, name:split or name:config:split), found {source!r}")
    config, split = (None, None, *rest)[-2:]
    return name, config, split


def _default_split(source: str, splits: DatasetDict) -> Dataset:
    if len(splits) == 1:
        return next(iter(splits.values()))
    if "train" in splits:
        return splits["train"]
    raise UsageError(f"{source}: name one of its splits, {source}:SPLIT; it has {', '.join(map(str, splits))}")


def _missing(library: str, source: str | Path) -> UsageError:
    return UsageError(f"{source}: reading it needs {library}: pip install 'warmkit[train]'")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
