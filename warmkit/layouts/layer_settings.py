"""Numbers that change over a model: by tensor name, and over its depth.

A setting is what a recipe may write where a number stands:

    0.5                                              the same everywhere
    [0, 0.5, 1]                                      a gradient over the layers
    [{pattern: mlp, value: [1, 0]}, {value: 0.5}]    rules; the first whose pattern fits decides
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from warmkit.common.records import is_number
from warmkit.errors import UsageError, nearest

_LAYER = re.compile(r"^(?P<stack>(?:[^.]+\.)*?)(?P<number>\d+)(?=\.|$)")


@dataclass(frozen=True)
class Rule:
    """One line of a setting.

    Attributes:
        values: One number, or the points of a gradient, evenly spaced from the first layer to the last.
        pattern: A text that the tensor's name contains, or, with `*` or `?` in it, a glob for the whole name; None fits all.
    """

    values: tuple[float, ...]
    pattern: str | None = None

    def fits(self, tensor: str) -> bool:
        if self.pattern is None:
            return True
        if "*" in self.pattern or "?" in self.pattern:
            return fnmatch.fnmatchcase(tensor, self.pattern)
        return self.pattern in tensor

    def at(self, depth: float) -> float:
        """Return the value at a depth from 0 to 1: linear between the two nearest points."""
        place = depth * (len(self.values) - 1)
        low = min(int(place), len(self.values) - 1)
        high = min(low + 1, len(self.values) - 1)
        share = place - low
        return (1 - share) * self.values[low] + share * self.values[high]


Setting: TypeAlias = tuple[Rule, ...]


def read_setting(value: Any, name: str) -> Setting:
    """Turn what a recipe says into rules.

    Raises:
        UsageError: If it is no number, list of numbers or list of rules.
    """
    if is_number(value):
        return (Rule((finite(value, name),)),)
    rows = cast("list[Any]", value) if isinstance(value, list | tuple) else []
    if rows and all(map(is_number, rows)):
        return (Rule(tuple(finite(each, name) for each in rows)),)
    if rows and all(isinstance(each, dict) for each in rows):
        return tuple(_rule(each, name) for each in rows)
    raise UsageError(f"{name} must be a number, a list of numbers or a list of {{pattern, value}}, found {value!r}")


def _rule(row: dict[str, Any], name: str) -> Rule:
    for key in row:
        if key not in ("pattern", "value"):
            raise UsageError(f"{name}: unknown key {key!r}{nearest(str(key), ('pattern', 'value'))}")
    pattern: Any = row.get("pattern")
    value: Any = row.get("value")
    if pattern is not None and (not isinstance(pattern, str) or not pattern):
        raise UsageError(f"{name}: pattern must be text, found {pattern!r}")
    points = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not points or not all(map(is_number, points)):
        raise UsageError(f"{name}: value must be a number or a list of numbers, found {value!r}")
    return Rule(tuple(finite(each, name) for each in points), pattern)


def finite(value: float, name: str) -> float:
    """Return a number that is finite.

    Raises:
        UsageError: If it is not.
    """
    if not math.isfinite(value):
        raise UsageError(f"{name} must be a finite number, found {value}")
    return float(value)


def write_setting(setting: Setting) -> Any:
    """Return a setting as a recipe writes it, in the shortest form."""
    if len(setting) == 1 and setting[0].pattern is None:
        return _written(setting[0].values)
    rows = [({"pattern": rule.pattern} if rule.pattern else {}) | {"value": _written(rule.values)} for rule in setting]
    return cast("Any", rows)


def _written(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)


def is_constant(setting: Setting) -> bool:
    """Say whether a setting is one number everywhere."""
    return setting[0].pattern is None and len(set(setting[0].values)) == 1


def value_at(setting: Setting, tensor: str, depth: float, name: str) -> tuple[int, float]:
    """Return the number of the rule that fits a tensor, and its value at the tensor's depth.

    Raises:
        UsageError: If no rule fits.
    """
    for number, rule in enumerate(setting):
        if rule.fits(tensor):
            return number, rule.at(depth)
    raise UsageError(f"{name} says nothing of {tensor!r}; end its rules with one without a pattern")


def layer_number(tensor: str) -> tuple[str, int] | None:
    """Return the stack of layers that a tensor is in and its layer there, None for a tensor outside.

    Examples:
        >>> layer_number("model.layers.3.mlp.up_proj.weight")
        ('model.layers.', 3)
    """
    match = _LAYER.match(tensor)
    return (match["stack"], int(match["number"])) if match else None


def depths(tensors: Iterable[str]) -> dict[str, float]:
    """Return the depth of every tensor: layer / (layers - 1) in its stack, 0 outside of any.

    A stack of one layer lies at its end, at depth 1.
    """
    places = {tensor: layer_number(tensor) for tensor in tensors}
    last: dict[str, int] = {}
    for place in filter(None, places.values()):
        last[place[0]] = max(last.get(place[0], 0), place[1])
    return {tensor: 0.0 if place is None else depth_of(place[1], last[place[0]] + 1) for tensor, place in places.items()}


def depth_of(layer: int, layers: int) -> float:
    """Return the depth of a layer among `layers`."""
    return layer / (layers - 1) if layers > 1 else 1.0
