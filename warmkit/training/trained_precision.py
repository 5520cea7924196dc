"""Precision of a run: chosen when it starts, written into its recipe, and kept when it goes on elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from warmkit.modeling.precision import fast_precision

Recipe = TypeVar("Recipe")


def with_precision(recipe: Recipe, name: str) -> Recipe:
    """Replace `precision: auto` by that of the run which lies at the recipe's place, else by what the device computes fast.

    Args:
        recipe: Of a run or a pipeline, with `output.path`.
        name: Of the section that holds the precision.
    """
    whole: Any = recipe
    section = getattr(whole, name)
    if section.precision != "auto":
        return recipe
    precision = _recorded(Path(whole.output.path) / "recipe.yaml", name) or fast_precision()
    return replace(whole, **{name: replace(section, precision=precision)})


def _recorded(file: Path, name: str) -> str | None:
    try:
        found = yaml.safe_load(file.read_text("utf-8"))[name]["precision"]
    except (OSError, ValueError, LookupError, RecursionError, TypeError, yaml.YAMLError):
        return None  # no run, or none of ours: opening its directory says so
    return found if found in ("float32", "bfloat16") else None
