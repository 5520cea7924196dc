"""`warmkit demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from warmkit.cli.command import command
from warmkit.cli.console import Console, table


@command()
def demo(
    console: Console,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Keep the checkpoints here.", show_default="a temporary one")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of data order and initialisation.")] = 0,
) -> None:
    """Show the point in two minutes: train a tiny language model, fine-tune it several times, merge, compare.

    The text is the docstrings of the Python that runs it. Needs the `train` extra.

    Example:

    - `warmkit demo -o warmkit-demo`
    """
    from warmkit.pipelines.demo import run_demo

    with console.progress("training", unit="steps") as advance:
        outcome = run_demo(output, seed=seed, advance=advance)
    rows = [[row.name, row.what, f"{row.loss:.4f}", f"{row.perplexity:.2f}"] for row in outcome.rows]
    console.result(
        outcome.as_document(),
        table(outcome.title, ["model", "what it is", "held-out loss", "perplexity"], rows),
        outcome.summary(),
    )
