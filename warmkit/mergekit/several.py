"""Recipes of `mergekit-multi`: several documents, each a merge, that call each other's results by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

from warmkit.errors import RecipeError
from warmkit.mergekit.schema import MergekitRecipe
from warmkit.mergekit.translate import Translation, translated
from warmkit.recipes.recipe import Recipe, plain, read_documents

Document: TypeAlias = Recipe[MergekitRecipe]


def read_several(path: Path, output: Path | None) -> list[Translation]:
    """Read the documents of a recipe, in an order in which each can run.

    The last one makes `output`, the others `output-NAME`; a recipe of one document is that of `mergekit-yaml`.

    Args:
        path: The recipe.
        output: Where the last result goes; None if that is not known yet.

    Raises:
        RecipeError: If a document cannot be read or translated, two have one name, or two wait for each other.
    """
    documents = read_documents(path, MergekitRecipe)
    if len(documents) == 1:
        return [translated(documents[0], {})]
    named = _by_name(documents)
    ordered = _in_order(documents, named)
    places = {name: f"{output}-{name}" if output else name for name in named}
    last = None if output is None else str(output)
    return [
        _written_to(translated(each, places), last if each is ordered[-1] else places[cast("str", each.content.name)])
        for each in ordered
    ]


def _written_to(translation: Translation, place: str | None) -> Translation:
    recipe = translation.recipe
    content = replace(recipe.content, output=replace(recipe.content.output, path=place))
    return replace(translation, recipe=replace(recipe, content=content))


def _by_name(documents: Sequence[Document]) -> dict[str, Document]:
    """Return the documents that have a name; one at most has none."""
    named: dict[str, Document] = {}
    unnamed = [each for each in documents if each.content.name is None]
    if len(unnamed) > 1:
        raise _error(unnamed[1], "merge_method", "a second document without a name; only the last result needs none")
    for each in documents:
        name = each.content.name
        if name is None:
            continue
        if not re.fullmatch(r"[\w.-]*\w[\w.-]*", name):
            raise _error(each, "name", f"name: expected letters, digits, dots and dashes, found {name!r}")
        if name in named:
            raise _error(each, "name", f"name: {name!r} is there twice")
        named[name] = each
    return named


def _in_order(documents: Sequence[Document], named: Mapping[str, Document]) -> list[Document]:
    """Return each document after those that it names, else as they are written; the one without a name last."""
    waiting = sorted(documents, key=lambda each: each.content.name is None)
    ordered: list[Document] = []
    while waiting:
        done = {each.content.name for each in ordered}
        ready = [each for each in waiting if _names(each, named) <= done]
        if not ready:
            first = waiting[0]
            others = ", ".join(sorted(_names(first, named) - done))
            raise _error(first, "name", f"{first.content.name} waits for {others}, and that for it; a merge cannot hold itself")
        ordered.append(ready[0])
        waiting.remove(ready[0])
    return ordered


def _names(document: Document, named: Mapping[str, Document]) -> set[str]:
    """Return the names of other documents that one says for models."""
    content = plain(document.content)
    said = _texts([content.get(key) for key in ("models", "slices", "base_model", "tokenizer_source", "tokenizer")])
    return {text.partition("+")[0] for text in said} & named.keys()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(each)


def _error(document: Document, key: str, message: str) -> RecipeError:
    return RecipeError(f"{document.path}:{document.lines.get(key, 1)}: {message}")
