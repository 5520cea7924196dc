"""`warmkit warm`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli.command import command
from warmkit.cli.command_values import command_rows
from warmkit.cli.console import Console, table
from warmkit.cli.evaluate import average_rows, share, tell_reading, worse
from warmkit.cli.executor import Executor
from warmkit.cli.train import RecipeRun, tell_slow_precision
from warmkit.common.units import number

if TYPE_CHECKING:
    from warmkit.pipelines.warm import WarmResult
    from warmkit.training.command_recipe import CommandWarmRecipe
    from warmkit.training.recipe_sections import MembersRecipe, WarmRecipe

PROBE = "probe only"


@command(resumes=True, needs_transformers=True)
def warm(console: Console, run: RecipeRun, place: Executor) -> None:
    """Run WARM: probe a head, fine-tune several reward models, rank them, average the weights of the best, write one model.

    Half of the validation pairs rank the runs and choose; the other half say what the average is worth. Every two runs are also
    averaged, and a run that most averages are worse with is named; `--set warm.final=connected` leaves it out. Accuracies are
    shares from 0 to 1.

    Reward models that are trained already, by TRL for instance, are ranked and averaged in the same way: list them as
    `warm.members`, with `data.validation` and `output.path`; nothing is trained then. With `command:` in place of `rm:` any
    program trains the runs.

    A killed pipeline goes on where it was when the same command is given again; finished runs are not repeated. A run
    that failed can be left out with `--set 'warm.exclude=[run-3]'`.

    Examples:

    - `warmkit warm recipes/warm-docstrings.yaml`
    - `warmkit warm recipe.yaml --set warm.runs=10 --set data.corrupt=0.25`
    - `warmkit warm recipe.yaml --executor ray --address 10.0.0.1:6379`
    """
    from warmkit.training.command_recipe import CommandWarmRecipe
    from warmkit.training.recipe_sections import MembersRecipe, WarmRecipe

    instead: dict[str, type[WarmRecipe | MembersRecipe | CommandWarmRecipe]] = {
        "warm.members": MembersRecipe,
        "command": CommandWarmRecipe,
    }
    content = run.read(WarmRecipe, place.overrides("warm"), instead)
    if isinstance(content, MembersRecipe):
        _pool(console, content, run)
        return
    if isinstance(content, CommandWarmRecipe):
        _commands(console, content, run, place)
        return
    if run.dry_run:
        _plan(console, content)
        return
    from warmkit.pipelines.warm import run_warm

    tell_slow_precision(console, content.rm.precision)
    with console.progress("fine-tuning", unit="steps") as advance:
        result = run_warm(
            content, force=run.force, advance=advance, address=place.address, tell=console.note, stage=console.stage
        )
    _tell(console, result)


def _plan(console: Console, content: WarmRecipe) -> None:
    """Show every run before anything is trained."""
    from warmkit.modeling.reward_model import load_reward_model
    from warmkit.pipelines.warm import check, run_recipes
    from warmkit.recipes.recipe import plain, recipe_text
    from warmkit.training.reward_modeling import training_pairs

    ranking, rest = check(content)
    steps = content.rm.steps_for(len(training_pairs(content.data)))
    parameters = sum(each.numel() for each in load_reward_model(content.model.path).model.parameters())
    runs = run_recipes(content, Path(content.output.path))
    rows = [[name, f"{each.rm.lr:g}", _text(each.rm.dropout), each.model.path] for name, each in runs.items()]
    sizes = {"parameters": parameters, "steps": steps, "ranking": ranking, "validation": rest}
    document = {"recipe": plain(content), **sizes, "runs": {name: plain(each) for name, each in runs.items()}}
    what = f"{number(parameters)} parameters, {steps} steps a run; {ranking} pairs rank the runs, {rest} others validate"
    console.result(document, recipe_text(content), table("Runs", ["run", "lr", "dropout", "init"], rows), what)


def _pool(console: Console, recipe: MembersRecipe, run: RecipeRun) -> None:
    """Average reward models that are trained already."""
    from warmkit.pipelines.warm_members import average_members, open_members
    from warmkit.recipes.recipe import plain, recipe_text

    if run.dry_run:
        contest = open_members(recipe)
        tell_reading(console, contest)
        ranking, rest = (len(contest.data[name]) for name in ("ranking", "validation"))
        what = f"{len(contest.members)} models; {ranking} pairs rank them, {rest} others validate"
        models = {name: str(path) for name, path in contest.members.items()}
        document = {"recipe": plain(recipe), "models": models, "ranking": ranking, "validation": rest}
        console.result(document, recipe_text(recipe), what)
        return
    _tell(
        console,
        average_members(recipe, force=run.force, stage=console.stage, look=lambda contest: tell_reading(console, contest)),
    )


def _commands(console: Console, recipe: CommandWarmRecipe, run: RecipeRun, place: Executor) -> None:
    """Average reward models that commands train."""
    from warmkit.pipelines.warm_commands import check, run_recipes, run_warm_commands
    from warmkit.recipes.recipe import plain, recipe_text

    if run.dry_run:
        pairs = check(recipe)
        runs = run_recipes(recipe, Path(recipe.output.path))
        document = {"recipe": plain(recipe), "runs": {name: plain(each) for name, each in runs.items()}}
        what = f"{len(runs)} runs; "
        if pairs is None:
            what += "command.evaluate ranks them"
        else:
            document |= {"ranking": pairs[0], "validation": pairs[1]}
            what += f"{pairs[0]} pairs rank them, {pairs[1]} others validate"
        console.result(document, recipe_text(recipe), command_rows(runs), what)
        return
    with console.progress("running the commands", unit="runs") as advance:
        result = run_warm_commands(
            recipe,
            force=run.force,
            advance=advance,
            address=place.address,
            tell=console.note,
            stage=console.stage,
            look=lambda contest: tell_reading(console, contest),
        )
    _tell(console, result)


def _tell(console: Console, result: WarmResult) -> None:
    console.note(*result.summary["notes"])
    console.result({"path": str(result.path), **result.summary}, *_tables(result.summary), str(result.path))


def _text(value: Any) -> str:
    if value is None:
        return "the model's"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _scored(summary: dict[str, Any]) -> list[Any]:
    """Return the tables of runs that a command scored."""
    told = [key for key in summary["runs"][0] if key != "name"]
    scores, final = summary["scores"], summary["final"]
    runs = [
        [each["name"], *(_text(each[key]) for key in told), f"{scores['individuals'][each['name']]:.6g}"]
        for each in summary["runs"]
    ]
    tried = [[", ".join(each["members"]), f"{each['score']:.6g}"] for each in scores["tried"]]
    return [
        table("Runs, best first", ["run", *told, "score"], runs),
        *([table("Averages", ["members", "score"], tried)] if tried else []),
        f"Final model ({final['choice']}): {', '.join(final['members'])}; score {final['score']:.6g}",
    ]


def _tables(summary: dict[str, Any]) -> list[Any]:
    if "scores" in summary:
        return _scored(summary)
    names, data = list(dict.fromkeys(row["data"] for row in summary["accuracy"])), summary["data"]
    others = ("ens", "individual", "probe")
    rows = average_rows(summary["accuracy"], names, lambda row: [share(row[key]) for key in others if row[key] is not None])
    pool = "model" in summary["runs"][0]  # nothing was trained
    told = [key for key in summary["runs"][0] if key != "name"]
    columns = ["model", "path"] if pool else ["run", *told]
    probe = ["probe only"] if PROBE in summary["individuals"] else []
    runs = [
        [each["name"], *(_text(each[key]) for key in told)]
        + [share(summary["individuals"][each["name"]][name]["accuracy"]) for name in names]
        + [worse(summary["partners"], each["name"])]
        for each in summary["runs"]
    ]
    final, greedy = summary["final"], summary["greedy"]
    looked = [
        [name, f"{final[name]['calibration_error']:.3f}", f"{final[name]['length_correlation']:+.2f}", str(final[name]["tied"])]
        for name in names
    ]
    ranking, rest = (data[name]["pairs"] for name in ("ranking", "validation"))
    split = f"{ranking} pairs rank and choose, and are flattered by it; validation is {rest} others"
    worth = "{accuracy:.3f} ({low:.3f} to {high:.3f})".format(**final["validation"])
    return [
        table(f"{'Models' if pool else 'Runs'}, best first; {split}", [*columns, *names, "worse averaged with"], runs),
        table("Accuracy", ["data", "M", "WA of M best", "95%", "ENS", "number M alone", *probe], rows),
        table(
            f"Final model ({final['choice']}): {', '.join(final['members'])}",
            ["data", "calibration error", "corr. with length", "ties"],
            looked,
        ),
        f"Final model: accuracy {worth} on validation",
        f"Greedy soup: {', '.join(greedy['members'])}, accuracy {greedy['validation']:.3f}",
    ]
