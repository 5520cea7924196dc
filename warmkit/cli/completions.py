"""Values that a shell completes; none of these functions may import torch, or take long."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Complete = Callable[[str], list[Any]]


def among(*values: str) -> Complete:
    """Return the completion of a closed choice."""

    def complete(incomplete: str) -> list[Any]:
        return _beginning(values, incomplete)

    return complete


def method(incomplete: str) -> list[Any]:
    """Complete a method, with what it does."""
    from warmkit.merging.methods import METHODS

    return [(each.name, each.summary) for each in METHODS.values() if each.name.startswith(incomplete)]


def schedule(incomplete: str) -> list[Any]:
    """Complete a schedule of an average along a run, with what it is."""
    from warmkit.merging.schedules import SCHEDULES

    return [(each.name, each.summary) for each in SCHEDULES.values() if each.name.startswith(incomplete)]


def claim(incomplete: str) -> list[Any]:
    """Complete a claim of `reproduce`: each has a recipe of its name."""
    folder = Path(__file__).parents[1] / "evidence" / "reproduction" / "recipes"
    names = sorted(each.stem for each in folder.glob("*.yaml") if each.stem != "testbed")  # what all claims stand on
    return _beginning(["all", *names], incomplete)


def shipped_recipe(incomplete: str) -> list[Any]:
    """Complete the name of a recipe that comes with warmkit."""
    from warmkit.recipes.kinds import shipped_recipes

    return _beginning(shipped_recipes(), incomplete)


granularity = among("layer", "tensor", "model")
antiparallel = among("error", "lerp")
vocabulary = among("strict", "union", "init", "common")
heads = among("init", "models")
layout = among("canonical", "memory")
container = among("safetensors", "same")
optimizer = among("average", "keep")
dtype = among("float32", "bfloat16", "float16", "float64")
device = among("cpu", "cuda")
order = among("given", "natural")


def _beginning(values: Iterable[str], incomplete: str) -> list[Any]:
    return [each for each in values if each.startswith(incomplete)]
