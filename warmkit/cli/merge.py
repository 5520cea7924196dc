"""`warmkit merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from warmkit.cli import merged
from warmkit.cli.command import command
from warmkit.cli.console import Console
from warmkit.cli.merge_recipe import read, read_slices, show_recipe
from warmkit.cli.options import (
    Eta,
    Init,
    Models,
    etas,
    given,
    method_options,
    numbers,
    output_options,
    parameters_of,
    writing,
)
from warmkit.errors import UsageError


@command(method_options, output_options)
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
        typer.Option(
            "--granularity", help="What shares one angle or ranking: layer, tensor or model.", show_default="the method's"
        ),
    ] = None,
    antiparallel: Annotated[
        str | None,
        typer.Option("--antiparallel", help="Opposite task vectors: error, or lerp.", show_default="error"),
    ] = None,
    angles: Annotated[
        bool | None, typer.Option("--angles", help="Measure angles even if the method needs none (reads the init).")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the recipe, one of mergekit's as warmkit's; merge nothing.")
    ] = False,
    **options: Any,
) -> None:
    """Merge models into one.

    The models are checkpoints, or one recipe (a .yaml file, or - for standard input) that says the same; options override it.
    Recipes of mergekit run as they are.

    Examples:

    - `warmkit merge --method slerp --init SFT A B -o OUT`
    - `warmkit merge --method lerp --lambda 0.3 A B -o OUT`
    - `warmkit merge --init SFT A B C --eta 0.1,0.3,1 -o SWEEP`
    - `warmkit merge --method ties --density 0.5 --init SFT A B C -o OUT`
    - `warmkit merge recipe.yaml -o OUT --dtype bfloat16`
    - `warmkit merge mergekit_config.yml --explain`
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
            **parameters_of(options),
        }
    )
    recipe = read(console, models)
    if explain:
        show_recipe(console, recipe)
        return
    if recipe is not None:
        models, output, parameters, options = _overridden(recipe.content, output, parameters, given(options))
    if output is None:
        raise UsageError("expected -o OUT, the directory to create")
    from warmkit.checkpoints.merge import merge as merge_checkpoints
    from warmkit.checkpoints.slices import merge_slices

    with console.progress("merging") as advance:
        try:
            if slices := parameters.pop("slices", None):
                result = merge_slices(read_slices(slices), output, **parameters, **writing(options), advance=advance)
            else:
                result = merge_checkpoints(models, output, **parameters, **writing(options), advance=advance)
        except UsageError as error:
            raise recipe.blame(error) if recipe is not None else error from None
    merged.show(console, result)


def _overridden(
    recipe: Any, output: Path | None, parameters: dict[str, Any], options: dict[str, Any]
) -> tuple[list[str], Path | None, dict[str, Any], dict[str, Any]]:
    """Lay the command line over a recipe. A mix given on the command line replaces the recipe's, however it is said."""
    section = given(vars(recipe.merge))
    if parameters.keys() & {"lambda_", "coefficients"}:
        section = {key: value for key, value in section.items() if key not in ("lambda_", "coefficients")}
    models = section.pop("models", [])
    shared = {key: section.pop(key) for key in ("only", "exclude", "vocabulary", "allow_pickle") if key in section}
    target = {**shared, **given(vars(recipe.output))}
    path = target.pop("path", None)
    switches = {key: value for key, value in options.items() if value or key not in target}
    return models, output or (Path(path) if path else None), {**section, **parameters}, {**target, **switches}
