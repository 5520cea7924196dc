"""Options of the commands whose runs may go to a cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from warmkit.cli.completions import among

ExecutorName = Annotated[
    str | None,
    typer.Option(
        "--executor",
        rich_help_panel="Where it runs",
        metavar="processes|ray",
        autocompletion=among("processes", "ray"),
        help="Where the runs go: the recipe's key `executor`.",
        show_default=False,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        rich_help_panel="Where it runs",
        metavar="HOST:PORT",
        help="Address of the Ray cluster. Default: RAY_ADDRESS, else the cluster running here.",
    ),
]


def chosen(section: str, executor: str | None) -> list[str]:
    """Return the overrides of a recipe that an option stands for."""
    return [] if executor is None else [f"{section}.executor={executor}"]
