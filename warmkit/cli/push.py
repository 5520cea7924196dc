"""`warmkit push`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from warmkit.cli.command import argument, command, option
from warmkit.cli.console import Console
from warmkit.cli.shared_options import Threads
from warmkit.common.units import size


@command()
def push(
    console: Console,
    output: Path = argument("OUT", "Directory that warmkit wrote; of a sweep, one of its models."),
    repository: str = argument("REPOSITORY", "owner/name on the Hub; created where it is not there."),
    private: bool = option(False, "Create it as a private repository."),
    revision: str | None = option(None, "Branch, created where it is not there.", show_default="main"),
    message: str | None = option(None, "Message of the commit.", show_default="the method"),
    create_pr: bool = option(False, "Open a pull request instead."),
    threads: Threads = None,
) -> None:
    """Upload a result to the Hub with its card and manifest, after it was compared with the manifest.

    Example:

    - `warmkit push OUT owner/name --private`
    """
    from warmkit.verbs.push import push as push_output

    how: dict[str, Any] = {"private": private, "revision": revision, "message": message, "create_pr": create_pr}
    with console.progress("verifying") as advance:
        pushed = push_output(output, repository, **how, threads=threads, advance=advance, stage=console.stage)
    console.result(dataclasses.asdict(pushed), f"{pushed.files} files, {size(pushed.nbytes)}: {pushed.url}")
