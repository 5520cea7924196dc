"""Texts for supervised fine-tuning: every shape that is read, every row that is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from warmkit.data.texts import Text, read_texts
from warmkit.errors import DataError

USER = {"role": "user", "content": "2 + 2?"}
GOOD = {"role": "assistant", "content": "4"}
BAD = {"role": "assistant", "content": "5"}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


SHAPES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "text": ({"text": "2 + 2 = 4", "source": "a book"}, "", "2 + 2 = 4"),
    "prompt_and_completion": ({"prompt": "2 + 2 =", "completion": " 4"}, "2 + 2 =", " 4"),
    "empty_prompt": ({"prompt": "", "completion": "4"}, "", "4"),
    "messages_and_completion": ({"prompt": [USER], "completion": [GOOD]}, [USER], [GOOD]),
    "messages_and_text": ({"prompt": [USER], "completion": "4"}, [USER], "4"),
    "messages": ({"messages": [USER, BAD, USER, GOOD]}, [USER, BAD, USER], [GOOD]),
    "pair": ({"prompt": "2 + 2?", "chosen": "4", "rejected": "5", "subset": "math"}, "2 + 2?", "4"),
    "pair_of_conversations": ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, [USER], [GOOD]),
    "messages_beside_the_rest": ({"text": "x", "prompt": "x", "completion": "x", "messages": [USER, GOOD]}, [USER], [GOOD]),
}

REFUSED: dict[str, tuple[Any, str]] = {
    "no_object": ("text", "expected a JSON object, found 'text'"),
    "no_known_key": ({"prompt": "x"}, "expected text, prompt and completion, messages or chosen and rejected, found prompt"),
    "no_key": ({}, "found no key"),
    "number_as_text": ({"text": 4}, "expected text to be text, found 4"),
    "messages_as_text": ({"text": [USER]}, "expected text to be text, found [{"),
    "empty_text": ({"text": " "}, "expected text not to be empty, found ' '"),
    "no_prompt": ({"completion": "4"}, "expected the key 'prompt', found completion"),
    "empty_completion": ({"prompt": "x", "completion": ""}, "expected completion not to be empty, found ''"),
    "text_prompt_of_messages": ({"prompt": "x", "completion": [GOOD]}, "to be messages too, found text"),
    "text_as_messages": ({"messages": "x"}, "expected messages to be a list of messages, found 'x'"),
    "users_last_word": ({"messages": [USER, GOOD, USER]}, "found ['user', 'assistant', 'user']"),
    "answer_to_nothing": ({"messages": [GOOD]}, "found ['assistant']"),
    "empty_last_message": ({"messages": [USER, {**GOOD, "content": ""}]}, "expected messages not to be empty, found [{"),
    "message_without_role": ({"messages": [{"content": "x"}, GOOD]}, "messages[0]: expected the key 'role', found content"),
    "no_rejected": ({"prompt": "x", "chosen": "4"}, "expected the key 'rejected', found prompt, chosen"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_becomes_a_text(tmp_path: Path, shape: str) -> None:
    row, prompt, completion = SHAPES[shape]
    path = write(tmp_path / "d.jsonl", row)
    assert read_texts(path) == [Text(prompt, completion, f"{path}:1")]


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, kind: str) -> None:
    row, message = REFUSED[kind]
    path = write(tmp_path / "d.jsonl", {"text": "x"}, row)
    with pytest.raises(DataError) as caught:
        read_texts(path)
    head, line = str(caught.value).splitlines()
    assert head == f"{path}: 1 of 2 rows are bad:"
    assert line.startswith(f"  {path}:2: ")
    assert message in line


def test_all_bad_rows_are_reported_at_once_and_many_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", *[{"text": ""}] * 20)
    with pytest.raises(DataError) as caught:
        read_texts(path)
    lines = str(caught.value).splitlines()
    assert (lines[0], lines[-1]) == (f"{path}: 20 of 20 rows are bad:", "  ... and 8 more")


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"d\.jsonl: expected rows, found none"):
        read_texts(write(tmp_path / "d.jsonl"))


def test_texts_become_chats_where_that_is_asked_for(tmp_path: Path) -> None:
    rows = [
        {"prompt": "2 + 2?", "completion": "4"},
        {"messages": [USER, GOOD]},
        {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    ]
    found = read_texts(write(tmp_path / "d.jsonl", *rows), chat=True)
    assert [(each.prompt, each.completion) for each in found] == [([USER], [GOOD])] * 3
    with pytest.raises(DataError, match="expected a prompt that becomes the user's message of a chat"):
        read_texts(write(tmp_path / "d.jsonl", {"text": "x"}), chat=True)
