"""Recipes of `warmkit merge`: warmkit's own, and mergekit's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli.console import Console
from warmkit.cli.shared_options import given
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.recipes.recipe import MergeRecipe, Recipe, SliceSection
    from warmkit.verbs.slices import Slice


def read(console: Console, models: Sequence[str]) -> Recipe[MergeRecipe] | None:
    """Read the recipe that stands where the models do; None where there are models.

    Raises:
        RecipeError: If it is none that warmkit can follow.
    """
    recipes = [each for each in models if each == "-" or each.endswith((".yaml", ".yml"))]
    if recipes and len(models) > 1:
        raise UsageError(f"{recipes[0]}: a recipe stands alone, in place of the models, found {len(models)} words")
    if not recipes:
        return None
    from warmkit.mergekit.schema import is_mergekit
    from warmkit.recipes.recipe import MergeRecipe, read_recipe

    path = Path(models[0])
    if models[0] == "-" or not is_mergekit(path):
        return read_recipe(path, MergeRecipe)
    from warmkit.mergekit.translate import read_mergekit

    translation = read_mergekit(path)
    console.note(*translation.notes)
    return translation.recipe


def note_template(console: Console, recipe: Recipe[MergeRecipe]) -> None:
    """Say which file a recipe's chat template is read from.

    Raises:
        RecipeError: If it lies neither beside the recipe nor in a model.
    """
    from warmkit.layouts.tokenizer import template_of_recipe

    merge = recipe.content.merge
    models = [*(merge.models or []), *(source.model for each in merge.slices or [] for source in each.sources)]
    try:
        file = template_of_recipe(
            recipe.content.output.chat_template, recipe.path, [*models, *([merge.init] if merge.init else [])]
        )
    except UsageError as error:
        raise recipe.blame(error) from None
    if file is not None:
        console.note(f"chat_template: read from {file}, as the recipe says")


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


def show_recipe(console: Console, recipe: Recipe[MergeRecipe] | None) -> None:
    """Print a recipe.

    Raises:
        UsageError: If there is none.
    """
    if recipe is None:
        raise UsageError("--explain prints a recipe; expected one .yaml file in place of the models")
    from warmkit.mergekit.explain import explain
    from warmkit.recipes.recipe import plain

    console.result(plain(recipe.content), explain(recipe.content).rstrip())


def overridden(
    recipe: MergeRecipe, output: Path | None, parameters: dict[str, Any], options: dict[str, Any]
) -> tuple[list[str], Path | None, dict[str, Any], dict[str, Any]]:
    """Lay the command line over a recipe. A mix given on the command line replaces the recipe's, however it is said."""
    section = given(vars(recipe.merge))
    if parameters.keys() & {"lambda_", "coefficients"}:
        section = {key: value for key, value in section.items() if key not in ("lambda_", "coefficients")}
    models = section.pop("models", [])
    shared = {
        key: section.pop(key)
        for key in ("only", "exclude", "layout", "heads", "vocabulary", "allow_pickle", "state_dict", "stream")
        if key in section
    }
    target = {**shared, **given(vars(recipe.output))}
    path = target.pop("path", None)
    switches = {key: value for key, value in options.items() if value or key not in target}
    return models, output or (Path(path) if path else None), {**section, **parameters}, {**target, **switches}
