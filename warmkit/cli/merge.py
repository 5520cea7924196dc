"""`warmkit merge`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.cli import completions, merged
from warmkit.cli.command import command, option
from warmkit.cli.console import Console
from warmkit.cli.executor import MergeExecutor
from warmkit.cli.merge_recipe import note_template, read, read_slices, show_recipe
from warmkit.cli.shared_options import METHOD_PANEL, MethodParameters, Models, Writing, etas, given, numbers
from warmkit.errors import UsageError


@dataclass(eq=False, repr=False)
class Mix:
    """What is merged, and how."""

    method: str | None = option(
        None,
        "Merge method; `warmkit methods` lists them.",
        "--method",
        "-m",
        show_default="slerp",
        autocompletion=completions.method,
    )
    init: str | None = option(None, "What the models were fine-tuned from.")
    lambda_: float | None = option(None, "Share of the second of two models, 0 to 1.")
    coefficients: str | None = option(None, "Weight of each model: 0.5,0.3,0.2.")
    eta: str | None = option(None, "LITI's update rate; several (0,0.3,1) write OUT/eta-0, OUT/eta-0.3, ... at once.")
    granularity: str | None = option(
        None,
        "What is merged as one vector, with one angle or ranking: each layer, each tensor, or the model.",
        show_default="the method's",
        autocompletion=completions.granularity,
        rich_help_panel=METHOD_PANEL,
    )
    antiparallel: str | None = option(
        None,
        "Where task vectors are opposite: stop with an error, or use lerp.",
        show_default="error",
        autocompletion=completions.antiparallel,
        rich_help_panel=METHOD_PANEL,
    )
    angles: bool | None = option(
        None, "Measure angles even if the method needs none (reads the init).", rich_help_panel=METHOD_PANEL
    )

    def keywords(self) -> dict[str, Any]:
        """Return what was given, parsed, for the library."""
        parsed = {"coefficients": numbers(self.coefficients, "--coefficients"), "eta": etas(self.eta)}
        return given({**vars(self), **parsed})


@command(resumes=True)
def merge(
    console: Console,
    models: Models,
    mix: Mix,
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
    parameters = {**mix.keywords(), **own.given(), **given({"executor": place.executor})}
    options = given(vars(writing))
    recipe = read(console, models)
    if explain:
        show_recipe(console, recipe)
        return
    if recipe is not None:
        note_template(console, recipe)
        models, output, parameters, options = _overridden(recipe.content, output, parameters, options)
    if output is None:
        raise UsageError("expected -o OUT, the directory to create")
    slices = parameters.pop("slices", None)
    merge_all = _merger(parameters.pop("executor", None), place.address, bool(slices), console)
    what = {**parameters, **options, "estimate": options["dry_run"]}
    with console.progress("merging") as advance:
        try:
            result = merge_all(read_slices(slices) if slices else models, output, **what, advance=advance)
        except UsageError as error:
            raise recipe.blame(error) if recipe is not None else error from None
    merged.show(console, result)


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


def _overridden(
    recipe: Any, output: Path | None, parameters: dict[str, Any], options: dict[str, Any]
) -> tuple[list[str], Path | None, dict[str, Any], dict[str, Any]]:
    """Lay the command line over a recipe. A mix given on the command line replaces the recipe's, however it is said."""
    section = given(vars(recipe.merge))
    if parameters.keys() & {"lambda_", "coefficients"}:
        section = {key: value for key, value in section.items() if key not in ("lambda_", "coefficients")}
    models = section.pop("models", [])
    shared = {
        key: section.pop(key)
        for key in ("only", "exclude", "heads", "vocabulary", "allow_pickle", "state_dict", "stream")
        if key in section
    }
    target = {**shared, **given(vars(recipe.output))}
    path = target.pop("path", None)
    switches = {key: value for key, value in options.items() if value or key not in target}
    return models, output or (Path(path) if path else None), {**section, **parameters}, {**target, **switches}
