"""Schema of mergekit's recipes, as dataclasses for `warmkit.recipes.recipe.read_recipe`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from warmkit.common.bounded_yaml import compose_documents
from warmkit.errors import RecipeError, UsageError
from warmkit.formats.dtypes import parse_output_dtype
from warmkit.mergekit.method_table import find_method
from warmkit.recipes.recipe import recipe_source


def _dtype(name: str) -> None:
    parse_output_dtype(name)


def _range(value: list[int]) -> None:
    if len(value) != 2:
        raise UsageError(f"expected [first, end], found {value}")


@dataclass(frozen=True)
class ModelEntry:
    """`models[]`."""

    model: Any
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True)
class SourceEntry:
    """`slices[].sources[]`."""

    model: Any
    layer_range: list[int] = field(metadata={"check": _range})
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True)
class SliceEntry:
    """`slices[]`."""

    sources: list[SourceEntry]
    base_model: Any = None
    residual_weight: float | None = None
    parameters: dict[str, Any] | None = None


@dataclass(frozen=True)
class MergekitRecipe:
    """A recipe of `mergekit-yaml`, or one document of `mergekit-multi`, whose `name` others may say for a model."""

    merge_method: str = field(metadata={"check": find_method})
    models: list[ModelEntry] | None = None
    slices: list[SliceEntry] | None = None
    modules: dict[str, Any] | None = None
    base_model: Any = None
    parameters: dict[str, Any] | None = None
    dtype: str | None = field(default=None, metadata={"check": _dtype})
    out_dtype: str | None = field(default=None, metadata={"check": _dtype})
    tokenizer_source: Any = None
    tokenizer: dict[str, Any] | None = None
    chat_template: str | None = None
    name: str | None = None


MARKS = frozenset(("merge_method", "models", "slices", "modules", "base_model", "genome", "experts", "metric_method"))
_OTHERS = {
    "experts": "a recipe of mergekit-moe, which builds a mixture of experts; warmkit merges models of one architecture",
    "genome": "a recipe of mergekit-evolve, which searches for a merge; give the best_config.yaml that it found, or this file "
    "to `warmkit search`",
    "modules": "modules, models of several parts; warmkit merges all tensors of a model by name: write models instead",
    "out_path": "of mergekit-mega, which mergekit no longer has; give the document a name, and say that name for a model",
}


def is_mergekit(path: Path) -> bool:
    """Say whether a YAML file is a recipe of one of mergekit's tools rather than warmkit's own.

    Raises:
        RecipeError: If it is one that no merge of warmkit's can follow.
    """
    try:
        documents = compose_documents(recipe_source(path))
    except (RecipeError, yaml.YAMLError):
        return False  # the reader of warmkit's recipes says what is wrong
    keys = [
        {str(key.value): key.start_mark.line + 1 for key, _ in document.value}
        for document in documents
        if isinstance(document, yaml.MappingNode)
    ]
    if not keys or "merge" in keys[0] or not keys[0].keys() & MARKS:
        return False
    for document in keys:
        for key, what in _OTHERS.items():
            if key in document:
                raise RecipeError(f"{path}:{document[key]}: {what}")
    return True
