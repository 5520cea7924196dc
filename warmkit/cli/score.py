"""`warmkit score`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from warmkit.cli.command import command, option
from warmkit.cli.console import Console, say_error
from warmkit.cli.policy_options import AsChats
from warmkit.errors import DataError

if TYPE_CHECKING:
    from warmkit.evaluation.scoring import Answer

MOST_SHOWN = 100

RewardModels = Annotated[list[str], typer.Argument(metavar="MODEL", help="Reward models: directories or Hub repositories.")]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=8, help="Tokens a text may have.", show_default="what the model allows")
]


@command(needs_transformers=True)
def score(
    console: Console,
    models: RewardModels,
    source: Path | None = option(None, "JSON lines or array, .gz too, or Parquet.", "--input", "-i", show_default="stdin"),
    window: int = option(512, "Rows that are sorted by length together, to save padding.", min=1),
    on_error: Literal["stop", "skip"] = option(
        "stop", "At a bad row: stop, or write it with `error` and go on. Both exit with 1."
    ),
    max_length: MaxLength = None,
    chat: AsChats = False,
) -> None:
    """Score answers with a reward model, or with the ensemble of several: JSON lines in, JSON lines out, in order.

    A row holds `prompt` and `response` (or `completion`, or `answer`), or `messages`, and gets `score`; a preference row
    (`prompt`, `chosen`, `rejected`) gets `score_chosen` and `score_rejected`, lists where it has several answers. With several
    models the score is their mean (ENS), beside `scores` and their standard deviation, `disagreement`. Answers come as soon as
    no more rows are waiting.

    Examples:

    - `warmkit score runs/warm/model < samples.jsonl > scored.jsonl`
    - `generate | warmkit score A B C | jq -c 'select(.disagreement < 0.5)'`
    """
    from warmkit.data.rows import is_plain_lines
    from warmkit.evaluation.scoring import open_panel, open_rows, table_windows, windows

    descriptor = open_rows(source)
    panel = open_panel(models, max_length, chat)
    if source is None and os.isatty(descriptor):
        console.note("reading rows from the terminal; end with Ctrl-D")
    writer = _Writer(console, "stdin" if source is None else str(source), on_error)
    try:
        lines_only = source is None or is_plain_lines(source)
        rows = windows(descriptor, window) if lines_only or source is None else table_windows(source, window)
        with console.counted("scoring", "rows") as count:
            for lines in rows:
                writer.write(panel.answer(lines))
                count(len(lines))
    except BrokenPipeError:  # the reader has what it wanted, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if panel.truncated:
        console.note(f"texts longer than the model takes, which were cut: {panel.truncated} (--max-length)")
    if panel.bare and not chat:
        console.note(f"rows of texts, read without the model's chat template: {panel.bare} (--chat puts them into it)")
    writer.finish()


class _Writer:
    """Writes answers to stdout as they come, or with --json as one document at the end; bad rows also to stderr."""

    def __init__(self, console: Console, source: str, on_error: str) -> None:
        self.console, self.source, self.on_error = console, source, on_error
        self.rows, self.failed = 0, 0
        self.kept: list[dict[str, Any]] = []

    def write(self, answers: Sequence[Answer]) -> None:
        for place, each in enumerate(answers):
            if each.error is not None and self.on_error == "stop":
                self._write([answer.row for answer in answers[:place]])
                raise DataError(f"{self.source}:{each.line}: {each.error}")
            if each.error is not None:
                self._report(f"{self.source}:{each.line}: {each.error}")
        self._write([each.row if each.row.keys() - {"error"} else {"line": each.line, **each.row} for each in answers])

    def finish(self) -> None:
        """Print the document; fail if a row did."""
        self.console.result({"rows": self.kept, "failed": self.failed})
        if self.failed:
            raise DataError(f"{self.failed} of {self.rows} rows have no score")

    def _write(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows += len(rows)
        if self.console.json:
            self.kept += rows
            return
        sys.stdout.buffer.write(b"".join(_line(row) for row in rows))
        sys.stdout.buffer.flush()

    def _report(self, problem: str) -> None:
        self.failed += 1
        if self.failed <= MOST_SHOWN:
            say_error(problem)


def _line(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, in a key that is not scored
        return json.dumps(row).encode() + b"\n"
