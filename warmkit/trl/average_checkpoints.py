"""Averages along a run of another trainer, written while it runs."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from warmkit.errors import UsageError
from warmkit.merging.schedules import find_schedule, run_coefficients
from warmkit.sources.runs import step_of
from warmkit.verbs.average import average, check_parameters


class AverageCheckpoints(TrainerCallback):
    """Callback that writes the average of the checkpoints saved so far, after every save.

        average = sum_t c_t x_t,  c by the schedule, from the steps of the checkpoints

    It lies beside the checkpoints, in `<output_dir>/average-<schedule>`, a model directory that is replaced in one step.
    Checkpoints are read from the disk, block by block: memory grows neither with the model nor with the run. A run that is
    resumed has nothing to restore.

    Args:
        schedule: `uniform`, `linear`, `minus-sqrt`, `cosine`, `ema` or `bema`, as of `warmkit.average`.
        last: How many checkpoints, counted from the newest; by default all. No more than `save_total_limit` keeps.
        mu: Update rate of `ema`; by default 2/(T+1).
        lag: rho of `bema`; by default 10.
        ema_power: kappa of `bema`; by default 0.5.
        bias_power: eta of `bema`; by default 0.2.

    Raises:
        UsageError: If the schedule or a parameter is none of these.
    """

    def __init__(
        self,
        schedule: str = "ema",
        *,
        last: int | None = None,
        mu: float | None = None,
        lag: float | None = None,
        ema_power: float | None = None,
        bias_power: float | None = None,
    ) -> None:
        self.schedule, self.last = find_schedule(schedule).name, last
        known = {"mu": mu, "lag": lag, "ema_power": ema_power, "bias_power": bias_power}
        check_parameters({name: value for name, value in known.items() if value is not None}, [self.schedule])
        run_coefficients(self.schedule, [0, 1], known)  # refuses what is out of range
        if last is not None and last < 1:
            raise UsageError(f"last must be at least 1, found {last}")
        self._average = functools.partial(
            average, schedule=schedule, mu=mu, lag=lag, ema_power=ema_power, bias_power=bias_power, force=True
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Refuse what would make another average than the one that is asked for.

        Args:
            args: The trainer's.
            state: The trainer's.
            control: The trainer's.
            **_: What else the trainer passes.
        """
        if args.save_strategy == "no":
            raise UsageError("AverageCheckpoints averages what the trainer saves, and save_strategy is no; set steps or epoch")
        limit = args.save_total_limit
        if limit is not None and (self.last is None or self.last > limit):
            raise UsageError(
                f"save_total_limit {limit} deletes checkpoints that would be averaged; give AverageCheckpoints last={limit} or "
                "less, or raise the limit"
            )
        if state.global_step == 0 and (older := _saved(Path(args.output_dir))):
            raise UsageError(
                f"{args.output_dir}: has {older[-1].name} of an earlier run, which would be averaged with this one; resume "
                "that run, or choose another output_dir"
            )

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the average of the checkpoints up to this one.

        Args:
            args: The trainer's.
            state: The trainer's.
            control: The trainer's.
            **_: What else the trainer passes.
        """
        if state.is_world_process_zero:
            home = Path(args.output_dir)
            found = _saved(home, state.global_step)
            self._average(found[-(self.last or len(found)) :], home / f"average-{self.schedule}")


def _saved(home: Path, most: float = float("inf")) -> list[Path]:
    """Return a trainer's checkpoints, the oldest first, up to a step: later ones are of a run that was killed."""
    steps = {each: step_of(each.name) for each in home.glob("checkpoint-*") if each.is_dir()}
    found = {each: step for each, step in steps.items() if step is not None and step <= most}
    return sorted(found, key=lambda each: found[each])
