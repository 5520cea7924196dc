"""JSON files that somebody else wrote, read strictly and with bounds, and those that we write."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from warmkit.errors import CheckpointError, FormatError

MAX_NESTING = 64
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _Duplicate(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise _Duplicate(f"{twice[:200]!r} is there twice")
    return result


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large")
    return number


def parse_json(text: bytes, path: object) -> Any:
    """Parse strict JSON: UTF-8, no duplicate keys, no NaN or number beyond float64, no half of a character, no endless nesting.

    Raises:
        FormatError: If `text`, read from `path`, is anything else.
    """
    try:
        value = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
        )
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        _refuse_nesting(value)
    except _Duplicate as error:
        raise FormatError(f"{path}: duplicate names in the JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: expected JSON, found something else ({str(error)[:120]})") from None
    return value


def _refuse_nesting(value: Any) -> None:
    """Refuse what code that visits every value would run out of stack on."""
    level = [value]
    for _ in range(MAX_NESTING):
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
        level = [each for values in inner for each in values if isinstance(each, (dict, list))]
        if not level:
            return
    raise ValueError(f"values nested more than {MAX_NESTING} deep")


def read_object(path: Path) -> dict[str, Any]:
    """Read a small file that holds a JSON object.

    Raises:
        CheckpointError: If it cannot be read.
        FormatError: If it holds anything else.
    """
    try:
        content = parse_json(path.read_bytes(), path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: expected a JSON object")
    return content


def dump_json(value: Any) -> bytes:
    """Serialise a small file the way transformers does: indented, with a final newline; what is not UTF-8 is escaped."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")
