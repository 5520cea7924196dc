"""`warmkit average`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from warmkit.cli import completions, merged
from warmkit.cli.command import command, option
from warmkit.cli.console import Console, table
from warmkit.cli.shared_options import OutputPath, Writing, given, numbers
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.verbs.average import RunAverage

WINDOW_PANEL, SCHEDULE_PANEL = "Which checkpoints", "Their weights"
Run = Annotated[list[str], typer.Argument(metavar="RUN", help="A training directory; or a pattern, or checkpoints one by one.")]


@dataclass(eq=False, repr=False)
class Window:
    """Which checkpoints of a run are averaged."""

    last: str | None = option(
        None,
        "How many, counted from the newest; several (5,10) are several windows.",
        rich_help_panel=WINDOW_PANEL,
        show_default="all",
    )
    every: int = option(1, "Every how many-th, counted from the newest.", rich_help_panel=WINDOW_PANEL, min=1)
    first_step: int | None = option(None, "Smallest step.", "--from", rich_help_panel=WINDOW_PANEL)
    last_step: int | None = option(None, "Largest step.", "--to", rich_help_panel=WINDOW_PANEL)
    tokens: str | None = option(
        None,
        "Only of the last so many tokens of training, where the trainer recorded them: 5e9, 500M.",
        rich_help_panel=WINDOW_PANEL,
    )

    def keywords(self) -> dict[str, Any]:
        """Return what was given, parsed, for the library."""
        last = None if self.last is None else [_whole(each, "--last") for each in self.last.split(",")]
        tokens = None if self.tokens is None else _count(self.tokens)
        return given({**vars(self), "last": last, "tokens": tokens})


@dataclass(eq=False, repr=False)
class Weights:
    """How the checkpoints are weighed."""

    schedule: str | None = option(
        None,
        "uniform, linear, minus-sqrt, cosine, ema, bema or manual; several (ema,minus-sqrt) are written from one reading.",
        show_default="uniform",
        rich_help_panel=SCHEDULE_PANEL,
        autocompletion=completions.schedule,
    )
    coefficients: str | None = option(
        None, "Of manual: one number per checkpoint, the oldest first.", rich_help_panel=SCHEDULE_PANEL
    )
    mu: float | None = option(
        None, "Of ema: update rate, 0 to 1.", rich_help_panel=SCHEDULE_PANEL, show_default="2/(T+1) of T checkpoints"
    )
    lag: float | None = option(
        None,
        "Of bema: how many steps are added to the step (rho); more smooth more.",
        rich_help_panel=SCHEDULE_PANEL,
        show_default="10",
    )
    ema_power: float | None = option(
        None, "Of bema: how fast the moving average slows down (kappa).", rich_help_panel=SCHEDULE_PANEL, show_default="0.5"
    )
    bias_power: float | None = option(
        None, "Of bema: how fast the correction for its lag fades (eta).", rich_help_panel=SCHEDULE_PANEL, show_default="0.2"
    )

    def keywords(self) -> dict[str, Any]:
        """Return what was given, parsed, for the library."""
        schedule = None if self.schedule is None else [each.strip() for each in self.schedule.split(",")]
        return given({**vars(self), "schedule": schedule, "coefficients": numbers(self.coefficients, "--coefficients")})


@command(resumes=True)
def average(console: Console, run: Run, output: OutputPath, window: Window, weights: Weights, writing: Writing) -> None:
    """Average checkpoints along a training run, found and ordered by their steps.

    A schedule does to the checkpoints what a decay of the learning rate would have done to the run.

    Examples:

    - `warmkit average RUN --last 5 -o OUT`
    - `warmkit average RUN --last 10 --schedule minus-sqrt --dry-run -o OUT`
    - `warmkit average RUN --schedule uniform,ema,minus-sqrt --last 5,10 -o SWEEP`, reading the checkpoints once
    - `warmkit average RUN --from 2000 --to 4000 --every 2 -o OUT`
    - `warmkit average run/checkpoint-800 run/checkpoint-1000 --schedule manual --coefficients 1,3 -o OUT`
    """
    from warmkit.verbs.average import plan_averages, write_averages

    averages = plan_averages(run, **window.keywords(), **weights.keywords())
    with console.progress("averaging") as advance:
        result = write_averages(averages, output, {**writing.keywords(), "advance": advance})  # type: ignore[typeddict-item]
    merged.show(console, result, averages=[_document(each) for each in averages])
    if not console.json:
        console.result(None, _table(averages))


def _document(each: RunAverage) -> dict[str, Any]:
    rows = [
        {"path": str(one.path), "step": one.step, "tokens": one.tokens, "coefficient": share}
        for one, share in zip(each.checkpoints, each.coefficients)
    ]
    return {"name": each.name, "schedule": each.schedule, "checkpoints": rows}


def _table(averages: Sequence[RunAverage]) -> Any:
    """Return a row per checkpoint and a column per average."""
    shares = [dict(zip(each.checkpoints, each.coefficients)) for each in averages]
    rows = dict.fromkeys(one for each in averages for one in each.checkpoints)
    ordered = sorted(rows, key=lambda one: (one.step is None, one.step or 0))
    cells = [
        [
            "" if one.step is None else str(one.step),
            str(one.path),
            *(f"{each[one]:.4g}" if one in each else "" for each in shares),
        ]
        for one in ordered
    ]
    return table(None, ["step", "checkpoint", *(each.name for each in averages)], cells)


def _whole(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name}: expected a whole number, or several with commas between them, found {text!r}") from None


def _count(text: str) -> int:
    """Parse a number of tokens: 5e9, 500M, 2B."""
    units = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
    bare, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    try:
        return int(float(bare) * unit)
    except (ValueError, OverflowError):
        raise UsageError(f"--tokens: expected a number such as 5e9, 500M or 2B, found {text!r}") from None
