"""Metrics for TensorBoard and Weights & Biases too, through accelerate's trackers; nothing that is trained depends on them.

RUN/tensorboard/   event files
RUN/wandb/         what Weights & Biases keeps here; `id` is the run's name there, so that a resumed run stays one run
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from warmkit.common.addresses import without_assigned_secrets
from warmkit.errors import FormatError, TrainingError, UsageError
from warmkit.recipes.recipe import plain
from warmkit.training.recipe_sections import RunOutput

PROJECT = "warmkit"


class Trackers:
    """What follows the metrics of one run: every line of metrics.jsonl, once.

    Args:
        recipe: Of the run; Weights & Biases shows it beside the curves.

    Raises:
        UsageError: If a library is missing.
    """

    def __init__(self, recipe: Any) -> None:
        self.output: RunOutput = recipe.output
        check_trackers(self.output)
        self._recipe = _public(plain(recipe))
        self._open: list[Any] = []

    def start(self, lines: Iterable[dict[str, Any]], step: int) -> None:
        """Go on after `step` steps; a tracker that is new to the run gets the lines of the steps before first.

        Raises:
            UsageError: If Weights & Biases has no account to log to.
            TrainingError: If it fails in another way.
        """
        lines = list(lines)
        for name in self.output.trackers or ():
            known = _known(Path(self.output.path), name)
            tracker = _tensorboard(self.output, step if known else None) if name == "tensorboard" else self._wandb()
            self._open.append(tracker)
            for line in () if known else lines:
                _log(tracker, line)

    def log(self, line: dict[str, Any]) -> None:
        """Log a line of the metrics."""
        for tracker in self._open:
            _log(tracker, line)

    def finish(self) -> None:
        """Write what is left and close."""
        while self._open:
            self._open.pop().finish()

    def _wandb(self) -> Any:
        from accelerate.tracking import WandBTracker

        wandb: Any = importlib.import_module("wandb")
        folder = Path(self.output.path) / "wandb"
        folder.mkdir(exist_ok=True)
        file = folder / "id"
        if not file.exists():
            file.write_text(secrets.token_hex(4))
        tracker = WandBTracker(
            self.output.project or PROJECT,
            dir=str(folder.parent),
            id=_known_id(file),
            name=self.output.path,
            resume="allow",
            config=self._recipe,
            settings=wandb.Settings(console="off"),  # the terminal is the user's
        )
        try:
            return _started(tracker)
        except wandb.errors.Error as error:
            kind = UsageError if isinstance(error, wandb.errors.UsageError) else TrainingError
            raise kind(f"output.trackers: wandb: {error} WANDB_MODE=offline logs to {folder} alone") from None


def _public(value: Any) -> Any:
    """Return a recipe as others may see it: what its commands and addresses hold in the way of secrets is left out."""
    if isinstance(value, dict):
        return {key: _public(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_public(each) for each in value]
    return without_assigned_secrets(value) if isinstance(value, str) else value


def check_trackers(output: RunOutput) -> None:
    """Refuse trackers whose libraries are not installed.

    Raises:
        UsageError: If one is missing.
    """
    for name in output.trackers or ():
        if missing := [each for each in ("accelerate", name) if importlib.util.find_spec(each) is None]:
            raise UsageError(f"output.trackers: {name} needs {missing[0]}; install it: pip install 'warmkit[track,train]'")


def _known(run: Path, name: str) -> bool:
    """Say whether a tracker has followed the run before."""
    return (run / name / "id").exists() if name == "wandb" else (run / name).exists()


def _known_id(file: Path) -> str:
    name = file.read_bytes().decode(errors="replace")
    if not re.fullmatch(r"[\w-]{1,64}", name):
        raise FormatError(
            f"{file}: expected the name of a run at Weights & Biases, found {name[:40]!r}; delete it to start another"
        )
    return name


def _tensorboard(output: RunOutput, step: int | None) -> Any:
    """Open the event files; readers forget what a killed run has logged after `step`, which will be computed again."""
    from accelerate.tracking import TensorBoardTracker

    return _started(TensorBoardTracker("tensorboard", output.path, purge_step=None if step is None else step + 1))


def _started(tracker: Any) -> Any:
    from accelerate import PartialState

    PartialState()  # accelerate's log wants it
    if hasattr(tracker, "start"):  # before accelerate 1.9 they start when they are made
        tracker.start()
    return tracker


def _log(tracker: Any, line: dict[str, Any]) -> None:
    values = {name: "\n".join(value) if isinstance(value, list) else value for name, value in line.items() if name != "step"}
    tracker.log(values, step=line["step"])
