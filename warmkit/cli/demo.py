"""`warmkit demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli.command import command, option
from warmkit.cli.console import Console, table
from warmkit.cli.output import write_page

if TYPE_CHECKING:
    from warmkit.evidence.demo.demo import Story
    from warmkit.report.html_page import Table


@command(resumes=True, needs_transformers=True)
def demo(
    console: Console,
    output: Path = option(Path("warmkit-demo"), "Folder for all results.", "--output", "-o"),
    seed: int = option(0, "Seed of everything.", min=0),
    seeds: int = option(1, "How many seeds, from --seed on; shows their spread.", min=1),
) -> None:
    """Run a demo of three minutes: average six reward models (WARM), train and merge two policies (WARP), write a page.

    Everything is made from a seed, a tiny language included. The same command goes on where it was stopped. Needs the `train`
    extra, and `report` for the page.

    Examples:

    - `warmkit demo`
    - `warmkit demo -o demo-1 --seed 1`
    - `warmkit demo -o demos --seeds 3`
    """
    from warmkit.evidence.demo.demo import folders_of, run_demos

    with console.progress("demo", unit="steps") as advance:
        stories = run_demos(folders_of(output, range(seed, seed + seeds)), advance, console.stage)
    for story in stories:
        _write(console, story)
        for note in story.document["notes"]:
            console.note(note if seeds == 1 else f"seed {story.document['seed']}: {note}")
    (_tell if seeds == 1 else _tell_spread)(console, output, stories)


def _write(console: Console, story: Story) -> None:
    from warmkit.evidence.demo.demo_page import page_of, write_front

    if write_page(console, lambda: page_of(story.document), story.path / "report.html") is not None:
        write_front(story.document, story.path / "front.svg")


def _tell(console: Console, output: Path, stories: list[Story]) -> None:
    """Print the tables of one seed, each with what it says below."""
    from warmkit.evidence.demo.demo_page import told

    document, report = stories[0].document, _report(output)
    parts = [part for each, says in told(document) for part in (_shown(each), f"{says}\n")]
    result = {"path": str(output), "report": report, "seconds": stories[0].seconds, **document}
    console.result(result, *parts, report or str(output))


def _tell_spread(console: Console, output: Path, stories: list[Story]) -> None:
    """Print the tables of several seeds, and what they say together."""
    from warmkit.evidence.demo.demo_spread import conclusion, page_of_seeds, spread_tables

    documents: list[Any] = [story.document for story in stories]
    report = write_page(console, lambda: page_of_seeds(documents), output / "report.html")
    tables = [_shown(each) for each in spread_tables(documents)]
    result = {"path": str(output), "report": report, "seeds": documents}
    console.result(result, *tables, f"{conclusion(documents)}\n", report or str(output))


def _report(output: Path) -> str | None:
    return str(output / "report.html") if (output / "report.html").exists() else None


def _shown(found: Table) -> Any:
    return table(found.caption, found.columns, [[str(cell) for cell in row] for row in found.rows])
