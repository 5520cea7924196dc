"""Prompts: text or messages, with or without the answers that other files hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from warmkit.data.prompts import read_prompts
from warmkit.errors import DataError

USER, ASSISTANT = {"role": "user", "content": "the cat?"}, {"role": "assistant", "content": "sings"}


def written(folder: Path, *rows: Any) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_text_and_messages_are_prompts_and_answers_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"prompt": "the cat"},
        {"prompt": "the cat", "chosen": " sings", "rejected": " runs"},
        {"prompt": [USER]},
        {"messages": [USER, ASSISTANT]},
        {"messages": [USER, ASSISTANT, USER]},
    ]
    found = read_prompts(written(tmp_path, *rows))
    assert [each.content for each in found] == ["the cat", "the cat", [USER], [USER], [USER, ASSISTANT, USER]]
    assert [each.text for each in found] == ["the cat", "the cat", "the cat?", "the cat?", "the cat?\nsings\nthe cat?"]
    assert [each.where.rpartition(":")[2] for each in found] == ["1", "2", "3", "4", "5"]


def test_bad_rows_are_listed_together(tmp_path: Path) -> None:
    rows = [{"prompt": "fine"}, {"text": "no"}, {"prompt": "  "}, {"messages": [ASSISTANT]}, {"prompt": 3}]
    with pytest.raises(DataError) as raised:
        read_prompts(written(tmp_path, *rows))
    said = str(raised.value).splitlines()
    assert "4 of 5 rows are bad" in said[0]
    assert "prompts.jsonl:2: expected the key 'prompt', found text" in said[1]
    assert "prompts.jsonl:3: expected prompt not to be empty" in said[2]
    assert "prompts.jsonl:4: expected messages not to be empty" in said[3]
    assert "prompts.jsonl:5: expected prompt to be text or a list of messages, found 3" in said[4]
