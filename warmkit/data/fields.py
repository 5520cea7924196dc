"""Fields of a row: text, messages, a label, a flag."""

from __future__ import annotations

import json
import math
import reprlib
from typing import Any, cast

from warmkit.data.chats import Chat, Message, Messages, spoken
from warmkit.data.rows import Row
from warmkit.errors import DataError

OURS = frozenset(
    (
        "conversation",
        "tools",
        "tokenize",
        "add_generation_prompt",
        "continue_final_message",
        "padding",
        "truncation",
        "max_length",
    )
)
"""Arguments of `apply_chat_template` that a row cannot choose: they say what is read, not how it is written."""


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
        found = [_message(each, f"{key}[{place}]") for place, each in enumerate(cast("list[Any]", value))]
        tools, arguments = _tools(row), _arguments(row)
        return Chat(found, tools, arguments) if tools or arguments else found
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


def number(row: Row, key: str) -> float:
    """Return a finite number, 0 where the key is not there.

    Raises:
        DataError: If it holds anything else.
    """
    value = row[key] if has(row, key) else 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"expected {key} to be a finite number, found {reprlib.repr(value)}")
    return float(value)


def check_answer(value: str | Messages, key: str) -> None:
    """Refuse an answer without a word in it.

    Raises:
        DataError: If it is blank.
    """
    words = value if isinstance(value, str) else spoken(value)
    if not words.strip() and not (isinstance(value, list) and any(map(calls_tools, value))):
        raise DataError(f"expected {key} not to be empty, found {reprlib.repr(value)}")


def _required(row: Row, key: str) -> Any:
    if not has(row, key):
        present = ", ".join(each for each in row if has(row, each))
        raise DataError(f"expected the key {key!r}, found {present or 'no key'}")
    return row[key]


def calls_tools(message: Message) -> bool:
    """Say whether a message asks for a tool, so that it needs no words."""
    return bool(message.get("tool_calls") or message.get("function_call"))


def _message(value: Any, name: str) -> Message:
    """Return what a message says, whole: templates write names, calls of tools and thoughts too."""
    if not isinstance(value, dict):
        raise DataError(f"expected {name} to be a message with role and content, found {reprlib.repr(value)}")
    found = {key: each for key, each in cast("Row", value).items() if each is not None}
    try:
        found["role"] = text(found, "role")
        silent = calls_tools(found) and "content" not in found
        found["content"] = None if silent else _content(_required(found, "content"))
        json.dumps(found, ensure_ascii=False).encode()
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except UnicodeEncodeError:
        raise DataError(f"{name}: expected text, found a lone surrogate in it") from None
    except (TypeError, ValueError):
        raise DataError(f"{name}: expected what JSON can say, found {reprlib.repr(found)}") from None
    return found


def _content(value: Any) -> str:
    """Return the words of a message; of parts, those of all, one after the other."""
    if isinstance(value, str):
        return _encodable(value, "content")
    if not isinstance(value, list):
        raise DataError(f"expected content to be text, found {reprlib.repr(value)}")
    words: list[str] = []
    for part in cast("list[Any]", value):
        kind = cast("Row", part).get("type") if isinstance(part, dict) else None
        if kind != "text":
            raise DataError(f"expected content to be text, or parts of type text, found {kind or reprlib.repr(part)}")
        words.append(text(cast("Row", part), "text"))
    return "".join(words)


def _tools(row: Row) -> list[Any] | None:
    """Return what the model may call; data sets keep it as JSON too."""
    found = row["tools"] if has(row, "tools") else None
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            raise DataError(f"expected tools to be a list, or JSON of one, found {reprlib.repr(found)}") from None
    if found is not None and not isinstance(found, list):
        raise DataError(f"expected tools to be a list, found {reprlib.repr(found)}")
    return cast("list[Any] | None", found) or None


def _arguments(row: Row) -> dict[str, Any]:
    """Return what the chat template is given by name; tables fill what a row lacks with None."""
    found = row["chat_template_kwargs"] if has(row, "chat_template_kwargs") else {}
    if not isinstance(found, dict):
        raise DataError(f"expected chat_template_kwargs to be an object, found {reprlib.repr(found)}")
    given = {key: value for key, value in cast("Row", found).items() if value is not None}
    if refused := sorted(key for key in given if key in OURS or key.startswith("return_")):
        raise DataError(f"chat_template_kwargs: {refused[0]} is not for a row to say; take it out")
    return given


def _encodable(value: str, key: str) -> str:
    """Refuse half of a surrogate pair, which JSON can spell and no tokenizer takes."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"expected {key} to be text, found the lone surrogate {value[error.start]!r} in it") from None
    return value
