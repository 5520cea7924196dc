"""Recipes of `warmkit merge`: warmkit's own, and mergekit's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli.console import Console
from warmkit.cli.shared_options import given
from warmkit.engine.merge_options import ZERO, OutputOptions
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.recipes.recipe import MergeRecipe, Recipe, SliceSection
    from warmkit.verbs.slices import Slice


def read(console: Console, models: Sequence[str], output: Path | None) -> list[Recipe[MergeRecipe]]:
    """Read the recipe that stands where the models do: its documents, in the order in which they run; nothing without one.

    Args:
        console: Takes what a recipe of mergekit has to be told of.
        models: What stands there.
        output: Where the last result goes, if that is known.

    Raises:
        RecipeError: If it is none that warmkit can follow.
    """
    recipes = [each for each in models if each == "-" or each.endswith((".yaml", ".yml"))]
    if recipes and len(models) > 1:
        raise UsageError(f"{recipes[0]}: a recipe stands alone, in place of the models, found {len(models)} words")
    if not recipes:
        return []
    from warmkit.mergekit.schema import is_mergekit
    from warmkit.recipes.recipe import MergeRecipe, read_documents

    path = Path(models[0])
    if models[0] == "-" or not is_mergekit(path):
        return read_documents(path, MergeRecipe)
    from warmkit.mergekit.several import read_several

    translations = read_several(path, output)
    console.note(*dict.fromkeys(note for each in translations for note in each.notes))
    return [each.recipe for each in translations]


def note_template(console: Console, recipe: Recipe[MergeRecipe]) -> None:
    """Say which file a recipe's chat template is read from.

    Raises:
        RecipeError: If it lies neither beside the recipe nor in a model.
    """
    from warmkit.layouts.tokenizer import template_of_recipe

    try:
        file = template_of_recipe(recipe.content.output.chat_template, recipe.path, inputs(recipe.content))
    except UsageError as error:
        raise recipe.blame(error) from None
    if file is not None:
        console.note(f"chat_template: read from {file}, as the recipe says")


def inputs(recipe: MergeRecipe) -> list[str]:
    """Return every model that a recipe names, each once, the init first."""
    merge = recipe.merge
    sources = [source.model for each in merge.slices or [] for source in each.sources]
    init = [] if merge.init in (None, ZERO) else [merge.init]
    return list(dict.fromkeys((*init, *(merge.models or []), *sources)))


def read_slices(sections: Sequence[SliceSection]) -> list[Slice]:
    """Turn the slices of a recipe into those of the library.

    Raises:
        UsageError: If a range is not two numbers.
    """
    from warmkit.verbs.slices import LayerRange, Slice

    def bounds(layers: list[int]) -> tuple[int, int]:
        if len(layers) != 2:
            raise UsageError(f"slices: expected layers [first, end], found {layers}")
        return layers[0], layers[1]

    return [
        Slice(
            tuple(LayerRange(source.model, *bounds(source.layers)) for source in each.sources),
            None if each.init is None else bounds(each.init),
            each.lambda_,
            each.coefficients,
            each.eta,
        )
        for each in sections
    ]


def show_recipes(console: Console, recipes: Sequence[Recipe[MergeRecipe]]) -> None:
    """Print a recipe, the documents of one that makes several merges.

    Raises:
        UsageError: If there is none.
    """
    if not recipes:
        raise UsageError("--explain prints a recipe; expected one .yaml file in place of the models")
    from warmkit.mergekit.explain import explain
    from warmkit.recipes.recipe import plain

    documents = [plain(each.content) for each in recipes]
    text = "---\n".join(explain(each.content) for each in recipes)
    console.result(documents if len(documents) > 1 else documents[0], text.rstrip())


def overridden(
    recipe: MergeRecipe, output: Path | None, parameters: dict[str, Any], options: dict[str, Any]
) -> tuple[list[str], Path | None, dict[str, Any], dict[str, Any]]:
    """Lay the command line over a recipe. A mix given on the command line replaces the recipe's, however it is said."""
    section = given(vars(recipe.merge))
    if parameters.keys() & {"lambda_", "coefficients"}:
        section = {key: value for key, value in section.items() if key not in ("lambda_", "coefficients")}
    models = section.pop("models", [])
    shared = {key: section.pop(key) for key in list(section) if key in OutputOptions.__annotations__}
    target = {**shared, **given(vars(recipe.output))}
    path = target.pop("path", None)
    switches = {key: value for key, value in options.items() if value or key not in target}
    return models, output or (Path(path) if path else None), {**section, **parameters}, {**target, **switches}
