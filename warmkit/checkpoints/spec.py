"""What to merge and how, checked once; commands, recipes and Python calls all become a MergeSpec."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from warmkit.checkpoints.groups import GRANULARITIES
from warmkit.errors import DegenerateError, UsageError, nearest
from warmkit.merging.edits import Edit
from warmkit.merging.ema import ema
from warmkit.merging.geometry import settle
from warmkit.merging.liti import liti
from warmkit.merging.methods import METHODS, AnyMethod, EditMethod, find_method, method_parameters
from warmkit.merging.types import Antiparallel, Coefficients, Gram


@dataclass(frozen=True)
class MergeSpec:
    """A merge without its checkpoints.

    Attributes:
        method: How coefficients are found.
        shares: [M], what the user mixes; normalised unless the method takes scales.
        etas: LITI's update rates, one output each.
        granularity: `layer`, `tensor` or `model`.
        antiparallel: What to do where task vectors oppose each other.
        angles: Measure norms and angles even where the method does not need them.
        name: The verb or method, for the manifest.
        parameters: What the user set, for the manifest.
        edit: Of a method that edits task vectors, in the place of coefficients.
        scale: Factor of what it makes.
    """

    method: AnyMethod
    shares: Coefficients
    etas: tuple[float, ...] = (1.0,)
    granularity: str = "layer"
    antiparallel: Antiparallel = "error"
    angles: bool = False
    name: str = ""
    parameters: dict[str, Any] = field(default_factory=lambda: {})
    edit: Edit | None = None
    scale: float = 1.0

    @property
    def uses_init(self) -> bool:
        """Whether the initialisation is read: it drops out of an average at eta = 1."""
        return self.method.needs_init or self.angles or any(eta != 1 for eta in self.etas)

    def solve(self, group: str, gram: Gram | None) -> Coefficients:
        """Return the coefficients of every row for every eta, [etas, rows]; of an edit, of its task vector, [etas, 1]."""
        if isinstance(self.method, EditMethod):
            return np.array([[eta * self.scale] for eta in self.etas])
        if not self.method.follows_arc:
            solved = self.method.solve(gram, self.shares)
        else:
            try:
                solved = self.method.solve(gram, self.shares, self.antiparallel)
            except DegenerateError as error:
                raise DegenerateError(
                    f"group {group!r}: {error}; average it straight with --antiparallel lerp, or use --method lerp"
                ) from None
        if self.method.space != "none":
            solved = settle(solved)
        if not self.uses_init:
            return solved.reshape(1, -1)
        rows = np.stack([liti(solved, eta) for eta in self.etas])
        if not self.method.needs_init:  # an average: its coefficients sum to 1 exactly, whatever float64 says
            rows[:, 0] = [1 - eta for eta in self.etas]
        return rows


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise UsageError(f"{name} must be a finite number, found {value}")
    return float(value)


def check_etas(eta: float | Sequence[float]) -> tuple[float, ...]:
    """Return the etas of a sweep, in the order given.

    Raises:
        UsageError: If one is not finite, or is there twice.
    """
    etas = tuple(_finite("eta", value) for value in (eta if isinstance(eta, Sequence) else [eta]))
    if not etas or len(set(etas)) != len(etas):
        raise UsageError(f"expected different etas, found {list(etas)}")
    return etas


def _shares(method: AnyMethod, count: int, share: float | None, coefficients: Sequence[float] | None) -> Coefficients:
    if share is not None and coefficients is not None:
        raise UsageError("--lambda and --coefficients say the same thing; give one of them")
    if share is None and coefficients is None:
        return np.ones(count) if method.mix == "scales" else np.full(count, 1 / count)
    if method.mix == "none":
        why = "weighs the models itself" if isinstance(method, EditMethod) else "weighs all models alike"
        raise UsageError(f"{method.name} {why}; use lerp for --lambda or --coefficients")
    if share is not None:
        if count != 2:
            raise UsageError(f"--lambda is the share of the second of two models; for {count} models use --coefficients")
        coefficients = [1 - _finite("lambda", share), share]
    assert coefficients is not None
    shares = np.array([_finite("a coefficient", value) for value in coefficients])
    if len(shares) != count:
        raise UsageError(f"expected {count} coefficients, one per model, found {len(shares)}")
    if method.mix == "scales":
        return shares
    if abs(shares.sum()) < 1e-12:
        raise UsageError(f"the coefficients {shares.tolist()} sum to 0, so they are no average")
    if method.follows_arc and (shares < 0).any():
        raise UsageError(f"{method.name} follows an arc between the models; its coefficients cannot be negative")
    return shares / shares.sum()


def merge_spec(
    method: str,
    count: int,
    *,
    lambda_: float | None = None,
    coefficients: Sequence[float] | None = None,
    eta: float | Sequence[float] = 1.0,
    granularity: str | None = None,
    antiparallel: str = "error",
    angles: bool = False,
    **own: Any,
) -> MergeSpec:
    """Check the parameters of a merge of `count` models; `own` are those that some methods have of their own.

    Raises:
        UsageError: If one of them is unknown, out of range, or does not fit the others.
    """
    found = find_method(method)
    if count < found.fewest:
        raise UsageError(f"{method} needs at least {found.fewest} models, found {count}")
    granularity = _granularity(found, granularity)
    if granularity not in GRANULARITIES:
        raise UsageError(f"unknown granularity {granularity!r}{nearest(granularity, GRANULARITIES)}")
    if antiparallel not in ("error", "lerp"):
        raise UsageError(f"unknown value {antiparallel!r} of antiparallel{nearest(antiparallel, ('error', 'lerp'))}")
    etas = check_etas(eta)
    shares = _shares(found, count, lambda_, coefficients)
    own = method_parameters(found, own, count)
    parameters = {"coefficients": shares.tolist(), "granularity": granularity, "antiparallel": antiparallel, **own}
    if not isinstance(found, EditMethod):
        return MergeSpec(found, shares, etas, granularity, antiparallel, angles, method, parameters)
    del parameters["antiparallel"]
    scale = own.pop("scale")
    edit = found.edit(*([shares] if found.mix == "scales" else []), **own)
    return MergeSpec(found, shares, etas, granularity, "error", angles, method, parameters, edit, scale)


def _granularity(method: AnyMethod, given: str | None) -> str:
    if not isinstance(method, EditMethod):
        return given or "layer"
    if given not in (None, "tensor") and not method.grouped:
        raise UsageError(f"{method.name} works tensor by tensor; it has no other granularity than tensor")
    return given or "tensor"


def ema_spec(count: int, mu: float) -> MergeSpec:
    """Return the average theta <- (1 - mu) theta + mu x_t over `count` checkpoints in order.

    Raises:
        UsageError: If `mu` is not between 0 and 1.
    """
    if not 0 <= _finite("mu", mu) <= 1:
        raise UsageError(f"mu must be between 0 and 1, found {mu}")
    return MergeSpec(METHODS["lerp"], ema(count, mu), name="ema", parameters={"mu": mu})


def liti_spec(eta: float | Sequence[float]) -> MergeSpec:
    """Return the interpolation of one model towards its initialisation."""
    return MergeSpec(METHODS["lerp"], np.ones(1), check_etas(eta), name="liti")
