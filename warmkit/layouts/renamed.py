"""Tensors under the names of different versions of a library, matched."""

from __future__ import annotations

from collections.abc import Mapping

from warmkit.formats.tensors import Tensor

MOST = 8  # parts of names that one version calls otherwise than another


def renamed(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, str]:
    """Pair tensors that one side lacks with those that the other lacks, by names that differ in one stretch of parts.

    Returns:
        For names of `theirs`, the names of `mine`; `{}` unless all have exactly one partner, of the same shape, and the
        stretches are few.
    """
    missing = [name for name in mine if name not in theirs]
    extra = [name for name in theirs if name not in mine]
    if not missing or len(missing) != len(extra):
        return {}
    places = dict[tuple[object, ...], list[str]]()
    for name in missing:
        places.setdefault(_kind(name, mine[name]), []).append(name)
    pairs, stretches = dict[str, str](), set[tuple[str, str]]()
    for name in extra:
        near = sorted((sum(map(len, _stretch(name, each))), each) for each in places.get(_kind(name, theirs[name]), ()))
        if not near or (len(near) > 1 and near[0][0] == near[1][0]):
            return {}
        pairs[name] = near[0][1]
        stretches.add(_joined(*_stretch(name, pairs[name])))
    return pairs if len(set(pairs.values())) == len(missing) and len(stretches) <= MOST else {}


def _kind(name: str, tensor: Tensor) -> tuple[object, ...]:
    """Return what a renamed tensor keeps: its last parts, the numbers in its name, and its shape."""
    parts = name.split(".")
    return (*parts[-2:], *(part for part in parts if part.isdigit()), tensor.shape)


def _stretch(one: str, other: str) -> tuple[list[str], list[str]]:
    """Return what is left of two names without the parts that both begin with, and those that both end in."""
    left, right = one.split("."), other.split(".")
    while left and right and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    while left and right and left[0] == right[0]:
        left, right = left[1:], right[1:]
    return left, right


def _joined(left: list[str], right: list[str]) -> tuple[str, str]:
    return ".".join(left), ".".join(right)
