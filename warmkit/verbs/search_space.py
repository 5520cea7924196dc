"""Space of a search: which numbers of a merge are searched, between what, and the candidates at its points."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from warmkit.engine.spec import MergeSpec, merge_spec
from warmkit.errors import UsageError, nearest
from warmkit.merging.ema import ema
from warmkit.merging.methods import find_method, parameters_by_name

Candidate: TypeAlias = dict[str, Any]
"""What tells one candidate from another: its method, and the numbers that are searched, by name."""
WINDOW = ("last", "mu")
MIXED = ("lambda", "coefficients")


@dataclass(frozen=True)
class Range:
    """Range of one number that is searched.

    Attributes:
        name: `lambda`, `coefficients` (one for each model), `eta`, `last` (how many of the newest checkpoints), `mu` (of an EMA
            over them), or a parameter of the method.
        low: Smallest value.
        high: Largest value.
        numbers: How many numbers there are over the layers, a gradient; 1 is the same number everywhere.
    """

    name: str
    low: float
    high: float
    numbers: int = 1

    def at(self, place: float) -> float:
        """Return the value at a place from 0 to 1."""
        value = self.low + place * (self.high - self.low)
        return round(value) if is_whole(self.name) else float(f"{value:.6g}")  # as a user would type it


def is_whole(name: str) -> bool:
    """Say whether a number that is searched is a whole one."""
    methods = parameters_by_name().get(name, {})
    return name == "last" or any(each.kind is int for each in methods.values())


def read_range(text: str) -> Range:
    """Read `NAME=LOW:HIGH`, or `NAME=LOW:HIGHxN` for a gradient of N numbers over the layers.

    Raises:
        UsageError: If it is not that, or no such number can be searched.

    Examples:
        >>> read_range("lambda=0:1x4")
        Range(name='lambda', low=0.0, high=1.0, numbers=4)
    """
    number = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    found = re.fullmatch(rf"\s*([\w-]+)\s*=\s*({number})\s*:\s*({number})\s*(?:x\s*(\d+))?\s*", text)
    if found is None:
        raise UsageError(f"--range: expected NAME=LOW:HIGH, as lambda=0:1 or lambda=0:1x4, found {text!r}")
    name, low, high, count = found[1].replace("-", "_"), float(found[2]), float(found[3]), int(found[4] or 1)
    known = [*MIXED, "eta", *WINDOW, *(name for name, each in parameters_by_name().items() if _is_number(each))]
    if name not in known:
        raise UsageError(f"--range: no number of a merge is called {found[1]!r}{nearest(found[1], known)}")
    if low >= high:
        raise UsageError(f"--range {name}: expected a smaller and a larger number, found {found[2]} and {found[3]}")
    if count < 1 or (count > 1 and name not in (*MIXED, "eta")):
        raise UsageError(f"--range {name}: x{count} makes a gradient over the layers of {', '.join(MIXED)} or eta alone")
    if count > 1 and name == "eta":
        raise UsageError("--range eta: LITI's update rate is one number, or follows names; search a gradient of lambda")
    return Range(name, low, high, count)


def _is_number(methods: Mapping[str, Any]) -> bool:
    return all(each.kind in (int, float) for each in methods.values())


class Space:
    """Candidates of a search, at points of a unit cube.

    Args:
        models: How many are merged; of a run's checkpoints, the oldest first.
        methods: Merge methods to choose from.
        ranges: The numbers that are searched.
        fixed: Parameters of every candidate, as `merge_spec` takes them.

    Raises:
        UsageError: If the numbers do not go together, or a method has them not.
    """

    def __init__(self, models: int, methods: Sequence[str], ranges: Sequence[Range], fixed: Mapping[str, Any]) -> None:
        self.models, self.ranges, self.fixed = models, list(ranges), dict(fixed)
        self.methods = [find_method(name).name for name in methods]
        names = [each.name for each in ranges]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"--range {twice.pop()}: given twice")
        if len(set(self.methods)) < len(self.methods):
            raise UsageError("--method: expected different methods")
        if not ranges and len(self.methods) < 2:
            raise UsageError("expected what to search: --range lambda=0:1, --range eta=0:1.2, or several --method")
        if sum(name in MIXED for name in names) + any(name in WINDOW for name in names) > 1:
            raise UsageError("lambda, coefficients and the window (last, mu) all say what to mix; search one of them")
        for each in ranges:
            if each.name == "last" and not 1 <= each.low < each.high <= models:
                raise UsageError(
                    f"--range last: expected 1 to {models}, the checkpoints there are, found {each.low:g}:{each.high:g}"
                )
        self.examples()

    @property
    def size(self) -> int:
        """How many numbers are searched."""
        return sum(each.numbers * (self.models if each.name == "coefficients" else 1) for each in self.ranges)

    def at(self, point: Sequence[float], method: str) -> Candidate:
        """Return the candidate at a point of the unit cube, [size]."""
        places = iter(point)
        found: Candidate = {"method": method}
        for each in self.ranges:
            rows = [[each.at(next(places)) for _ in range(each.numbers)] for _ in range(self._rows(each))]
            values: list[Any] = [row[0] if each.numbers == 1 else row for row in rows]
            found[each.name] = values if each.name == "coefficients" else values[0]
        return found

    def _rows(self, each: Range) -> int:
        return self.models if each.name == "coefficients" else 1

    def grid(self, steps: int) -> Iterator[Candidate]:
        """Return the candidates of a grid with so many values of every number, those that cannot be merged left out."""
        for method in self.methods:
            for point in itertools.product([step / max(1, steps - 1) for step in range(steps)], repeat=self.size):
                candidate = self.at(point, method)
                if self.fits(candidate):
                    yield candidate

    def fits(self, candidate: Candidate) -> bool:
        """Say whether a candidate can be merged: shares that are all 0 cannot."""
        try:
            self.spec(candidate)
        except UsageError:
            return False
        return True

    def examples(self) -> list[MergeSpec]:
        """Return the merge without what is searched, and the one in the middle of all ranges, by every method.

        Raises:
            UsageError: If one of them cannot be merged.
        """
        return [self.spec(each) for name in self.methods for each in ({"method": name}, self.at([0.5] * self.size, name))]

    def spec(self, candidate: Candidate) -> MergeSpec:
        """Return the merge that a candidate is.

        Raises:
            UsageError: If it cannot be merged.
        """
        arguments = self.arguments(candidate)
        return merge_spec(arguments.pop("method"), self.models, **arguments)

    def arguments(self, candidate: Candidate) -> dict[str, Any]:
        """Return what `merge` takes for a candidate."""
        rest = {name: value for name, value in candidate.items() if name not in WINDOW}
        if "lambda" in rest:
            rest["lambda_"] = rest.pop("lambda")
        if any(name in candidate for name in WINDOW):
            last = int(candidate.get("last", self.models))
            shares = ema(last, candidate["mu"]).tolist() if "mu" in candidate else [1 / last] * last
            rest["coefficients"] = [0.0] * (self.models - last) + shares
        return {**self.fixed, **rest}
