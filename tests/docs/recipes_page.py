"""The page of the training recipes, generated from their dataclasses.

python -m tests.docs.recipes_page > docs/recipes.md
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union

from warmkit.training.command_recipe import CommandWarmRecipe, CommandWarpRecipe
from warmkit.training.policy_recipe import PolicyRecipe
from warmkit.training.recipe_sections import MembersRecipe, RewardModelRecipe, SftRecipe, WarmRecipe
from warmkit.training.warp_recipe import WarpRecipe

HEAD = """\
# Recipes: every key for training

A training is described by a recipe, a YAML file with the sections below. For the recipe of a merge see
[numbers by layer and slices](varying.md). This page is generated: `python -m tests.docs.recipes_page > docs/recipes.md`.

- `warmkit recipes` lists complete recipes to start from. `warmkit recipes warp-paper -o warp.yaml` copies one.
- An unknown key, a wrong type or a value out of range is an error that names file and line.
- `--set section.key=value` changes a key for one command. Give it several times for several keys.
- `--dry-run` prints the recipe with every default. Every run directory holds it as `recipe.yaml`.
- `-` in place of a recipe reads it from standard input.
- A path can be a directory, a repository of the Hub, or `package://name/folder` inside an installed Python package.
"""
RECIPES = {
    "warmkit train sft": SftRecipe,
    "warmkit train rm": RewardModelRecipe,
    "warmkit warm": WarmRecipe,
    "warmkit warm (finished members)": MembersRecipe,
    "warmkit warm (runs by command)": CommandWarmRecipe,
    "warmkit train policy": PolicyRecipe,
    "warmkit warp": WarpRecipe,
    "warmkit warp (runs by command)": CommandWarpRecipe,
}


def page() -> str:
    sections: dict[type, list[str]] = {}
    for command, schema in RECIPES.items():
        for name, section in _sections(schema):
            sections.setdefault(section, []).append(f"`{name}:` of `{command}`")
    return "\n".join([HEAD, *(_section(section, places) for section, places in sections.items())])


def _sections(schema: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Yield the sections of a recipe, and those inside them, with their keys."""
    for name, hint in typing.get_type_hints(schema).items():
        for option in _options(hint):
            inner = typing.get_args(option)[0] if typing.get_origin(option) is list else option
            if dataclasses.is_dataclass(inner) and isinstance(inner, type):
                yield prefix + name, inner
                yield from _sections(inner, f"{prefix}{name}.")


def _section(section: type, places: list[str]) -> str:
    texts = [_attributes(each) for each in reversed(section.__mro__)]
    found = [re.findall(r"^ {8}(\w+): ((?:.+\n?(?: {12}.+\n)*))", text, re.MULTILINE) for text in texts]
    meanings = {name: meaning for pairs in found for name, meaning in pairs}
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    hints = typing.get_type_hints(section)
    for each in dataclasses.fields(section):
        meaning = re.sub(r"\s+", " ", meanings.get(each.name, "")).strip()
        kind = ", ".join(filter(None, [_type(hints[each.name]), each.metadata.get("range")]))
        rows.append(f"| `{each.name}` | {kind} | {_default(each)} | {meaning} |")
    return f"## {', '.join(places)}\n\n" + "\n".join(rows) + "\n"


def _attributes(section: type) -> str:
    return (section.__doc__ or "").partition("Attributes:\n")[2]


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _type(hint: Any) -> str:
    words = {str: "text", float: "number", int: "whole number", bool: "true or false"}
    shown = []
    for option in _options(hint):
        if typing.get_origin(option) is Literal:
            shown.append(", ".join(f"`{value}`" for value in typing.get_args(option)))
        elif typing.get_origin(option) is list:
            inner = typing.get_args(option)[0]
            named = _type(inner) if typing.get_origin(inner) is Literal else "mappings"
            shown.append("list of " + (words[inner] + "s" if inner in words else named))
        elif typing.get_origin(option) is dict:
            shown.append("mapping")
        elif option is not type(None):
            shown.append(words[option])
    return " or ".join(shown)


def _default(each: dataclasses.Field[Any]) -> str:
    if each.default is dataclasses.MISSING:
        return "required" if each.default_factory is dataclasses.MISSING else f"{each.default_factory()}"
    if isinstance(each.default, bool):
        return str(each.default).lower()
    return "" if each.default is None else f"{each.default:g}" if isinstance(each.default, float) else str(each.default)


if __name__ == "__main__":
    print(page(), end="")
