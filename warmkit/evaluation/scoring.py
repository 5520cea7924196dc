"""Scores for a stream of rows: read as they come, scored in windows, answered in order.

A window holds many rows, so that texts of similar length share a batch; it closes early when nothing more is waiting, so that
a slow or interactive pipe gets its answers at once. A window's size changes how texts are padded, so scores read from a pipe
agree to float32 rounding, scores read from a file to the bit.
"""

from __future__ import annotations

import itertools
import os
import select
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from warmkit.data.chats import as_answer, as_chat, part
from warmkit.data.fields import content, has, messages
from warmkit.data.preferences import parse_answers
from warmkit.data.rows import Row, kind_at, raw_rows, row_of
from warmkit.errors import DataError
from warmkit.evaluation.accuracy import Array
from warmkit.modeling.reward_model import RewardModel, load_scorer
from warmkit.modeling.tokens import Text, Tokens

Line: TypeAlias = tuple[int, Any]
"""A line of JSON, or a row of a table, with its number, from 1."""

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
class Texts:
    """What is scored of a row.

    Attributes:
        texts: (prompt, answer) each.
        chosen: How many of them, the first ones, are the preferred answers of a preference row; None for a row of one answer.
    """

    texts: list[tuple[Text, Text]]
    chosen: int | None = None


@dataclass(frozen=True)
class _Question:
    line: int
    row: Row
    tokens: list[list[Tokens]]  # for every model, the texts of the row
    chosen: int | None = None
    error: str | None = None


class Panel:
    """Reward models that score the same rows; several are an ensemble.

    They may be of different architectures: each reads the text with its own tokenizer.

    Args:
        models: One or more.
        chat: Make chats of texts, for the models' chat templates.

    Attributes:
        truncated: How many texts lost tokens so far, to any of the models.
        bare: How many rows so far were texts, read as they are by a model that has a chat template.
    """

    def __init__(self, models: Sequence[RewardModel], chat: bool = False) -> None:
        self.models, self.chat, self.truncated, self.bare = models, chat, 0, 0
        self._templated = any(model.encoder.templated for model in models)

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

    def _read(self, number: int, raw: Any) -> _Question:
        row: Row = {}
        try:
            row = row_of(raw)
            found = texts_of(row, self.chat)
            tokens = [model.encoder.encode(found.texts) for model in self.models]
        except DataError as error:
            return _Question(number, row, [[] for _ in self.models], error=str(error))
        self.bare += self._templated and all(isinstance(each, str) for each in found.texts[0])
        return _Question(number, row, tokens, found.chosen)


def open_panel(paths: Sequence[str], max_length: int | None = None, chat: bool = False) -> Panel:
    """Load the reward models of an ensemble; see `load_scorer` and `Panel`."""
    return Panel([load_scorer(path, max_length) for path in paths], chat)


def texts_of(row: Row, chat: bool = False) -> Texts:
    """Return the (prompt, answer) of a row, or all of a preference row.

    A row has `chosen` and `rejected` (as `read_pairs` reads them); or `prompt` and one of `response`, `completion` and
    `answer`; or `messages`, the last of which is the answer where no other is named. An empty answer is one: a policy may say
    nothing.

    Args:
        row: What was read.
        chat: Make chats of texts.

    Raises:
        DataError: If it has none of these, or a field is of the wrong type.

    Examples:
        >>> texts_of({"prompt": "2 + 2?", "response": "4"}).texts
        [('2 + 2?', '4')]
    """
    if has(row, "chosen") and has(row, "rejected"):
        found = parse_answers(row, chat=chat)
        return Texts([(found.prompt, each) for each in (*found.chosen, *found.rejected)], len(found.chosen))
    prompt, answer = _one_answer(row)
    if chat and isinstance(prompt, str):
        answer = as_answer(answer, prompt) if isinstance(answer, str) else answer
        prompt = as_chat(prompt)
    return Texts([(prompt, answer)])


def _one_answer(row: Row) -> tuple[Text, Text]:
    """Return prompt and answer of a row that holds one answer."""
    named = [key for key in ANSWERS if has(row, key)]
    if len(named) > 1:
        raise DataError(f"expected one answer, found {' and '.join(named)}; rename or drop all but one")
    chat = messages(row, "messages") if has(row, "messages") else None
    if chat is not None and named and chat[-1]["role"] == "assistant":
        raise DataError(f"expected one answer, found the last of messages and {named[0]}; drop one of them")
    if named:
        return content(row, "prompt") if chat is None else chat, content(row, named[0])
    if chat is not None:
        if len(chat) < 2 or chat[-1]["role"] != "assistant":
            last = chat[-1]["role"]
            raise DataError(f"expected messages to end with the assistant's, after others; found {last!r} at the end")
        return part(chat, None, -1), part(chat, -1)
    present = ", ".join(each for each in row if has(row, each)) or "no key"
    raise DataError(f"expected prompt and {' or '.join(ANSWERS)}, or messages, or chosen and rejected; found {present}")


def table_windows(path: Path, rows: int) -> Iterator[list[Line]]:
    """Yield the rows of a file that is not read line by line (Parquet, compressed lines, a JSON array), `rows` at a time.

    Raises:
        DataError: If it cannot be read.
        UsageError: If it is of no known kind, or a library that reads it is not installed.
    """
    found = raw_rows(path)
    while window := list(itertools.islice(found, rows)):
        yield window


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


def _answer(question: _Question, scores: Array) -> Answer:
    """Put scores [M, texts] into the row."""
    error = question.error
    if error is None and not np.isfinite(scores).all():
        error = f"the score is {scores[~np.isfinite(scores)][0]}"
    if error is not None:
        return Answer(question.line, {**question.row, "error": error}, error)
    return Answer(question.line, {**question.row, **_named(scores, question.chosen)})


def _named(scores: Array, chosen: int | None) -> Row:
    """Name what a row gets: the mean of the models (ENS); of several also each one's, and their standard deviation.

    A list of them where a row has several chosen or rejected answers.
    """
    if chosen is None:
        return _side(scores, "", alone=True)
    alone = scores.shape[1] == 2
    return {**_side(scores[:, :chosen], "_chosen", alone), **_side(scores[:, chosen:], "_rejected", alone)}


def _side(scores: Array, side: str, alone: bool) -> Row:
    models, per_answer = len(scores), scores.T
    found: Row = {f"scores{side}": per_answer.tolist()} if models > 1 else {}
    found[f"score{side}"] = scores.mean(0).tolist()
    if models > 1:
        found[f"disagreement{side}"] = scores.std(0).tolist()
    return {key: each[0] for key, each in found.items()} if alone else found


def open_rows(path: Path | None) -> int:
    """Open a file of rows, or stdin, and return its descriptor.

    Raises:
        DataError: If it cannot be read.
    """
    source = "stdin" if path is None else path
    if path is not None and not _is_open(path) and (what := kind_at(path)) not in (None, "a file"):
        advice = f"; give it as stdin: < {path}" if what == "a pipe" else ""
        raise DataError(f"{path}: expected a file of rows, found {what}{advice}")
    try:
        descriptor = 0 if path is None else os.open(path, os.O_RDONLY)
        os.read(descriptor, 0)  # a directory opens, and does not read
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {error.strerror}") from None
    return descriptor


def _is_open(path: Path) -> bool:
    """Say whether a path names a descriptor of this process, as the shell's <(...) does."""
    return path.parent in (Path("/dev/fd"), Path("/proc/self/fd")) or path == Path("/dev/stdin")
