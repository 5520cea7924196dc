"""WARM of reward models that commands train: any program is started for every run, and what they leave is ranked and averaged.

What is left in the output directory is what `warm` leaves, beside `runs/run-1/log.txt` and `runs/run-1/output`; a probe only
where `data.train` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmkit.common.json_files import dump_json
from warmkit.common.progress import Advance
from warmkit.common.random_streams import generator
from warmkit.common.whole_files import write_whole
from warmkit.data.preferences import read_pairs
from warmkit.errors import UsageError
from warmkit.evaluation.averaging import Contest
from warmkit.evaluation.ranking_pairs import VALIDATION, halves, with_ranking
from warmkit.evaluation.side_by_side import open_contest
from warmkit.layouts.compatibility import align
from warmkit.layouts.opening import open_inputs
from warmkit.modeling.reward_model import trained_head
from warmkit.pipelines.command_runs import command_recipe, fixed, grid_of, only, run_commands
from warmkit.pipelines.executors import open_executor
from warmkit.pipelines.members import check_model
from warmkit.pipelines.processes import default_jobs
from warmkit.pipelines.scores import ScoredPool, check_evaluate
from warmkit.pipelines.warm import WarmResult, average_chosen, check_excluded, train_probe, write_final
from warmkit.recipes.recipe import recipe_text
from warmkit.training.command_line import check_template
from warmkit.training.command_recipe import CommandRecipe, CommandWarmRecipe
from warmkit.training.distributed import refuse_group
from warmkit.training.recipe_sections import DataSection, ModelSection, WarmRecipe
from warmkit.training.run import RunDirectory
from warmkit.training.run_identity import RunIdentity, run_identity
from warmkit.training.telling import Tell

PLACEHOLDERS = ("init", "output", "seed", "order", "member")


def run_warm_commands(
    recipe: CommandWarmRecipe,
    *,
    force: bool = False,
    advance: Advance | None = None,
    address: str | None = None,
    tell: Tell | None = None,
    stage: Callable[[str], None] = lambda name: None,
    look: Callable[[Contest], None] = lambda contest: None,
) -> WarmResult:
    """Run WARM with a command for every run, or go on where a killed one stopped.

    A run that is not finished is started again in the same `{output}`; whether it goes on there is the program's affair.

    Args:
        recipe: Recipe of the whole pipeline.
        force: Delete a pipeline of another recipe that lies there.
        advance: Progress callback, in runs.
        address: Of the Ray cluster of `warm.executor: ray`.
        tell: Called with a line for every run whose worker on it was lost, and about data that may be meant otherwise.
        stage: Called with the name of every part of the work as it begins.
        look: Called with the models and the data before anything is scored.

    Raises:
        ChangedError: If a finished run's model, or what it began with, was changed since.
        ClusterError: If the Ray cluster cannot be reached, or is lost.
        DataError: If a row of the data cannot be used.
        MismatchError: If two models read a text otherwise.
        TrainingError: If runs failed; the finished ones stay, and `warm.exclude` leaves the failed ones out.
        UsageError: What `check` refuses.
    """
    refuse_group("warm")
    check(recipe)
    run_jobs, out = open_executor(recipe.warm.executor, address, tell), Path(recipe.output.path)
    directory = RunDirectory(out, recipe_text(recipe), force, _identity(recipe))
    probe = None
    if recipe.data.train is not None:
        stage("probing")
        probe = str(train_probe(_probing(recipe), out, tell))
    runs = only(run_recipes(recipe, out), recipe.warm.exclude)
    stage("running the commands")
    most = min(recipe.warm.jobs or default_jobs(recipe.command.gpus), recipe.warm.runs)
    models = run_commands(recipe.command, runs, run_jobs, most, "warm.exclude", advance)
    stage("averaging")
    differ = {name: _differ(each, recipe) for name, each in runs.items()}

    def recheck() -> None:
        for each in models.values():
            check_model(Path(each))

    if recipe.command.evaluate is not None:
        pool = ScoredPool(models, recipe.command.evaluate, out)
        return _average_scored(pool, recipe, differ, out, recheck, directory.notes)
    contest = _open(recipe, models, probe)
    contest.cache = out / "evaluation"
    look(contest)
    result = average_chosen(contest, recipe.warm, differ, out, recheck, directory.notes, recipe.warm.exclude)
    del directory  # its lock
    return result


def check(recipe: CommandWarmRecipe) -> tuple[int, int] | None:
    """Refuse what could only fail later; return how many validation pairs rank the runs, and how many say what they are worth.

    Where a command evaluates them there is nothing to return.

    Raises:
        DataError: If a row of the validation set cannot be used, or they are too few to divide.
        MismatchError: If inits do not fit each other.
        UsageError: If a placeholder is unknown, there is no head that the runs could share, or names to leave out are none of
            theirs or leave too few.
    """
    check_template(recipe.command.run, [*PLACEHOLDERS, *recipe.command.grid])
    check_evaluate(recipe.command.evaluate)
    _check_ranking(recipe)
    if recipe.output.trackers:
        raise UsageError("output.trackers: follow our own trainings; the command's own tracker follows a command")
    check_excluded(recipe.warm)
    if len(inits := recipe.warm.inits or [recipe.model.path]) > 1:
        align(open_inputs(inits, {}))
    if recipe.data.train is not None and recipe.warm.inits is not None:
        raise UsageError("data.train: the shared head is trained on model.path; leave warm.inits out, or give them with a head")
    if recipe.data.validation is None:
        return None
    if recipe.data.train is None and (bare := next((each for each in inits if trained_head(each) is None), None)) is not None:
        raise UsageError(
            f"model.path: {bare} has no reward head, so that every run would draw its own; give data.train, and the head that "
            "they share is trained first"
        )
    ranking, rest = halves(read_pairs(recipe.data.validation, chat=recipe.data.chat, equal_pairs=recipe.data.equal_pairs))
    return len(ranking), len(rest)


def _check_ranking(recipe: CommandWarmRecipe) -> None:
    """Refuse runs that nothing ranks, or two things."""
    scored, pairs = recipe.command.evaluate is not None, recipe.data.validation is not None
    if scored == pairs:
        found = "both" if scored else "neither"
        raise UsageError(f"expected data.validation or command.evaluate to rank the runs, found {found}")
    if scored and recipe.data.ood is not None:
        raise UsageError(
            "data.ood: is scored beside data.validation, and command.evaluate scores by itself; leave one of them out"
        )
    if scored and recipe.warm.final == "connected":
        raise UsageError("warm.final: connected needs data.validation: one number a model has no interval")


def run_recipes(recipe: CommandWarmRecipe, out: Path) -> dict[str, CommandRecipe]:
    """Return the recipe of every run: the grid of arguments and inits in a drawn order."""
    warm, command = recipe.warm, recipe.command
    start = recipe.model.path if recipe.data.train is None else str(out / "probe" / "model")
    grid = [(init, values) for init in warm.inits or [start] for values in grid_of(command)]
    order = generator("grid order", warm.seed).permutation(len(grid))
    runs: dict[str, CommandRecipe] = {}
    for number in range(warm.runs):
        init, values = grid[order[number % len(grid)]]
        name = f"run-{number + 1}"
        runs[name] = command_recipe(command, number, number + 1, init, out / "runs" / name, values)
    return runs


def _differ(run: CommandRecipe, recipe: CommandWarmRecipe) -> dict[str, Any]:
    shown = ["seed", *recipe.command.grid]
    return {**{name: run.command.values[name] for name in shown}, "init": run.model.path}


def _average_scored(
    pool: ScoredPool,
    recipe: CommandWarmRecipe,
    differ: Mapping[str, Mapping[str, Any]],
    out: Path,
    recheck: Callable[[], object],
    notes: Sequence[str],
) -> WarmResult:
    """Choose by the scores of a command, and write the average."""
    found = pool.choose(recipe.warm)
    ranked, members = found["ranked"], found["members"]
    write_final(out, [pool.models[name] for name in members])
    left_out = [name for name in ranked if name not in members]
    final = {
        "choice": recipe.warm.final,
        "members": members,
        "left_out": left_out,
        "method": "uniform",
        "score": found["score"],
    }
    summary = {
        "runs": [{"name": name, **differ[name]} for name in ranked],
        "excluded": recipe.warm.exclude,
        "scores": {"command": pool.line, "individuals": found["individuals"], "tried": found["tried"]},
        "final": final,
        "notes": [*notes],
    }
    recheck()
    write_whole(out / "summary.json", dump_json(summary))
    return WarmResult(out / "model", summary)


def _open(recipe: CommandWarmRecipe, models: dict[str, str], probe: str | None) -> Contest:
    data = recipe.data
    assert data.validation is not None
    sources = {VALIDATION: data.validation, **({} if data.ood is None else {"ood": data.ood})}
    how: dict[str, Any] = {"max_length": recipe.model.max_length, "chat": data.chat, "equal_pairs": data.equal_pairs}
    contest = open_contest(list(models.values()), sources, probe=probe, **how)
    contest.data = with_ranking(contest.data)
    return contest


def _probing(recipe: CommandWarmRecipe) -> WarmRecipe:
    """Return the recipe of the shared head."""
    model, data = recipe.model, recipe.data
    assert data.train is not None
    return WarmRecipe(
        ModelSection(model.path, max_length=model.max_length, pad_token=model.pad_token),
        DataSection(data.train, chat=data.chat, equal_pairs=data.equal_pairs),
        recipe.output,
        probe=recipe.probe,
    )


def _identity(recipe: CommandWarmRecipe) -> RunIdentity:
    """Return what makes two pipelines the same: what is started, from what. How models are chosen may change."""
    warm = replace(recipe.warm, runs=2, jobs=None, executor="processes", exclude=[], orders=0, final="all", m=None)
    return run_identity(replace(recipe, warm=warm, command=fixed(recipe.command)))
