"""The parameters of methods that have some of their own: names, ranges and defaults, declared once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

from typing_extensions import TypedDict

from warmkit.errors import UsageError, nearest

PerModel: TypeAlias = "float | Sequence[float]"


class MethodParameters(TypedDict, total=False):
    """Parameters that only some methods have; `warmkit methods` lists them with their defaults.

    Attributes:
        scale: Factor of the merged task vector (lambda in the papers).
        density: Share of every task vector that is kept: one number, or one for each model.
        gamma: Share of the largest elements that is left out, as outliers; one number, or one for each model.
        epsilon: DELLA: how far the chance of keeping an element goes up and down from the density by its rank. RAM: the
            smallest change that counts.
        select_topk: Share of the elements, those of the largest variance over the models, that is kept.
        normalize: Divide by the coefficients of the models that an element was summed over.
        seed: Of random masks.
        r: RAM+: how much larger what is one model's own becomes, in units of the ratio of shared to own changes.
        alpha: RAM+: the largest ratio that counts.
    """

    scale: float | None
    density: PerModel | None
    gamma: PerModel | None
    epsilon: PerModel | None
    select_topk: float | None
    normalize: bool | None
    seed: int | None
    r: float | None
    alpha: float | None


@dataclass(frozen=True)
class Parameter:
    """One of them, as a method has it.

    Attributes:
        name: A key of `MethodParameters`.
        default: Where it is not given.
        low: Smallest value; excluded where `open_` is true.
        high: Largest value.
        per_model: Whether it may be a list, one for each model; then the method gets a list in any case.
    """

    name: str
    default: float | bool
    low: float = -math.inf
    high: float = math.inf
    open_: bool = False
    per_model: bool = False

    def but(self, default: float | bool) -> Parameter:
        return replace(self, default=default)

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
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise UsageError(f"{self.name} must be true or false, found {value!r}")
            return value
        whole = isinstance(self.default, int)
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right or not math.isfinite(value) or not self.low <= value <= self.high or (self.open_ and value == self.low):
            raise UsageError(f"{self.name} must be {self._range(whole)}, found {value!r}")
        return value if whole else float(value)

    def _range(self, whole: bool) -> str:
        kind = "a whole number" if whole else "a finite number"
        if self.low == -math.inf:
            return kind
        above = f"{'above' if self.open_ else 'at least'} {self.low:g}"
        return f"{kind} {above}" + (f" and at most {self.high:g}" if self.high < math.inf else "")


SCALE = Parameter("scale", 1.0)
DENSITY = Parameter("density", 0.5, 0.0, 1.0, open_=True, per_model=True)
NORMALIZE = Parameter("normalize", default=False)
SEED = Parameter("seed", 0, 0)
GAMMA = Parameter("gamma", 0.01, 0.0, 1.0, per_model=True)
EPSILON = Parameter("epsilon", 0.15, 0.0, 0.5, per_model=True)
SELECT_TOPK = Parameter("select_topk", 1.0, 0.0, 1.0, open_=True)
SMALLEST_CHANGE = Parameter("epsilon", 1e-5, 0.0, per_model=True)
R = Parameter("r", 0.1, 0.0)
ALPHA = Parameter("alpha", 0.2, 0.0)


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
