"""Rows of a file or a data set, parsed one by one and refused together."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from warmkit.errors import DataError, UsageError, listed

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]

JSON_LINES = (".jsonl", ".json")
PARQUET = ".parquet"


def read_rows(source: str | Path, parse: Callable[[Row, str], T]) -> list[T]:
    """Parse every row of `source`; the first bad one does not hide the next.

    Args:
        source: A file of JSON objects, one a line (`.jsonl`, `.json`; blank lines are skipped), a `.parquet` file, or else a
            data set for the `datasets` library: `name`, `name:split` or `name:config:split`, the name being a directory's
            or the Hub's. `name` alone is its only split, or `train`.
        parse: From a row and where it stands to a T; raises DataError, without the place.

    Raises:
        DataError: If the source cannot be read, has no rows, or `parse` refuses any; all that it refuses are listed.
        UsageError: If `source` is of no known kind, or a library that reads it is not installed.
    """
    parsed: list[T] = []
    problems: list[str] = []
    for where, raw in _raw_rows(source):
        try:
            parsed.append(parse(_object(raw), where))
        except DataError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise DataError(f"{source}: {len(problems)} of {len(problems) + len(parsed)} rows are bad:\n{listed(problems)}")
    if not parsed:
        raise DataError(f"{source}: expected rows, found none")
    return parsed


def _object(raw: Any) -> Row:
    """Return a row as a dict; bytes are a line of JSON."""
    if isinstance(raw, bytes):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            raise DataError(
                f"expected a line of JSON in UTF-8, found {reprlib.repr(raw.decode('utf-8', 'replace').strip())}"
            ) from None
    if not isinstance(raw, dict):
        raise DataError(f"expected a JSON object, found {reprlib.repr(raw)}")
    return cast("Row", raw)


def _raw_rows(source: str | Path) -> Iterator[tuple[str, Any]]:
    """Yield each row with where it stands; lines and rows count from 1."""
    path = Path(source)
    if path.suffix in JSON_LINES:
        rows = _lines(path)
    elif path.suffix == PARQUET:
        rows = enumerate(_parquet(path), 1)
    elif path.is_file():
        raise UsageError(f"{path}: expected a {', '.join(JSON_LINES)} or {PARQUET} file, or the name of a data set")
    else:
        rows = enumerate(_dataset(str(source)), 1)
    return ((f"{source}:{number}", row) for number, row in rows)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


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
