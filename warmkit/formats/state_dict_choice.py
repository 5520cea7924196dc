"""The state dict that a user names, of several in a file: the key that it lies under, or the first name of its tensors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, TypeVar

from warmkit.errors import StateDictError

T = TypeVar("T")
Path: TypeAlias = "tuple[str, ...]"

TOP = "."  # names what lies under no key
MOST_LISTED = 8
_AVERAGE = re.compile(r"(^|_)(ema|swa|averaged?)(_|$)")


def under(tensors: Mapping[Path, T], key: str, homes: tuple[str, ...], where: str) -> tuple[dict[Path, T], list[str]]:
    """Return the tensors that lie under a key, with the keys that lead from there, and what lies beside it.

    Args:
        tensors: Every tensor, by the keys that lead to it.
        key: Keys with dots between them, a first name of tensors, or `.`. A first name alone is one only where it tells a
            model from its average, here or under a key of `homes`: the names of most models start with `model.`.
        homes: Under which trainers keep the weights.
        where: The file, for messages.

    Raises:
        StateDictError: If there are none, listing what there is.
    """
    if key == TOP and (found := {path: tensor for path, tensor in tensors.items() if len(path) == 1}):
        return found, list(dict.fromkeys(path[0] for path in tensors if len(path) > 1))
    for home in map(_keys, ("", *homes)):
        names = [path[-1] for path in tensors if path[:-1] == home]
        firsts = {first for pair in twice(names) for first in pair}
        rests = {path: rest for path in tensors if (rest := _rest(path, key, home if key in firsts else None)) is not None}
        if rests:
            beside = dict.fromkeys(_part(path, key, home) for path in tensors if path not in rests)
            return {rest: tensors[path] for path, rest in rests.items()}, list(beside)
    raise _missing(tensors, key, where)


def _keys(home: str) -> Path:
    return (home,) if home else ()


def _rest(path: Path, key: str, home: Path | None) -> Path | None:
    """Return the keys that lead from a key to a tensor, None where it lies elsewhere.

    Args:
        path: The keys that lead to the tensor.
        key: The key.
        home: Under which the key is a first name of tensors; None where it is none.
    """
    for depth in range(1, len(path)):
        if ".".join(path[:depth]) == key:
            return path[depth:]
    whole, name = ".".join(path), path[-1]
    if whole != name and whole.startswith(f"{key}."):
        return (whole.removeprefix(f"{key}."),)
    return (name.removeprefix(f"{key}."),) if path[:-1] == home and name.startswith(f"{key}.") else None


def _part(path: Path, key: str, home: Path) -> str:
    """Return what a tensor that was not chosen is a part of: a key, or its first name beside one that was."""
    named = path[:-1] == home or ".".join(path[:-1]) == key.rpartition(".")[0]
    return path[-1].partition(".")[0] if named else path[0]


def _missing(tensors: Mapping[Path, object], key: str, where: str) -> StateDictError:
    if all(len(path) == 1 for path in tensors) and not any(twice(path[0] for path in tensors)):
        return StateDictError(f"{where}: holds one state dict, and none that is called {key!r}", alone=True)
    known = list(dict.fromkeys(_candidates(tensors)))
    more = f" and {len(known) - MOST_LISTED} more" if len(known) > MOST_LISTED else ""
    listed = ", ".join(known[:MOST_LISTED]) + more
    return StateDictError(f"{where}: holds no state dict that is called {key!r}; expected one of {listed}", alone=False)


def _candidates(tensors: Mapping[Path, object]) -> Iterator[str]:
    """Yield what may be named: keys that lead to several tensors, those of an optimizer's numbered states left out."""
    top = [path[0] for path in tensors if len(path) == 1]
    if len(top) < len(tensors) and top:
        yield TOP
    counts = Counter(path[:-1] for path in tensors if len(path) > 1)
    for home, count in counts.items():
        if count > 1 and not any(part.isdigit() for part in home):
            yield ".".join(home)
    for pair in twice(top):
        yield from pair


def twice(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield first names under which a model is there twice, as it learns and as its average, which the second says it is."""
    parts: dict[str, set[str]] = {}
    for name in names:
        first, _, rest = name.partition(".")
        parts.setdefault(first, set()).add(rest.removeprefix("module.").replace(".", ""))  # some averagers drop the dots
    for average in filter(_AVERAGE.search, parts):
        for other, inner in parts.items():
            if other != average and inner and 2 * len(inner & parts[average]) > len(inner):
                yield other, average
