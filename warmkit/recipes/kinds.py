"""Kinds of recipes: the command that each belongs to, and those that come with warmkit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

SHIPPED = Path(__file__).parent / "shipped"
"""A link to `recipes/` at the top of the repository; a folder where warmkit is installed."""

COMMANDS = {
    "merge": "merge",
    "merge_method": "merge",
    "warm": "warm",
    "warp": "warp",
    "policy": "train policy",
    "rm": "train rm",
    "sft": "train sft",
}
"""A key of each kind of recipe, and its command; pipelines come before the runs that they are made of."""


def command_of(keys: Iterable[str]) -> tuple[str, str] | None:
    """Return the key that tells the kind of a recipe, and its command; None if it could be of several."""
    known = set(keys)
    return next((pair for pair in COMMANDS.items() if pair[0] in known), None)


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with warmkit by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}


def missing_recipe(path: Path) -> str:
    """Say that there is no such recipe, and where one of this name, or a similar one, is."""
    shipped = shipped_recipes()
    if path.stem in shipped:
        return f"{path}: no such file; warmkit brings this recipe along: warmkit recipes {path.stem} -o {path}"
    beside = {each.stem: each.name for ending in ("yaml", "yml") for each in sorted(path.parent.glob(f"*.{ending}"))}
    if near := difflib.get_close_matches(path.stem, beside, n=1, cutoff=0.7):
        return f"{path}: no such file; did you mean {beside[near[0]]!r}?"
    if near := difflib.get_close_matches(path.stem, shipped, n=1, cutoff=0.8):
        return f"{path}: no such file; did you mean the one that comes with warmkit: warmkit recipes {near[0]} -o {path}"
    return f"{path}: no such file; warmkit recipes lists those that come with warmkit"
