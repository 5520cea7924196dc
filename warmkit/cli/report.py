"""`warmkit report`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli.command import argument, command, option
from warmkit.cli.console import Console
from warmkit.common.units import size
from warmkit.errors import OutputError

if TYPE_CHECKING:
    from warmkit.report.runs.part import Part


@command()
def report(
    console: Console,
    runs: list[Path] = argument("RUN...", "Directory of a run or a merge, or a JSON document of a verb.", show_default=False),
    output: Path | None = option(
        None, "HTML file to write.", "--output", "-o", show_default="RUN/report.html; of several ./report.html"
    ),
    watch: bool = option(False, "Write it again whenever a run changes, until all are done."),
    every: float = option(5.0, "Seconds between two looks with --watch.", min=0.1),
    force: bool = option(False, "Replace a file at OUT that is no report."),
) -> None:
    """Write what runs did and found as one HTML file: tables, and charts that tell values on hover.

    A run is what `train`, `warm`, `warp`, `reproduce` or a merge left, done or not, or what `front`, `lmc`, `bon`, `sxs` and
    `eval` wrote with -o. Several make one page; training runs share their charts. The file holds all it needs and fetches
    nothing; with --watch it loads itself again while the runs go on.

    Examples:

    - `warmkit report runs/a`
    - `warmkit report runs/a runs/b runs/c -o compare.html`
    - `warmkit report out/warp --watch`
    - `warmkit report front.json lmc.json merged`
    """
    from warmkit.report.specification import require_charts

    require_charts()
    target = output or _default(runs)
    _refuse(target, force)
    given = [*map(str, runs), *(["-o", str(output)] if output else []), *(["--watch"] if watch else [])]
    command = shlex.join(["warmkit", "report", *given])
    with console.counted("watching" if watch else "writing", "reports") as count:
        parts = _watch(console, runs, target, every, count, command) if watch else _write(runs, target, None, command)
    nbytes = target.stat().st_size
    document = {
        "report": str(target),
        "bytes": nbytes,
        "runs": [{"name": part.name, "kind": part.kind, "done": part.done, "notes": list(part.notes)} for part in parts],
    }
    for part in parts:
        for note in part.notes:
            console.note(f"{part.name}: {note.replace('`', '')}")
    console.result(document, f"{target} ({size(nbytes)})")


def _default(runs: Sequence[Path]) -> Path:
    if len(runs) > 1:
        return Path("report.html")
    return runs[0] / "report.html" if runs[0].is_dir() else runs[0].with_suffix(".html")


def _refuse(target: Path, force: bool) -> None:
    """Refuse to replace what warmkit did not write.

    Raises:
        OutputError: If there is such a file.
    """
    from warmkit.report.html_page import is_report

    if target.is_dir():
        raise OutputError(f"{target}: is a directory; expected an HTML file: -o {target / 'report.html'}")
    if target.exists() and not force and not is_report(target):
        raise OutputError(f"{target}: already exists and is no report; choose another -o, or replace it with --force")


def _write(runs: Sequence[Path], target: Path, every: float | None, command: str) -> list[Part]:
    """Write the page; with `every` it is live while a run is not done."""
    from dataclasses import replace

    from warmkit.evidence.reports import EVIDENCE
    from warmkit.report.html_page import write
    from warmkit.report.runs.open import KINDS
    from warmkit.report.runs.open import report as collect

    page, parts = collect(runs, [*EVIDENCE, *KINDS])
    page = replace(page, command=command)
    if every is not None and not all(part.done for part in parts):
        page = replace(page, live=True, every=max(1.0, every))
    write(page, target)
    return parts


def _watch(
    console: Console, runs: Sequence[Path], target: Path, every: float, count: Callable[[int], None], command: str
) -> list[Part]:
    """Write the page whenever a file changes until every run is done; stopped before that, leave a page that is not live."""
    from warmkit.report.runs.signature import signature

    seen: Any = None
    parts: list[Part] = []
    try:
        while not parts or not all(part.done for part in parts):
            if (now := signature(runs)) != seen:
                seen, parts = now, _write(runs, target, every, command)
                count(1)
                if not all(part.done for part in parts):
                    console.detail(f"wrote {target}")
                continue
            time.sleep(every)
    except KeyboardInterrupt:
        _write(runs, target, None, command)
        raise
    return parts
