"""Greedy soup: average the members that a held-out score wants."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash
from typing_extensions import Unpack

from warmkit.common.addresses import without_assigned_secrets
from warmkit.common.display import Displayed
from warmkit.common.progress import progress
from warmkit.common.records import checked, dict_of, is_number, read_record
from warmkit.common.shell import run_shell, with_argument
from warmkit.common.units import number
from warmkit.common.whole_files import write_whole, writing
from warmkit.engine.manifest import read_manifest
from warmkit.engine.merge_options import OutputOptions, check_models
from warmkit.engine.prepare import prepare
from warmkit.engine.result import MergeResult
from warmkit.engine.spec import MergeSpec, merge_spec
from warmkit.engine.staging import Staging, make_own_directory
from warmkit.engine.write import write, write_prepared
from warmkit.errors import FormatError, OutputError, ScoreError, UsageError
from warmkit.formats.checkpoint import Checkpoint
from warmkit.layouts.opening import open_inputs

PLACEHOLDER = "{}"


@dataclass(frozen=True, repr=False)
class Trial(Displayed):
    """Trial of one model in a greedy soup: the soup's score with it, and whether it stays.

    Attributes:
        name: Source of the model.
        score: Of the soup with it.
        stays: Whether the soup scores no worse with it.
    """

    name: str
    score: float
    stays: bool


@dataclass(frozen=True, repr=False)
class GreedySoup(Displayed):
    """Greedy soup: the merge, its members, and every score.

    Attributes:
        result: The merge that was written.
        members: Sources of the models in it, in the order they were added.
        scores: Held-out score of every single model.
        score: Score of the soup.
        trials: Every step, in order.
    """

    result: MergeResult
    members: list[str]
    scores: dict[str, float]
    score: float
    trials: list[Trial]

    def _facts(self) -> Mapping[str, object]:
        return {
            "path": self.result.path,
            "score": self.score,
            "members": self.members,
            "of": f"{len(self.scores)} models",
            "parameters": number(self.result.parameters),
        }

    def _rows(self) -> Sequence[Displayed]:
        return self.trials


def greedy_soup(
    models: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    score: str,
    minimize: bool = False,
    report: Callable[[str], None] = lambda _: None,
    **options: Unpack[OutputOptions],
) -> GreedySoup:
    """Build the greedy soup of models.

    Sort the models by their held-out score, best first. Start with the best; add each next one if the uniform soup with
    it scores no worse. Scores are cached beside the destination until the soup is written, so a run that was interrupted
    pays for no score twice.

    Args:
        models: Checkpoints.
        output: Directory to create.
        score: Shell command; `{}` is replaced by a candidate's directory, the last line of its output is the score.
        minimize: Whether smaller scores are better.
        report: Called with a line per score, of which there are two for every model but one.
        **options: See `OutputOptions`; with `dry_run` models and soups are scored and nothing is kept. `advance` counts scores.

    Raises:
        UsageError: If the command has no `{}`.
        ScoreError: If it fails or prints no number.
        WarmkitError: What `soup` raises.

    Source: Wortsman et al., 2022, "Model soups", recipe 1.
    """
    check_models(models)
    if PLACEHOLDER not in score:
        raise UsageError(f"--score needs {PLACEHOLDER} where the model directory goes, found {score!r}")
    opened = open_inputs(models, options)
    if streamed := [each.source for each in opened if each.streamed]:
        raise UsageError(f"a greedy soup scores directories on this machine, and {streamed[0]} is streamed; fetch it first")
    if len({json.dumps(each.fingerprint()) for each in opened}) < len(opened):
        raise UsageError("the same model is listed twice")
    with progress(options.get("advance"), "scoring", "candidates") as advance:

        def scored(line: str) -> None:
            report(line)
            advance(1, 2 * len(models) - 1)

        kitchen = _Kitchen(Path(output), score, minimize, scored, {**options, "advance": False})
        kitchen.check(opened)
        try:
            return kitchen.cook(opened)
        finally:
            kitchen.leave()


class _Kitchen:
    """Scores candidates, each once, in a directory beside the destination."""

    def __init__(
        self, destination: Path, score: str, minimize: bool, report: Callable[[str], None], options: OutputOptions
    ) -> None:
        absolute = destination.absolute()
        self.destination, self.score, self.minimize, self.report, self.options = destination, score, minimize, report, options
        self.staging = Staging(destination, options.get("force", False))
        self.root = absolute.parent / f".{absolute.name}.warmkit-greedy"
        self.candidate = self.root / "candidate"
        self._cache_file = self.root / "scores.json"
        self._cache = _read_scores(self._cache_file) if self._cache_file.exists() else {}
        self.scored = self.candidates = 0

    def check(self, models: Sequence[Checkpoint]) -> None:
        """Find every problem that headers show; a destination that is taken may be what a killed run of this command wrote.

        Where scores are known, a place that never is stands for it: of a candidate a kill may have left half.
        """
        place = self.root / "planned" if self._cache else self.destination
        write(_uniform(len(models)), models, None, place, {**self.options, "dry_run": True})
        with writing(self.root):
            self.root.parent.mkdir(parents=True, exist_ok=True)
            make_own_directory(self.root)

    def cook(self, models: Sequence[Checkpoint]) -> GreedySoup:
        """Choose the members and write their soup."""
        self.candidates = 2 * len(models) - 1
        singles = {model.source: self._score_single(model) for model in models}
        sign = 1 if self.minimize else -1
        ranked = sorted(models, key=lambda model: sign * singles[model.source])
        members, best = [ranked[0]], singles[ranked[0].source]
        trials = [Trial(ranked[0].source, best, True)]
        for model in ranked[1:]:
            found = self._score_soup([*members, model])
            stays = sign * found <= sign * best
            self._tell([*members, model], f"{found:.6g}, {'kept' if stays else 'left out'}")
            trials.append(Trial(model.source, found, stays))
            if stays:
                members, best = [*members, model], found
        record = {
            "score": without_assigned_secrets(self.score),
            "minimize": self.minimize,
            "scores": singles,
            "trials": [vars(trial) for trial in trials],
        }
        spec, started = replace(_uniform(len(members)), name="greedy-soup"), time.perf_counter()
        try:
            prepared = prepare(spec, members, None, self.destination, self.options)
            result = write_prepared(prepared, self.staging, self.options, started, {"greedy": record})
        except OutputError:
            if self._wrote(record):
                shutil.rmtree(self.root, ignore_errors=True)
            raise
        shutil.rmtree(self.root, ignore_errors=True)
        return GreedySoup(result, [member.source for member in members], singles, best, trials)

    def leave(self) -> None:
        """Remove the directory if no score is in it."""
        with contextlib.suppress(OSError):
            self.root.rmdir()

    def _wrote(self, record: Mapping[str, Any]) -> bool:
        """Say whether the destination is what a run of this command wrote that was killed when it had only scores to remove."""
        with contextlib.suppress(FormatError, OSError):
            return read_manifest(self.destination).get("greedy") == json.loads(json.dumps(record))
        return False

    def _score_single(self, model: Checkpoint) -> float:
        found = self._score_soup([model]) if model.adapters else self._score([model], model.path)
        self._tell([model], f"{found:.6g}")
        return found

    def _score_soup(self, members: list[Checkpoint]) -> float:
        key = self._key(members)
        if key in self._cache:
            return self._cache[key]
        shutil.rmtree(self.candidate, ignore_errors=True)
        options: OutputOptions = {
            **self.options,
            "dry_run": False,
            "resume": False,
            "container": "safetensors",  # what a score reads
            "optimizer": None,
            "sha256": False,
            "strict": False,
        }
        write(_uniform(len(members)), members, None, self.candidate, options)
        try:
            return self._score(members, self.candidate)
        finally:
            shutil.rmtree(self.candidate, ignore_errors=True)

    def _score(self, members: list[Checkpoint], folder: Path) -> float:
        key = self._key(members)
        if key not in self._cache:
            value = run_score(self.score, folder)
            for member in members:
                member.check()
            self._cache[key] = value
            write_whole(self._cache_file, json.dumps(self._cache).encode())
        return self._cache[key]

    def _tell(self, members: Sequence[Checkpoint], found: str) -> None:
        self.scored += 1
        names = " + ".join(member.source for member in members)
        self.report(f"scored {self.scored} of {self.candidates}: {names}: {found}")

    def _key(self, members: list[Checkpoint]) -> str:
        identity = [self.score, sorted(json.dumps(member.fingerprint()) for member in members)]
        return xxhash.xxh3_128_hexdigest(json.dumps(identity).encode())


def _read_scores(file: Path) -> dict[str, float]:
    cure = "delete it, and everything is scored again"
    return checked({"scores": read_record(file, {}, cure)}, {"scores": dict_of(is_number)}, file, cure)["scores"]


def _uniform(count: int) -> MergeSpec:
    return replace(merge_spec("uniform", count), name="soup", parameters={})


def run_score(command: str, folder: Path, placeholder: str = PLACEHOLDER) -> float:
    """Run a score command on one model directory and return the number on the last line that it prints.

    Args:
        command: A line for the shell.
        folder: The model's.
        placeholder: What stands for it.

    Raises:
        ScoreError: If it exits with an error, or that line is not one finite number.
    """
    place = f"./{folder}" if str(folder).startswith("-") else str(folder)
    line = with_argument(command, placeholder, place)
    done = run_shell(line, arguments=[place])
    out, err = (text.decode("utf-8", "replace").strip() for text in (done.stdout, done.stderr))
    if done.returncode:
        said = (err or out).splitlines()
        last = said[-1][:300] if said else without_assigned_secrets(line)
        raise ScoreError(f"the score command exited with {done.returncode} for {folder}: {last}")
    printed = out.splitlines()
    try:
        value = float(printed[-1])
    except (IndexError, ValueError):
        shown = repr(printed[-1][:120]) if printed else "nothing"
        raise ScoreError(f"expected a number on the last line of the score command for {folder}, found {shown}") from None
    if not math.isfinite(value):
        raise ScoreError(f"the score command printed {value} for {folder}; a score must be finite")
    return value
