"""`warmkit push`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from warmkit.cli.command import command
from warmkit.cli.console import Console
from warmkit.cli.shared_options import Threads
from warmkit.common.units import size


@command()
def push(
    console: Console,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Directory that warmkit wrote; of a sweep, one of its models.")],
    repository: Annotated[
        str, typer.Argument(metavar="REPOSITORY", help="owner/name on the Hub; created where it is not there.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Create it as a private repository.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, created where it is not there.", show_default="main")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", help="Message of the commit.", show_default="the method")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead.")] = False,
    threads: Threads = None,
) -> None:
    """Upload a result to the Hub with its card and manifest, after it was compared with the manifest.

    Example:

    - `warmkit push OUT owner/name --private`
    """
    from warmkit.verbs.push import push as push_output

    with console.progress("verifying") as advance:
        pushed = push_output(
            output,
            repository,
            private=private,
            revision=revision,
            message=message,
            create_pr=create_pr,
            threads=threads,
            advance=advance,
            stage=console.stage,
        )
    console.result(dataclasses.asdict(pushed), f"{pushed.files} files, {size(pushed.nbytes)}: {pushed.url}")
