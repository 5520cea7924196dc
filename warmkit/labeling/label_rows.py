"""Rows to label and rows labelled: two answers come in without a preference, pairs go out with one."""

from __future__ import annotations

import hashlib
import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from warmkit.common.new_files import check_free, whole_file
from warmkit.data.fields import check_answer, content, has
from warmkit.data.preferences import parse_pair
from warmkit.data.rows import Row, read_rows
from warmkit.errors import DataError, OutputError
from warmkit.labeling.judge import Text


@dataclass(frozen=True)
class Comparison:
    """Two answers to a prompt.

    Attributes:
        prompt: What was asked.
        answers: Both answers, in the order of the first question about them; a judge sees the other order too.
        where: File and line, for messages.
    """

    prompt: Text
    answers: tuple[Text, Text]
    where: str = ""


def read_comparisons(source: str | Path) -> list[Comparison]:
    """Read rows of `prompt` and two answers: `a` and `b`, or `responses: [.., ..]`, or `chosen` and `rejected`.

    Args:
        source: JSON lines, parquet or a data set, as in `warmkit.data.rows.read_rows`.

    Raises:
        DataError: If there are no rows, or any row is bad; all bad rows are listed, with their lines.
        UsageError: If `source` is of no known kind, or a library that reads it is not installed.
    """
    return read_rows(source, parse_comparison)


def parse_comparison(row: Row, where: str) -> Comparison:
    """Make a comparison of one row; the order of its answers depends on nothing but what they say.

    Raises:
        DataError: If an answer or the prompt is missing, empty or of the wrong type, or if the answers are the same.
    """
    if has(row, "a") or has(row, "b"):
        prompt, *answers = content(row, "prompt"), *_answers(row, "a", "b")
    elif has(row, "responses"):
        prompt, *answers = content(row, "prompt"), *_answers(_two(row["responses"]), "responses[0]", "responses[1]")
    elif has(row, "chosen") or has(row, "rejected"):
        pair = parse_pair(row, where)
        prompt, *answers = pair.prompt, pair.chosen, pair.rejected
    else:
        present = ", ".join(row) or "no key"
        raise DataError(f"expected two answers (a and b, responses, or chosen and rejected), found {present}")
    first, second = sorted(answers, key=_digest)
    return Comparison(prompt, (first, second), where)


def _two(responses: Any) -> Row:
    if not isinstance(responses, list) or len(cast("list[Any]", responses)) != 2:
        raise DataError(f"expected responses to be a list of two answers, found {reprlib.repr(responses)}")
    return {f"responses[{place}]": answer for place, answer in enumerate(cast("list[Any]", responses))}


def _answers(row: Row, *keys: str) -> list[Text]:
    answers = [content(row, key) for key in keys]
    for key, answer in zip(keys, answers):
        check_answer(answer, key)
    names = " and ".join(keys)
    if isinstance(answers[0], str) != isinstance(answers[1], str):
        raise DataError(f"expected {names} to be both texts or both messages, found one of each")
    if answers[0] == answers[1]:
        raise DataError(f"expected {names} to differ, found {reprlib.repr(answers[0])} for both")
    return answers


def _digest(answer: Text) -> bytes:
    return hashlib.sha256(json.dumps(answer).encode()).digest()


def inconsistent_path(output: Path) -> Path:
    """Return where the rows go on which a judge contradicted itself: `pairs.inconsistent.jsonl` beside `pairs.jsonl`."""
    return output.with_name(f"{output.stem}.inconsistent{output.suffix or '.jsonl'}")


def check_destination(output: Path, force: bool) -> None:
    """Refuse to replace a file, or to write where nothing can be, before anything is asked.

    Raises:
        OutputError: If a file is there without `force`, or the directory is not.
    """
    if not output.absolute().parent.is_dir():
        raise OutputError(f"{output}: cannot be written: there is no such directory")
    for path in (output, inconsistent_path(output)):
        check_free(path, force)


def write_lines(rows: list[dict[str, Any]], path: Path, force: bool = True) -> None:
    """Write rows as JSON lines, in one step; what came to `path` meanwhile is replaced with `force` alone.

    Raises:
        OutputError: If it cannot be written.
    """
    with whole_file(path, force) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
