"""`warmkit verify`."""

from __future__ import annotations

from pathlib import Path

from warmkit.cli.command import argument, command
from warmkit.cli.console import Console
from warmkit.cli.shared_options import Threads
from warmkit.common.units import size


@command()
def verify(
    console: Console,
    output: Path = argument("OUT", "Directory that warmkit wrote, a sweep's included."),
    threads: Threads = None,
) -> None:
    """Read a result again and check every tensor and file against its manifest.

    Example:

    - `warmkit verify OUT`
    """
    from warmkit.verbs.verify import verify as verify_output

    with console.progress("verifying") as advance:
        report = verify_output(output, threads=threads, advance=advance)
    console.result(
        {"path": str(output), "tensors": report.tensors, "files": report.files, "bytes": report.nbytes, "ok": True},
        f"{output}: {report.tensors} tensors and {report.files} files as written, {size(report.nbytes)}",
    )
