"""Runs by command, as `warm` and `warp` show them before they are started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from warmkit.cli.console import table

if TYPE_CHECKING:
    from warmkit.training.command_recipe import CommandRecipe


def command_rows(runs: Mapping[str, CommandRecipe]) -> Any:
    """Return a table of what fills the placeholders of each run."""
    values = {name: {**each.command.values, "init": each.model.path} for name, each in runs.items()}
    columns = list(next(iter(values.values())))
    return table("Runs", ["run", *columns], [[name, *(str(each[key]) for key in columns)] for name, each in values.items()])
