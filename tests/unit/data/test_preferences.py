"""Preference pairs: every shape that is read, every row that is refused, and what is written."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from warmkit.data.chats import Chat
from warmkit.data.preferences import Pair, read_pairs, write_pairs
from warmkit.errors import DataError, OutputError, UsageError

USER = {"role": "user", "content": "2 + 2?"}
GOOD = {"role": "assistant", "content": "4"}
BAD = {"role": "assistant", "content": "5"}
TOOL = {"type": "function", "function": {"name": "add"}}
CALL = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "add"}}]}
RESULT = {"role": "tool", "content": "4"}
DIALOGUE = "\n\nHuman: hi\n\nAssistant: no\n\nHuman: 2?\n\nAssistant:"
ROW = {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}
CHAT = {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}


def write(path: Path, *rows: Any) -> Path:
    """Write JSON lines; a row of bytes is written as it is."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows))
    return path


def without_place(pair: Pair) -> Pair:
    return dataclasses.replace(pair, where="")


# ---- shapes ---------------------------------------------------------------------------------------------------------

SHAPES: dict[str, tuple[dict[str, Any], Pair]] = {
    "texts": (ROW, Pair("2 + 2?", "4", "5")),
    "messages": (CHAT, Pair([USER], [GOOD], [BAD])),
    "answers_in_text": ({"prompt": [USER], "chosen": "4", "rejected": "5"}, Pair([USER], "4", "5")),
    "implicit_prompt": ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, Pair([USER], [GOOD], [BAD])),
    "implicit_prompt_of_several_turns": (
        {"chosen": [USER, BAD, USER, GOOD, USER], "rejected": [USER, BAD, USER, BAD]},
        Pair([USER, BAD, USER], [GOOD, USER], [BAD]),
    ),
    "two_texts": ({"chosen": "4", "rejected": "5"}, Pair("", "4", "5")),
    "null_prompt": ({"prompt": None, "chosen": "4", "rejected": "5"}, Pair("", "4", "5")),
    "ultrafeedback": (
        {"prompt": "2 + 2? ", "chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 9.0},
        Pair([USER], [GOOD], [BAD]),
    ),
    "reward_bench": (
        {**ROW, "chosen_model": "a", "rejected_model": "b", "subset": "math", "id": 7},
        Pair("2 + 2?", "4", "5", subset="math"),
    ),
    "corrupt": ({**ROW, "corrupt": True}, Pair("2 + 2?", "4", "5", corrupt=True)),
    "names_of_speakers": ({**CHAT, "prompt": [{**USER, "name": "Ann"}]}, Pair([{**USER, "name": "Ann"}], [GOOD], [BAD])),
    "parts": (
        {
            **CHAT,
            "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "four"}, {"type": "text", "text": "."}]}],
        },
        Pair([USER], [{"role": "assistant", "content": "four."}], [BAD]),
    ),
    "a_call_without_content": (
        {"chosen": [USER, CALL, RESULT, GOOD], "rejected": [USER, CALL, RESULT, BAD]},
        Pair([USER, {**CALL, "content": None}, RESULT], [GOOD], [BAD]),
    ),
    "an_answer_that_is_a_call": ({**CHAT, "chosen": [CALL]}, Pair([USER], [{**CALL, "content": None}], [BAD])),
    "tools_and_arguments": (
        {**CHAT, "tools": [TOOL], "chat_template_kwargs": {"thinking": True}},
        Pair(
            Chat([USER], [TOOL], {"thinking": True}),
            Chat([GOOD], [TOOL], {"thinking": True}),
            Chat([BAD], [TOOL], {"thinking": True}),
        ),
    ),
    "tools_in_json": (
        {"chosen": [USER, GOOD], "rejected": [USER, BAD], "tools": json.dumps([TOOL])},
        Pair(Chat([USER], [TOOL]), Chat([GOOD], [TOOL]), Chat([BAD], [TOOL])),
    ),
    "hh": (
        {
            "chosen": "\n\nHuman: hi\n\nAssistant: no\n\nHuman: 2?\n\nAssistant: 4",
            "rejected": "\n\nHuman: hi\n\nAssistant: no\n\nHuman: 2?\n\nAssistant: 5",
        },
        Pair(DIALOGUE, " 4", " 5"),
    ),
    "hh_with_an_empty_answer": (
        {"chosen": "\n\nHuman: hi\n\nAssistant: ", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
        Pair("\n\nHuman: hi\n\nAssistant:", " ", " no"),
    ),
    "numbers_of_messages_do_not_part_conversations": (
        {"chosen": [{**USER, "id": 1}, GOOD], "rejected": [{**USER, "id": 2}, BAD]},
        Pair([{**USER, "id": 1}], [GOOD], [BAD]),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_becomes_a_pair(tmp_path: Path, shape: str) -> None:
    row, expected = SHAPES[shape]
    (pair,) = read_pairs(write(tmp_path / "d.jsonl", row))
    assert without_place(pair) == expected


def test_a_pair_knows_its_line_and_blank_lines_count(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", ROW, b"  ", ROW)
    assert [pair.where for pair in read_pairs(path)] == [f"{path}:1", f"{path}:3"]


def test_a_byte_order_mark_and_line_separators_in_a_text_are_harmless(tmp_path: Path) -> None:
    row = json.dumps({**ROW, "chosen": "4\u2028\x85"}, ensure_ascii=False).encode()
    (pair,) = read_pairs(write(tmp_path / "d.jsonl", b"\xef\xbb\xbf" + row))
    assert pair.chosen == "4\u2028\x85"


def test_every_chosen_of_several_answers_makes_a_pair_with_every_rejected_one(tmp_path: Path) -> None:
    """RewardBench 2, with the columns of its card: lists of texts, one of them right, or several (its Ties)."""
    rest = {"models": ["a", "b"], "total_completions": 4, "additional_metadata": {"category": None, "valid": 1.0}}
    best = {"id": "0", "prompt": "2 + 2?", "chosen": ["4"], "rejected": ["5", "6", "7"], "num_correct": 1, "num_incorrect": 3}
    ties = {"id": "tied:0", "prompt": "A colour?", "chosen": ["red", "blue"], "rejected": ["dog", "two"], "num_correct": 2}
    best, ties = {**best, **rest, "subset": "Math"}, {**ties, **rest, "num_incorrect": 2, "subset": "Ties"}
    path = write(tmp_path / "d.jsonl", best, ties)
    pairs = read_pairs(path)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [
        ("4", "5"), ("4", "6"), ("4", "7"), ("red", "dog"), ("red", "two"), ("blue", "dog"), ("blue", "two")
    ]  # fmt: skip
    assert [pair.subset for pair in pairs] == ["Math"] * 3 + ["Ties"] * 4
    assert {pair.where for pair in pairs} == {f"{path}:1", f"{path}:2"}


def test_texts_become_chats_where_that_is_asked_for(tmp_path: Path) -> None:
    hh = {
        "chosen": "\n\nHuman: hi\n\nAssistant: no\n\nHuman: 2?\n\nAssistant: 4",
        "rejected": "\n\nHuman: hi\n\nAssistant: no\n\nHuman: 2?\n\nAssistant: 5",
    }
    first, second, third = read_pairs(write(tmp_path / "d.jsonl", ROW, hh, CHAT), chat=True)
    assert without_place(first) == without_place(third) == Pair([USER], [GOOD], [BAD])
    turns = [("user", "hi"), ("assistant", "no"), ("user", "2?")]
    assert second.prompt == [{"role": role, "content": words} for role, words in turns]
    assert (second.chosen, second.rejected) == ([GOOD], [BAD])
    with pytest.raises(DataError, match="expected a prompt that becomes the user's message of a chat, found none"):
        read_pairs(write(tmp_path / "d.jsonl", {"chosen": "4", "rejected": "5"}), chat=True)


def test_dialogues_that_part_before_the_last_turn_keep_their_turns_as_chats(tmp_path: Path) -> None:
    """As some of HH do."""
    chosen, rejected = (f"\n\nHuman: hi\n\nAssistant: no\n\nHuman: {more}" for more in ("2?\n\nAssistant: 4", "bye"))
    file = write(tmp_path / "d.jsonl", {"chosen": chosen, "rejected": rejected})
    ((text,), (chat,)) = (read_pairs(file, chat=chat) for chat in (False, True))
    opened, no = "\n\nHuman: hi\n\nAssistant:", {"role": "assistant", "content": "no"}
    assert without_place(text) == Pair(opened, chosen.removeprefix(opened), rejected.removeprefix(opened))
    answers = [no, {"role": "user", "content": "2?"}, GOOD], [no, {"role": "user", "content": "bye"}]
    assert without_place(chat) == Pair([{"role": "user", "content": "hi"}], *answers)


def test_pairs_of_equal_answers_are_left_out_and_counted_where_that_is_asked_for(tmp_path: Path) -> None:
    same = [{**ROW, "rejected": "4"}, {**CHAT, "rejected": [GOOD]}, {"chosen": [USER, GOOD], "rejected": [USER, GOOD]}]
    path = write(tmp_path / "d.jsonl", *same, ROW, {**ROW, "chosen": "", "rejected": ""})
    pairs = read_pairs(path, equal_pairs="skip")
    assert ([without_place(pair) for pair in pairs], pairs.skipped) == ([Pair("2 + 2?", "4", "5")], 4)
    with pytest.raises(DataError, match="4 of 5 rows are bad"):
        read_pairs(path)
    with pytest.raises(DataError, match="expected pairs of different answers, found 1 of equal ones alone"):
        read_pairs(write(tmp_path / "same.jsonl", same[0]), equal_pairs="skip")


# ---- rows that are refused --------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, str]] = {
    "no_json": (b'{"prompt": ', "expected a line of JSON in UTF-8, found '{\"prompt\":'"),
    "no_utf8": (b'{"prompt": "\xff"}', "expected a line of JSON in UTF-8"),
    "nested_too_deep": (b"[" * 200_000, "expected a line of JSON in UTF-8"),
    "no_object": ([ROW], "expected a JSON object, found [{'chosen'"),
    "no_chosen": ({"prompt": "x", "rejected": "5"}, "expected the key 'chosen', found prompt, rejected"),
    "no_rejected": ({"prompt": "x", "chosen": "4"}, "expected the key 'rejected', found prompt, chosen"),
    "no_key": ({}, "expected the key 'chosen', found no key"),
    "null_chosen": ({**ROW, "chosen": None}, "expected the key 'chosen', found prompt, rejected"),
    "number_as_chosen": ({**ROW, "chosen": 4}, "expected chosen to be text or a list of messages, found 4"),
    "object_as_prompt": ({**ROW, "prompt": USER}, "expected prompt to be text or a list of messages, found {'content'"),
    "empty_prompt_list": ({**ROW, "prompt": []}, "expected prompt to be text or a list of messages, found []"),
    "number_as_subset": ({**ROW, "subset": 3}, "expected subset to be text, found 3"),
    "number_as_corrupt": ({**ROW, "corrupt": 1}, "expected corrupt to be true or false, found 1"),
    "empty_chosen": ({**ROW, "chosen": ""}, "expected chosen not to be empty, found ''"),
    "blank_rejected": ({**ROW, "rejected": " \n"}, "expected rejected not to be empty, found ' \\n'"),
    "blank_message": (
        {**CHAT, "chosen": [{"role": "assistant", "content": ""}]},
        "expected chosen not to be empty, found [{'content': '', 'role': 'assistant'}]",
    ),
    "conversation_without_answer": (
        {"chosen": [USER, GOOD], "rejected": [USER]},
        "expected rejected not to be empty, found []",
    ),
    "message_without_role": ({**CHAT, "chosen": [{"content": "4"}]}, "chosen[0]: expected the key 'role', found content"),
    "message_without_content": (
        {**CHAT, "rejected": [BAD, {"role": "assistant"}]},
        "rejected[1]: expected the key 'content', found role",
    ),
    "number_in_a_message": (
        {**CHAT, "prompt": [{"role": "user", "content": 4}]},
        "prompt[0]: expected content to be text, found 4",
    ),
    "text_as_message": ({**CHAT, "prompt": ["x"]}, "expected prompt[0] to be a message with role and content, found 'x'"),
    "same_texts": ({**ROW, "rejected": "4"}, "expected chosen and rejected to differ, found '4' for both"),
    "same_messages": ({**CHAT, "rejected": [GOOD]}, "expected chosen and rejected to differ"),
    "two_kinds": ({**ROW, "prompt": [USER], "rejected": [BAD]}, "both texts or both messages, found one of each"),
    "nothing_shared": ({"chosen": [GOOD], "rejected": [BAD]}, "found no message in common"),
    "another_prompt": (
        {"prompt": "3 + 3?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        "found '3 + 3?' only in prompt",
    ),
    "image": (
        {**CHAT, "prompt": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]},
        "prompt[0]: expected content to be text, or parts of type text, found image",
    ),
    "tools_of_text": ({**CHAT, "tools": "add"}, "expected tools to be a list, or JSON of one, found 'add'"),
    "arguments_of_text": ({**CHAT, "chat_template_kwargs": "x"}, "expected chat_template_kwargs to be an object, found 'x'"),
    "an_argument_of_ours": (
        {**CHAT, "chat_template_kwargs": {"add_generation_prompt": True}},
        "chat_template_kwargs: add_generation_prompt is not for a row to say",
    ),
    "a_surrogate_in_a_call": (
        {**CHAT, "chosen": [{**CALL, "id": "\ud800"}]},
        "chosen[0]: expected text, found a lone surrogate",
    ),
    "lone_surrogate": ({**ROW, "chosen": "a\ud800"}, "expected chosen to be text, found the lone surrogate '\\ud800'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, kind: str) -> None:
    row, message = REFUSED[kind]
    path = write(tmp_path / "d.jsonl", ROW, row, ROW)
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    head, line = str(caught.value).splitlines()
    assert head == f"{path}: 1 of 3 rows are bad:"
    assert line.startswith(f"  {path}:2: ")
    assert message in line


def test_all_bad_rows_are_reported_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", b"nope", ROW, {**ROW, "chosen": ""}, {"prompt": "x"}, CHAT)
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    head, *lines = str(caught.value).splitlines()
    assert head == f"{path}: 3 of 5 rows are bad:"
    assert [line.split(": ")[0].strip() for line in lines] == [f"{path}:{number}" for number in (1, 3, 4)]


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.jsonl: expected rows, found none"):
        read_pairs(tmp_path / "d.jsonl")


@pytest.mark.parametrize("name", ["d.jsonl", "d.parquet"])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="parquet needs the train extra")
    with pytest.raises(DataError, match=rf"{name}: cannot be read: .*No such file"):
        read_pairs(tmp_path / name)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("prompt,chosen,rejected\n")
    with pytest.raises(UsageError, match=r"expected a \.jsonl, \.json, \.jsonl\.gz, \.json\.gz or \.parquet file"):
        read_pairs(tmp_path / "d.csv")


# ---- parquet and data sets --------------------------------------------------------------------------------------------


def parquet(path: Path, *rows: dict[str, Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="parquet needs the train extra")
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the datasets library off the network and its cache out of the home directory."""
    config = pytest.importorskip("datasets", reason="data sets need the train extra").config
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("shape", SHAPES)
def test_parquet_reads_as_json_lines_do(tmp_path: Path, shape: str) -> None:
    row, expected = SHAPES[shape]
    path = parquet(tmp_path / "d.parquet", row, row)
    pairs = read_pairs(path)
    assert [without_place(pair) for pair in pairs] == [expected] * 2
    assert [pair.where for pair in pairs] == [f"{path}:1", f"{path}:2"]


def test_a_key_that_only_other_rows_have_is_missing_in_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "d.parquet", ROW, {"prompt": "x", "chosen": "4"})
    with pytest.raises(DataError, match=r"d\.parquet:2: expected the key 'rejected', found prompt, chosen"):
        read_pairs(path)


def test_a_broken_parquet_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="parquet needs the train extra")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"d\.parquet: cannot be read: "):
        read_pairs(tmp_path / "d.parquet")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("split", ["", ":train", ":default:train"])
def test_a_data_set_is_read_by_name_split_and_config(tmp_path: Path, split: str) -> None:
    write(tmp_path / "set" / "train.jsonl", CHAT, {**CHAT, "chosen": [GOOD, USER]})
    write(tmp_path / "set" / "test.jsonl", {**CHAT, "rejected": [USER]})
    source = f"{tmp_path / 'set'}{split}"
    pairs = read_pairs(source)
    assert [without_place(pair) for pair in pairs] == [Pair([USER], [GOOD], [BAD]), Pair([USER], [GOOD, USER], [BAD])]
    assert [pair.where for pair in pairs] == [f"{source}:1", f"{source}:2"]


@pytest.mark.usefixtures("offline")
def test_the_only_split_needs_no_name_and_one_of_several_does(tmp_path: Path) -> None:
    write(tmp_path / "set" / "test.jsonl", ROW)
    assert [without_place(pair) for pair in read_pairs(tmp_path / "set")] == [Pair("2 + 2?", "4", "5")]
    write(tmp_path / "set" / "validation.jsonl", ROW)
    with pytest.raises(UsageError, match=r"set: name one of its splits, .*set:SPLIT; it has validation, test"):
        read_pairs(tmp_path / "set")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("source", ["set:dev", "set:other:train", "nowhere", "nobody/nothing:train"])
def test_a_data_set_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    write(tmp_path / "set" / "train.jsonl", ROW)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"^{source}: cannot be read: .+"):
        read_pairs(source)


@pytest.mark.usefixtures("offline")
def test_a_broken_file_in_a_data_set_is_refused_with_the_cause(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train.jsonl", ROW, b"nope")
    with pytest.raises(DataError, match=r"set: cannot be read: JSON parse error"):
        read_pairs(tmp_path / "set")


@pytest.mark.parametrize("source", ["a:b:c:d", ":train", "name:", "name::train"])
def test_a_malformed_name_is_refused(source: str) -> None:
    pytest.importorskip("datasets", reason="data sets need the train extra")
    with pytest.raises(UsageError, match=rf"expected a file or a data set .* found '{source}'"):
        read_pairs(source)


@pytest.mark.parametrize(("source", "library"), [("d.parquet", "pyarrow"), ("name", "datasets")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, source: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"{library}.parquet", raising=False)
    with pytest.raises(UsageError, match=rf"needs {library}: pip install 'warmkit\[train\]'"):
        read_pairs(source)


# ---- writing ----------------------------------------------------------------------------------------------------------


def test_what_is_written_reads_back_equal(tmp_path: Path) -> None:
    pairs = [pair for _, pair in SHAPES.values()] + [Pair("é\u2028", "\U0001f642", "\n")]
    pairs[-1] = dataclasses.replace(pairs[-1], rejected="\n.")
    write_pairs(pairs, tmp_path / "d.jsonl")
    assert [without_place(pair) for pair in read_pairs(tmp_path / "d.jsonl")] == pairs
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", ROW)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="already exists"):
        write_pairs([Pair("a", "b", "c")], path)
    assert path.read_bytes() == before
    write_pairs([Pair("a", "b", "c")], path, force=True)
    assert [pair.prompt for pair in read_pairs(path)] == ["a"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", ROW)
    before = path.read_bytes()

    def breaks():
        yield Pair("a", "b", "c")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pairs(breaks(), path, force=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["missing/d.jsonl", "file/d.jsonl", "folder"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=rf"{place}: cannot be written: "):
        write_pairs([Pair("a", "b", "c")], tmp_path / place, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_margins_are_kept_and_must_be_numbers(tmp_path: Path) -> None:
    """`margin` is what TRL's RewardTrainer subtracts from the difference of two rewards."""
    file = tmp_path / "pairs.jsonl"
    file.write_text(
        '{"prompt": "a", "chosen": " b", "rejected": " c", "margin": 1.5}\n{"prompt": "a", "chosen": " b", "rejected": " c"}\n'
    )
    pairs = read_pairs(file)
    assert [pair.margin for pair in pairs] == [1.5, 0.0]
    write_pairs(pairs, tmp_path / "again.jsonl")
    assert [pair.margin for pair in read_pairs(tmp_path / "again.jsonl")] == [1.5, 0.0]
    for value in ('"large"', "true", "NaN", "1e999"):
        file.write_text(f'{{"prompt": "a", "chosen": " b", "rejected": " c", "margin": {value}}}\n')
        with pytest.raises(DataError, match=r"pairs.jsonl:1: expected margin to be a finite number"):
            read_pairs(file)
