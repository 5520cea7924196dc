"""Prompts to answer, for training a policy."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from pathlib import Path

from warmkit.data.chats import Messages, as_chat, part, spoken
from warmkit.data.fields import content, has, messages
from warmkit.data.preferences import check_asked, divide
from warmkit.data.rows import Row, read_rows
from warmkit.errors import DataError


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        content: Text, or messages.
        where: File and line, for messages.
    """

    content: str | Messages
    where: str

    @property
    def text(self) -> str:
        """Return the text; of messages, their contents, one a line."""
        return self.content if isinstance(self.content, str) else spoken(self.content)


def read_prompts(source: str | Path, *, chat: bool = False) -> list[Prompt]:
    """Read prompts, in order, as `read_pairs` and `read_texts` read them in the same file.

    A row is a preference pair, whose prompt is explicit or what both answers share; or holds `messages`, or `prompt`, text or
    messages. A last answer of the assistant is not part of the prompt. A `prompt` that is text beside a conversation only
    repeats its question. Other keys are left alone.

    Args:
        source: Rows, as in `warmkit.data.rows.read_rows`.
        chat: Make a chat of a text: the user's message.

    Raises:
        DataError: If there are no rows, or any row is bad; all bad rows are listed, with their lines.
        UsageError: If `source` is of no known kind, or a library that reads it is not installed.
    """
    return read_rows(source, lambda row, where: _parse_prompt(row, where, chat))


def _parse_prompt(row: Row, where: str, chat: bool = False) -> Prompt:
    key, found = _found(row)
    if not (found.strip() if isinstance(found, str) else found):
        raise DataError(f"expected {key} not to be empty, found {reprlib.repr(row.get(key, ''))}")
    return Prompt(as_chat(found) if chat and isinstance(found, str) else found, where)


def _found(row: Row) -> tuple[str, str | Messages]:
    """Return the key that tells the prompt, and the prompt."""
    if has(row, "chosen") and has(row, "rejected"):
        found = divide(row).prompt
        if isinstance(found, list) and found[-1]["role"] == "assistant":
            raise DataError("expected the prompt of two answers to end before the assistant speaks, found its message")
        return "prompt", found
    if has(row, "messages"):
        conversation = messages(row, "messages")
        if has(row, "prompt"):
            check_asked(content(row, "prompt"), conversation, "messages")
        return "messages", _unanswered(conversation)
    return "prompt", _unanswered(content(row, "prompt"))


def _unanswered(found: str | Messages) -> str | Messages:
    """Leave a last answer out."""
    return part(found, None, -1) if isinstance(found, list) and found[-1]["role"] == "assistant" else found
