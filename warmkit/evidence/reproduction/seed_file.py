"""Results of one seed in one small file: a line for what all claims share, and a line a claim.

    {"seed": 3, "size": "small", "testbed": {...}}
    {"claim": "warp-slerp", "setting": {...}, "numbers": {...}, "points": [...], "seconds": ..., "about": {...}}

Points of one line of a figure stand together, a list a column. Numbers have the digits that carry information: far more than
the spread between seeds leaves.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from warmkit.errors import DataError

Document = dict[str, Any]
"""A claim on a seed: `claim`, `seed`, `size`, `setting` (`testbed`, `claim`), `numbers`, `points`, `seconds`, `about`."""
DIGITS = 6
"""Significant ones of a number."""


def rounded(value: Any) -> Any:
    """Round every number of a document, which then is what its file gives back.

    Example:
        >>> rounded({"gold": 1.23456789, "at": 200, "lost": None})
        {'gold': 1.23457, 'at': 200, 'lost': None}
    """
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def text_of(documents: Sequence[Document]) -> str:
    """Return the text of the file of one seed.

    Args:
        documents: Of one seed, size and testbed.
    """
    first = documents[0]
    head = {"seed": first["seed"], "size": first["size"], "testbed": first["setting"]["testbed"]}
    lines = [head, *(_line(rounded(each)) for each in documents)]
    return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)


def read_seed(file: Path) -> list[Document]:
    """Read the documents of a seed.

    Raises:
        DataError: If the file is none of a seed.
    """
    try:
        head, *lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        return [_document(line, **head) for line in lines] or [_document({}, **head)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: expected what one seed gave, a line a claim; {type(error).__name__}: {error}") from None


def _line(document: Document) -> Document:
    rest = {name: each for name, each in document.items() if name not in ("seed", "size", "setting", "points")}
    return {**rest, "setting": document["setting"]["claim"], "points": _columns(document["points"])}


def _document(line: Document, *, seed: int, size: str, testbed: Document) -> Document:
    points = [point for block in line["points"] for point in _rows(block)]
    return {**line, "seed": seed, "size": size, "setting": {"testbed": testbed, "claim": line["setting"]}, "points": points}


def _columns(points: Iterable[Mapping[str, Any]]) -> list[Document]:
    """Put points that follow each other on one line of a figure together, a list a column."""
    blocks: list[Document] = []
    for _, group in itertools.groupby(points, lambda point: (point["part"], point["line"], tuple(sorted(point)))):
        first, *others = group
        columns = {name: [first[name], *(each[name] for each in others)] for name in first if name not in ("part", "line")}
        blocks.append({"part": first["part"], "line": first["line"], **columns})
    return blocks


def _rows(block: Document) -> list[Document]:
    place = {"part": block["part"], "line": block["line"]}
    columns = {name: each for name, each in block.items() if name not in place}
    return [{**dict(zip(columns, row)), **place} for row in zip(*columns.values(), strict=True)]
