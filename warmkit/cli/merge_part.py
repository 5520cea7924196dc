"""`warmkit merge-part`: what the nodes of a cluster run; people give `warmkit merge --executor ray`."""

from __future__ import annotations

from pathlib import Path

from warmkit.cli.command import command
from warmkit.cli.console import Console


@command()
def merge_part(console: Console, order: Path) -> None:
    """Merge one part of a merge, as its order says."""
    from warmkit.pipelines.merge_parts import follow_order

    follow_order(order)
