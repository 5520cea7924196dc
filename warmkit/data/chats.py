"""Chats: messages, and what the chat template is told beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

from warmkit.errors import DataError

Message: TypeAlias = dict[str, Any]
"""`{"role": "user", "content": "..."}`; a call of tools may have None as its content."""
Messages: TypeAlias = list[Message]


class Chat(Messages):
    """Messages of a row that also says what the template is given: a list like any other, with these options.

    Args:
        messages: In order.
        tools: What the model may call, as JSON schemas.
        arguments: Of the template, by name (TRL's `chat_template_kwargs`).
    """

    def __init__(
        self, messages: Iterable[Message], tools: list[Any] | None = None, arguments: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(messages)
        self.tools, self.arguments = tools, dict(arguments or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and list(self) == list(cast("Messages", other)) and columns_of(self) == columns_of(other)

    __hash__ = None  # type: ignore[assignment]  # as of every list


def part(messages: Messages, start: int | None, end: int | None = None) -> Messages:
    """Return some of the messages, with the same options."""
    return like(messages, messages[start:end])


def like(origin: str | Messages, messages: Messages) -> Messages:
    """Give messages the options of others."""
    return Chat(messages, origin.tools, origin.arguments) if isinstance(origin, Chat) else messages


def options_of(text: str | Messages) -> dict[str, Any]:
    """Return what `apply_chat_template` is given beside the messages."""
    if not isinstance(text, Chat):
        return {}
    return {**({} if text.tools is None else {"tools": text.tools}), **text.arguments}


def columns_of(text: object) -> dict[str, Any]:
    """Return the columns that hold a chat's options in a row, where it has any."""
    if not isinstance(text, Chat):
        return {}
    found = {"tools": text.tools, "chat_template_kwargs": text.arguments}
    return {key: value for key, value in found.items() if value}


def spoken(messages: Messages) -> str:
    """Return what the messages say, one a line."""
    return "\n".join(each["content"] or "" for each in messages)


HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
"""What begins a turn of a dialogue in one text (Anthropic's HH)."""


def is_dialogue(text: str) -> bool:
    """Say whether a text is a dialogue of HH's form: the human's turn, then the assistant's."""
    return text.lstrip().startswith(HUMAN.lstrip()) and ASSISTANT in text


def as_chat(prompt: str) -> Messages:
    """Make a chat of a text: the turns of a dialogue, or else the user's message.

    Raises:
        DataError: If it is blank.

    Examples:
        >>> as_chat("2 + 2?")
        [{'role': 'user', 'content': '2 + 2?'}]
    """
    if not prompt.strip():
        raise DataError("expected a prompt that becomes the user's message of a chat, found none")
    if not is_dialogue(prompt):
        return [{"role": "user", "content": prompt}]
    turns = re.split(f"({HUMAN}|{ASSISTANT})", "\n\n" + prompt.lstrip())[1:]
    roles = {HUMAN: "user", ASSISTANT: "assistant"}
    found = [{"role": roles[mark], "content": words.strip()} for mark, words in zip(turns[::2], turns[1::2])]
    return found if found[-1]["content"] else found[:-1]  # the last one opens the answer


def as_answer(answer: str, prompt: str) -> Messages:
    """Make the assistant's message of an answer, and of a dialogue all turns that are left.

    In a dialogue, the space after `Assistant:` is not part of the message.
    """
    if is_dialogue(prompt) and (HUMAN in answer or ASSISTANT in answer):
        return as_chat(prompt + answer)[len(as_chat(prompt)) :]
    return [{"role": "assistant", "content": answer.strip() if is_dialogue(prompt) else answer}]
