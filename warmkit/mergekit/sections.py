"""`models` and `slices` of a recipe of mergekit, in one form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from warmkit.mergekit.schema import MergekitRecipe, SliceEntry
from warmkit.mergekit.scopes import Input, Scopes, Section


def sections(scopes: Scopes) -> list[Section]:
    """Return the slices of a recipe, one with all layers for a recipe of whole models.

    A base model that is not among whole models is one of them, as in mergekit.

    Raises:
        RecipeError: If models, slices and base do not go together.
    """
    recipe = scopes.recipe.content
    if (recipe.models is None) == (recipe.slices is None):
        raise scopes.error("merge_method", "expected models or slices, and not both")
    shared = scopes.scope("parameters", recipe.parameters)
    base = None if recipe.base_model is None else reference(scopes, "base_model", recipe.base_model)
    if recipe.slices is not None:
        found = [_slice(scopes, f"slices[{number}]", each, base) for number, each in enumerate(recipe.slices)]
    else:
        found = [_whole(scopes, recipe, base)]
    return [_finished(scopes, each, base, shared) for each in found]


def _whole(scopes: Scopes, recipe: MergekitRecipe, base: str | None) -> Section:
    inputs: list[Input] = []
    for number, each in enumerate(recipe.models or []):
        key = f"models[{number}]"
        model = reference(scopes, f"{key}.model", each.model)
        inputs.append(Input(model, None, scopes.scope(f"{key}.parameters", each.parameters)))
    if base is not None and base not in [each.model for each in inputs]:
        inputs.append(Input(base, None, ()))
    return Section("models", tuple(inputs), None, ())


def _slice(scopes: Scopes, key: str, entry: SliceEntry, base: str | None) -> Section:
    inputs: list[Input] = []
    for number, each in enumerate(entry.sources):
        place = f"{key}.sources[{number}]"
        model = reference(scopes, f"{place}.model", each.model)
        first, end = each.layer_range
        inputs.append(Input(model, (first, end), scopes.scope(f"{place}.parameters", each.parameters)))
    if entry.residual_weight is not None:
        scopes.note(f"{key}.residual_weight: mergekit does not use it either")
    if entry.base_model is not None:
        own = reference(scopes, f"{key}.base_model", entry.base_model)
        if own != base:
            raise scopes.error(f"{key}.base_model", "a slice with a base_model of its own; warmkit merges all from one init")
    return Section(key, tuple(inputs), None, scopes.scope(f"{key}.parameters", entry.parameters))


def _finished(scopes: Scopes, section: Section, base: str | None, shared: tuple[Any, ...]) -> Section:
    """Give every scope the ones around it, and put the base first, whose config and tokenizer are copied."""
    if not section.inputs:
        raise scopes.error(section.key, "expected at least one model")
    around = (*section.scopes, *shared)
    inputs = [replace(each, scopes=(*each.scopes, *around)) for each in section.inputs]
    names = [each.model for each in inputs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise scopes.error(section.key, f"{twice} is there twice, which mergekit refuses; add its weights instead")
    known = scopes.known
    if known.base == "required" and base is None:
        raise scopes.error("merge_method", f"{known.name} needs a base_model")
    if known.base == "required" and base not in names:
        raise scopes.error(section.key, f"{known.name} needs the base_model {base} among the sources of every slice")
    first = [each for each in inputs if each.model == base]
    rest = [each for each in inputs if each.model != base]
    if known.base == "like any" or not first:
        return replace(section, inputs=(*first, *rest), scopes=around)
    return replace(section, inputs=tuple(rest), base=first[0], scopes=around)


def reference(scopes: Scopes, key: str, value: Any) -> str:
    """Return a model as `open_checkpoint` takes it: a path, a repository with its revision, a base with its adapter.

    Raises:
        RecipeError: If it is none of these.
    """
    model, plus, lora = _written(scopes, key, value).partition("+")
    return f"{scopes.places.get(model, model)}{plus}{lora}"


def _written(scopes: Scopes, key: str, value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, Any]", value)
        if "override_architecture" in parts:
            raise scopes.error(key, "override_architecture: warmkit goes by the names of tensors; the configs must agree")
        model, lora = (_path(parts.get(part)) for part in ("model", "lora"))
        if model is not None and parts.keys() <= {"model", "lora"}:
            return model if lora is None else f"{model}+{lora}"
    raise scopes.error(key, f"{key} must be a path or a repository, found {value!r}")


def _path(value: Any) -> str | None:
    if isinstance(value, Mapping):
        parts = cast("Mapping[str, Any]", value)
        path, revision = parts.get("path"), parts.get("revision")
        return None if path is None else f"{path}@{revision}" if revision else str(path)
    return value if isinstance(value, str) else None
