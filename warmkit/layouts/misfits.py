"""What of two models does not fit, told by part: lists of layers and experts, towers, and only then single tensors."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

FEW = 4  # problems that are listed one by one
SHOWN = 2  # names of a part that are listed
WRAPPERS = ("model", "transformer", "base_model")  # what stands before the name of a part
STACKS = ("experts", "switch_mlp")

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
Lists: TypeAlias = "Mapping[str, set[int]]"
"""The numbers that follow a name, by that name: layers of `model.layers`, experts of `model.layers.0.mlp.experts`."""


class Member(NamedTuple):
    """What has a number in a list.

    Attributes:
        home: Name of the list.
        number: Its number.
    """

    home: str
    number: int


class Some(NamedTuple):
    """Members of a list, or of several that are alike.

    Attributes:
        home: Name of the list.
        some: Numbers of the members.
        total: How many there are in the list.
        lists: How many lists are meant.
    """

    home: str
    some: frozenset[int]
    total: int
    lists: int

    def __str__(self) -> str:
        return _numbers(self.some) + (f" ({self.lists} such lists)" if self.lists > 1 else "")


def kind_of(name: str) -> str:
    """Return a name with `*` for its numbers.

    Examples:
        >>> kind_of("model.layers.3.mlp.experts.11.w1.weight")
        'model.layers.*.mlp.experts.*.w1.weight'
    """
    return _NUMBER.sub("*", name)


def part_of(name: str) -> str:
    """Return the part of a model that a tensor is in; experts are a part of their own.

    Examples:
        >>> part_of("model.visual.blocks.0.attn.qkv.weight"), part_of("vision_tower.vision_model.embeddings.class_embedding")
        ('model.visual', 'vision_tower')
        >>> part_of("model.layers.3.mlp.experts.11.w1.weight")
        'model.layers.*.mlp.experts'
    """
    parts = kind_of(name).split(".")
    for place, each in enumerate(parts):
        if each in STACKS:
            return ".".join(parts[: place + 1])
    return ".".join(parts[: 2 if parts[0] in WRAPPERS and len(parts) > 2 else 1])


def names_by_part(missing: Sequence[str], extra: Sequence[str], ours: Collection[str], source: str) -> tuple[list[str], int]:
    """Say which names one model lacks, and which it has beside those of another.

    Args:
        missing: Names that it lacks.
        extra: Names that the other lacks.
        ours: All names of the other.
        source: What the other is called.

    Returns:
        Lines, and how many names are in no list of which a whole member is there or not.
    """
    theirs = {*ours} - {*missing} | {*extra}
    mine, its = _lists(ours), _lists(theirs)
    (lost, gone), (more, new) = _members(missing, its), _members(extra, mine)
    everything = Counter(map(part_of, ours))
    lines = [f"{each.home!r} lacks {len(each.some)} of {each.total}: {each}" for each in _by_kind(lost, mine)]
    lines += [
        f"{each.home!r} has {len(each.some)} more than {source}, which has {each.total - len(each.some)}: {each}"
        for each in _by_kind(more, its)
    ]
    lines += [_missing(part, names, everything[part]) for part, names in _parts(gone)]
    lines += [_extra(part, names, source) for part, names in _parts(new)]
    return lines, len(gone) + len(new)


def pairs_by_part(problems: Mapping[str, str], ours: Collection[str]) -> list[str]:
    """Say which tensors have another shape or type than those of another model.

    Args:
        problems: What is wrong, by the name of the tensor.
        ours: All names of the other model.
    """
    everything = Counter(map(part_of, ours))
    lines: list[str] = []
    for part, names in _parts(problems):
        shown = names if len(names) <= SHOWN else names[:1]
        lines += [problems[name] for name in shown]
        if len(names) > SHOWN:
            lines.append(f"and so {len(names) - 1} more of the {everything[part]} tensors of {_called(part)}")
    return lines


def _lists(names: Iterable[str]) -> dict[str, set[int]]:
    """Return the numbers that follow a name."""
    found: dict[str, set[int]] = {}
    for name in names:
        for each in _NUMBER.finditer(name):
            found.setdefault(name[: each.start()].rstrip("."), set()).add(int(each.group()))
    return found


def _members(names: Iterable[str], there: Lists) -> tuple[list[Member], list[str]]:
    """Sort names into members that a list does not have at all, and the others."""
    members, rest = dict[Member, None](), list[str]()
    for name in names:
        pairs = ((name[: each.start()].rstrip("."), int(each.group())) for each in _NUMBER.finditer(name))
        found = next((Member(*each) for each in pairs if each[1] not in there.get(each[0], {each[1]})), None)
        if found is None:
            rest.append(name)
        else:
            members[found] = None
    return list(members), rest


def _by_kind(members: Iterable[Member], lists: Lists) -> list[Some]:
    """Return the members of every list, those of lists that are alike once."""
    homes: dict[str, set[int]] = {}
    for home, number in members:
        homes.setdefault(home, set()).add(number)
    alike: dict[tuple[str, frozenset[int], int], list[str]] = {}
    for home, some in homes.items():
        alike.setdefault((kind_of(home), frozenset(some), len(lists[home])), []).append(home)
    return [Some(kind if len(same) > 1 else same[0], some, total, len(same)) for (kind, some, total), same in alike.items()]


def _parts(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    ordered = sorted(names, key=part_of)
    return [(part, list(each)) for part, each in itertools.groupby(ordered, key=part_of)]


def _called(part: str) -> str:
    return "the model" if part == "*" else repr(part)  # of names that begin with numbers


def _missing(part: str, names: Sequence[str], count: int) -> str:
    if len(names) == 1:
        return f"missing tensor {names[0]!r}"
    return f"{_called(part)}: {len(names)} of {count} tensors are missing: {shown(names)}"


def _extra(part: str, names: Sequence[str], source: str) -> str:
    if len(names) == 1:
        return f"extra tensor {names[0]!r}, which {source} lacks"
    return f"{_called(part)}: {len(names)} tensors that {source} lacks: {shown(names)}"


def shown(names: Iterable[str]) -> str:
    """Return a few names, with `*` for numbers, and how many others there are."""
    kinds = list(dict.fromkeys(map(kind_of, names)))
    more = f" and {len(kinds) - SHOWN} more such names" if len(kinds) > SHOWN else ""
    return ", ".join(map(repr, kinds[:SHOWN])) + more


def _numbers(numbers: Iterable[int]) -> str:
    """Return numbers, those that follow each other as one range.

    Examples:
        >>> _numbers({0, 1, 2, 5})
        '0 to 2, 5'
    """
    ordered = sorted(numbers)
    runs = [list(each) for _, each in itertools.groupby(enumerate(ordered), key=lambda pair: pair[1] - pair[0])]
    said = [str(run[0][1]) if len(run) == 1 else f"{run[0][1]} to {run[-1][1]}" for run in runs]
    return ", ".join(said[:6]) + (", ..." if len(said) > 6 else "")
