"""Prompts to answer, for training a policy."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from pathlib import Path

from warmkit.data.fields import Messages, content, has
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
        return self.content if isinstance(self.content, str) else "\n".join(each["content"] for each in self.content)


def read_prompts(source: str | Path) -> list[Prompt]:
    """Read prompts, in order.

    A row holds `prompt`, text or messages, or else `messages`; a last answer of the assistant is not part of the prompt. Other
    keys are left alone, so preference pairs and demonstrations serve too.

    Args:
        source: JSON lines, parquet or a data set, as in `warmkit.data.rows.read_rows`.

    Raises:
        DataError: If there are no rows, or any row is bad; all bad rows are listed, with their lines.
        UsageError: If `source` is of no known kind, or a library that reads it is not installed.
    """
    return read_rows(source, _parse_prompt)


def _parse_prompt(row: Row, where: str) -> Prompt:
    key = "prompt" if has(row, "prompt") or not has(row, "messages") else "messages"
    found = content(row, key)
    if isinstance(found, list) and found[-1]["role"] == "assistant":
        found = found[:-1]
    if not (found.strip() if isinstance(found, str) else found):
        raise DataError(f"expected {key} not to be empty, found {reprlib.repr(row[key])}")
    return Prompt(found, where)
