"""Two answers are read in any of three forms, and their order says nothing about who was chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from warmkit.data.preferences import read_pairs
from warmkit.errors import DataError, OutputError
from warmkit.labeling.label_rows import check_destination, inconsistent_path, parse_comparison, read_comparisons, write_lines

USER = {"role": "user", "content": "hi"}


def said(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_all_three_forms_are_the_same_comparison(tmp_path: Path) -> None:
    path = write(
        tmp_path / "rows.jsonl",
        {"prompt": "p", "a": "x", "b": "y"},
        {"prompt": "p", "responses": ["x", "y"]},
        {"prompt": "p", "chosen": "x", "rejected": "y"},
    )
    rows = read_comparisons(path)
    assert [row.where for row in rows] == [f"{path}:{line}" for line in (1, 2, 3)]
    assert len({(row.prompt, row.answers) for row in rows}) == 1


@pytest.mark.parametrize("number", range(10))
def test_the_order_of_the_answers_does_not_depend_on_who_was_chosen(number: int) -> None:
    one, other = f"answer {number}", f"another {number}"
    rows = [{"prompt": "p", "chosen": chosen, "rejected": rejected} for chosen, rejected in ((one, other), (other, one))]
    assert len({parse_comparison(row, "").answers for row in rows}) == 1


def test_neither_the_chosen_nor_the_rejected_answer_tends_to_come_first() -> None:
    rows = [parse_comparison({"prompt": "p", "chosen": f"good {n}", "rejected": f"bad {n}"}, "") for n in range(400)]
    assert 150 < sum(str(row.answers[0]).startswith("good") for row in rows) < 250


def test_whole_conversations_are_divided_where_they_part() -> None:
    row = parse_comparison({"chosen": [USER, said("x")], "rejected": [USER, said("y")]}, "")
    assert row.prompt == [USER]
    assert sorted(answer[0]["content"] for answer in row.answers if isinstance(answer, list)) == ["x", "y"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "p"}, r"expected two answers \(a and b, responses, or chosen and rejected\), found prompt"),
        ({}, "found no key"),
        ({"prompt": "p", "a": "x"}, "expected the key 'b'"),
        ({"a": "x", "b": "y"}, "expected the key 'prompt'"),
        ({"prompt": "p", "a": "x", "b": " "}, "expected b .* empty"),
        ({"prompt": "p", "a": "x", "b": "x"}, "expected a and b to differ, found 'x' for both"),
        ({"prompt": "p", "a": "x", "b": [said("y")]}, "expected a and b to be both texts or both messages"),
        ({"prompt": "p", "a": 1, "b": "y"}, "expected a to be text or a list of messages, found 1"),
        ({"prompt": "p", "responses": ["x"]}, "expected responses to be a list of two answers"),
        ({"prompt": "p", "responses": "xy"}, "expected responses to be a list of two answers"),
        ({"prompt": "p", "responses": ["x", None]}, "expected the key 'responses"),
        ({"prompt": "p", "chosen": "x"}, "expected the key 'rejected'"),
    ],
)
def test_a_row_that_cannot_be_compared_is_refused(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        parse_comparison(row, "")


def test_all_bad_rows_are_listed_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"prompt": "p"}, {"prompt": "p", "a": "x", "b": "y"}, {"a": "x", "b": "y"})
    with pytest.raises(DataError, match=r"2 of 3 rows are bad:\n  .*rows.jsonl:1: .*\n  .*rows.jsonl:3: "):
        read_comparisons(path)


# ---- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "aside"), [("p.jsonl", "p.inconsistent.jsonl"), ("p", "p.inconsistent.jsonl")])
def test_inconsistent_rows_have_a_file_beside_the_output(name: str, aside: str) -> None:
    assert inconsistent_path(Path("folder") / name) == Path("folder") / aside


@pytest.mark.parametrize("taken", ["p.jsonl", "p.inconsistent.jsonl"])
def test_a_file_that_is_there_needs_force(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).touch()
    with pytest.raises(OutputError, match=f"{taken}: already exists; choose another -o, or replace it with --force"):
        check_destination(tmp_path / "p.jsonl", force=False)
    check_destination(tmp_path / "p.jsonl", force=True)


def test_a_directory_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").mkdir()
    with pytest.raises(OutputError, match="is a directory"):
        check_destination(tmp_path / "p.jsonl", force=True)


def test_a_missing_directory_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no such directory"):
        check_destination(tmp_path / "missing" / "p.jsonl", force=False)


def test_lines_are_replaced_in_one_step_and_leave_nothing_beside_them(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"old": True})
    with pytest.raises(TypeError):
        write_lines([{"new": True}, {"no JSON": object()}], path)
    assert json.loads(path.read_text()) == {"old": True}
    other_name = tmp_path / "before.jsonl"
    other_name.hardlink_to(path)
    write_lines([{"prompt": "é", "chosen": "x", "rejected": "y", "label": {"agreement": True}}], path)
    assert read_pairs(path)[0].prompt == "é"
    assert json.loads(other_name.read_text()) == {"old": True}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["before.jsonl", "p.jsonl"]
