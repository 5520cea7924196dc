"""The recipe that a recipe of mergekit stands for, as text."""

from __future__ import annotations

from typing import Any

import yaml

from warmkit.recipes.recipe import MergeRecipe, plain


class _Dumper(yaml.SafeDumper):
    """YAML with lists of numbers, and mappings of plain values inside lists, on one line."""


def _short(value: Any) -> bool:
    rows = value.values() if isinstance(value, dict) else value
    return all(isinstance(each, int | float | str) or (isinstance(each, list) and _short(each)) for each in rows)


def _list(dumper: _Dumper, rows: list[Any]) -> yaml.Node:
    numbers = all(isinstance(each, int | float) for each in rows)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", rows, flow_style=numbers)


def _dict(dumper: _Dumper, rows: dict[str, Any]) -> yaml.Node:
    inner = rows.keys() <= {"pattern", "value", "model", "layers", "token", "id", "force"}
    return dumper.represent_mapping("tag:yaml.org,2002:map", rows.items(), flow_style=inner and _short(rows))


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(dict, _dict)
_Dumper.add_representer(str, _text)


def explain(recipe: MergeRecipe) -> str:
    """Return a recipe as YAML that `warmkit merge` runs."""
    content = {name: section for name, section in plain(recipe).items() if section}
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
