"""Types that keys of a recipe may have, taken from the annotations of its sections."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union


def options(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one type."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def inner(hint: Any) -> list[Any]:
    """Return what lists of a type hold."""
    return [typing.get_args(option)[0] for option in options(hint) if typing.get_origin(option) is list]


def choices(hint: Any) -> list[str]:
    """Return the words that a type allows."""
    return [name for option in options(hint) if typing.get_origin(option) is Literal for name in typing.get_args(option)]


def fits(value: Any, hint: Any) -> bool:
    """Say whether a value is of a type."""
    return any(_is(value, option) for option in options(hint))


def _is(value: Any, option: Any) -> bool:
    """Say whether a value is of one of the types that a key may have."""
    origin = typing.get_origin(option)
    if option is Any:
        return True
    if origin is Literal:
        return value in typing.get_args(option)
    if origin is list:
        (kind,) = typing.get_args(option)
        return isinstance(value, list) and all(fits(each, kind) for each in typing.cast("list[Any]", value))
    if option is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, origin or option) and (option is bool or not isinstance(value, bool))


_PLURALS = {Any: "numbers or rules", str: "texts", float: "numbers", int: "whole numbers"}
_WORDS = {str: "text", float: "a number", int: "a whole number", bool: "true or false"}


def _listed(kind: Any) -> str:
    return " or ".join(choices(kind)) or _PLURALS.get(kind, "mappings of keys to values")


def described(hint: Any) -> str:
    """Write a type for people."""
    words: list[str] = []
    for option in options(hint):
        if typing.get_origin(option) is list:
            words.append(f"a list of {_listed(typing.get_args(option)[0])}")
        elif typing.get_origin(option) is Literal:
            words.append(" or ".join(typing.get_args(option)))
        elif typing.get_origin(option) is dict or dataclasses.is_dataclass(option):
            words.append("a mapping of keys to values")
        elif option in _WORDS:
            words.append(_WORDS[option])
    return " or ".join(words)


def dotted_keys(schema: type[Any], prefix: str = "") -> Iterator[str]:
    """Yield every key of a recipe as `--set` takes it: `rm.lr`."""
    hints = typing.get_type_hints(schema)
    for each in dataclasses.fields(schema):
        name = prefix + each.name.rstrip("_")
        yield name
        for option in options(hints[each.name]):
            if dataclasses.is_dataclass(option):
                yield from dotted_keys(typing.cast("type[Any]", option), f"{name}.")
