"""`warmkit demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmkit.cli.command import command
from warmkit.cli.console import Console, table
from warmkit.cli.output import write_page
from warmkit.cli.train import need_transformers

if TYPE_CHECKING:
    from warmkit.report.page import Table


@command(resumes=True)
def demo(
    console: Console,
    output: Annotated[Path, typer.Option("--output", "-o", help="Everything goes here.")] = Path("warmkit-demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything.")] = 0,
) -> None:
    """Show the point in three minutes: six reward models become one, two policies are merged, and the front is drawn.

    Everything is made from a seed, a tiny language included. Needs the `train` extra, and `report` for the page.

    Examples:

    - `warmkit demo`
    - `warmkit demo -o demo-1 --seed 1`
    """
    need_transformers()
    from warmkit.reproduction.demo import run_demo
    from warmkit.reproduction.demo_page import accuracy_table, memory_table, page_of, policy_table

    with console.progress("telling", unit="seconds of work") as advance:
        story = run_demo(output, seed, advance)
    report = write_page(console, lambda: page_of(story.document), story.path / "report.html")
    tables = [_shown(each(story.document)) for each in (accuracy_table, memory_table, policy_table)]
    for note in story.document["notes"]:
        console.note(note)
    console.result({"path": str(output), "report": report, **story.document}, *tables, report or str(output))


def _shown(found: Table) -> Any:
    return table(found.caption, found.columns, [[str(cell) for cell in row] for row in found.rows])
