"""What a command says: results on stdout, progress and diagnostics on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from warmkit.addresses import json_escaped, printable, without_secrets

if TYPE_CHECKING:
    from rich.progress import ProgressColumn
    from rich.table import Table

WIDTH = 120  # of tables where stdout is no terminal


class Console:
    """One command's output.

    Args:
        quiet: Say nothing but errors.
        verbose: Say more.
        json: Print one JSON document on stdout instead of text.
    """

    def __init__(self, quiet: bool, verbose: bool, json: bool) -> None:
        self.quiet, self.verbose, self.json = quiet, verbose, json
        self._told = False  # the one document

    def result(self, document: Any, *parts: str | Table) -> None:
        """Print the result: `document` with --json, else the parts."""
        if self.json:
            self._told = True
            _write(_json(document, indent=2), sys.stdout)
        elif not self.quiet:
            for part in parts:
                self._show(part)

    def _show(self, part: str | Table) -> None:
        if isinstance(part, str):
            _write(printable(part, keep="\n\t"), sys.stdout)
            return
        from rich.console import Console as Rich

        Rich(width=None if sys.stdout.isatty() else WIDTH, markup=False, emoji=False, highlight=False).print(part)

    def note(self, text: str) -> None:
        """Say something harmless on stderr."""
        if not self.quiet:
            _write(_said(f"note: {text}"), sys.stderr)

    def detail(self, text: str) -> None:
        """Say something on stderr that only -v shows."""
        if self.verbose:
            _write(_said(text), sys.stderr)

    def error(self, text: str, kind: str) -> None:
        """Say what went wrong: on stderr, and with --json also as the document, where there is none yet."""
        say_error(text)
        if self.json and not self._told:
            _write(_json({"error": {"kind": kind, "message": without_secrets(text)}}), sys.stdout)

    @contextlib.contextmanager
    def progress(self, label: str, unit: str = "bytes") -> Generator[Callable[[int, int], None] | None, None, None]:
        """Show a bar with rate and time left while the block runs; None where nobody would see it.

        Args:
            label: What is being done.
            unit: What is counted: `bytes`, or another word (`steps`), which stands behind the count.
        """
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console as Rich
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), *_counters(unit), TimeRemainingColumn())
        bar = Progress(*columns, console=Rich(stderr=True, markup=False, emoji=False), transient=True)
        with bar:
            task = bar.add_task(printable(label), total=None)
            yield lambda size, total: bar.update(task, advance=size, total=total)


def say_error(text: str) -> None:
    """Say on stderr what went wrong, where stdout has its one document already."""
    _write(_said(f"error: {text}"), sys.stderr)


def _said(text: str) -> str:
    """Return a line for a person: no secret of an address in it, and nothing that a terminal would obey."""
    return printable(without_secrets(text), keep="\n\t")


def _json(document: Any, indent: int | None = None) -> str:
    """Return JSON in which all that a terminal would obey is escaped."""
    text = json.dumps(document, indent=indent, ensure_ascii=False, default=str)
    return text if text.isascii() else "".join(each if each == "\n" else json_escaped(each) for each in text)


def _write(text: str, stream: TextIO) -> None:
    """Print a text, with escapes for what the stream's encoding lacks."""
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _counters(unit: str) -> tuple[ProgressColumn, ...]:
    from rich.progress import DownloadColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TransferSpeedColumn

    if unit == "bytes":
        return DownloadColumn(), TransferSpeedColumn()
    return TaskProgressColumn(), MofNCompleteColumn(), TextColumn(unit)


def table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Build a table; columns whose cells are numbers are set to the right."""
    from rich import box
    from rich.table import Table

    shown = None if title is None else printable(title, keep="\n")
    result = Table(title=shown, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        numeric = all(row[place][:1].isdigit() or row[place][:1] in "-+" for row in rows if row[place])
        result.add_column(column, justify="right" if numeric and rows else "left", overflow="fold")
    for row in rows:
        result.add_row(*(printable(cell, keep="\n") for cell in row))
    return result


def size(count: float) -> str:
    """Write a number of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def duration(seconds: float) -> str:
    """Write a time as people read it.

    Example:
        >>> duration(0.42), duration(75), duration(4000), duration(200000)
        ('0.42 s', '1 min 15 s', '1 h 7 min', '2 d 8 h')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    for unit, part, names in ((1, 60, "min s"), (60, 60, "h min")):
        large, small = divmod(round(seconds / unit), part)
        if large < (60 if unit == 1 else 24):
            return "{1} {0[0]} {2} {0[1]}".format(names.split(), large, small)
    large, small = divmod(round(seconds / 3600), 24)
    return f"{large} d {small} h"


def number(count: float) -> str:
    """Write a number of parameters as people read it."""
    for unit in ("", "K", "M"):
        if count < 1000:
            return f"{count:.0f}" if not unit else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} B"
