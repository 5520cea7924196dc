"""Recipes: what a command does, in YAML; strict, so that a typing error never becomes a default.

Every section is a dataclass. Its fields are the allowed keys (a trailing underscore is dropped: `lambda_` is `lambda`),
their annotations the types, and `metadata["check"]` a function (or its name in `_checks`) that raises UsageError for a bad
value. Errors name file and line. `--set section.key=value` lays single keys over a file.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import yaml

from warmkit.errors import RecipeError, UsageError
from warmkit.merging.methods import parameters_by_name
from warmkit.recipes.key_types import dotted_keys
from warmkit.recipes.kinds import command_of, missing_recipe
from warmkit.recipes.yaml_reader import RecipeReader, written_keys

T = TypeVar("T")


def _checked(check: str) -> Any:
    """Declare an optional key whose value `check`, a name in `_checks`, looks at."""
    return field(default=None, metadata={"check": check})


@dataclass(frozen=True)
class SourceSection:
    """`merge.slices[].sources[]`: layers of one model, the first and the one after the last."""

    model: str
    layers: list[int]


@dataclass(frozen=True)
class SliceSection:
    """`merge.slices[]`: layers of the result, in order; each a merge of the layers of its sources.

    `init` are the layers of `merge.init`; `lambda`, `coefficients` and `eta` are those of `merge` unless given.
    """

    sources: list[SourceSection]
    init: list[int] | None = None
    lambda_: float | list[Any] | None = _checked("lambda")
    coefficients: list[Any] | None = _checked("coefficients")
    eta: float | list[Any] | None = _checked("eta")


@dataclass(frozen=True)
class _MergeKeys:
    models: list[str] | None = None
    slices: list[SliceSection] | None = None
    init: str | None = None
    method: str | None = _checked("method")
    lambda_: float | list[Any] | None = _checked("lambda")
    coefficients: list[Any] | None = _checked("coefficients")
    granularity: str | None = _checked("granularity")
    eta: float | list[Any] | None = _checked("eta")
    antiparallel: str | None = None
    angles: bool | None = None
    only: list[str] | None = None
    exclude: list[str] | None = None
    layout: str | None = None
    heads: str | None = None
    vocabulary: str | None = None
    token_rows: dict[str, Any] | None = None
    pad_to_multiple_of: int | None = None
    allow_pickle: bool | None = None
    state_dict: str | None = None
    stream: bool | None = None
    executor: Literal["threads", "ray"] | None = None

    def __post_init__(self) -> None:
        if (self.models is None) == (self.slices is None):
            raise UsageError(
                "missing key 'models' (or 'slices')" if self.models is None else "expected models or slices, not both"
            )


if TYPE_CHECKING:

    class MergeSection(_MergeKeys):
        """`merge:`, the parameters of `warmkit.merge`, and those that methods have of their own."""

        def __init__(self, **keys: Any) -> None: ...

else:
    MergeSection = dataclasses.make_dataclass(
        "MergeSection",
        [(name, next(iter(each.values())).type | None, None) for name, each in parameters_by_name().items()],
        bases=(_MergeKeys,),
        frozen=True,
        namespace={"__doc__": "`merge:`, the parameters of `warmkit.merge`, and those that methods have of their own."},
    )


@dataclass(frozen=True)
class OutputSection:
    """`output:`, where and how the result is written."""

    path: str | None = None
    container: Literal["safetensors", "same"] | None = None
    optimizer: Literal["average", "keep"] | None = None
    dtype: str | None = _checked("dtype")
    max_shard_size: str | int | None = _checked("size")
    threads: int | None = None
    device: str | None = None
    allow_nonfinite: bool | None = None
    sha256: bool | None = None
    tokenizer: str | None = None
    chat_template: str | None = None


@dataclass(frozen=True)
class MergeRecipe:
    """A recipe of `warmkit merge`."""

    merge: MergeSection
    output: OutputSection = OutputSection()


def _checks() -> dict[str, Any]:
    from warmkit.engine.plan import parse_size
    from warmkit.engine.spec import check_etas, is_sweep
    from warmkit.formats.dtypes import parse_output_dtype
    from warmkit.layouts.groups import group
    from warmkit.layouts.layer_settings import read_setting
    from warmkit.merging.methods import find_method

    return {
        "method": find_method,
        "granularity": lambda name: group([], name),
        "eta": lambda value: check_etas(value) if is_sweep(value) else read_setting(value, "eta"),
        "lambda": lambda value: read_setting(value, "lambda"),
        "coefficients": lambda rows: [read_setting(row, "a coefficient") for row in rows],
        "dtype": parse_output_dtype,
        "size": parse_size,
    }


@dataclass(frozen=True)
class Recipe(typing.Generic[T]):
    """A recipe that was read, and where each of its keys stands.

    Attributes:
        content: The typed sections.
        path: The file.
        lines: Line of every key, `merge.eta` for instance.
    """

    content: T
    path: Path
    lines: dict[str, int]

    def blame(self, error: UsageError) -> RecipeError:
        """Give an error that concerns several keys the line of the first one that it names."""
        text = str(error)
        named = (line for key, line in self.lines.items() if key.split(".")[-1] in text)
        return RecipeError(f"{self.path}:{next(named, 1)}: {text}")


def read_recipe(
    path: Path, schema: type[T], overrides: Sequence[str] = (), instead: Mapping[str, type[T]] | None = None
) -> Recipe[T]:
    """Read a YAML file as `schema`, a dataclass of sections.

    Args:
        path: The file; `-` is standard input.
        schema: What it must hold.
        overrides: `section.key=value`, each laid over the file.
        instead: What it must hold where it has a certain key (`warm.members`).

    Raises:
        RecipeError: If it is not YAML, has unknown, repeated or missing keys, or values of the wrong type or range.
    """
    text, path = _text(path)
    reader = RecipeReader(path, _checks())
    node = reader.compose(text, str(path))
    _refuse_other_kind(path, node, schema)
    keys = [*written_keys(node), *(override.partition("=")[0] for override in overrides)]
    for key, other in (instead or {}).items():
        if key in keys:
            _refuse_beside(path, key, keys, schema, other)
            schema = other
            break
    for override in overrides:
        _refuse_short_key(override, schema)
        reader.lay_over(node, override)
    return Recipe(reader.section(node, schema, ""), path, reader.lines)


def read_documents(path: Path, schema: type[T]) -> list[Recipe[T]]:
    """Read every document of a YAML file as `schema`; `-` is standard input.

    Raises:
        RecipeError: As `read_recipe`.
    """
    text, path = _text(path)
    nodes = RecipeReader(path, {}).documents(text, str(path)) or [None]
    readers = [RecipeReader(path, _checks()) for _ in nodes]
    for node in nodes:
        _refuse_other_kind(path, node, schema)
    return [Recipe(reader.section(node, schema, ""), path, reader.lines) for reader, node in zip(readers, nodes)]


def _text(path: Path) -> tuple[str, Path]:
    """Return the text of a recipe, and what its errors call it."""
    return (sys.stdin.read(), Path("standard input")) if str(path) == "-" else (recipe_source(path), path)


def _refuse_other_kind(path: Path, node: Any, schema: type[Any]) -> None:
    """Refuse an empty recipe, and the recipe of another command, and name that command."""
    if node is None:
        raise RecipeError(f"{path}:1: the recipe is empty; warmkit recipes lists complete ones")
    kind, command = command_of(written_keys(node)) or ("", "")
    if kind and kind not in {each.name for each in dataclasses.fields(schema)}:
        raise RecipeError(f"{path}: a recipe of another command; give it to that: warmkit {command} {path}")


def _refuse_beside(path: Path, key: str, keys: Sequence[str], usual: type[Any], schema: type[Any]) -> None:
    """Refuse keys of the usual recipe that mean nothing in the one that `key` makes of it."""
    unknown = set(dotted_keys(usual)) - set(dotted_keys(schema))
    if odd := next((each for each in keys if each in unknown), None):
        raise RecipeError(f"{path}: {odd} means nothing beside {key}; leave one of them out")


def _refuse_short_key(override: str, schema: type[Any]) -> None:
    """Refuse a key without its section, and say it whole."""
    key, equals, value = override.partition("=")
    known = list(dotted_keys(schema))
    whole = [each for each in known if each.endswith(f".{key}")]
    if equals and key not in known and whole:
        said = " or ".join(f"--set {each}={value}" for each in whole)
        raise UsageError(f"--set {override}: no such key; keys are written with their section: {said}")


def recipe_source(path: Path) -> str:
    """Return the text of a recipe.

    Raises:
        RecipeError: If it is no file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file() and path.parent != Path("/dev/fd"):  # the shell's <(...) is a pipe
            raise RecipeError(f"{path}: expected a file with a recipe")
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise RecipeError(missing_recipe(path)) from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None


def recipe_text(content: Any) -> str:
    """Write a recipe with every key resolved, as YAML that `read_recipe` reads back."""
    return yaml.safe_dump(plain(content), sort_keys=False, allow_unicode=True, width=120)


def plain(content: Any) -> dict[str, Any]:
    """Turn sections into dictionaries, without the keys that are not set."""
    result: dict[str, Any] = {}
    for each in dataclasses.fields(content):
        value = getattr(content, each.name)
        if value is not None:
            result[each.name.rstrip("_")] = _plainly(value)
    return result


def _plainly(value: Any) -> Any:
    if isinstance(value, list):
        return [_plainly(each) for each in typing.cast("list[Any]", value)]
    return plain(value) if dataclasses.is_dataclass(value) else value
