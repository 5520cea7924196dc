"""Runs by command of a pipeline: what each is given, started side by side, and what they left, which must differ."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmkit.common.progress import Advance
from warmkit.common.random_streams import run_seed
from warmkit.common.whole_files import write_whole
from warmkit.errors import TrainingError
from warmkit.pipelines.members import check_model, is_left
from warmkit.pipelines.processes import Job, RunJobs, check_all_finished
from warmkit.recipes.recipe import recipe_text
from warmkit.training.command_recipe import CommandRecipe, CommandSection, OneCommand, StartSection
from warmkit.training.command_run import FINISHED, command_identity, same_weights
from warmkit.training.recipe_sections import RunOutput


def grid_of(command: CommandSection) -> list[dict[str, Any]]:
    """Return every choice of arguments, the last one changing first."""
    return [dict(zip(command.grid, values)) for values in itertools.product(*command.grid.values())]


def command_recipe(
    command: CommandSection, number: int, member: int, init: str, output: Path, more: Mapping[str, Any]
) -> CommandRecipe:
    """Return the recipe of one run.

    Args:
        command: Of the pipeline.
        number: Of the run among all of the pipeline, from 0.
        member: Of the run among those that are averaged, from 1.
        init: What it starts from.
        output: Its directory.
        more: What else its placeholders stand for.
    """
    seeds = {"seed": run_seed(command.seed, number), "order": run_seed(command.order, number)}
    values = {**seeds, "member": member, **more}
    one = OneCommand(command.run, values, command.take, command.limit)
    return CommandRecipe(StartSection(init), one, RunOutput(str(output)))


def run_commands(
    command: CommandSection,
    runs: Mapping[str, CommandRecipe],
    run_jobs: RunJobs,
    most: int,
    exclude: str,
    advance: Advance | None = None,
) -> dict[str, str]:
    """Start what is not finished; return what every run left.

    Args:
        command: Of the pipeline.
        runs: By name.
        run_jobs: Of an executor.
        most: Runs at the same time.
        exclude: Key of the recipe that leaves runs out.
        advance: Progress callback, in runs.

    Raises:
        ChangedError: If a finished run, or what it began with, was changed since.
        TrainingError: If runs failed, or two left the same weights; the others stay.
    """
    jobs = [job for name, each in runs.items() if (job := _job(name, each, command)) is not None]
    if jobs:
        check_all_finished(run_jobs(jobs, most, 1, advance), len(runs), exclude)
    models = {name: Path(each.output.path) / "model" for name, each in runs.items()}
    for each in models.values():
        check_model(each)
    _refuse_twins(models, exclude)
    return {name: str(path) for name, path in models.items()}


def _job(name: str, run: CommandRecipe, command: CommandSection) -> Job | None:
    """Write the recipe of a run; return its job, or None if it is done."""
    directory = Path(run.output.path)
    if is_left(directory, lambda: command_identity(run)):
        return None
    file = directory.with_name(f"{directory.name}.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, recipe_text(run).encode())
    return Job(name, ["command", str(file)], directory / FINISHED, command.cpus, command.gpus)


def _refuse_twins(models: Mapping[str, Path], exclude: str) -> None:
    """Refuse two members with the same weights: their average would count one run twice."""
    for (one, first), (two, second) in itertools.combinations(models.items(), 2):
        if same_weights(str(first), str(second)):
            raise TrainingError(
                f"{one} and {two} left the same weights: does the command use {{seed}}, {{order}} or an argument of the grid? "
                f"Mend it and delete {second.parent}, or leave it out with --set '{exclude}=[{two}]'"
            )


def only(runs: Mapping[str, CommandRecipe], excluded: Sequence[str]) -> dict[str, CommandRecipe]:
    """Return the runs that are not left out."""
    return {name: each for name, each in runs.items() if name not in excluded}


def fixed(command: CommandSection) -> CommandSection:
    """Return the section without what says nothing of the weights."""
    return replace(command, limit=None, evaluate=None, cpus=None, gpus=None)
