"""`warmkit docstrings`."""

from __future__ import annotations

from typing import Annotated

import typer

from warmkit.cli.command import command, need_transformers
from warmkit.cli.console import Console, table
from warmkit.cli.shared_options import OutputPath


@command()
def docstrings(
    console: Console,
    output: OutputPath,
    train: Annotated[int, typer.Option("--train", min=0, help="Pairs to train on.")] = 2000,
    validation: Annotated[int, typer.Option("--validation", min=0, help="Pairs of the same packages, other files.")] = 500,
    ood: Annotated[int, typer.Option("--ood", min=0, help="Pairs of a package of their own.")] = 500,
    model: Annotated[
        bool, typer.Option("--model", help="Also train a tiny language model on docstrings, OUT/model: a start for policies.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of splits, partners and order, and of the model.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier data set in OUT.")] = False,
) -> None:
    """Build a preference data set on real text, without network: which summary belongs to this docstring?

    The docstrings are those of the installed packages; a wrong summary exchanges words, verb or ending with another one.

    Examples:

    - `warmkit docstrings -o data/docstrings`
    - `warmkit docstrings -o data/docstrings --model`
    """
    if model:
        need_transformers()
    from warmkit.data.docstring_preferences import RULES, Sizes, write_docstring_preferences

    sizes = Sizes(train, validation, ood)
    with console.progress("reading", unit="files") as advance:
        about = write_docstring_preferences(output, sizes, seed, advance=advance, force=force)
    if model:
        from warmkit.evidence.testbed.docstring_model import write_docstring_model

        with console.progress("training", unit="steps") as advance:
            write_docstring_model(output / "model", seed, advance, force)
    rows = [
        [split, *(str(count.get(rule, 0)) for rule in RULES), str(sum(count.values()))]
        for split, count in about["counts"].items()
    ]
    console.result(about, table(f"Pairs in {output}", ["split", *RULES, "all"], rows))
