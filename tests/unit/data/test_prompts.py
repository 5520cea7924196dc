"""Prompts: text or messages, with or without the answers that other files hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from warmkit.data.chats import Chat
from warmkit.data.preferences import read_pairs
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


def test_a_file_is_read_as_the_reward_model_reads_it(tmp_path: Path) -> None:
    """What the answers share is the prompt; a text beside a conversation only repeats its question."""
    worse = {"role": "assistant", "content": "runs"}
    rows = [
        {"chosen": [USER, ASSISTANT], "rejected": [USER, worse]},
        {"prompt": "the cat?", "chosen": [USER, ASSISTANT], "rejected": [USER, worse], "messages": [USER, ASSISTANT]},
        {"prompt": "the cat?", "messages": [USER, ASSISTANT]},
        {"prompt": [USER], "messages": [USER, ASSISTANT]},
        {"chosen": "\n\nHuman: hi\n\nAssistant: yes", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
        {"prompt": "2 + 2?", "chosen": ["4"], "rejected": ["5", "6", "7"]},
        {"prompt": [USER], "tools": [{"name": "sun"}], "chat_template_kwargs": {"polite": True}},
        {"prompt": "the same", "chosen": "a", "rejected": "a"},
    ]
    file = written(tmp_path, *rows)
    found = [each.content for each in read_prompts(file)]
    assert found[:4] == [[USER]] * 4
    assert found[4:6] == ["\n\nHuman: hi\n\nAssistant:", "2 + 2?"]
    assert found[6] == Chat([USER], [{"name": "sun"}], {"polite": True})
    assert found[7] == "the same"
    pairs = read_pairs(written(tmp_path, *rows[:2], *rows[4:6]))
    assert found[:2] + found[4:6] == [pair.prompt for pair in pairs[:4]]


def test_prompts_that_are_texts_become_chats_where_that_is_asked_for(tmp_path: Path) -> None:
    file = written(tmp_path, {"prompt": "the cat?"}, {"prompt": [USER]}, {"prompt": "\n\nHuman: the cat?\n\nAssistant:"})
    assert [each.content for each in read_prompts(file, chat=True)] == [[USER]] * 3


def test_a_row_that_says_two_things_is_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "the dog?", "messages": [USER, ASSISTANT]}, {"prompt": [ASSISTANT], "messages": [USER, ASSISTANT]}]
    with pytest.raises(DataError) as raised:
        read_prompts(written(tmp_path, *rows))
    assert str(raised.value).count("expected messages to start with the prompt, found") == 2
