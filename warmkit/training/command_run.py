"""One run of a command: any program, its log, and what it left as a plain model.

RUN/recipe.yaml, identity.yaml, origins.json, model.digests.json, summary.json  as of every run
RUN/log.txt        what the program printed, every start of it
RUN/output/        what the program left
RUN/model/         the checkpoint of it that is the member; links to the same bytes where it is a plain model already
RUN/finished.jsonl one line, when all is done
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from warmkit.common.json_files import read_object
from warmkit.common.records import is_text
from warmkit.common.shell import run_shell
from warmkit.common.units import duration, seconds_of
from warmkit.common.whole_files import write_whole, writing
from warmkit.errors import CheckpointError, MismatchError, TrainingError
from warmkit.formats.checkpoint import Checkpoint, LazyTensor
from warmkit.formats.containers import SAFETENSORS
from warmkit.layouts.companions import companion_files, copy_tokenizer
from warmkit.layouts.compatibility import align
from warmkit.layouts.opening import open_checkpoint, open_inputs
from warmkit.recipes.recipe import recipe_text
from warmkit.sources.runs import STATE, find_run, has_steps, run_checkpoints
from warmkit.sources.small_files import TOKENIZER_FILES
from warmkit.training.command_line import environment, fill
from warmkit.training.command_recipe import CommandRecipe
from warmkit.training.run import METRICS, RunDirectory
from warmkit.training.run_identity import RunIdentity
from warmkit.verbs.merge import liti

LOG, FINISHED = "log.txt", "finished.jsonl"
TOLD = 3  # lines of a log
BYTES = 1 << 16  # of its end
MODELS = ("reward", "anchor")  # placeholders that stand for checkpoints
BEST = "best_model_checkpoint"


def command_identity(recipe: CommandRecipe) -> RunIdentity:
    """Return what makes two runs the same: all but how long they may take."""
    fixed = replace(recipe, command=replace(recipe.command, limit=None))
    sources: dict[str, list[str]] = {recipe.model.path: ["model.path"]}
    for name in MODELS:
        if (value := recipe.command.values.get(name)) is not None:
            sources.setdefault(value, []).append(f"{{{name}}}")
    return RunIdentity(recipe_text(fixed), sources)


def run_command(recipe: CommandRecipe) -> dict[str, Any]:
    """Run a program until it ends, take the checkpoint that is the member, and check it; return the summary.

    Raises:
        TrainingError: If it fails, takes too long, or leaves nothing, another architecture, or the init.
        ChangedError: If the run has begun with another init.
    """
    run = RunDirectory(Path(recipe.output.path), recipe_text(recipe), identity=command_identity(recipe))
    if (summary := run.summary()) is not None:
        return summary
    began, output = time.perf_counter(), run.path / "output"
    with writing(run.path):
        output.mkdir(exist_ok=True)
    _start(recipe, run.path, output)
    taken = taken_from(output, recipe.command.take)
    _keep(taken, recipe.model.path, run.model)
    _refuse_init(recipe.model.path, run.model, taken)
    seconds = time.perf_counter() - began
    summary = {"member": str(taken.relative_to(run.path)), "seconds": seconds, "values": recipe.command.values}
    lines = _metrics(taken)
    if lines:
        write_whole(run.path / METRICS, "".join(json.dumps(each) + "\n" for each in lines).encode())
    write_whole(run.path / FINISHED, (json.dumps({"seconds": seconds}) + "\n").encode())
    return run.finish(summary)


# ---- the program ----------------------------------------------------------------------------------------------------


def _start(recipe: CommandRecipe, run: Path, output: Path) -> None:
    init = Path(recipe.model.path).expanduser()
    values = {
        "init": str(init.absolute()) if init.exists() else recipe.model.path,
        "output": str(output.absolute()),
        **recipe.command.values,
    }
    line, arguments = fill(recipe.command.run, values)
    log, limit = run / LOG, recipe.command.limit
    with writing(log), log.open("ab") as file:
        file.write(f"$ {_for_people(line, arguments)}\n".encode())
        file.flush()
        begin = file.tell()
        try:
            done = run_shell(
                line,
                arguments=arguments,
                environment={**os.environ, **environment(values)},
                log=file,
                limit=None if limit is None else seconds_of(limit),
            )
        except subprocess.TimeoutExpired as error:
            raise TrainingError(
                f"the command ran past its limit of {duration(error.timeout)} and was ended (command.limit); "
                f"{_last_words(log, begin)}"
            ) from None
    if done.returncode:
        raise TrainingError(f"the command exited with {done.returncode}; {_last_words(log, begin)}")


def _for_people(line: str, arguments: list[str]) -> str:
    """Return a line with its arguments in it, quoted."""
    for number, each in reversed(list(enumerate(arguments, 1))):
        line = line.replace(f'"${number}"' if number < 10 else f'"${{{number}}}"', f"'{each}'")
    return line


def _last_words(log: Path, begin: int) -> str:
    """Return the last lines of a log behind a place, in one."""
    with log.open("rb") as file:
        file.seek(max(begin, log.stat().st_size - BYTES))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")]
    said = [line[:200] for line in lines if line][-TOLD:]
    if not said:
        return f"it printed nothing ({log})"
    return f"the end of {log}: {' / '.join(said)}"


# ---- what it left ---------------------------------------------------------------------------------------------------


def taken_from(output: Path, take: str | int = "last") -> Path:
    """Return the checkpoint of an output that is the member.

    Raises:
        TrainingError: If there is none.
    """
    if take == "best":
        return _best(output)
    if isinstance(take, int):
        return _at_step(output, take)
    if _holds_model(output):
        return find_run([output])[-1].path
    if has_steps(output):
        return run_checkpoints(output)[-1].path
    inside = [each for each in sorted(output.iterdir()) if each.is_dir() and _holds_model(each)]
    if len(inside) == 1:
        return inside[0]
    if inside:
        names = ", ".join(each.name for each in inside)
        raise TrainingError(f"the command left several models in {output}, none with a step in its name: {names}")
    raise TrainingError(f"the command left nothing in {output} that is a checkpoint; it must write its model to {{output}}")


def _at_step(output: Path, step: int) -> Path:
    found = {each.step: each.path for each in run_checkpoints(output)} if has_steps(output) else {}
    if step not in found:
        there = f"it has {', '.join(map(str, found))}" if found else "it has none"
        raise TrainingError(f"command.take: {output} has no checkpoint of step {step}; {there}")
    return found[step]


def _holds_model(path: Path) -> bool:
    try:
        open_checkpoint(str(path), allow_pickle=True)
    except CheckpointError:
        return False
    return True


def _best(output: Path) -> Path:
    """Return the checkpoint that transformers' trainer calls the best, by the newest state that it left."""
    steps = run_checkpoints(output) if has_steps(output) else []
    homes = [output, *(each.path for each in reversed(steps))]
    state = next((home / STATE for home in homes if (home / STATE).is_file()), None)
    if state is None:
        raise TrainingError(f"command.take: best needs the {STATE} of transformers' trainer, and there is none in {output}")
    content = read_object(state)
    named = content.get(BEST)
    if not is_text(named) or not named:
        raise TrainingError(
            f"command.take: best: {state} names no {BEST}; the trainer needs metric_for_best_model, and an evaluation at "
            "every save"
        )
    best = output / Path(named).name
    if not best.is_dir():
        raise TrainingError(f"command.take: best: {state} names {best.name}, which is not in {output} (save_total_limit?)")
    return best


def _keep(taken: Path, init: str, model: Path) -> None:
    """Put what was taken at RUN/model, as a plain model in safetensors with a config and a tokenizer."""
    try:
        found, start = open_checkpoint(str(taken), allow_pickle=True), open_checkpoint(init)
        if _is_plain(found):
            partial = model.with_name(f"{model.name}.partial")
            with writing(partial):
                shutil.rmtree(partial, ignore_errors=True)
                shutil.rmtree(model, ignore_errors=True)
                _link(found, start, partial)
                partial.rename(model)
        else:
            liti(taken, model, init=init, eta=1.0, allow_pickle=True, force=model.exists())
    except (CheckpointError, MismatchError) as error:
        raise TrainingError(f"the command left another model than it was given: {_in_one_line(error)}") from None


def _is_plain(found: Checkpoint) -> bool:
    container = None if found.container is None else found.container[0]
    return bool(found.config and found.directory and not found.adapters and container == SAFETENSORS.name)


def _link(found: Checkpoint, start: Checkpoint, target: Path) -> None:
    """Link the weights, copy what lies beside them, and add the init's tokenizer where there is none."""
    home = found.directory
    assert home is not None
    target.mkdir()
    indices = [file for file in home.iterdir() if file.name.endswith(".index.json")]
    for file in (*found.files, *indices):
        assert isinstance(file, Path)
        try:
            os.link(file.resolve(), target / file.name)
        except OSError:
            shutil.copyfile(file, target / file.name)
    for name in companion_files(found):
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(home / name, target / name)
    if not any((target / name).exists() for name in TOKENIZER_FILES) and start.tokenizer_home is not None:
        copy_tokenizer(start.tokenizer_home, target)


def _refuse_init(init: str, model: Path, taken: Path) -> None:
    try:
        same = same_weights(init, str(model))
    except MismatchError as error:
        raise TrainingError(f"the command left another architecture than that of its init: {_in_one_line(error)}") from None
    if same:
        raise TrainingError(f"the command left its init unchanged in {taken}: every weight is that of {init}")


def same_weights(first: str, second: str) -> bool:
    """Say whether two checkpoints hold the same numbers, as far as the second one's types can tell.

    Raises:
        MismatchError: If they are of different architectures.
    """
    opened = open_inputs((first, second), {"allow_pickle": True})
    one, two = align(opened, vocabularies=False).entries
    return all(_equal(LazyTensor(one[name]).load(), LazyTensor(two[name]).load()) for name in reversed(list(one)))


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.equal(first.to(second.dtype), second)


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:600]


def _metrics(taken: Path) -> list[Mapping[str, Any]]:
    """Return what transformers' trainer logged, a line a step."""
    file = taken / STATE
    logged = read_object(file).get("log_history") if file.is_file() else None
    rows = [each for each in logged or () if isinstance(each, dict) and isinstance(each.get("step"), int)]
    merged = ({key: value for each in group for key, value in each.items()} for _, group in itertools.groupby(rows, _step))
    return list(merged)


def _step(row: Mapping[str, Any]) -> int:
    return row["step"]
