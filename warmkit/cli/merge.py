"""`warmkit merge`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli import merged
from warmkit.cli.command import command, option
from warmkit.cli.console import Console
from warmkit.cli.executor import MergeExecutor
from warmkit.cli.merge_documents import merge_documents
from warmkit.cli.merge_recipe import note_template, overridden, read, read_slices, show_recipes
from warmkit.cli.mix_options import Mix
from warmkit.cli.shared_options import METHOD_PANEL, MethodParameters, Models, Writing, given
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.engine.result import MergeResult
    from warmkit.recipes.recipe import MergeRecipe, Recipe


@dataclass(eq=False, repr=False)
class MeasuredMix(Mix):
    """What is merged, how, and what is measured."""

    angles: bool | None = option(
        None, "Measure angles even if the method needs none (reads the init).", rich_help_panel=METHOD_PANEL
    )


@command(resumes=True)
def merge(
    console: Console,
    models: Models,
    mix: MeasuredMix,
    own: MethodParameters,
    place: MergeExecutor,
    writing: Writing,
    output: Path | None = option(None, "Directory to create.", "--output", "-o", show_default="the recipe's"),
    explain: bool = option(False, "Print the recipe, one of mergekit's as warmkit's; merge nothing."),
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
    - `warmkit merge --init SFT A B -o OUT --executor ray --address 10.0.0.1:6379`
    """
    parameters = {**mix.keywords(), **own.given()}
    options = given(vars(writing))
    recipes = read(console, models, output)
    if explain:
        show_recipes(console, recipes)
        return
    call = functools.partial(_merge, console, place)
    if len(recipes) < 2:
        merged.show(console, call(recipes[0] if recipes else None, models, output, parameters, options))
        return
    if parameters:
        name = next(iter(parameters)).strip("_").replace("_", "-")
        raise UsageError(f"--{name}: means one merge, and the recipe makes {len(recipes)}; write it in its documents")
    results = merge_documents(console, recipes, output, options, lambda each, to: call(each, [], to, {}, options))
    merged.show_several(console, results)


def _merge(
    console: Console,
    place: MergeExecutor,
    recipe: Recipe[MergeRecipe] | None,
    models: list[str],
    output: Path | None,
    parameters: dict[str, Any],
    options: dict[str, Any],
) -> MergeResult:
    """Merge models, or what a recipe says with the command line laid over it."""
    parameters = {**parameters, **given({"executor": place.executor})}
    if recipe is not None:
        note_template(console, recipe)
        models, output, parameters, options = overridden(recipe.content, output, parameters, options)
    if output is None:
        raise UsageError("expected -o OUT, the directory to create")
    slices = parameters.pop("slices", None)
    merge_all = _merger(parameters.pop("executor", None), place.address, bool(slices), console)
    what = {**parameters, **options, "estimate": options["dry_run"]}
    with console.progress("merging") as advance:
        try:
            return merge_all(read_slices(slices) if slices else models, output, **what, advance=advance)
        except UsageError as error:
            raise recipe.blame(error) if recipe is not None else error from None


def _merger(executor: str | None, address: str | None, slices: bool, console: Console) -> Callable[..., Any]:
    """Return what merges: models or slices, here or on a cluster."""
    if executor not in (None, "threads", "ray"):
        raise UsageError(f"--executor: expected threads or ray, found {executor!r}")
    if executor == "ray":
        if slices:
            raise UsageError("slices are merged on one machine; leave executor: ray out")
        from warmkit.pipelines.executors import open_executor
        from warmkit.pipelines.merge_parts import merge_in_parts

        return functools.partial(merge_in_parts, run_jobs=open_executor("ray", address, console.note))
    if address is not None:
        raise UsageError("--address names a Ray cluster; give it with --executor ray")
    if slices:
        from warmkit.verbs.slices import merge_slices

        return merge_slices
    from warmkit.verbs.merge import merge

    return merge
