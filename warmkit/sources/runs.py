"""Training runs: the checkpoints of a directory, by the steps in their names and in what the trainer recorded."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from warmkit.common.addresses import shown
from warmkit.common.json_files import read_object
from warmkit.errors import CheckpointError, FormatError, UsageError, listed

_STEP = re.compile(
    r"(?:epoch[=_-]\d+[_-])?"
    r"(?P<kind>checkpoint|ckpt|global_?step|step|iter|iteration|epoch)[=_-]?(?P<step>\d+)"
    r"(?:[_-](?:hf|unsharded))?(?P<ending>\.safetensors|\.ckpt|\.pt|\.pth|\.bin)?",
    re.IGNORECASE,
)
STATE = "trainer_state.json"
TRACKER = "latest_checkpointed_iteration.txt"
NAMES = "checkpoint-500, step_1000, global_step_40, iter_0000100"


@dataclass(frozen=True)
class RunCheckpoint:
    """Checkpoint of a run.

    Attributes:
        path: Its directory or file.
        step: Steps of training before it; None where nothing says so.
        tokens: Tokens of training before it, where the trainer recorded them.
        epochs: Whether the step is a number of epochs, as in `epoch_2`, since nothing says how many steps that is.
    """

    path: Path
    step: int | None
    tokens: int | None = None
    epochs: bool = False


def step_of(name: str) -> int | None:
    """Return the step in the name of a checkpoint; None if there is none.

    Examples:
        >>> [step_of(name) for name in ("checkpoint-500", "global_step_40", "iter_0000100", "epoch=3-step=1000.ckpt", "final")]
        [500, 40, 100, 1000, None]
    """
    match = _STEP.fullmatch(name)
    return int(match["step"]) if match else None


def last_saved(run: Path) -> Path | None:
    """Return the folder of the newest step of a run, as Megatron's file in it says; None where there is no such file.

    Raises:
        FormatError: If the file says something else, or a step that is not there.
    """
    tracker = run / TRACKER
    if not tracker.is_file():
        return None
    step = tracker.read_bytes()[:20].decode("ascii", "replace").strip()
    if step != "release" and not (step.isascii() and step.isdecimal()):
        raise FormatError(f"{tracker}: expected a number of steps, found {step!r}")
    home = run / (step if step == "release" else f"iter_{int(step):07d}")
    if not home.is_dir():
        raise FormatError(f"{tracker}: names step {step}, and {home.name} is not there; give a step that is")
    return home


def counts_epochs(name: str) -> bool:
    """Say whether the number in a checkpoint's name counts epochs.

    Examples:
        >>> [counts_epochs(name) for name in ("epoch_2", "epoch=3-step=1000.ckpt", "checkpoint-500")]
        [True, False, False]
    """
    match = _STEP.fullmatch(name)
    return match is not None and match["kind"].lower() == "epoch"


def run_checkpoints(run: Path) -> list[RunCheckpoint]:
    """Return the checkpoints of a training directory, the oldest first.

    Raises:
        CheckpointError: If there are none, two of one step, or names that count different things.
    """
    found = _children(run)
    if not found:
        raise CheckpointError(f"{shown(run)}: expected checkpoints with steps in their names ({NAMES}), found none")
    kinds: dict[str, Path] = {}
    steps: dict[int, Path] = {}
    for match, child in found:
        kinds.setdefault(re.sub("_", "", match["kind"].lower()), child)
        if (other := steps.setdefault(int(match["step"]), child)) != child:
            raise CheckpointError(
                f"{shown(run)}: {other.name} and {child.name} are both of step {int(match['step'])}; give the checkpoints one "
                "by one, or as a pattern that one of the two fits"
            )
    if len(kinds) > 1:
        first, second, *_ = kinds.values()
        pattern = re.sub(r"\d+", "*", first.name)
        raise CheckpointError(
            f"{shown(run)}: {first.name} and {second.name} count different things; give the checkpoints one by one, or as a "
            f"pattern: '{shown(run)}/{pattern}'"
        )
    return [recorded(steps[step]) for step in sorted(steps)]


def has_steps(run: Path) -> bool:
    """Say whether there are checkpoints with steps in their names in a directory.

    Raises:
        CheckpointError: If it cannot be read.
    """
    return bool(_children(run))


def _children(run: Path) -> list[tuple[re.Match[str], Path]]:
    """Return what lies in a directory under a name with a step."""
    try:
        return [(match, child) for child in sorted(run.iterdir()) if (match := _STEP.fullmatch(child.name)) and _holds(child)]
    except OSError as error:
        raise CheckpointError(f"{shown(run)}: cannot be read: {error.strerror}") from None


def _holds(child: Path) -> bool:
    return child.is_dir() or child.suffix.lower() in (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def recorded(path: Path) -> RunCheckpoint:
    """Return a checkpoint with its step and tokens, by its name and by what the trainer recorded.

    Raises:
        CheckpointError: If the two disagree.
    """
    step, epochs = step_of(path.name), counts_epochs(path.name)
    if not (path / STATE).is_file():
        return RunCheckpoint(path, step, epochs=epochs)
    state = read_object(path / STATE)
    known, tokens = state.get("global_step"), state.get("num_input_tokens_seen")
    known = known if isinstance(known, int) and not isinstance(known, bool) else None
    if step is not None and known is not None and step != known and not epochs:
        raise CheckpointError(f"{shown(path)}: its name says step {step}, its {STATE} step {known}; which is right?")
    counted = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0
    return RunCheckpoint(path, step if known is None else known, tokens if counted else None, epochs and known is None)


def find_run(given: Sequence[str | os.PathLike[str]]) -> list[RunCheckpoint]:
    """Return the checkpoints that a user names: one training directory, one pattern, or several checkpoints.

    A pattern's matches and several checkpoints stand in the order of their steps, where all have one; else in the order given.

    Raises:
        CheckpointError: If there are none.
    """
    if len(given) == 1:
        one = Path(given[0]).expanduser()
        if one.is_dir() and not _is_checkpoint(one, _children(one)):
            return run_checkpoints(one)
        if not one.exists() and any(sign in str(one) for sign in "*?["):
            matches = sorted(Path(one.anchor or ".").glob(str(one.relative_to(one.anchor) if one.anchor else one)))
            if not matches:
                raise CheckpointError(f"{shown(given[0])}: no such checkpoints")
            return _ordered([recorded(match) for match in matches])
    return _ordered([recorded(Path(each).expanduser()) for each in given])


def _ordered(found: list[RunCheckpoint]) -> list[RunCheckpoint]:
    steps = [each.step for each in found]
    if any(step is None for step in steps):
        return found
    ordered = sorted(found, key=lambda each: each.step or 0)
    for one, two in itertools.pairwise(ordered):
        if one.step == two.step:
            raise CheckpointError(f"{shown(one.path)} and {shown(two.path)} are both of step {one.step}")
    return ordered


def _is_checkpoint(path: Path, inside: Sequence[object]) -> bool:
    """Say whether a directory is a model and no run: trainers write the last model of a run beside its checkpoints, and
    DeepSpeed's parts, which have a step too, inside of a checkpoint.
    """
    holds = any((path / name).exists() for name in ("config.json", "adapter_config.json", "model.safetensors"))
    return holds and (not inside or step_of(path.name) is not None)


def window(
    found: Sequence[RunCheckpoint],
    last: int | None = None,
    every: int = 1,
    first_step: int | None = None,
    last_step: int | None = None,
    tokens: int | None = None,
) -> list[RunCheckpoint]:
    """Choose the checkpoints of a run that are averaged.

    Args:
        found: All, the oldest first.
        last: How many, counted from the newest.
        every: Every how many-th, counted from the newest; before `last`.
        first_step: Smallest step.
        last_step: Largest step.
        tokens: Only those of the last so many tokens of training.

    Raises:
        UsageError: If there are fewer than asked, or steps or tokens are not known.
    """
    kept = list(found)
    if (first_step is not None or last_step is not None) and (without := [each for each in kept if each.step is None]):
        raise UsageError(f"--from and --to need steps; {shown(without[0].path)} has none in its name ({NAMES})")
    kept = [each for each in kept if first_step is None or (each.step or 0) >= first_step]
    kept = [each for each in kept if last_step is None or (each.step or 0) <= last_step]
    if tokens is not None and kept:
        kept = _of_last_tokens(kept, tokens)
    kept = kept[::-1][::every][::-1]
    if not kept:
        raise UsageError(f"no checkpoint is in the window; there are:\n{listed([shown(each.path) for each in found])}")
    if last is not None and len(kept) < last:
        raise UsageError(f"--last {last}: only {len(kept)} are in the window:\n{listed([shown(each.path) for each in kept])}")
    return kept if last is None else kept[len(kept) - last :]


def _of_last_tokens(found: Sequence[RunCheckpoint], tokens: int) -> list[RunCheckpoint]:
    unknown = next((each for each in found if each.tokens is None), None)
    if unknown is not None:
        raise UsageError(
            f"--tokens needs what the trainer counted; {shown(unknown.path)} has no num_input_tokens_seen in a {STATE} "
            "(transformers writes it with include_num_input_tokens_seen); use --last, or --from"
        )
    end = found[-1].tokens or 0
    return [each for each in found if (each.tokens or 0) > end - tokens]


def at_step(source: str) -> str:
    """Return the path of `RUN@STEP`, or of `RUN@-1`, the newest; anything else as it is.

    RUN is a directory here; where there is none, the word is left to the Hub, whose revisions are written alike.

    Raises:
        CheckpointError: If the run has no such step, or a path is also called that.
    """
    match = re.fullmatch(r"(?P<run>[^@]+)@(?P<step>-?\d+)", source)
    if match is None or "://" in source:
        return source
    run, number = Path(match["run"]).expanduser(), int(match["step"])
    itself = Path(source).expanduser().exists()
    if not run.is_dir() or (itself and not _children(run)):
        return source
    found = run_checkpoints(run)
    by_step = {each.step: each.path for each in found}
    newest = {place - len(found): each.path for place, each in enumerate(found)}
    chosen = (newest if number < 0 else by_step).get(number)
    if chosen is not None and itself:
        raise CheckpointError(f"{source}: is a path, and also names {shown(chosen)}; write that, or {source}/ for the path")
    if chosen is None and not itself:
        near = sorted(found, key=lambda each: abs((each.step or 0) - number) if number >= 0 else 0)
        raise CheckpointError(
            f"{source}: {shown(run)} has no such checkpoint; it has:\n{listed([shown(each.path) for each in near])}"
        )
    return source if chosen is None else str(chosen)
