"""`warmkit merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from warmkit.cli import merged
from warmkit.cli.command import command
from warmkit.cli.console import Console
from warmkit.cli.options import Eta, Init, Models, etas, given, numbers, output_options
from warmkit.errors import UsageError


@command(output_options)
def merge(
    console: Console,
    models: Models,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory to create.", show_default="the recipe's")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", "-m", help="See `warmkit methods`.", show_default="slerp")] = None,
    init: Init = None,
    lambda_: Annotated[float | None, typer.Option("--lambda", help="Of two models, the share of the second.")] = None,
    coefficients: Annotated[str | None, typer.Option("--coefficients", help="One per model: 0.5,0.3,0.2.")] = None,
    eta: Eta = None,
    granularity: Annotated[
        str | None,
        typer.Option("--granularity", help="What shares one angle: layer, tensor or model.", show_default="layer"),
    ] = None,
    antiparallel: Annotated[
        str | None,
        typer.Option("--antiparallel", help="Opposite task vectors: error, or lerp.", show_default="error"),
    ] = None,
    angles: Annotated[
        bool | None, typer.Option("--angles", help="Measure angles even if the method needs none (reads the init).")
    ] = None,
    **options: Any,
) -> None:
    """Merge models into one.

    The models are checkpoints, or one recipe (a .yaml file) that says the same; options override it.

    Examples:

    - `warmkit merge --method slerp --init SFT A B -o OUT`
    - `warmkit merge --method lerp --lambda 0.3 A B -o OUT`
    - `warmkit merge --init SFT A B C --eta 0.1,0.3,1 -o SWEEP`
    - `warmkit merge recipe.yaml -o OUT --dtype bfloat16`
    """
    parameters = given(
        {
            "method": method,
            "init": init,
            "lambda_": lambda_,
            "coefficients": numbers(coefficients, "--coefficients"),
            "eta": etas(eta),
            "granularity": granularity,
            "antiparallel": antiparallel,
            "angles": angles,
        }
    )
    recipe = _read(models)
    if recipe is not None:
        models, output, parameters, options = _overridden(recipe.content, output, parameters, given(options))
    if output is None:
        raise UsageError("expected -o OUT, the directory to create")
    from warmkit.checkpoints.merge import merge as merge_checkpoints

    with console.progress("merging") as advance:
        try:
            result = merge_checkpoints(models, output, **parameters, **given(options), advance=advance)
        except UsageError as error:
            raise recipe.blame(error) if recipe is not None else error from None
    merged.show(console, result)


def _read(models: list[str]) -> Any:
    if len(models) != 1 or not models[0].endswith((".yaml", ".yml")):
        return None
    from warmkit.recipes import MergeRecipe, read_recipe

    return read_recipe(Path(models[0]), MergeRecipe)


def _overridden(
    recipe: Any, output: Path | None, parameters: dict[str, Any], options: dict[str, Any]
) -> tuple[list[str], Path | None, dict[str, Any], dict[str, Any]]:
    """Lay the command line over a recipe. A mix given on the command line replaces the recipe's, however it is said."""
    section = given(vars(recipe.merge))
    if parameters.keys() & {"lambda_", "coefficients"}:
        section = {key: value for key, value in section.items() if key not in ("lambda_", "coefficients")}
    models = section.pop("models")
    shared = {key: section.pop(key) for key in ("only", "exclude", "vocabulary", "allow_pickle") if key in section}
    target = {**shared, **given(vars(recipe.output))}
    path = target.pop("path", None)
    switches = {key: value for key, value in options.items() if value or key not in target}
    return models, output or (Path(path) if path else None), {**section, **parameters}, {**target, **switches}
