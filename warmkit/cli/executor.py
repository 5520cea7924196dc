"""Options of the commands whose work may go to a cluster."""

from __future__ import annotations

from dataclasses import dataclass

from warmkit.cli.command import option
from warmkit.cli.completions import among
from warmkit.cli.shared_options import PLACE_PANEL


@dataclass(eq=False, repr=False)
class Executor:
    """Where the runs of a pipeline go."""

    executor: str | None = option(
        None,
        "Where the runs go: the recipe's key `executor`.",
        rich_help_panel=PLACE_PANEL,
        metavar="processes|ray",
        autocompletion=among("processes", "ray"),
        show_default=False,
    )
    address: str | None = option(
        None,
        "Address of the Ray cluster. Default: RAY_ADDRESS, else the cluster running here.",
        rich_help_panel=PLACE_PANEL,
        metavar="HOST:PORT",
    )

    def overrides(self, section: str) -> list[str]:
        """Return the overrides of a recipe that the options stand for."""
        return [] if self.executor is None else [f"{section}.executor={self.executor}"]


@dataclass(eq=False, repr=False)
class MergeExecutor(Executor):
    """Where a merge is done."""

    executor: str | None = option(
        None,
        "Where the work is done: threads of this process, or a Ray cluster.",
        rich_help_panel=PLACE_PANEL,
        metavar="threads|ray",
        autocompletion=among("threads", "ray"),
        show_default="threads",
    )
