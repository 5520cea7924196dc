"""Bars of long work: on a terminal, and the same one in a notebook."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeAlias

from warmkit.common.addresses import printable

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

Advance: TypeAlias = Callable[[int, int], None]
"""Called now and then, from any thread, with what was done since the last call and how much there is to do; 0: unknown."""

INTERVAL = 0.2  # seconds between two pictures in a notebook
WIDTH = 100  # characters of a line there


class Bar:
    """One bar: what is done, how far it is, how fast it goes, how long it still takes.

    Args:
        label: What is done.
        unit: What is counted: `bytes`, or another word (`steps`), which stands behind the count.
    """

    def __init__(self, label: str, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), *_counters(unit), TimeRemainingColumn())
        self._notebook = _Notebook() if in_notebook() else None
        console = Console(stderr=True, markup=False, emoji=False)
        transient = console.is_terminal  # a file gets the last state
        self._progress = Progress(*columns, console=console, transient=transient, disable=self._notebook is not None)
        self._task = self._progress.add_task(printable(label), total=None)

    def advance(self, size: int, total: int) -> None:
        self._progress.update(self._task, advance=size, total=total or None)
        if self._notebook is not None:
            self._notebook.show(self._progress)

    def rename(self, label: str) -> None:
        """Name the part of the work that begins now."""
        self._progress.update(self._task, description=printable(label))

    @contextlib.contextmanager
    def drawn(self) -> Generator[None, None, None]:
        """Draw the bar while the block runs; a notebook keeps its last state."""
        with self._progress:
            yield
            self._progress.update(self._task, completed=self._progress.tasks[0].total)  # estimates of headers are rough
        if self._notebook is not None:
            self._notebook.show(self._progress, last=True)


class _Notebook:
    """One output of a cell, in which a picture replaces the one before; IPython alone does it, without widgets."""

    def __init__(self) -> None:
        self._lock, self._due, self._handle = threading.Lock(), 0.0, None

    def show(self, progress: Progress, last: bool = False) -> None:
        with self._lock:
            if time.monotonic() < self._due and not last:
                return
            self._due = time.monotonic() + INTERVAL
            content = {"text/plain": _text(progress)}
            if self._handle is None:
                self._handle = _display(content)
            else:
                self._handle.update(content, raw=True)


def _display(content: dict[str, str]) -> Any:
    from IPython.display import display  # pyright: ignore

    return display(content, raw=True, display_id=True)


def _text(progress: Progress) -> str:
    from rich.console import Console

    page = Console(file=io.StringIO(), width=WIDTH, force_jupyter=False, force_terminal=False, color_system=None)
    with page.capture() as captured:
        page.print(progress.get_renderable())
    return captured.get().rstrip()


def in_notebook() -> bool:
    """Say whether a notebook runs this: Jupyter, VS Code, Colab or Databricks."""
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter


@contextlib.contextmanager
def progress(wanted: Advance | bool | None, label: str, unit: str = "bytes") -> Generator[Advance, None, None]:
    """Yield what is to be told how far the block is.

    Args:
        wanted: A callback of the caller's; True for a bar, False for none; None for a bar in a notebook alone.
        label: As of `Bar`.
        unit: The same.
    """
    if callable(wanted):
        yield wanted
    elif wanted or (wanted is None and in_notebook()):
        bar = Bar(label, unit)
        with bar.drawn():
            yield bar.advance
    else:
        yield lambda size, total: None


def _counters(unit: str) -> tuple[ProgressColumn, ...]:
    from rich.progress import DownloadColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TransferSpeedColumn

    if unit == "bytes":
        return DownloadColumn(), TransferSpeedColumn()
    return TaskProgressColumn(), MofNCompleteColumn(), TextColumn(unit)
