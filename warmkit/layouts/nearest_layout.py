"""The known layout that the names of a checkpoint are nearest to, where they fit none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from warmkit.formats.checkpoint import Checkpoint
from warmkit.layouts.misfits import kind_of
from warmkit.layouts.name_rules import Rules, all_rules, rules_for
from warmkit.layouts.one_layout import LAYOUTS, layout_of, shapes_of, written

SHOWN = 4  # architectures that are listed
LEAST = 0.5  # of the kinds of names, which a layout must have to be named


def nearest_layout(reference: Checkpoint, other: Checkpoint) -> str:
    """Say which layout the names of a checkpoint are nearest to, and what makes it readable as that of another.

    Args:
        reference: The init or first model.
        other: A checkpoint whose names are not those of the reference, in no layout that its config names.
    """
    own = rules_for([reference.config, other.config])
    fits = [(_fit(rules, reference, other), names, rules) for names, rules in [([], own), *all_rules()]]
    best = max(fit for fit, _, _ in fits)
    kinds = len(_kinds(other.entries))
    if best < LEAST * kinds:
        return f"its names fit no table of layouts: {best} of {kinds} kinds of names are in one"
    alike = [(names, rules) for fit, names, rules in fits if fit == best]
    layout = f"nearest is the layout {_nearest(alike[0][1], reference, other)!r}"
    many = f"{best} of {kinds} kinds of names"
    if not alike[0][0]:
        return f"{layout}, with {many}"
    said = (other.config.get("architectures") or ["nothing"])[0]
    names = [name for names, _ in alike for name in names]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"{layout} of {', '.join(names[:SHOWN])}{more}, with {many}; its config.json says {said}: give both models one that "
        "is true of them (architectures)"
    )


def _fit(rules: Rules, reference: Checkpoint, other: Checkpoint) -> int:
    """Return how many kinds of names one checkpoint has that are in memory what the other has there."""
    here = {*_in_memory(rules, reference.entries)}
    return sum(each in here for each in _in_memory(rules, other.entries))


def _in_memory(rules: Rules, names: Iterable[str]) -> Iterator[str]:
    """Yield the kind in memory of one name of every kind."""
    for name in {kind_of(name): name for name in names}.values():
        yield kind_of(rules.in_memory(name).name)


def _nearest(rules: Rules, reference: Checkpoint, other: Checkpoint) -> str:
    """Return the layout that most kinds of names are written in."""
    given = layout_of(shapes_of(reference), rules)
    theirs = {*map(kind_of, other.entries)}
    found: Mapping[str, int] = {each: len(theirs & _kinds(written(given, rules, each).shapes)) for each in LAYOUTS}
    return max(found, key=lambda each: found[each])


def _kinds(names: Iterable[str]) -> set[str]:
    return {kind_of(name) for name in names}
