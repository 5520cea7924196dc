"""The parameters of a method: read from its signature and docstring, which are their one declaration.

A parameter's name, type and default stand in the signature, its range beside its type (`Annotated[float, Within(0, 1)]`), and
what it is in the docstring's `Args`. Commands, recipes, tables and the translation from mergekit derive from that. A list of
numbers, one for each model, is `Sequence[float]`; its default is a tuple of one.
"""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast

from warmkit.errors import UsageError, nearest

GIVEN = ("gram", "shares", "scales", "models", "antiparallel")
"""What every method may ask for, and nobody sets as a parameter of its own."""


@dataclass(frozen=True)
class Within:
    """Range of a parameter, beside its type.

    Attributes:
        low: Smallest value.
        high: Largest value.
        above: Whether `low` itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if self.low == -math.inf:
            return ""
        first = f" {'above' if self.above else 'at least'} {self.low:g}"
        return first + (f" and at most {self.high:g}" if self.high < math.inf else "")


Density = Annotated[Sequence[float], Within(0.0, 1.0, above=True)]
Seed = Annotated[int, Within(0)]


@dataclass(frozen=True)
class Parameter:
    """Parameter of a method, as its function declares it.

    Attributes:
        name: Of the argument; the option is `--name`, the key of a recipe `merge.name`.
        default: Where it is not given; of a list, the number that all models get.
        kind: `float`, `int` or `bool`.
        within: Its range.
        per_model: Whether it may be a list, one for each model; then the method gets a list in any case.
        words: What it is, in the words of the docstring; empty where that refers to another.
    """

    name: str
    default: float | bool
    kind: type
    within: Within
    per_model: bool
    words: str

    @property
    def type(self) -> Any:
        """The type of a recipe's key; a list may hold rules that change over the model."""
        return float | list[Any] if self.per_model else self.kind

    def check(self, value: Any, count: int) -> Any:
        """Return a value as the method takes it.

        Raises:
            UsageError: If it has another kind, length or range.
        """
        if not self.per_model:
            return self._one(value)
        if not isinstance(value, Sequence) or isinstance(value, str):
            return [self._one(value)] * count
        values = [self._one(each) for each in cast("Sequence[Any]", value)]
        if len(values) == 1:
            return values * count
        if len(values) != count:
            raise UsageError(f"{self.name}: expected one number, or {count}, one per model; found {len(values)}")
        return values

    def _one(self, value: Any) -> float | bool:
        if self.kind is bool:
            if not isinstance(value, bool):
                raise UsageError(f"{self.name} must be true or false, found {value!r}")
            return value
        whole = self.kind is int
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right or not math.isfinite(value) or not self.within.holds(value):
            kind = "a whole number" if whole else "a finite number"
            raise UsageError(f"{self.name} must be {kind}{self.within}, found {value!r}")
        return value if whole else float(value)


SCALE = Parameter("scale", 1.0, float, Within(), per_model=False, words="Factor of the merged task vector (lambda).")
"""What all methods that edit task vectors have; the engine applies it."""


def own_parameters(function: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Return the parameters that a method has of its own, in the order of its signature.

    Raises:
        TypeError: If one is declared without a default, or as no number, list of numbers or flag.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    words = _words(function)
    names = [name for name in inspect.signature(function).parameters if name not in GIVEN]
    return tuple(_parameter(function, name, hints[name], words.get(name, "")) for name in names)


def _parameter(function: Callable[..., Any], name: str, hint: Any, words: str) -> Parameter:
    default = inspect.signature(function).parameters[name].default
    within = next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Within)), Within())
    bare = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    per_model = bare == Sequence[float]
    kind, value = (float, default[0]) if per_model and isinstance(default, tuple) else (bare, default)
    if kind not in (float, int, bool) or not isinstance(value, int | float):
        raise TypeError(f"{function.__name__}: {name}: expected a default, and float, int, bool or Sequence[float] for a type")
    return Parameter(name, value, kind, within, per_model, words)


def _words(function: Callable[..., Any]) -> dict[str, str]:
    """Return what the `Args` of a docstring say of each parameter, in one sentence without the shape."""
    text = inspect.getdoc(function) or ""
    block = re.search(r"^Args:\n((?:[ ]+.*\n?)+)", text, re.MULTILINE)
    if block is None:
        return {}
    lines = re.sub(r"\n +", " ", inspect.cleandoc(block[1])).splitlines()
    return {name: _sentence(said) for name, _, said in (line.partition(": ") for line in lines)}


def _sentence(said: str) -> str:
    plain = re.sub(r"^\[M\], (the )?", "", said)
    return plain[:1].upper() + plain[1:]


def checked(
    method: str, own: Sequence[Parameter], given: Mapping[str, Any], count: int, having: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return all parameters of a method, from those that were given and its defaults.

    Args:
        method: Its name.
        own: Its parameters.
        given: Names and values; None is as if not given.
        count: How many models there are.
        having: For every name of a parameter, the methods that have it.

    Raises:
        UsageError: If one is unknown, belongs to other methods, or has a value out of range.
    """
    names = {each.name for each in own}
    for name in (name for name, value in given.items() if value is not None and name not in names):
        if name not in having:
            raise UsageError(f"unknown parameter {name!r}{nearest(name, having)}")
        raise UsageError(f"{method} has no {name}; it is a parameter of {', '.join(having[name])}")
    values = {each.name: given.get(each.name) for each in own}
    return {each.name: each.check(each.default if values[each.name] is None else values[each.name], count) for each in own}
