"""Tensors that are copied and not merged, by patterns of names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from warmkit.errors import UsageError, nearest


def kept(
    names: Iterable[str], only: Sequence[str] = (), exclude: Sequence[str] = (), more: Iterable[str] = ()
) -> frozenset[str]:
    """Return the names that take no part in a merge.

    Args:
        names: All names of the init, or first model.
        more: Names that others have beside: those that take no part are in no result.
        only: Patterns; a tensor that matches none of them is kept. None given: all are chosen.
        exclude: Patterns; a tensor that matches one of them is kept.

    Raises:
        UsageError: If a pattern matches nothing, or nothing is left to merge.

    Examples:
        >>> sorted(kept(["lm_head.weight", "h.0.mlp", "h.1.mlp"], only=["h.*"], exclude=["*.0.*"]))
        ['h.0.mlp', 'lm_head.weight']
    """
    own = list(names)
    known = [*own, *(name for name in more if name not in set(own))]
    for option, patterns in (("--only", only), ("--exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in known):
                advice = nearest(pattern, known) if len(known) < 12 else f"; names are like {known[0]!r} and {known[-1]!r}"
                raise UsageError(f"{option} {pattern!r} matches no tensor{advice}")
    result = frozenset(name for name in known if (only and not _matches(name, only)) or _matches(name, exclude))
    if result.issuperset(own):
        raise UsageError("--only and --exclude leave no tensor to merge")
    return result


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
