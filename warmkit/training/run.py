"""A run's directory: its recipe, its metrics, the state that a killed run resumes from, and what it leaves.

RUN/recipe.yaml       every key resolved
RUN/metrics.jsonl     one line a step
RUN/state.pt          weights, optimiser, step; gone when the run is done
RUN/step-N/           models kept on the way
RUN/model/            the result
RUN/tensorboard/, RUN/wandb/  what trackers leave (trackers.py)
RUN/summary.json      written last: a run that has one is done
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from warmkit.checkpoints.checkpoint import dump_json
from warmkit.checkpoints.staging import writing
from warmkit.errors import OutputError
from warmkit.training.trackers import Trackers

_HELD: dict[tuple[int, int], int] = {}
"""Locks of this process: the descriptor of every lock file, by device and inode."""


class RunDirectory:
    """The directory of one run, locked as long as this process lives.

    Args:
        path: Where.
        recipe: The resolved recipe, as text.
        force: Delete a run of another identity that lies there, and start again.
        identity: What makes two runs the same (`identity.identity_text`); by default the recipe.

    Attributes:
        trackers: What follows the metrics, if anything does.

    Raises:
        OutputError: If it holds something else or a run of another recipe, or another process works in it.
    """

    def __init__(self, path: Path, recipe: str, force: bool = False, identity: str | None = None) -> None:
        self.path, self.recipe = path, recipe
        known, identity = self._file("identity.yaml"), identity or recipe
        with writing(path):
            if path.exists() and not path.is_dir():
                raise OutputError(f"{path}: expected a directory")
            if path.exists() and not known.exists() and any(not _early(each) for each in path.iterdir()):
                raise OutputError(f"{path}: holds something that is no run; choose another output.path")
            path.mkdir(parents=True, exist_ok=True)
            self._lock()
            if known.exists() and known.read_text("utf-8") != identity and any(not _early(each) for each in path.iterdir()):
                if not force:
                    raise OutputError(
                        f"{path}: holds a run of another recipe or of other data; choose another output.path, or delete it and "
                        "start again with --force"
                    )
                self._clear()
            write_whole(known, identity.encode())
            write_whole(self._file("recipe.yaml"), recipe.encode())
        self.trackers: Trackers | None = None
        self._metrics: Any = None

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

    def summary(self) -> dict[str, Any] | None:
        """Return the summary of a run that is done, else None."""
        file = self._file("summary.json")
        return json.loads(file.read_text("utf-8")) if file.exists() else None

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary, and let go of the state."""
        write_whole(self._file("summary.json"), dump_json(summary))
        self._file("state.pt").unlink(missing_ok=True)

    def save_state(self, state: dict[str, Any]) -> None:
        """Write the state that a killed run resumes from; the one before stays until this one is on disk."""
        with writing(self.path):
            partial = self._file("state.partial")
            torch.save(state, partial)
            _flush_and_rename(partial, self._file("state.pt"))

    def load_state(self) -> dict[str, Any] | None:
        """Return the last state, if a run was killed here."""
        file = self._file("state.pt")
        return torch.load(file, map_location="cpu", weights_only=True) if file.exists() else None

    def kept(self, step: int) -> Path:
        """Return where the model of a step is kept."""
        return self._file(f"step-{step}")

    def open_metrics(self, step: int) -> None:
        """Go on with the metrics after `step` steps; lines of later ones, which will be computed again, go."""
        file = self._file("metrics.jsonl")
        lines = [line for line in file.read_bytes().splitlines(keepends=True) if _step(line) <= step] if file.exists() else []
        write_whole(file, b"".join(lines))
        if self.trackers is not None:
            self.trackers.start(map(json.loads, lines), step)
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
        return [json.loads(line) for line in self._file("metrics.jsonl").read_text("utf-8").splitlines()]

    def _file(self, name: str) -> Path:
        return self.path / name

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.name != "lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def open_run(path: Path, recipe: str, force: bool, identity: str) -> RunDirectory:
    """Return the directory of a run; of several processes that train one model, the first alone holds and writes it."""
    from warmkit.training.distributed import group

    return RunDirectory(path, recipe, force, identity) if group().first else Follower(path)


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

    def finish(self, summary: dict[str, Any]) -> None:
        pass

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
    return entry.name == "lock" or entry.name.endswith((".yaml", ".yaml.partial"))


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, power loss included."""
    with writing(file):
        partial = file.with_name(f".{file.name}.partial")
        partial.write_bytes(content)
        _flush_and_rename(partial, file)


def _flush_and_rename(partial: Path, file: Path) -> None:
    with partial.open("rb+") as stream:
        os.fsync(stream.fileno())
    partial.replace(file)


def _step(line: bytes) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):  # the line that a kill cut short
        return 1 << 62
