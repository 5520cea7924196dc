"""Averages along a run: checkpoints found by their steps, several schedules and windows from one reading."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from typing_extensions import Unpack

from warmkit.common.addresses import shown
from warmkit.engine.doubts import refuse_doubts
from warmkit.engine.merge_options import OutputOptions, PathLike
from warmkit.engine.result import MergeResult
from warmkit.engine.spec import Average, MergeSpec
from warmkit.engine.write import write
from warmkit.errors import UsageError
from warmkit.layouts.layer_settings import finite
from warmkit.merging.methods import METHODS
from warmkit.merging.schedules import MANUAL, SCHEDULES, find_schedule, run_coefficients
from warmkit.merging.types import Coefficients
from warmkit.sources.runs import NAMES, RunCheckpoint, find_run, window


@dataclass(frozen=True)
class RunAverage:
    """One average along a run, before it is written.

    Attributes:
        name: Schedule, and the number of checkpoints where there are several windows; the folder of its model.
        schedule: Name of the schedule.
        checkpoints: What is averaged, the oldest first.
        coefficients: One per checkpoint.
        own: Parameters of the schedule that were given.
    """

    name: str
    schedule: str
    checkpoints: tuple[RunCheckpoint, ...]
    coefficients: tuple[float, ...]
    own: Mapping[str, float]


def plan_averages(
    run: PathLike | Sequence[PathLike],
    *,
    schedule: str | Sequence[str] = "uniform",
    last: int | Sequence[int] | None = None,
    every: int = 1,
    first_step: int | None = None,
    last_step: int | None = None,
    tokens: int | None = None,
    coefficients: Sequence[float] | None = None,
    mu: float | None = None,
    lag: float | None = None,
    ema_power: float | None = None,
    bias_power: float | None = None,
) -> list[RunAverage]:
    """Return what `average` with the same arguments would write: checkpoints, steps and coefficients; no weights are read.

    Raises:
        WarmkitError: If checkpoints are not found, or the arguments do not fit them.
    """
    schedules = _names(schedule, coefficients)
    sizes = [None] if last is None else [last] if isinstance(last, int) else list(last)
    _check_numbers(sizes, every, tokens)
    known = {"mu": mu, "lag": lag, "ema_power": ema_power, "bias_power": bias_power}
    own = {name: value for name, value in known.items() if value is not None}
    check_parameters(own, schedules)
    found = find_run([run] if isinstance(run, str | os.PathLike) else run)
    averages = [
        _planned(name, window(found, size, every, first_step, last_step, tokens), own, coefficients, several=len(sizes) > 1)
        for size in sizes
        for name in schedules
    ]
    if len({each.name for each in averages}) != len(averages):
        raise UsageError(f"expected different schedules and windows, found {', '.join(each.name for each in averages)}")
    return averages


def _planned(
    name: str,
    chosen: Sequence[RunCheckpoint],
    own: Mapping[str, float],
    coefficients: Sequence[float] | None,
    several: bool,
) -> RunAverage:
    numbers = _manual(chosen, coefficients) if name == MANUAL else run_coefficients(name, _steps(name, chosen), own)
    folder, taken = f"{name}-{len(chosen)}" if several else name, SCHEDULES[name].parameters if name != MANUAL else []
    given = {each: value for each, value in own.items() if each in taken}
    return RunAverage(folder, name, tuple(chosen), tuple(numbers.tolist()), given)


def _names(schedule: str | Sequence[str], coefficients: Sequence[float] | None) -> list[str]:
    given = [schedule] if isinstance(schedule, str) else list(schedule)
    if coefficients is not None and given == ["uniform"]:
        given = [MANUAL]
    if not given:
        raise UsageError(f"expected a schedule: {', '.join([*SCHEDULES, MANUAL])}")
    names = [each if each == MANUAL else find_schedule(each).name for each in given]
    if (MANUAL in names) != (coefficients is not None):
        raise UsageError(f"schedule {MANUAL} and coefficients belong together: one number per checkpoint, the oldest first")
    return names


def _check_numbers(sizes: Iterable[int | None], every: int, tokens: int | None) -> None:
    for name, value in (("last", each) for each in sizes):
        if value is not None and value < 1:
            raise UsageError(f"{name} must be at least 1, found {value}")
    if every < 1:
        raise UsageError(f"every must be at least 1, found {every}")
    if tokens is not None and tokens < 1:
        raise UsageError(f"tokens must be at least 1, found {tokens}")


def check_parameters(own: Mapping[str, float], schedules: Sequence[str]) -> None:
    """Refuse a parameter that no schedule takes."""
    taken = {each for name in schedules if name != MANUAL for each in SCHEDULES[name].parameters}
    for name in own.keys() - taken:
        having = ", ".join(each.name for each in SCHEDULES.values() if name in each.parameters)
        raise UsageError(f"{', '.join(schedules)}: has no {name}; it is a parameter of {having}")


def _steps(name: str, chosen: Sequence[RunCheckpoint]) -> list[float]:
    """Return the steps of checkpoints; of those without, their numbers, where the schedule does not depend on more."""
    steps = [each.step for each in chosen]
    if name == "bema" and any(each.epochs for each in chosen):
        raise UsageError(f"bema needs steps; the names of the checkpoints count epochs ({shown(chosen[0].path)})")
    if all(step is not None for step in steps):
        return [float(cast("int", step)) for step in steps]
    if name == "bema":
        lacking = next(each.path for each in chosen if each.step is None)
        raise UsageError(f"bema needs the steps of the checkpoints; {shown(lacking)} has none in its name ({NAMES})")
    return [float(place) for place in range(len(chosen))]


def _manual(chosen: Sequence[RunCheckpoint], coefficients: Sequence[float] | None) -> Coefficients:
    numbers = np.array([finite(each, "a coefficient") for each in coefficients or ()])
    if len(numbers) != len(chosen):
        raise UsageError(
            f"expected {len(chosen)} coefficients, one for each of {', '.join(each.path.name for each in chosen)}; "
            f"found {len(numbers)}"
        )
    if abs(numbers.sum()) < 1e-12:
        raise UsageError(f"the coefficients {numbers.tolist()} sum to 0, so they are no average")
    return numbers / numbers.sum()


def average(
    run: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    schedule: str | Sequence[str] = "uniform",
    last: int | Sequence[int] | None = None,
    every: int = 1,
    first_step: int | None = None,
    last_step: int | None = None,
    tokens: int | None = None,
    coefficients: Sequence[float] | None = None,
    mu: float | None = None,
    lag: float | None = None,
    ema_power: float | None = None,
    bias_power: float | None = None,
    **options: Unpack[OutputOptions],
) -> MergeResult:
    """Average checkpoints along a training run.

        merged = sum_t c_t x_t,  c by the schedule, from the steps of the checkpoints

    Args:
        run: A training directory, whose checkpoints are found and ordered by their steps (`checkpoint-500`, `step_1000`,
            `global_step_40`, `iter_0000100`); a pattern; or checkpoints one by one.
        output: Directory to create; of several averages, `output/<schedule>`, or `output/<schedule>-<number of checkpoints>`.
        schedule: `uniform`, `linear`, `minus-sqrt`, `cosine`, `ema`, `bema`, or `manual` with coefficients; several are
            written from one reading.
        last: How many checkpoints, counted from the newest; several numbers are several windows. By default all.
        every: Every how many-th checkpoint, counted from the newest.
        first_step: Smallest step.
        last_step: Largest step.
        tokens: Only checkpoints of the last so many tokens of training, where the trainer recorded them.
        coefficients: One per checkpoint, the oldest first; divided by their sum.
        mu: Update rate of `ema`; by default 2/(T+1).
        lag: rho of `bema`; by default 10.
        ema_power: kappa of `bema`; by default 0.5.
        bias_power: eta of `bema`; by default 0.2.
        **options: See `OutputOptions`.

    Returns:
        What was written; `outputs` has the directory of every average.

    Raises:
        WarmkitError: Any of its kinds; the destination is untouched then.

    Source: WSM (Tian et al., 2025) for decay schedules; `merging.schedules` names the others.
    """
    averages = plan_averages(
        run,
        schedule=schedule,
        last=last,
        every=every,
        first_step=first_step,
        last_step=last_step,
        tokens=tokens,
        coefficients=coefficients,
        mu=mu,
        lag=lag,
        ema_power=ema_power,
        bias_power=bias_power,
    )
    return write_averages(averages, output, options)


def write_averages(averages: Sequence[RunAverage], output: PathLike, options: OutputOptions) -> MergeResult:
    """Write planned averages from one reading of their checkpoints."""
    changed = options.get("token_rows") or options.get("vocabulary", "strict") != "strict"
    if len(averages) > 1 and (changed or options.get("heads", "init") != "init"):
        raise UsageError("vocabulary and heads are of one average; give one schedule and one window")
    rows = max((each.checkpoints for each in averages), key=len)  # windows of one run end at one checkpoint
    planned = {each.name: Average(_over(rows, each), _described(each)) for each in averages}
    first = next(iter(planned.values()))
    spec = MergeSpec(METHODS["lerp"], first.coefficients, name="average", parameters=dict(first.described))
    if len(planned) > 1:
        spec = replace(spec, averages=planned)
    doubts = [line for each in averages for line in _doubts(each, len(rows))]
    refuse_doubts(doubts, options.get("strict", False))
    result = write(spec, [each.path for each in rows], None, output, options)
    return replace(result, notes=(*result.notes, *doubts))


def _over(rows: Sequence[RunCheckpoint], each: RunAverage) -> Coefficients:
    """Return coefficients over all rows, 0 for those that an average does not take."""
    found = dict(zip(each.checkpoints, each.coefficients))
    return np.array([found.get(row, 0.0) for row in rows])


def _described(each: RunAverage) -> dict[str, Any]:
    steps = [one.step for one in each.checkpoints]
    return {
        "schedule": each.schedule,
        **each.own,
        "checkpoints": [shown(one.path) for one in each.checkpoints],
        **({"steps": steps} if None not in steps else {}),
        "coefficients": list(each.coefficients),
    }


def _doubts(each: RunAverage, read: int) -> list[str]:
    said: list[str] = []
    if each.schedule == MANUAL and any(number < 0 for number in each.coefficients):
        said.append("some coefficients are negative: the result lies beyond the checkpoints, not between them")
    if len(each.checkpoints) == 1 < read:  # of a single model the engine says it
        said.append(f"{each.name}: {shown(each.checkpoints[0].path)} is the only checkpoint: the result is a copy of it")
    if each.schedule in ("linear", "minus-sqrt", "cosine", "bema") and any(one.step is None for one in each.checkpoints):
        said.append(f"{each.name}: no steps are in the names of the checkpoints, which count as evenly spaced, in this order")
    return said
