"""Console of a command: results on stdout, progress and diagnostics on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from warmkit.cli.narrator import Narrator
from warmkit.common.addresses import json_escaped, printable, without_secrets
from warmkit.common.progress import Advance, Bar

if TYPE_CHECKING:
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
        self._narrator = Narrator(self.say)
        self._bar: Bar | None = None

    def result(self, document: Any, *parts: str | Table) -> None:
        """Print the result: `document` with --json, else the parts."""
        if self.json:
            self._told = True
            _write(_json(document, indent=2), sys.stdout)
        elif not self.quiet:
            for part in parts:
                self._show(part)

    def number(self, value: float) -> None:
        """Print one number and nothing else, in place of the result."""
        _write(str(value), sys.stdout)

    def _show(self, part: str | Table) -> None:
        if isinstance(part, str):
            _write(printable(part, keep="\n\t"), sys.stdout)
            return
        from rich.console import Console as Rich

        Rich(width=None if sys.stdout.isatty() else WIDTH, markup=False, emoji=False, highlight=False).print(part)

    def note(self, *texts: str) -> None:
        """Say harmless things on stderr."""
        for text in () if self.quiet else texts:
            _write(_said(f"note: {text}"), sys.stderr)

    def say(self, text: str) -> None:
        """Say on stderr how the work goes."""
        if not self.quiet:
            _write(_said(text), sys.stderr)

    def detail(self, text: str) -> None:
        """Say something on stderr that only -v shows."""
        if self.verbose:
            _write(_said(text), sys.stderr)

    def error(self, text: str, kind: str) -> None:
        """Say what went wrong: on stderr, and with --json also as the document, where there is none yet."""
        say_error(text)
        if self.json and not self._told:
            _write(_json({"error": {"kind": kind, "message": without_secrets(text)}}), sys.stdout)

    def watched(self) -> contextlib.AbstractContextManager[None]:
        """Let a command that takes long say how far it is while the block runs, where no bar is seen."""
        return self._narrator.watching() if self._narrates else contextlib.nullcontext()

    @property
    def _narrates(self) -> bool:
        """Whether lines stand for bars."""
        return not self.quiet and not sys.stderr.isatty()

    @contextlib.contextmanager
    def progress(self, label: str, unit: str = "bytes") -> Generator[Advance, None, None]:
        """Show how far the block is and how long it will take: a bar on a terminal, else a line now and then.

        Args:
            label: What is being done.
            unit: What is counted: `bytes`, or another word (`steps`), which stands behind the count.
        """
        if self._narrates:
            with self._narrator.stage(printable(label), unit):
                yield self._narrator.advance
        elif self.quiet:
            yield lambda done, total: None
        else:
            self._bar = Bar(label, unit)
            try:
                with self._bar.drawn():
                    yield self._bar.advance
            finally:
                self._bar = None

    @contextlib.contextmanager
    def counted(self, label: str, unit: str) -> Generator[Callable[[int], None], None, None]:
        """Say now and then how much of a stream has passed; no bar, beside what is printed meanwhile."""
        if self._narrates:
            with self._narrator.stage(label, unit):
                yield lambda count: self._narrator.advance(count, 0)
        else:
            yield lambda count: None

    def stage(self, label: str) -> None:
        """Name the part of the work in `progress` that begins now."""
        if self._bar is not None:
            self._bar.rename(label)
        elif self._narrates:
            self._narrator.rename(printable(label))


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


def interval(estimate: Mapping[str, float], form: str) -> str:
    """Write an estimate with the interval around it: 0.8 (0.7 to 0.9)."""
    value, low, high = (format(estimate[key], form) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
