"""Scores for a stream of rows: read as they come, scored in windows, answered in order.

A window holds many rows, so that texts of similar length share a batch; it closes early when nothing more is waiting, so that
a slow or interactive pipe gets its answers at once. A window's size changes how texts are padded, so scores read from a pipe
agree to float32 rounding, scores read from a file to the bit.
"""

from __future__ import annotations

import json
import os
import reprlib
import select
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from warmkit.checkpoints.checkpoint import open_checkpoint
from warmkit.data.fields import content, has, messages
from warmkit.data.preferences import parse_pair
from warmkit.data.rows import Row
from warmkit.errors import DataError, UnsupportedError
from warmkit.evaluation.accuracy import Array
from warmkit.modeling.reward_model import RewardModel, load_scorer
from warmkit.modeling.tokens import Text, Tokens

Line: TypeAlias = tuple[int, bytes]
"""A line with its number, from 1."""

ANSWERS = ("response", "completion", "answer")
GRACE = 0.02  # seconds that an open window waits: a producer may only be slower than this reader
BLOCK = 1 << 16  # bytes, what a pipe holds


@dataclass(frozen=True)
class Answer:
    """What becomes of one line.

    Attributes:
        line: Its number.
        row: What was read, with its scores or its error added.
        error: Why it has no score; None where it has.
    """

    line: int
    row: Row
    error: str | None = None


@dataclass(frozen=True)
class _Question:
    line: int
    row: Row
    tokens: list[list[Tokens]]  # for every model, the texts of the row: one, or two of a preference pair
    error: str | None = None


class Panel:
    """Reward models that score the same rows; several are an ensemble.

    They may be of different architectures: each reads the text with its own tokenizer.

    Args:
        models: One or more.

    Attributes:
        truncated: How many texts lost tokens so far, to any of the models.
    """

    def __init__(self, models: Sequence[RewardModel]) -> None:
        self.models, self.truncated = models, 0

    def answer(self, lines: Sequence[Line]) -> list[Answer]:
        """Score the rows of a window, in order."""
        questions = [self._read(number, raw) for number, raw in lines]
        texts = [[text for each in questions for text in each.tokens[place]] for place in range(len(self.models))]
        self.truncated += sum(any(text.truncated for text in of_all) for of_all in zip(*texts))
        scores = np.stack([model.score_tokens(each).double().numpy() for model, each in zip(self.models, texts)])  # [M, texts]
        answers: list[Answer] = []
        for each in questions:
            count = len(each.tokens[0])
            answers.append(_answer(each, scores[:, :count]))
            scores = scores[:, count:]
        return answers

    def _read(self, number: int, raw: bytes) -> _Question:
        row: Row = {}
        try:
            row = _row(raw)
            texts = texts_of(row)
            return _Question(number, row, [model.encoder.encode(texts) for model in self.models])
        except DataError as error:
            found = str(error)
        return _Question(number, row, [[] for _ in self.models], found)


def open_panel(paths: Sequence[str], max_length: int | None = None) -> Panel:
    """Load the reward models of an ensemble; see `open_scorer`."""
    return Panel([open_scorer(path, max_length) for path in paths])


def open_scorer(path: str, max_length: int | None = None) -> RewardModel:
    """Load a trained reward model.

    Args:
        path: A directory or a Hub repository.
        max_length: Tokens a text may have; by default what the model's positions allow, 4096 at most.

    Raises:
        UnsupportedError: If it has no scalar head, no config or tokenizer, or is of an architecture without a classifier.
        UsageError: If the model has fewer positions than `max_length`.
    """
    if open_checkpoint(path).directory is None:
        raise UnsupportedError(f"{path}: expected a model directory with config and tokenizer, found one weight file")
    return load_scorer(path, max_length)


def texts_of(row: Row) -> list[tuple[Text, Text]]:
    """Return the (prompt, answer) of a row, or both of a preference pair.

    A row has `chosen` and `rejected` (as `read_pairs` reads them); or `prompt` and one of `response`, `completion` and
    `answer`; or `messages`, the last of which is the answer. An empty answer is one: a policy may say nothing.

    Raises:
        DataError: If it has none of these, or a field is of the wrong type.

    Example:
        >>> texts_of({"prompt": "2 + 2?", "response": "4"})
        [('2 + 2?', '4')]
    """
    if has(row, "chosen") and has(row, "rejected"):
        pair = parse_pair(row, "")
        return [(pair.prompt, pair.chosen), (pair.prompt, pair.rejected)]
    named = [key for key in ANSWERS if has(row, key)]
    if len(named) > 1:
        raise DataError(f"expected one answer, found {' and '.join(named)}; rename or drop all but one")
    if named:
        return [(content(row, "prompt"), content(row, named[0]))]
    if has(row, "messages"):
        *before, last = messages(row, "messages")
        if not before or last["role"] != "assistant":
            raise DataError(f"expected messages to end with the assistant's, after others; found {last['role']!r} at the end")
        return [(before, [last])]
    present = ", ".join(each for each in row if has(row, each)) or "no key"
    raise DataError(f"expected prompt and {' or '.join(ANSWERS)}, or messages, or chosen and rejected; found {present}")


def windows(descriptor: int, rows: int) -> Iterator[list[Line]]:
    """Yield lines, many at a time: `rows` of them, or those that are there when nothing more is waiting.

    Blank lines are counted and left out.

    Args:
        descriptor: Of a file, a pipe or a terminal.
        rows: Most lines of a window.
    """
    window: list[Line] = []
    number = 0
    for line in _lines(descriptor):
        if line is not None:
            number += 1
            if line.strip():
                window.append((number, line))
        if len(window) == rows or (line is None and window):
            yield window
            window = []
    if window:
        yield window


def _lines(descriptor: int) -> Iterator[bytes | None]:
    """Yield lines as they come, and None where the next one is not there yet."""
    rest = b""
    while True:
        if not select.select([descriptor], [], [], GRACE)[0]:
            yield None
            select.select([descriptor], [], [])
        block = os.read(descriptor, BLOCK)
        if not block:
            break
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _row(raw: bytes) -> Row:
    try:
        row: Any = json.loads(raw)
    except (ValueError, RecursionError):
        shown = reprlib.repr(raw.decode("utf-8", "replace").strip())
        raise DataError(f"expected a line of JSON in UTF-8, found {shown}") from None
    if not isinstance(row, dict):
        raise DataError(f"expected a JSON object, found {reprlib.repr(row)}")
    return cast("Row", row)


def _answer(question: _Question, scores: Array) -> Answer:
    """Put scores [M, 1 or 2] into the row."""
    error = question.error
    if error is None and not np.isfinite(scores).all():
        error = f"the score is {scores[~np.isfinite(scores)][0]}"
    if error is not None:
        return Answer(question.line, {**question.row, "error": error}, error)
    return Answer(question.line, {**question.row, **_named(scores)})


def _named(scores: Array) -> Row:
    """Name what a row gets: the mean of the models (ENS); of several also each one's, and their standard deviation."""
    named: Row = {}
    for side, values in zip(("",) if scores.shape[1] == 1 else ("_chosen", "_rejected"), scores.T):
        if len(values) > 1:
            named[f"scores{side}"] = values.tolist()
        named[f"score{side}"] = float(values.mean())
        if len(values) > 1:
            named[f"disagreement{side}"] = float(values.std())
    return named


def open_rows(path: Path | None) -> int:
    """Open a file of rows, or stdin, and return its descriptor.

    Raises:
        DataError: If it cannot be read.
    """
    source = "stdin" if path is None else path
    try:
        descriptor = 0 if path is None else os.open(path, os.O_RDONLY)
        os.read(descriptor, 0)  # a directory opens, and does not read
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from None
    return descriptor
