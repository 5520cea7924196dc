"""WARP of policies that commands train: any program is started for every run; merges, next inits and fronts are `warp`'s."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmkit.common.progress import Advance
from warmkit.errors import UsageError
from warmkit.evaluation.policies import EvaluationSettings
from warmkit.pipelines.command_runs import command_recipe, fixed, grid_of, only, run_commands
from warmkit.pipelines.executors import open_executor
from warmkit.pipelines.policy_runs import run_home, run_name
from warmkit.pipelines.processes import RunJobs, default_jobs
from warmkit.pipelines.scores import check_evaluate, take_score
from warmkit.pipelines.steps import Steps
from warmkit.pipelines.warp import Warp, WarpResult, check_merges
from warmkit.training.command_line import check_template
from warmkit.training.command_recipe import CommandRecipe, CommandWarpRecipe
from warmkit.training.distributed import refuse_group
from warmkit.training.run_identity import RunIdentity, run_identity
from warmkit.training.telling import Tell

PLACEHOLDERS = ("init", "output", "seed", "order", "member", "iteration", "anchor")


def run_warp_commands(
    recipe: CommandWarpRecipe,
    *,
    force: bool = False,
    advance: Advance | None = None,
    address: str | None = None,
    tell: Tell | None = None,
    stage: Callable[[str], None] = lambda name: None,
) -> WarpResult:
    """Run WARP with a command for every run, or go on where a killed one stopped.

    A run that is not finished is started again in the same `{output}`; whether it goes on there is the program's affair.

    Args:
        recipe: Recipe of the whole pipeline.
        force: Delete a pipeline of another recipe that lies there.
        advance: Progress callback, in runs.
        address: Of the Ray cluster of `warp.executor: ray`.
        tell: Called with a line for every run whose worker on it was lost.
        stage: Called with the name of every part of the work as it begins.

    Raises:
        ChangedError: If a finished policy or merge, or what a run began with, was changed since.
        ClusterError: If the Ray cluster cannot be reached, or is lost.
        DataError: If a prompt cannot be used.
        MismatchError: If finished policies do not fit the init.
        TrainingError: If runs failed; the finished ones stay, and `warp.exclude` leaves the failed ones out.
        UsageError: If keys of the recipe do not go together, or a placeholder is unknown.
    """
    refuse_group("warp")
    check(recipe)
    runs = _CommandRuns(recipe, open_executor(recipe.warp.executor, address, tell), advance or (lambda done, total: None))
    return Warp(recipe, runs, _identity(recipe), force, stage).run()


def check(recipe: CommandWarpRecipe) -> None:
    """Refuse what could only fail later.

    Raises:
        UsageError: If a placeholder is unknown, or keys do not go together.
        MismatchError: If finished policies do not fit the init.
    """
    known = [*PLACEHOLDERS, *(["reward"] if _reward(recipe) else []), *recipe.command.grid]
    check_template(recipe.command.run, known)
    check_evaluate(recipe.command.evaluate)
    if recipe.output.trackers:
        raise UsageError("output.trackers: follow our own trainings; the command's own tracker follows a command")
    evaluated = recipe.warp if _evaluates(recipe) else replace(recipe.warp, etas=[], grid=None)
    check_merges(evaluated, recipe.model.path, recipe.data.validation)


def run_recipes(recipe: CommandWarpRecipe, iteration: int, init: str) -> dict[str, CommandRecipe]:
    """Return the recipes of one iteration's runs by name; the grid is gone through in its order.

    Args:
        recipe: Recipe of the whole pipeline.
        iteration: Counted from 1.
        init: What the runs start from.
    """
    warp, command, grid = recipe.warp, recipe.command, grid_of(recipe.command)
    given = {"iteration": iteration, "anchor": init if command.anchor == "init" else recipe.model.sft or recipe.model.path}
    if (reward := _reward(recipe)) is not None:
        given["reward"] = reward
    runs: dict[str, CommandRecipe] = {}
    for m in range(warp.runs):
        name, more = run_name(iteration, m), {**given, **grid[m % len(grid)]}
        home = run_home(Path(recipe.output.path), name)
        runs[name] = command_recipe(command, (iteration - 1) * warp.runs + m, m + 1, init, home, more)
    return runs


class _CommandRuns:
    """Policies that a program trains."""

    def __init__(self, recipe: CommandWarpRecipe, run_jobs: RunJobs, advance: Advance) -> None:
        self.recipe, self.warp, self.run_jobs, self.advance = recipe, recipe.warp, run_jobs, advance
        self.evaluates = _evaluates(recipe)

    def train(self, iteration: int, init: str) -> dict[str, str]:
        runs = only(run_recipes(self.recipe, iteration, init), self.warp.exclude)
        total = self.warp.iterations * self.warp.runs
        most = min(self.warp.jobs or default_jobs(self.recipe.command.gpus), self.warp.runs)
        return run_commands(
            self.recipe.command, runs, self.run_jobs, most, "warp.exclude", lambda done, _: self.advance(done, total)
        )

    def scores(self, models: Mapping[str, str], steps: Steps) -> dict[str, float] | None:
        if (line := self.recipe.command.evaluate) is None:
            return None
        return {name: take_score(steps, f"score-{name.replace('/', '-')}", line, Path(path)) for name, path in models.items()}

    def settings(self) -> EvaluationSettings:
        recipe, model, how = self.recipe, self.recipe.model, self.recipe.sampling
        return EvaluationSettings(
            prompts=str(recipe.data.validation),
            chat=recipe.data.chat,
            rewards=recipe.rewards,
            controls=recipe.controls,
            sft=model.sft or model.path,
            samples=self.warp.samples,
            max_length=model.max_length,
            overlong=model.overlong,
            pad_token=model.pad_token,
            **vars(how),
        )


def _evaluates(recipe: CommandWarpRecipe) -> bool:
    return bool(recipe.rewards) and recipe.data.validation is not None


def _reward(recipe: CommandWarpRecipe) -> str | None:
    """Return what `{reward}` stands for: the first reward model."""
    return next((term.model for term in recipe.rewards if isinstance(term.model, str)), None)


def _identity(recipe: CommandWarpRecipe) -> RunIdentity:
    """Return what makes two pipelines the same, without the keys that change what is looked at or how far it goes."""
    warp = replace(recipe.warp, iterations=1, final_eta=1.0, etas=[], grid=None, samples=1, jobs=None, exclude=[])
    warp = replace(warp, executor="processes")
    kept: dict[str, Any] = {"controls": [], "warp": warp, "command": fixed(recipe.command)}
    return run_identity(replace(recipe, **kept))
