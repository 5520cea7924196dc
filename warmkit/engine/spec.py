"""Specification of a merge, checked once; commands, recipes and Python calls all become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from warmkit.engine.merge_options import ZERO, OutputOptions, PathLike
from warmkit.engine.variation import Mix, Variation, check_count
from warmkit.errors import DegenerateError, UsageError, nearest
from warmkit.layouts.groups import GRANULARITIES
from warmkit.layouts.layer_settings import Rule, Setting, finite, is_constant, read_setting
from warmkit.merging.edits import Edit
from warmkit.merging.ema import ema, usual_rate
from warmkit.merging.geometry import settle
from warmkit.merging.liti import liti
from warmkit.merging.methods import METHODS, Method, find_method, method_parameters
from warmkit.merging.types import Antiparallel, Coefficients, Gram


@dataclass(frozen=True)
class Numbers:
    """The numbers of one group: shares, the factor of eta, and the method's own parameters that change over the model."""

    shares: Coefficients
    eta: float = 1.0
    own: Mapping[str, Any] = field(default_factory=lambda: {})


@dataclass(frozen=True)
class Average:
    """One of several averages of the same checkpoints: coefficients, [M], and what they are, for the manifest."""

    coefficients: Coefficients
    described: Mapping[str, Any]


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
        variation: How shares and eta change over the model; None if they do not.
        from_zero: The initialisation is zero: task vectors are the weights themselves, and nothing is read for it.
        local: The numbers of every group, once the groups are known; empty without a variation.
        own: Parameters that the method has of its own.
        scale: Factor of what a method makes that edits task vectors.
        averages: Several averages in place of `shares`, by the folder of each.
        beside: Read the initialisation even where the average does not need it.
    """

    method: Method
    shares: Coefficients
    etas: tuple[float, ...] = (1.0,)
    granularity: str = "layer"
    antiparallel: Antiparallel = "error"
    angles: bool = False
    name: str = ""
    parameters: dict[str, Any] = field(default_factory=lambda: {})
    variation: Variation | None = None
    from_zero: bool = False
    local: Mapping[str, Numbers] = field(default_factory=lambda: {})
    own: Mapping[str, Any] = field(default_factory=lambda: {})
    scale: float = 1.0
    averages: Mapping[str, Average] = field(default_factory=lambda: {})
    beside: bool = False

    @property
    def outputs(self) -> list[str]:
        """Names of what is written from one reading: the folders, where there are several."""
        return list(self.averages) or [f"eta-{eta}" for eta in written_apart(self.etas)]

    def described(self, output: int) -> dict[str, Any]:
        """Return the parameters of one output, for its manifest."""
        if self.averages:
            return {**list(self.averages.values())[output].described, "eta": 1.0}
        return {**self.parameters, "eta": self.etas[output]}

    @property
    def uses_init(self) -> bool:
        """Whether the initialisation takes part: it drops out of an average at eta = 1."""
        if self.from_zero:
            return False
        moves = any(eta != 1 for eta in self.etas) or (self.variation is not None and self.variation.moves)
        return self.method.needs_init or self.angles or moves

    @property
    def reads_init(self) -> bool:
        """Whether the initialisation is a row of the merge, perhaps with the coefficient 0."""
        return self.uses_init or (self.beside and not self.from_zero)

    def localised(self, groups: Mapping[str, Sequence[str]]) -> tuple[MergeSpec, Mapping[str, Sequence[str]]]:
        """Return the merge with the numbers of every group, and the groups, split where their tensors have different ones.

        Raises:
            UsageError: If the numbers of a group are none that the method takes, or a rule is missing.
        """
        if self.variation is None:
            return self, groups
        parts, numbers = self.variation.split(groups)
        local: dict[str, Numbers] = {}
        count = len(self.shares)
        for name, each in numbers.items():
            try:
                own = method_parameters(self.method, {what: list(values) for what, values in each.own}, count)
                changing = {what: own[what] for what, _ in each.own}
                local[name] = Numbers(_shares(self.method, count, each.coefficients), each.eta, changing)
            except UsageError as error:
                raise UsageError(f"group {name!r}: {error}") from None
        return replace(self, local=local), parts

    def edit(self, group: str) -> Edit:
        """Return what a method that edits task vectors does to a group."""
        numbers = self.local.get(group, Numbers(self.shares))
        return self.method.edit(numbers.shares, {**self.own, **numbers.own})

    def solve(self, group: str, gram: Gram | None) -> Coefficients:
        """Return the coefficients of every row for every output, [outputs, rows]; of an edit, of its task vector, [etas, 1]."""
        if self.averages:
            return np.stack([each.coefficients for each in self.averages.values()])
        numbers = self.local.get(group, Numbers(self.shares))
        shares, scale = numbers.shares, numbers.eta
        if self.method.edits:
            return np.array([[eta * scale * self.scale] for eta in self.etas])
        try:
            solved = self.method.solve(gram, shares, self.antiparallel, {**self.own, **numbers.own})
        except DegenerateError as error:
            raise DegenerateError(
                f"group {group!r}: {error}; average it straight with --antiparallel lerp, or use --method lerp"
            ) from None
        if self.method.space != "none":
            solved = settle(solved)
        etas = [eta * scale for eta in self.etas]
        if self.from_zero:
            return np.stack([eta * solved for eta in etas])
        if not self.reads_init:
            return solved.reshape(1, -1)
        rows = np.stack([liti(solved, eta) for eta in etas])
        if not self.method.needs_init:  # an average: its coefficients sum to 1 exactly, whatever float64 says
            rows[:, 0] = [1 - eta for eta in etas]
        return rows


def check_etas(eta: float | Sequence[float]) -> tuple[float, ...]:
    """Return the etas of a sweep, in the order given.

    Raises:
        UsageError: If one is not finite, or is there twice.
    """
    etas = tuple(finite(value, "eta") for value in (eta if isinstance(eta, Sequence) else [eta]))
    if not etas or len(set(etas)) != len(etas):
        raise UsageError(f"expected different etas, found {list(etas)}")
    return etas


def written_apart(etas: Sequence[float]) -> list[str]:
    """Return how etas are written: six digits, and where two would look alike, as many as tell them apart."""
    short = [f"{eta:g}" for eta in etas]
    return [text if short.count(text) == 1 else repr(eta) for eta, text in zip(etas, short)]


def _shares(method: Method, count: int, coefficients: Sequence[float] | None) -> Coefficients:
    if coefficients is None:
        return np.ones(count) if method.mix == "scales" else np.full(count, 1 / count)
    if method.mix == "none":
        why = "weighs the models itself" if method.edits else "weighs all models alike"
        raise UsageError(f"{method.name} {why}; use lerp for --lambda or --coefficients")
    shares = np.array([finite(value, "a coefficient") for value in coefficients])
    if method.mix == "scales":
        return shares
    if abs(shares.sum()) < 1e-12:
        raise UsageError(
            f"the coefficients {shares.tolist()} sum to 0, so they are no average; task-arithmetic takes any numbers"
        )
    if method.follows_arc and (shares < 0).any():
        raise UsageError(
            f"{method.name} follows an arc between the models; its coefficients cannot be negative (those of lerp can)"
        )
    return shares / shares.sum()


def merge_spec(
    method: str,
    count: int,
    *,
    lambda_: Any = None,
    coefficients: Sequence[Any] | None = None,
    eta: Any = 1.0,
    granularity: str | None = None,
    antiparallel: str = "error",
    angles: bool = False,
    from_zero: bool = False,
    **own: Any,
) -> MergeSpec:
    """Check the parameters of a merge of `count` models; `own` are those that some methods have of their own.

    `lambda_`, each of `coefficients` and `eta` may change over the model, as `layouts.layer_settings` describes; a plain list
    of etas is a sweep.

    Raises:
        UsageError: If one of them is unknown, out of range, or does not fit the others.
    """
    found = find_method(method)
    method = found.name
    if count < found.fewest:
        raise UsageError(f"{method} needs at least {found.fewest} models, found {count}")
    granularity = _granularity(found, granularity)
    if granularity not in GRANULARITIES:
        raise UsageError(f"unknown granularity {granularity!r}{nearest(granularity, GRANULARITIES)}")
    if antiparallel not in ("error", "lerp"):
        raise UsageError(f"unknown value {antiparallel!r} of antiparallel{nearest(antiparallel, ('error', 'lerp'))}")
    if from_zero and found.edits:
        raise UsageError(f"{method} edits task vectors, so it needs an init that is a model")
    if from_zero and eta != 1 and found.mix != "scales":
        raise UsageError("eta with an init of zero would shrink the model; scale task-arithmetic's coefficients instead")
    if lambda_ is not None and coefficients is not None:
        raise UsageError("--lambda and --coefficients say the same thing; give one of them")
    settings = read_coefficients(count, lambda_, coefficients)
    own, varied = _varied(own, count)
    mix = _mix(settings, eta, varied)
    constants = None if settings is None or mix else [setting[0].values[0] for setting in settings]
    shares = _shares(found, count, constants)
    etas = check_etas(1.0 if mix and not is_sweep(eta) else eta)
    own = method_parameters(found, own, count)
    parameters: dict[str, Any] = {"granularity": granularity}
    parameters |= own if found.edits else {**own, "antiparallel": antiparallel}
    parameters |= {"coefficients": shares.tolist()} if mix is None else {"mix": [mix.written()]}
    parameters |= {"init": "zero"} if from_zero else {}
    scale = own.pop("scale", 1.0)
    return MergeSpec(
        found,
        shares,
        etas,
        granularity,
        antiparallel,
        angles,
        method,
        parameters,
        variation=None if mix is None else Variation((mix,)),
        from_zero=from_zero,
        own=own,
        scale=scale,
    )


def _granularity(method: Method, given: str | None) -> str:
    if not method.edits:
        return given or method.by
    if given not in (None, "tensor") and not method.grouped:
        raise UsageError(f"{method.name} works tensor by tensor; it has no other granularity than tensor")
    return given or "tensor"


def is_sweep(eta: Any) -> bool:
    """Say whether eta is one number, or a plain list of them."""
    rows = eta if isinstance(eta, list | tuple) else [eta]
    return all(isinstance(each, int | float) for each in rows)


def _mix(settings: tuple[Setting, ...] | None, eta: Any, own: Mapping[str, tuple[Setting, ...]]) -> Mix | None:
    """Return the settings of a merge if any of them changes over the model."""
    if not is_sweep(eta):
        return Mix(settings, read_setting(eta, "eta"), own)
    return None if all(map(is_constant, settings or ())) and not own else Mix(settings, (Rule((1.0,)),), own)


def _varied(own: Mapping[str, Any], count: int) -> tuple[dict[str, Any], dict[str, tuple[Setting, ...]]]:
    """Take out the parameters that change over the model: a list of rules for all models, or of settings, one for each."""
    constant, varied = dict(own), dict[str, tuple[Setting, ...]]()
    for name, value in own.items():
        rows = cast("list[Any]", value) if isinstance(value, list) else []
        if all(map(is_sweep, rows)) and not any(isinstance(each, list) for each in rows):
            continue
        alike = all(isinstance(each, Mapping) for each in rows)
        settings = (read_setting(rows, name),) * count if alike else tuple(read_setting(each, name) for each in rows)
        if len(settings) != count:
            raise UsageError(f"{name}: expected one number, or {count}, one per model; found {len(settings)}")
        varied[name] = settings
        del constant[name]
    return constant, varied


def read_coefficients(count: int, lambda_: Any, coefficients: Sequence[Any] | None) -> tuple[Setting, ...] | None:
    """Turn `lambda` or `coefficients` into a setting for each of `count` models; None where neither is given.

    Raises:
        UsageError: If they do not fit the models, or are no settings.
    """
    if coefficients is not None:
        check_count(coefficients, count)
        return tuple(read_setting(each, "a coefficient") for each in coefficients)
    if lambda_ is None:
        return None
    if count != 2:
        raise UsageError(f"--lambda is the share of the second of two models; for {count} models use --coefficients")
    second = read_setting(lambda_, "lambda")
    first = tuple(Rule(tuple(1 - value for value in rule.values), rule.pattern) for rule in second)
    return first, second


def ema_spec(count: int, mu: float | None = None) -> MergeSpec:
    """Return the average theta <- (1 - mu) theta + mu x_t over `count` checkpoints in order; mu is 2/(T+1) by default.

    Raises:
        UsageError: If `mu` is not between 0 and 1.
    """
    mu = usual_rate(count) if mu is None else mu
    if not 0 <= finite(mu, "mu") <= 1:
        raise UsageError(f"mu must be between 0 and 1, found {mu}")
    shares = ema(count, mu)
    return MergeSpec(METHODS["lerp"], shares, name="ema", parameters={"mu": mu, "coefficients": shares.tolist()})


def merge_call(
    count: int, *, init: PathLike | None = None, method: str = "slerp", **arguments: Any
) -> tuple[MergeSpec, PathLike | None, OutputOptions]:
    """Return what `merge` with these arguments, of `count` models, hands to `write`: the spec, the init and how to write."""
    ours = {name: arguments.pop(name) for name in list(arguments) if name not in OutputOptions.__annotations__}
    spec = merge_spec(method, count, from_zero=init == ZERO, **ours)
    return spec, None if init == ZERO else init, cast("OutputOptions", arguments)


def liti_spec(eta: float | Sequence[float]) -> MergeSpec:
    """Return the interpolation of one model towards its initialisation."""
    return MergeSpec(METHODS["lerp"], np.ones(1), check_etas(eta), name="liti")
