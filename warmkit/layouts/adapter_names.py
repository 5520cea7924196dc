"""Names of adapted modules: those in memory, which may be others than those on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

# Parts that only say where a model is inside another: versions of transformers put them in, leave them out, or swap them.
TEXTUAL = frozenset(("language_model", "text_model"))
WRAPPERS = frozenset(("model", "base_model", "transformer", "language_model", "text_model", "vision_model"))


def naming(modules: Iterable[str], tensors: Collection[str]) -> Callable[[str], str]:
    """Return how names in an adapter become the base's.

    The base may lack the model's own prefix (`transformer.`), or have one more; else every module is the one with the same name
    apart from wrappers, where there is exactly one.

    Args:
        modules: That the adapter changes.
        tensors: Names of the base's.
    """
    names = list(modules)
    prefixes = sorted({name.partition(".")[0] for name in tensors})
    candidates: list[Callable[[str], str]] = [str, lambda name: name.partition(".")[2] or name]
    candidates += [lambda name, prefix=prefix: f"{prefix}.{name}" for prefix in prefixes]
    fitting = [each for each in candidates if all(f"{each(name)}.weight" in tensors for name in names)]
    if len(fitting) == 1 or any(each in fitting for each in candidates[:2]):
        return fitting[0]
    by_bare = dict[str, list[str]]()
    for name in tensors:
        by_bare.setdefault(bare(name), []).append(name)
    turned = {name: _nearest(f"{name}.weight", by_bare.get(bare(f"{name}.weight"), [])) for name in names}
    if None in turned.values() or len(set(turned.values())) < len(turned):
        return str

    def turn(name: str) -> str:
        if name in turned:
            return str(turned[name]).removesuffix(".weight")
        return _nearest(name, by_bare.get(bare(name), [])) or name

    return turn


def alike(name: str, tensors: Iterable[str]) -> list[str]:
    """Return names of the base that end as a name does, the longest ending first."""
    ends = [(_ending(name, each), each) for each in tensors]
    longest = max((length for length, _ in ends), default=0)
    return [each for length, each in ends if length == longest] if longest > 1 else []


def _ending(one: str, other: str) -> int:
    """Return how many last parts two names share."""
    pairs = zip(one.split(".")[::-1], other.split(".")[::-1])
    return next(
        (count for count, (left, right) in enumerate(pairs) if left != right), min(one.count("."), other.count(".")) + 1
    )


def bare(name: str, others: Collection[str] = ()) -> str:
    """Return a name without parts that only say where a model is inside another, and without `others`."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS and part not in others)


def _sees(name: str) -> bool:
    return any(part.startswith("vis") for part in name.split("."))


def _nearest(name: str, candidates: list[str]) -> str | None:
    """Return the candidate whose wrappers differ least, None where two differ alike."""
    parts = Counter(name.split("."))
    if _sees(name) or parts.keys() & TEXTUAL:
        candidates = [each for each in candidates if _sees(each) is _sees(name)]

    def distance(other: str) -> int:
        theirs = Counter(other.split("."))
        return (parts - theirs).total() + (theirs - parts).total()

    if len({_sees(each) for each in candidates}) > 1:
        return None
    ranked = sorted((distance(each), each) for each in candidates)
    return None if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]) else ranked[0][1]
