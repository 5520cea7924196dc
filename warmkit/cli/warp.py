"""`warmkit warp`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warmkit.cli.command import command
from warmkit.cli.command_values import command_rows
from warmkit.cli.console import Console, interval, table
from warmkit.cli.executor import Executor
from warmkit.cli.train import RecipeRun, tell_slow_precision
from warmkit.common.units import number

if TYPE_CHECKING:
    from warmkit.pipelines.warp import WarpResult
    from warmkit.training.command_recipe import CommandWarpRecipe


@command(resumes=True, needs_transformers=True)
def warp(console: Console, run: RecipeRun, place: Executor) -> None:
    """Run WARP: train several policies, merge them by SLERP, interpolate towards their init, and start again from there.

    A killed pipeline goes on where it was when the same command is given again; finished runs are not repeated. More
    iterations can be added to a finished pipeline with `--set warp.iterations=3`, and a run that failed left out with
    `--set 'warp.exclude=[iteration-1/run-2]'`. With `command:` in place of `policy:` any program trains the policies.

    Examples:

    - `warmkit warp recipes/warp.yaml`
    - `warmkit warp recipe.yaml --set warp.iterations=3 --set warp.eta=0.5`
    - `warmkit warp recipe.yaml --executor ray`
    - `warmkit warp recipe.yaml --set 'warp.policies=[runs/a/model, runs/b/model]'`
    """
    from warmkit.training.command_recipe import CommandWarpRecipe
    from warmkit.training.warp_recipe import WarpRecipe

    instead: dict[str, type[WarpRecipe | CommandWarpRecipe]] = {"command": CommandWarpRecipe}
    content = run.read(WarpRecipe, place.overrides("warp"), instead)
    if isinstance(content, CommandWarpRecipe):
        _commands(console, content, run, place)
        return
    from warmkit.pipelines.warp import check, run_warp

    if run.dry_run:
        check(content)
        _plan(console, content)
        return
    tell_slow_precision(console, content.policy.precision)
    with console.progress("training", unit="steps") as advance:
        result = run_warp(
            content, force=run.force, advance=advance, address=place.address, tell=console.note, stage=console.stage
        )
    _tell(console, result)


def _commands(console: Console, recipe: CommandWarpRecipe, run: RecipeRun, place: Executor) -> None:
    """Merge policies that commands train."""
    from warmkit.pipelines.warp_commands import check, run_recipes, run_warp_commands
    from warmkit.recipes.recipe import plain, recipe_text

    if run.dry_run:
        check(recipe)
        iterations = range(1 if recipe.warp.policies is None else 2, recipe.warp.iterations + 1)
        inits = {i: recipe.model.path if i == 1 else "the merge before" for i in iterations}
        runs = {name: each for i, init in inits.items() for name, each in run_recipes(recipe, i, init).items()}
        document = {"recipe": plain(recipe), "runs": {name: plain(each) for name, each in runs.items()}}
        console.result(document, recipe_text(recipe), command_rows(runs), f"{len(runs)} runs")
        return
    with console.progress("running the commands", unit="runs") as advance:
        result = run_warp_commands(
            recipe, force=run.force, advance=advance, address=place.address, tell=console.note, stage=console.stage
        )
    _tell(console, result)


def _tell(console: Console, result: WarpResult) -> None:
    console.note(*result.summary["notes"])
    console.result({"path": str(result.path), **result.summary}, *_tables(result.summary), str(result.path))


def _plan(console: Console, content: Any) -> None:
    """Show every run before anything is trained."""
    from warmkit.data.prompts import read_prompts
    from warmkit.modeling.causal_model import load_causal_model
    from warmkit.pipelines.policy_runs import run_recipes, steps_of_iterations
    from warmkit.recipes.recipe import plain, recipe_text

    prompts = len(read_prompts(content.data.train))
    parameters = sum(each.numel() for each in load_causal_model(content.model.path).parameters())
    steps = steps_of_iterations(content, prompts)
    iterations = range(content.warp.iterations - len(steps) + 1, content.warp.iterations + 1)
    rows = [
        [name, f"{each.policy.lr:g}", f"{each.policy.beta:g}", each.policy.anchor, str(each.policy.order), str(count)]
        for i, count in zip(iterations, steps)
        for name, each in run_recipes(content, i, "the merge before").items()
    ]
    document = {"recipe": plain(content), "parameters": parameters, "prompts": prompts, "steps": steps}
    columns = ["run", "lr", "beta", "anchor", "order", "steps"]
    what = f"{number(parameters)} parameters, {prompts} prompts, {sum(steps) * content.warp.runs} steps in all"
    console.result(document, recipe_text(content), table("Runs", columns, rows), what)


def _tables(summary: dict[str, Any]) -> list[Any]:
    geometry = [
        [
            str(i),
            str(len(each["policies"])),
            each["method"],
            _number(each["mean_angle"]),
            f"{each['eta']:g}",
            _gain(each["gain"]),
        ]
        for i, each in enumerate(summary["iterations"], 1)
    ]
    fronts = {f"Iteration {i + 1}: from its init to its merge": each["front"] for i, each in enumerate(summary["iterations"])}
    fronts |= {"From the SFT model to the last merge": summary["front"], "Averages of the last policies": summary["soups"]}
    scores = {name: value for each in summary["iterations"] for name, value in each.get("scores", {}).items()}
    scores |= summary.get("scores", {})
    scored = [table("Scores", ["model", "score"], [[name, f"{value:.6g}"] for name, value in scores.items()])] if scores else []
    return [
        *scored,
        table("Merges", ["iteration", "policies", "method", "mean angle", "eta", "reward above the policies' mean"], geometry),
        *(_front(title, points) for title, points in fronts.items() if points),
    ]


def _gain(found: dict[str, Any] | None) -> str:
    return "" if found is None else interval(found["gain"], "+.3g")


def _front(title: str, points: list[dict[str, Any]]) -> Any:
    shown = [name for name in points[0]["values"] if name.startswith(("reward", "control_")) or name in ("kl_sft", "length")]
    columns = ["eta" if points[0]["coefficients"] is None else "shares", *(name.replace("_", " ") for name in shown)]
    return table(title, columns, [[_place(point), *_cells(point, shown)] for point in points])


def _cells(point: dict[str, Any], shown: list[str]) -> list[str]:
    return [f"{point['values'][name]['value']:.4f}" for name in shown]


def _place(point: dict[str, Any]) -> str:
    if point["coefficients"] is None:
        return f"{point['eta']:g}"
    return ", ".join(f"{share:.2g}" for share in point["coefficients"])


def _number(angle: float | None) -> str:
    return "" if angle is None else f"{angle:.1f}"
