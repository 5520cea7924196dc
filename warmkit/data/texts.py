"""Texts to imitate, for supervised fine-tuning."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from pathlib import Path

from warmkit.data.chats import Messages, as_answer, as_chat, part
from warmkit.data.fields import check_answer, content, has, messages, text
from warmkit.data.preferences import divide
from warmkit.data.rows import Row, read_rows
from warmkit.errors import DataError


@dataclass(frozen=True)
class Text:
    """One demonstration.

    Attributes:
        prompt: What comes before: text, empty for plain text, or messages.
        completion: What is to be learned: text, or messages.
        where: File and line, for messages.
    """

    prompt: str | Messages
    completion: str | Messages
    where: str


def read_texts(source: str | Path, *, chat: bool = False) -> list[Text]:
    """Read texts, in order.

    A row is the first of these whose key it has: `messages`, the last of them the assistant's, which is the completion;
    `completion` with its `prompt`; a preference pair, whose completion is `chosen`; `text`, with the prompt "".

    Args:
        source: Rows, as in `warmkit.data.rows.read_rows`.
        chat: Make chats of prompts and completions that are texts; `text` alone has nobody who speaks, and is refused.

    Raises:
        DataError: If there are no rows, or any row is bad; all bad rows are listed, with their lines.
        UsageError: If `source` is of no known kind, or a library that reads it is not installed.
    """
    return read_rows(source, lambda row, where: _as_chat(_parse_text(row, where)) if chat else _parse_text(row, where))


def _as_chat(text: Text) -> Text:
    prompt = as_chat(text.prompt) if isinstance(text.prompt, str) else text.prompt
    asked = text.prompt if isinstance(text.prompt, str) else ""
    completion = as_answer(text.completion, asked) if isinstance(text.completion, str) else text.completion
    return Text(prompt, completion, text.where)


def _parse_text(row: Row, where: str) -> Text:
    shape = next((key for key in ("messages", "completion", "chosen", "text") if has(row, key)), None)
    if shape is None:
        present = ", ".join(key for key in row if has(row, key))
        raise DataError(f"expected text, prompt and completion, messages or chosen and rejected, found {present or 'no key'}")
    if shape == "chosen":
        return Text(*_preferred(row), where)
    prompt, completion = {"messages": _conversation, "completion": _completion, "text": _plain}[shape](row)
    check_answer(completion, shape)
    return Text(prompt, completion, where)


def _preferred(row: Row) -> tuple[str | Messages, str | Messages]:
    """Return prompt and chosen answer; that the rejected one is the same does not matter here."""
    found = divide(row)
    if len(found.chosen) > 1:
        raise DataError(f"expected one chosen answer to learn, found {len(found.chosen)}")
    check_answer(found.chosen[0], "chosen")
    return found.prompt, found.chosen[0]


def _plain(row: Row) -> tuple[str, str]:
    return "", text(row, "text")


def _completion(row: Row) -> tuple[str | Messages, str | Messages]:
    prompt, completion = content(row, "prompt"), content(row, "completion")
    if isinstance(prompt, str) and isinstance(completion, list):
        raise DataError("expected the prompt of a completion in messages to be messages too, found text")
    return prompt, completion


def _conversation(row: Row) -> tuple[Messages, Messages]:
    whole = messages(row, "messages")
    if len(whole) < 2 or whole[-1]["role"] != "assistant":
        roles = [each["role"] for each in whole]
        raise DataError(f"expected messages that end with the assistant's answer to another, found {reprlib.repr(roles)}")
    return part(whole, None, -1), part(whole, -1)
