"""Files that commands write beside what they print: refused early where one is in the way, written at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmkit.cli.command import option
from warmkit.cli.console import Console
from warmkit.errors import OutputError

if TYPE_CHECKING:
    from warmkit.report.chart import Chart
    from warmkit.report.html_page import Page

Plot = Annotated[Path | None, typer.Option("--plot", help="Picture to draw: .png, .svg or .pdf.")]


@dataclass(eq=False, repr=False)
class DocumentFile:
    """File of what --json prints."""

    output: Path | None = option(None, "JSON file to create.", "--output", "-o")
    force: bool = option(False, "Replace a file at OUT.")

    def check(self, *beside: Path | None) -> None:
        """Refuse to replace the file, and others beside it, before anything is computed.

        Raises:
            OutputError: If one is there, without `force`.
        """
        refuse_existing([self.output, *beside], self.force)

    def write(self, document: Any) -> None:
        """Write the document, if the file was asked for.

        Raises:
            OutputError: If it cannot be written.
        """
        from warmkit.common.json_files import dump_json

        if self.output is not None:
            write_file(self.output, dump_json(document))


@dataclass(eq=False, repr=False)
class PlottedDocument(DocumentFile):
    """File of what --json prints, and a picture of it."""

    plot: Plot = None

    def check(self, *beside: Path | None) -> None:
        """Refuse also a picture that cannot be drawn."""
        check_picture(self.plot)
        super().check(*beside)

    def save(self, console: Console, document: Any, charts: Callable[[], Sequence[Chart]]) -> None:
        """Draw the picture and write the document, where they were asked for."""
        draw_picture(console, charts, self.plot)
        self.write(document)


def refuse_existing(paths: Iterable[Path | None], force: bool) -> None:
    """Refuse to replace files, before anything is computed; None is a file that was not asked for.

    Raises:
        OutputError: If a file is there, without `force`.
    """
    for path in paths:
        if path is not None and path.exists() and not force:
            raise OutputError(f"{path}: already exists; choose another name, or replace it with --force")


def write_rows(path: Path | None, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines to a file, if one was asked for.

    Raises:
        OutputError: If it cannot be written.
    """
    if path is not None:
        write_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def check_picture(path: Path | None, option: str = "--plot") -> None:
    """Refuse a picture that cannot be drawn, before anything is computed; None is one that was not asked for.

    Raises:
        UsageError: If the libraries that draw are not installed, or do not know the format.
    """
    if path is not None:
        from warmkit.report.picture import check_picture

        check_picture(path, option)


def draw_picture(console: Console, charts: Callable[[], Sequence[Chart]], path: Path | None) -> None:
    """Draw charts into a file, if one was asked for.

    Raises:
        OutputError: If it cannot be written.
    """
    if path is not None:
        from warmkit.report.picture import draw

        draw(charts(), path)
        console.note(f"drew {path}")


def write_page(console: Console, page: Callable[[], Page], path: Path) -> str | None:
    """Write a page beside what a command made and return its path; say so where it cannot be drawn, and return None.

    Raises:
        OutputError: If it cannot be written.
    """
    from warmkit.report.specification import can_draw

    if not can_draw():
        console.note("no report.html: that needs pip install 'warmkit[report]'")
        return None
    from warmkit.report.html_page import write

    with console.counted("drawing", "pages"):
        write(page(), path)
    return str(path)


def write_file(path: Path, content: bytes) -> None:
    """Write a file, its folder too.

    Raises:
        OutputError: If it cannot be written.
    """
    from warmkit.common.whole_files import writing

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
