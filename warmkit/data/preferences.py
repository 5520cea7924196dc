"""Preference pairs: read, checked as a whole before anything trains on them, and written."""

from __future__ import annotations

import contextlib
import json
import os
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from warmkit.data.fields import Messages, check_answer, content, flag, has, text
from warmkit.data.rows import Row, read_rows
from warmkit.errors import DataError, OutputError


@dataclass(frozen=True)
class Pair:
    """One comparison (x, y+, y-).

    Attributes:
        prompt: What was asked, x: text, or the messages before the answer.
        chosen: The answer that was preferred, y+: text, or the messages after the prompt.
        rejected: The other one, y-.
        corrupt: Whether `corrupt` swapped the two.
        subset: What the row says it belongs to (RewardBench's `subset`), for accuracies by subset.
        where: File and line, for messages.
    """

    prompt: str | Messages
    chosen: str | Messages
    rejected: str | Messages
    corrupt: bool = False
    subset: str | None = None
    where: str = ""


def read_pairs(source: str | Path) -> list[Pair]:
    """Read preference pairs, in order.

    A row has `chosen` and `rejected`, both texts or both lists of messages, and mostly `prompt`, text or messages. Without
    one, and beside a text that only repeats the question (UltraFeedback's), two lists are whole conversations and the
    messages that they share at the start are the prompt; two texts have the prompt "". `corrupt` and `subset` are kept,
    other keys are not.

    Args:
        source: JSON lines, parquet or a data set, as in `warmkit.data.rows.read_rows`.

    Raises:
        DataError: If there are no rows, or any row is bad; all bad rows are listed, with their lines.
        UsageError: If `source` is of no known kind, or a library that reads it is not installed.
    """
    return read_rows(source, parse_pair)


def parse_pair(row: Row, where: str) -> Pair:
    """Make a pair of one row.

    Raises:
        DataError: If a field is missing, of the wrong type or an empty answer, or if the answers are the same.
    """
    chosen, rejected = content(row, "chosen"), content(row, "rejected")
    prompt = content(row, "prompt") if has(row, "prompt") else ""
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise DataError("expected chosen and rejected to be both texts or both messages, found one of each")
    if chosen == rejected:
        raise DataError(f"expected chosen and rejected to differ, found {reprlib.repr(chosen)} for both")
    if isinstance(prompt, str) and isinstance(chosen, list) and isinstance(rejected, list):
        prompt, chosen, rejected = _split(prompt, chosen, rejected)
    check_answer(chosen, "chosen")
    check_answer(rejected, "rejected")
    subset = text(row, "subset") if has(row, "subset") else None
    return Pair(prompt, chosen, rejected, flag(row, "corrupt"), subset, where)


def _split(asked: str, chosen: Messages, rejected: Messages) -> tuple[Messages, Messages, Messages]:
    """Divide two conversations where they part; `asked`, if not empty, must be among the messages before that."""
    shared = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(chosen, rejected)))
    prompt = chosen[:shared]
    if not prompt:
        raise DataError("expected chosen and rejected to start with the messages of the prompt, found no message in common")
    if asked and all(each["content"].strip() != asked.strip() for each in prompt):
        raise DataError(f"expected chosen and rejected to start with the prompt, found {reprlib.repr(asked)} only in prompt")
    return prompt, chosen[shared:], rejected[shared:]


def write_pairs(pairs: Iterable[Pair], path: str | Path, force: bool = False) -> None:
    """Write pairs as JSON lines that `read_pairs` reads; `path` appears in one step, whole.

    Args:
        pairs: In order; `where` is not written.
        path: The file.
        force: Replace a file that is there.

    Raises:
        OutputError: If `path` exists without `force`, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not force:
        raise OutputError(f"{path}: already exists; choose another -o, or replace it with --force")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(_line(pair) for pair in pairs)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _line(pair: Pair) -> str:
    row = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected, "corrupt": pair.corrupt}
    if pair.subset is not None:
        row["subset"] = pair.subset
    return json.dumps(row, ensure_ascii=False) + "\n"
