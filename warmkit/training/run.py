"""A run's directory: its recipe, its metrics, the state that a killed run resumes from, and what it leaves.

RUN/recipe.yaml       every key resolved
RUN/identity.yaml     what makes two runs the same: the recipe without what is free, and a digest of the training data
RUN/origins.json      digests of the checkpoints that it starts from
RUN/metrics.jsonl     one line a step
RUN/state.pt          weights, optimiser, step; gone when the run is done
RUN/step-N/           models kept on the way
RUN/model/            the result
RUN/model.digests.json  what is in it
RUN/tensorboard/, RUN/wandb/  what trackers leave (trackers.py)
RUN/summary.json      written last: a run that has one is done
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from warmkit.common.json_files import dump_json
from warmkit.common.records import Form, checked, is_natural, is_text, list_of, maybe, parsed, read_lines, read_record
from warmkit.common.whole_files import flush_and_rename, write_whole, writing
from warmkit.engine.contents import check_contents, record_of, write_contents
from warmkit.errors import ChangedError, FormatError, OutputError, TrainingError, out_of_memory
from warmkit.recipes.recipe import recipe_text
from warmkit.training.origins import IDENTITY, ORIGINS, UNKNOWN, check_same, origins_now, write_origins
from warmkit.training.run_identity import RunIdentity, run_identity
from warmkit.training.trackers import Trackers, check_trackers

OF_ANOTHER_FORM = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError),
    UnpicklingError,
)
METRICS, STATE = "metrics.jsonl", "state.pt"
METRICS_KEYS: Mapping[str, Form] = {"step": is_natural, "warnings": maybe(list_of(is_text))}
_HELD: dict[tuple[int, int], int] = {}
"""Locks of this process: the descriptor of every lock file, by device and inode."""


class RunDirectory:
    """The directory of one run, locked as long as this process lives.

    Args:
        path: Where.
        recipe: The resolved recipe, as text.
        force: Delete a run of another identity that lies there, and start again.
        identity: What makes two runs the same; by default the recipe.

    Attributes:
        trackers: What follows the metrics, if anything does.
        notes: What a user has to know of how the run goes on.

    Raises:
        ChangedError: If it holds a run that began with other weights.
        CheckpointError: If a checkpoint that the run starts from cannot be opened.
        OutputError: If it holds something else or a run of another recipe, or another process works in it.
    """

    def __init__(self, path: Path, recipe: str, force: bool = False, identity: RunIdentity | None = None) -> None:
        self.path, self.recipe, self.notes = path, recipe, list[str]()
        with writing(path):
            if path.exists() and not path.is_dir():
                raise OutputError(f"{path}: expected a directory")
            if self._begun() and not self._file(IDENTITY).exists():
                raise OutputError(f"{path}: holds something that is no run; choose another output.path")
            path.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._enter(identity or RunIdentity(recipe), force)
            write_whole(self._file("recipe.yaml"), recipe.encode())
        self.trackers: Trackers | None = None
        self._metrics: Any = None

    def _enter(self, identity: RunIdentity, force: bool) -> None:
        """Take the directory for a run; one that has begun there must be the same, or goes if that is wanted."""
        begun = self._begun()
        try:
            origins = check_same(self.path, identity) if begun else None
        except (OutputError, ChangedError):
            if not force:
                raise
            self._clear()
            begun, origins = False, None
        done = self._file("summary.json").exists()
        if begun and origins is None and not done and identity.sources:
            self.notes.append(UNKNOWN)
        if origins is None:
            origins = origins_now(identity.sources, {}, done)
        write_whole(self._file(IDENTITY), identity.text.encode())
        write_origins(self.path, identity.sources, origins)

    def _begun(self) -> bool:
        """Say whether there is more than what a run leaves before it has done anything worth keeping."""
        return self.path.exists() and any(not _early(each) for each in self.path.iterdir())

    def _lock(self) -> None:
        descriptor = os.open(self._file("lock"), os.O_RDWR | os.O_CREAT)
        status = os.fstat(descriptor)
        place = status.st_dev, status.st_ino
        if (held := _HELD.pop(place, None)) is not None:  # by a run of this process that failed; its traceback keeps it alive
            os.close(held)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise OutputError(f"{self.path}: another warmkit is working here") from None
        self._place, self._descriptor = place, descriptor
        _HELD[place] = descriptor

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # where the directory was refused
            if _HELD.get(self._place) == self._descriptor:
                os.close(_HELD.pop(self._place))

    @property
    def model(self) -> Path:
        return self._file("model")

    def summary(self, keys: Mapping[str, Form] | None = None) -> dict[str, Any] | None:
        """Return the summary of a run that is done, else None; a model that was changed since is told in its notes.

        Args:
            keys: What it holds.

        Raises:
            FormatError: If it is of another form.
            OutputError: If the model that the run left is gone.
        """
        file = self._file("summary.json")
        if not file.exists():
            return None
        summary = read_record(file, {"notes": maybe(list_of(is_text)), **(keys or {})}, f"delete {self.path} to start again")
        if record_of(self.model).exists() and not self.model.exists():
            raise OutputError(f"{self.model}: the run is done, and its model is gone; delete {self.path} to train it again")
        try:
            check_contents(self.model)
        except ChangedError as error:
            summary["notes"] = [*(summary.get("notes") or ()), str(error)]
        return summary

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Write the summary, with the run's notes, and let go of the state; return what was written."""
        summary = {**summary, "notes": self.notes} if self.notes else summary
        if self.model.exists():
            write_contents(self.model)
        write_whole(self._file("summary.json"), dump_json(summary))
        self._file(STATE).unlink(missing_ok=True)
        return summary

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the state that a killed run resumes from; the one before stays until this one is on disk."""
        with writing(self.path):
            partial = self._file("state.partial")
            torch.save(state, partial)
            flush_and_rename(partial, self._file(STATE))

    def load_state(self) -> dict[str, Any] | None:
        """Return the last state, if a run was killed here.

        Raises:
            FormatError: If it cannot be read.
        """
        file = self._file(STATE)
        if not file.exists():
            return None
        with self.restoring():
            state = torch.load(file, map_location="cpu", weights_only=True)
            return {**state, "step": int(state["step"])}

    @contextlib.contextmanager
    def restoring(self) -> Generator[None]:
        """Turn what goes wrong with a state of another form into one line; torch has no error of its own for it."""
        try:
            yield
        except TrainingError as error:
            raise TrainingError(f"{self._file(STATE)}: {error}") from None
        except OF_ANOTHER_FORM as error:
            if out_of_memory(error):
                raise
            said = " ".join(str(error).split())[:160]
            raise FormatError(
                f"{self._file(STATE)}: is no state of this run: damaged, or written by another version of warmkit "
                f"({type(error).__name__}: {said}); delete it, and the run starts again from its first step"
            ) from None

    def kept(self, step: int) -> Path:
        """Return where the model of a step is kept."""
        return self._file(f"step-{step}")

    def open_metrics(self, step: int) -> None:
        """Go on with the metrics after `step` steps; lines of later ones, which will be computed again, go."""
        file = self._file(METRICS)
        lines = [line for line in file.read_bytes().splitlines(keepends=True) if _step(line) <= step] if file.exists() else []
        write_whole(file, b"".join(lines))
        if self.trackers is not None:
            self.trackers.start([json.loads(line) for line in lines], step)
        self._metrics = file.open("a", encoding="utf-8")

    def log(self, values: dict[str, Any]) -> None:
        """Add a line to the metrics, and tell the trackers."""
        self._metrics.write(json.dumps(values) + "\n")
        self._metrics.flush()
        if self.trackers is not None:
            self.trackers.log(values)

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
        if self.trackers is not None:
            self.trackers.finish()

    def metrics(self) -> list[dict[str, Any]]:
        """Return every line of the metrics."""
        return read_lines(self._file(METRICS), METRICS_KEYS)

    def _file(self, name: str) -> Path:
        return self.path / name

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.name != "lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def open_run(recipe: Any, force: bool) -> RunDirectory:
    """Return the directory of a recipe's run; of several processes that train one model, the first alone writes it."""
    from warmkit.training.distributed import group

    path = Path(recipe.output.path)
    if not (path / "summary.json").exists():
        check_trackers(recipe.output)  # before anything is read
    return RunDirectory(path, recipe_text(recipe), force, run_identity(recipe)) if group().first else Follower(path)


class Follower(RunDirectory):
    """A run's directory as the processes beside the first see it: they read it, and write nothing.

    Args:
        path: Where.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.trackers, self._metrics = path, None, None

    def metrics(self) -> list[dict[str, Any]]:
        """Return a line that says nothing: the file is being written."""
        return [{}]

    def finish(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Return the summary."""
        return summary

    def save_state(self, state: dict[str, Any]) -> None:
        pass

    def open_metrics(self, step: int) -> None:
        pass

    def log(self, values: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


def _early(entry: Path) -> bool:
    """Say whether a run leaves this file before it has done anything worth keeping."""
    return entry.name == "lock" or entry.name.removesuffix(".partial").endswith((".yaml", ORIGINS))


def _step(line: bytes) -> int:
    """Return the step of a line of the metrics; one that a kill cut short is of none that is kept."""
    try:
        return checked(parsed(line, METRICS), METRICS_KEYS, METRICS)["step"]
    except FormatError:
        return 1 << 62
