"""`warmkit warm`."""

from __future__ import annotations

from typing import Any

from warmkit.cli.command import command
from warmkit.cli.console import Console, number, table
from warmkit.cli.executor import Address, ExecutorName, chosen
from warmkit.cli.train import DryRun, Force, Overrides, RecipePath, need_transformers


@command(resumes=True)
def warm(
    console: Console,
    recipe: RecipePath,
    overrides: Overrides = None,
    executor: ExecutorName = None,
    address: Address = None,
    dry_run: DryRun = False,
    force: Force = False,
) -> None:
    """Run WARM: probe a head, fine-tune several reward models, rank them, average their weights, write one model.

    A killed pipeline goes on where it was when the same command is given again; finished runs are not repeated. A run
    that failed can be left out with `--set 'warm.exclude=[run-3]'`.

    Examples:

    - `warmkit warm recipes/warm-docstrings.yaml`
    - `warmkit warm recipe.yaml --set warm.runs=10 --set data.corrupt=0.25`
    - `warmkit warm recipe.yaml --executor ray --address 10.0.0.1:6379`
    """
    from warmkit.recipes import plain, read_recipe, recipe_text
    from warmkit.training.recipe import WarmRecipe

    content = read_recipe(recipe, WarmRecipe, [*(overrides or ()), *chosen("warm", executor)]).content
    need_transformers()
    from pathlib import Path

    from warmkit.pipelines.warm import check, run_recipes, run_warm

    if dry_run:
        check(content)
        from warmkit.data.preferences import read_pairs
        from warmkit.modeling.reward_model import load_reward_model

        steps = content.rm.steps_for(len(read_pairs(content.data.train)))
        parameters = sum(each.numel() for each in load_reward_model(content.model.path).model.parameters())
        runs = run_recipes(content, Path(content.output.path))
        rows = [[name, f"{each.rm.lr:g}", _text(each.rm.dropout), each.model.path] for name, each in runs.items()]
        sizes = {"parameters": parameters, "steps": steps}
        document = {"recipe": plain(content), **sizes, "runs": {name: plain(each) for name, each in runs.items()}}
        what = f"{number(parameters)} parameters, {steps} steps a run"
        console.result(document, recipe_text(content), table("Runs", ["run", "lr", "dropout", "init"], rows), what)
        return
    with console.progress("fine-tuning", unit="steps") as advance:
        result = run_warm(content, force=force, advance=advance, address=address, tell=console.note)
    console.result({"path": str(result.path), **result.summary}, *_tables(result.summary), str(result.path))


def _text(value: float | None) -> str:
    return "the model's" if value is None else f"{value:g}"


def _tables(summary: dict[str, Any]) -> list[Any]:
    names = list(dict.fromkeys(row["data"] for row in summary["accuracy"]))
    rows = [
        [
            row["data"] if row["m"] == 1 else "",
            str(row["m"]),
            f"{100 * row['wa']:.1f}",
            f"{100 * row['wa_low']:.1f}-{100 * row['wa_high']:.1f}",
            f"{100 * row['ens']:.1f}",
            f"{100 * row['individual']:.1f}",
            f"{100 * row['probe']:.1f}",
        ]
        for name in names
        for row in summary["accuracy"]
        if row["data"] == name
    ]
    runs = [
        [each["name"], f"{each['lr']:g}", _text(each["dropout"]), each["init"]]
        + [f"{100 * summary['individuals'][each['name']][name]['accuracy']:.1f}" for name in names]
        for each in summary["runs"]
    ]
    final = summary["final"]
    looked = [
        [name, f"{final[name]['calibration_error']:.3f}", f"{final[name]['length_correlation']:+.2f}", str(final[name]["tied"])]
        for name in names
    ]
    return [
        table("Runs, best first on the validation set", ["run", "lr", "dropout", "init", *names], runs),
        table("Accuracy, %", ["data", "M", "WA of M best", "95%", "ENS", "number M alone", "probe only"], rows),
        table(f"Final model: {len(final['members'])} runs", ["data", "calibration error", "corr. with length", "ties"], looked),
        f"Greedy soup: {', '.join(summary['greedy']['members'])}, validation {100 * summary['greedy']['validation']:.1f}",
    ]
