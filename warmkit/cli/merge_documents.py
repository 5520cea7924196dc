"""Recipes of several documents: merges that follow each other, of which later ones take what earlier ones wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmkit.cli.console import Console
from warmkit.cli.merge_recipe import inputs
from warmkit.cli.shared_options import given
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.engine.result import MergeResult
    from warmkit.recipes.recipe import MergeRecipe, Recipe

    Recipes = Sequence[Recipe[MergeRecipe]]
    Merge = Callable[[Recipe[MergeRecipe], Path], MergeResult]


def merge_documents(
    console: Console, recipes: Recipes, output: Path | None, options: Mapping[str, Any], merge: Merge
) -> list[MergeResult]:
    """Do the merges of a recipe in turn; those that an interrupted run finished are not done again.

    Args:
        console: Takes notes.
        recipes: The documents.
        output: Where the last result goes; None for where its document says.
        options: Those of the command line.
        merge: Does one.

    Raises:
        WarmkitError: If a model that none of the documents makes cannot be opened: nothing is written then; or as `merge`.
    """
    from warmkit.recipes.recipe import plain
    from warmkit.verbs.finished_merges import FinishedMerges

    places = _places(recipes, output)
    _check_inputs(recipes, places, options)
    if options["dry_run"]:
        return _planned(console, recipes, places, merge)
    finished, results = FinishedMerges(places[-1]), list["MergeResult"]()
    for place in () if options["force"] else places:
        finished.check_room(place)
    for recipe, place in zip(recipes, places):
        what = place, {**plain(recipe.content), **options}, inputs(recipe.content), _reading(recipe, options)
        if options["resume"] and finished.has(*what):
            console.note(f"{place}: was finished by the interrupted run")
            continue
        results.append(merge(recipe, place))
        finished.add(*what)
    finished.forget()
    return results


def _places(recipes: Recipes, output: Path | None) -> list[Path]:
    said = [*(each.content.output.path for each in recipes[:-1]), output or recipes[-1].content.output.path]
    places = [Path(each) for each in said if each is not None]
    if len(places) < len(recipes):
        raise UsageError(f"{recipes[0].path}: every document but the last needs output.path, and the last that or -o OUT")
    if twice := next((each for each in places if places.count(each) > 1), None):
        raise UsageError(f"{twice}: two documents write there; give each an output.path of its own")
    return places


def _check_inputs(recipes: Recipes, places: Sequence[Path], options: Mapping[str, Any]) -> None:
    from warmkit.layouts.opening import open_inputs

    for number, recipe in enumerate(recipes):
        for model in inputs(recipe.content):
            if _base(model) not in places[:number]:
                open_inputs([model], _reading(recipe, options))


def _base(model: str) -> Path:
    """Return where a model lies, without its adapters; `./first` is `first`."""
    return Path(model.partition("+")[0])


def _reading(recipe: Recipe[MergeRecipe], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the inputs of a document are opened."""
    said, names = given(vars(recipe.content.merge)), ("allow_pickle", "stream", "state_dict")
    return {name: options.get(name) or said[name] for name in names if options.get(name) or name in said}


def _planned(console: Console, recipes: Recipes, places: Sequence[Path], merge: Merge) -> list[MergeResult]:
    """Plan what can be planned: merges whose models are there."""
    lacking, results = [place for place in places if not place.exists()], list["MergeResult"]()
    for recipe, place in zip(recipes, places):
        what = next((model for model in inputs(recipe.content) if _base(model) in lacking), None)
        if what is None:
            results.append(merge(recipe, place))
        else:
            console.note(f"{place}: is planned once {what} is written")
    return results
