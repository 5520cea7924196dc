"""Schedules of an average along a run: the coefficient of every checkpoint, from its step."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warmkit.errors import UsageError, listed, nearest
from warmkit.merging.ema import ema, usual_rate
from warmkit.merging.types import Coefficients

LAG, EMA_POWER, BIAS_POWER = 10.0, 0.5, 0.2


def positions(steps: Sequence[float]) -> Coefficients:
    """Return where checkpoints lie in a decay that begins at the first and ends one interval after the last, [T], 0 to 1.

        x_t = (s_t - s_1) / (s_T - s_1 + mean interval)

    Evenly spaced checkpoints lie at 0, 1/T, ..., (T-1)/T.

    Examples:
        >>> positions([100, 200, 300, 400]).tolist()
        [0.0, 0.25, 0.5, 0.75]
    """
    found = np.asarray(steps, dtype=np.float64)
    if len(found) == 1:
        return np.zeros(1)
    passed = found - found[0]
    return passed / (passed[-1] * len(found) / (len(found) - 1))


def decay(steps: Sequence[float], curve: Callable[[float], float]) -> Coefficients:
    """Return the coefficients that do to the updates between checkpoints what a decay of the learning rate does.

        merged = x_1 + sum_t w_t (x_t - x_(t-1)),  w_t = curve(position of t)
        c_t = w_t - w_(t+1),  w_1 = 1,  w_(T+1) = 0

    Args:
        steps: [T], increasing.
        curve: The factor of the learning rate, from 1 at position 0 down to 0 at 1.

    Returns:
        [T] float64, summing to 1.

    Source: WSM (Tian et al., 2025, arXiv 2507.17634), theorem 1; with equal intervals these are the coefficients of
    Megatron-LM's `weighted_merge.py`.
    """
    rates = np.array([1.0, *(curve(float(x)) for x in positions(steps)[1:]), 0.0])
    return rates[:-1] - rates[1:]


def uniform(steps: Sequence[float]) -> Coefficients:
    """Return equal coefficients: the plain mean (SWA, LAWA, PMA's SMA)."""
    return np.full(len(steps), 1 / len(steps))


def linear(steps: Sequence[float]) -> Coefficients:
    """Return the coefficients of a linear decay, w = 1 - x; of evenly spaced checkpoints the plain mean.

    Examples:
        >>> linear([0, 10, 20, 30]).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    return decay(steps, lambda x: 1 - x)


def minus_sqrt(steps: Sequence[float]) -> Coefficients:
    """Return the coefficients of a 1 - sqrt decay, w = 1 - sqrt(x), which falls fast at first: old checkpoints count more.

    Examples:
        >>> minus_sqrt([0, 10, 20, 30]).round(4).tolist()
        [0.5, 0.2071, 0.1589, 0.134]
    """
    return decay(steps, lambda x: 1 - math.sqrt(x))


def cosine(steps: Sequence[float]) -> Coefficients:
    """Return the coefficients of a cosine decay, w = (1 + cos(pi x)) / 2: the middle of the window counts most.

    Examples:
        >>> cosine([0, 10, 20, 30]).round(4).tolist()
        [0.1464, 0.3536, 0.3536, 0.1464]
    """
    return decay(steps, lambda x: (1 + math.cos(math.pi * x)) / 2)


def moving_average(steps: Sequence[float], mu: float | None = None) -> Coefficients:
    """Return the coefficients of an exponential moving average over the checkpoints, in order (`merging.ema`).

    Args:
        steps: [T], increasing; only their number counts.
        mu: Update rate, 0 to 1; by default 2/(T+1).
    """
    return ema(len(steps), usual_rate(len(steps)) if mu is None else mu)


def bema(
    steps: Sequence[float],
    lag: float = LAG,
    ema_power: float = EMA_POWER,
    bias_power: float = BIAS_POWER,
) -> Coefficients:
    """Return the coefficients of the bias-corrected exponential moving average (BEMA).

        E_1 = x_1,  E_t = (1 - b_t) E_(t-1) + b_t x_t,  b_t = (lag + s_t)^(-ema_power)
        merged = E_T + a (x_T - x_1),  a = (lag + s_T)^(-bias_power)

    The average lags behind the run; the second term moves it on by what training has moved since the first checkpoint.

    Args:
        steps: [T], increasing; the steps of training themselves.
        lag: rho; larger ones smooth more early in training.
        ema_power: kappa, how fast the moving average slows down; 0 keeps no average.
        bias_power: eta, how fast the correction fades; 0 keeps all of it.

    Returns:
        [T] float64, summing to 1; that of the first checkpoint may be negative.

    Source: Block and Zhang, 2025 (arXiv 2508.00180). TRL's `BEMACallback` with `update_after` at the first checkpoint and
    `update_freq` the interval of the others gives the same.

    Examples:
        >>> bema([0, 90]).round(4).tolist()
        [0.5019, 0.4981]
    """
    found = np.zeros(len(steps))
    found[0] = 1.0
    for place, step in enumerate(steps[1:], start=1):
        rate = (lag + step) ** -ema_power
        found *= 1 - rate
        found[place] = rate
    if len(steps) > 1:
        moved = (lag + steps[-1]) ** -bias_power
        found[-1] += moved
        found[0] -= moved
    return found


@dataclass(frozen=True)
class Schedule:
    """Schedule of an average along a run.

    Attributes:
        name: As written on the command line.
        function: From steps, and parameters of its own, to coefficients.
        summary: One line for tables.
        paper: Where it comes from.
    """

    name: str
    function: Callable[..., Coefficients]
    summary: str
    paper: str

    @property
    def parameters(self) -> list[str]:
        """Names of what it has of its own."""
        return [name for name in inspect.signature(self.function).parameters if name != "steps"]


_TABLE = (
    Schedule("uniform", uniform, "plain mean", "Izmailov et al. 2018 (SWA)"),
    Schedule("linear", linear, "linear decay of the learning rate", "WSM 2025"),
    Schedule("minus-sqrt", minus_sqrt, "1 - sqrt decay of the learning rate", "WSM 2025"),
    Schedule("cosine", cosine, "cosine decay of the learning rate", "WSM 2025"),
    Schedule("ema", moving_average, "exponential moving average over the checkpoints", "Izmailov et al. 2018, WARP"),
    Schedule("bema", bema, "exponential moving average, corrected for its lag", "Block and Zhang 2025"),
)
SCHEDULES: dict[str, Schedule] = {each.name: each for each in _TABLE}
MANUAL = "manual"  # coefficients that are given
RANGES = {"mu": (0.0, 1.0), "lag": (0.0, math.inf), "ema_power": (0.0, math.inf), "bias_power": (0.0, math.inf)}


def find_schedule(name: str) -> Schedule:
    """Return the schedule called `name`, in any case, with dashes or underscores.

    Raises:
        UsageError: With the nearest valid name, if there is none.
    """
    known = SCHEDULES.get(name.strip().lower().replace("_", "-"))
    if known is None:
        raise UsageError(f"unknown schedule {name!r}{nearest(name, SCHEDULES)}")
    return known


def run_coefficients(name: str, steps: Sequence[float], own: Mapping[str, Any] | None = None) -> Coefficients:
    """Return the coefficients of checkpoints by a schedule's name, [T], summing to 1.

    Args:
        name: Of the schedule.
        steps: [T], increasing.
        own: Parameters; a schedule takes those that it has.

    Raises:
        UsageError: If a parameter is out of range, or the steps do not increase.
    """
    schedule, given = find_schedule(name), {each: value for each, value in (own or {}).items() if value is not None}
    for each, value in given.items():
        low, high = RANGES[each]
        if not low <= value <= high or not math.isfinite(value):
            most = f" and at most {high:g}" if high < math.inf else ""
            raise UsageError(f"{each} must be at least {low:g}{most}, found {value}")
    if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise UsageError(f"expected steps that increase, found:\n{listed([f'{step:g}' for step in steps])}")
    return schedule.function(steps, **{each: given[each] for each in schedule.parameters if each in given})
