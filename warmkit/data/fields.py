"""What a field of a row may hold: text, messages, a label, a flag."""

from __future__ import annotations

import reprlib
from typing import Any, TypeAlias, cast

from warmkit.data.rows import Row
from warmkit.errors import DataError

Messages: TypeAlias = list[dict[str, str]]
"""A chat: `[{"role": "user", "content": "..."}, ...]`."""


def has(row: Row, key: str) -> bool:
    """Return whether a row has a key; tables fill what a row lacks with None."""
    return row.get(key) is not None


def content(row: Row, key: str) -> str | Messages:
    """Return text or messages.

    Raises:
        DataError: If the key is not there or holds neither.
    """
    value = _required(row, key)
    if isinstance(value, str):
        return _encodable(value, key)
    if isinstance(value, list) and value:
        return [_message(each, f"{key}[{place}]") for place, each in enumerate(cast("list[Any]", value))]
    raise DataError(f"expected {key} to be text or a list of messages, found {reprlib.repr(value)}")


def messages(row: Row, key: str) -> Messages:
    """Return messages, where text will not do.

    Raises:
        DataError: If the key is not there or holds anything else.
    """
    value = content(row, key)
    if isinstance(value, str):
        raise DataError(f"expected {key} to be a list of messages, found {reprlib.repr(value)}")
    return value


def text(row: Row, key: str) -> str:
    """Return text, where messages will not do.

    Raises:
        DataError: If the key is not there or holds anything else.
    """
    value = _required(row, key)
    if not isinstance(value, str):
        raise DataError(f"expected {key} to be text, found {reprlib.repr(value)}")
    return _encodable(value, key)


def flag(row: Row, key: str) -> bool:
    """Return true or false, the latter where the key is not there.

    Raises:
        DataError: If it holds anything else.
    """
    value = row[key] if has(row, key) else False
    if not isinstance(value, bool):
        raise DataError(f"expected {key} to be true or false, found {reprlib.repr(value)}")
    return value


def check_answer(value: str | Messages, key: str) -> None:
    """Refuse an answer without a word in it.

    Raises:
        DataError: If it is blank.
    """
    words = value if isinstance(value, str) else "".join(each["content"] for each in value)
    if not words.strip():
        raise DataError(f"expected {key} not to be empty, found {reprlib.repr(value)}")


def _required(row: Row, key: str) -> Any:
    if not has(row, key):
        present = ", ".join(each for each in row if has(row, each))
        raise DataError(f"expected the key {key!r}, found {present or 'no key'}")
    return row[key]


def _message(value: Any, name: str) -> dict[str, str]:
    """Return role and content; what else a message says (a name, a date) is not for training."""
    if not isinstance(value, dict):
        raise DataError(f"expected {name} to be a message with role and content, found {reprlib.repr(value)}")
    found = cast("Row", value)
    try:
        return {key: text(found, key) for key in ("role", "content")}
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _encodable(value: str, key: str) -> str:
    """Refuse half of a surrogate pair, which JSON can spell and no tokenizer takes."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"expected {key} to be text, found the lone surrogate {value[error.start]!r} in it") from None
    return value
