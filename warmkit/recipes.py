"""Recipes: what a command does, in YAML; strict, so that a typing error never becomes a default.

Every section is a dataclass. Its fields are the allowed keys (a trailing underscore is dropped: `lambda_` is `lambda`),
their annotations the types, and `metadata["check"]` a function (or its name in `_checks`) that raises UsageError for a bad
value. Errors name file and line. `--set section.key=value` lays single keys over a file.
"""

from __future__ import annotations

import dataclasses
import reprlib
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml
from yaml.composer import ComposerError

from warmkit.bounded_yaml import compose_documents
from warmkit.errors import RecipeError, UsageError, nearest

T = TypeVar("T")

LARGEST = 1 << 63


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
class MergeSection:
    """`merge:`, the parameters of `warmkit.merge`."""

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
    scale: float | None = None
    density: float | list[Any] | None = None
    gamma: float | list[Any] | None = None
    epsilon: float | list[Any] | None = None
    select_topk: float | None = None
    normalize: bool | None = None
    seed: int | None = None
    r: float | None = None
    alpha: float | None = None
    only: list[str] | None = None
    exclude: list[str] | None = None
    heads: str | None = None
    vocabulary: str | None = None
    allow_pickle: bool | None = None
    stream: bool | None = None
    executor: Literal["threads", "ray"] | None = None

    def __post_init__(self) -> None:
        if (self.models is None) == (self.slices is None):
            raise UsageError(
                "missing key 'models' (or 'slices')" if self.models is None else "expected models or slices, not both"
            )


@dataclass(frozen=True)
class OutputSection:
    """`output:`, where and how the result is written."""

    path: str | None = None
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
    from warmkit.checkpoints.dtypes import parse_output_dtype
    from warmkit.checkpoints.groups import group
    from warmkit.checkpoints.plan import parse_size
    from warmkit.checkpoints.settings import read_setting
    from warmkit.checkpoints.spec import check_etas, is_sweep
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


def read_recipe(path: Path, schema: type[T], overrides: Sequence[str] = ()) -> Recipe[T]:
    """Read a YAML file as `schema`, a dataclass of sections.

    Args:
        path: The file; `-` is standard input.
        schema: What it must hold.
        overrides: `section.key=value`, each laid over the file.

    Raises:
        RecipeError: If it is not YAML, has unknown, repeated or missing keys, or values of the wrong type or range.
    """
    text, path = (sys.stdin.read(), Path("standard input")) if str(path) == "-" else (recipe_source(path), path)
    reader = _Reader(path)
    node = reader.compose(text, str(path))
    if node is None:
        raise RecipeError(f"{path}:1: the recipe is empty")
    for override in overrides:
        reader.lay_over(node, override)
    return Recipe(reader.section(node, schema, ""), path, reader.lines)


def recipe_source(path: Path) -> str:
    """Return the text of a recipe.

    Raises:
        RecipeError: If it is no file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file() and path.parent != Path("/dev/fd"):  # the shell's <(...) is a pipe
            raise RecipeError(f"{path}: expected a file with a recipe")
        return path.read_text("utf-8")
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


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path, self.lines, self._checks = path, dict[str, int](), _checks()
        self._places: dict[int, str] = {}  # of nodes that do not stand in the file

    def compose(self, text: str, place: str) -> Any:
        try:
            documents = compose_documents(text)
            if len(documents) > 1:
                problem = "expected a single document in the stream, but found another"
                raise ComposerError(None, None, problem, documents[1].start_mark)
            return documents[0] if documents else None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            raise RecipeError(f"{place}:{line}: not YAML: {getattr(error, 'problem', None) or error}") from None

    def lay_over(self, node: Any, override: str) -> None:
        """Put `section.key=value` into the tree, in the place of what is there."""
        keys, equals, text = override.partition("=")
        place = f"--set {override}"
        if not equals or not keys:
            raise UsageError(f"{place}: expected section.key=value")
        value = self.compose(text, place) or yaml.ScalarNode("tag:yaml.org,2002:null", "")
        *sections, last = keys.split(".")
        for section in sections:
            node = self._entry(node, section, yaml.MappingNode("tag:yaml.org,2002:map", []), place)
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{place}: {'.'.join(sections)} is no section")
        node.value = [entry for entry in node.value if entry[0].value != last]
        key = yaml.ScalarNode("tag:yaml.org,2002:str", last)
        node.value.append((key, value))
        self._places |= {id(key): place, **dict.fromkeys(map(id, _nodes(value)), place)}

    def _entry(self, node: Any, key: str, default: Any, place: str) -> Any:
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"{place}: {key} stands in no section")
        for key_node, value_node in node.value:
            if key_node.value == key:
                return value_node
        key_node = yaml.ScalarNode("tag:yaml.org,2002:str", key)
        node.value.append((key_node, default))
        self._places |= {id(key_node): place, id(default): place}
        return default

    def section(self, node: Any, schema: type[Any], prefix: str) -> Any:
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, f"expected {prefix.rstrip('.') or 'the recipe'} to be a mapping of keys to values")
        hints = typing.get_type_hints(schema)
        fields = {each.name.rstrip("_"): each for each in dataclasses.fields(schema)}
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a list or a mapping"
            if key not in fields:
                raise self._error(key_node, f"unknown key {prefix + key!r}{nearest(key, fields)}")
            if prefix + key in self.lines:
                raise self._error(key_node, f"{prefix + key!r} is there twice")
            self.lines[prefix + key] = key_node.start_mark.line + 1 if key_node.start_mark else 0
            values[fields[key].name] = self._value(value_node, prefix + key, fields[key], hints[fields[key].name])
        for key, each in fields.items():
            required = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
            if required and each.name not in values:
                raise self._error(node, f"missing key {prefix + key!r}")
        try:
            return schema(**values)
        except UsageError as error:  # keys that do not go together
            place = f"{prefix.rstrip('.')}: " if prefix else ""
            raise self._error(node, f"{place}{error}") from None

    def _value(self, node: Any, key: str, declared: dataclasses.Field[Any], hint: Any) -> Any:
        section = next((option for option in _options(hint) if dataclasses.is_dataclass(option)), None)
        if section is not None and not (isinstance(node, yaml.ScalarNode) and self._plain(node) is None):
            return self.section(node, typing.cast("type[Any]", section), key + ".")
        listed = next((inner for inner in _inner(hint) if dataclasses.is_dataclass(inner)), None)
        if listed is not None and isinstance(node, yaml.SequenceNode):
            kind = typing.cast("type[Any]", listed)
            return [self.section(each, kind, f"{key}[{place}].") for place, each in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):  # keys of their own, which no dataclass lists
            self.lines |= {f"{key}.{inner.value}": inner.start_mark.line + 1 for inner, _ in node.value}
        value = self._plain(node)
        if not _fits(value, hint):
            near = nearest(value, choices) if isinstance(value, str) and (choices := _choices(hint)) else ""
            raise self._error(node, f"{key} must be {_described(hint)}, found {_short(value)}{near}")
        check = declared.metadata.get("check")
        if check and value is not None:
            try:
                (check if callable(check) else self._checks[check])(value)
            except UsageError as error:
                raise self._error(node, f"{key}: {error}") from None
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                raise self._error(node, f"{key} must be {_described(hint)} of another form, found {_short(value)}") from None
        return value

    def _plain(self, node: Any) -> Any:
        """Return the Python value of a node; YAML 1.1 reads 1e-5 as text, which nobody means."""
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(each) for each in node.value]
        if isinstance(node, yaml.MappingNode):
            if odd := next((key for key, _ in node.value if not isinstance(key, yaml.ScalarNode)), None):
                raise self._error(odd, "expected a name as a key, found a list or a mapping")
            return {self._plain(key): self._plain(value) for key, value in node.value}
        loader = yaml.SafeLoader("")
        try:
            value = loader.construct_object(node, deep=True)
        except yaml.YAMLError as error:
            raise self._error(node, str(getattr(error, "problem", error))) from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # of PyYAML's constructors
            raise self._error(node, f"cannot be read as {node.tag.rpartition(':')[2]}: {str(error)[:80]}") from None
        if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
            raise self._error(node, "a whole number beyond 64 bits")
        if isinstance(node, yaml.ScalarNode) and isinstance(value, str) and node.style is None:
            try:
                return float(value)
            except ValueError:
                return value
        return value

    def _error(self, node: Any, message: str) -> RecipeError:
        place = self._places.get(id(node)) or f"{self.path}:{node.start_mark.line + 1}"
        return RecipeError(f"{place}: {message}")


def _short(value: Any) -> str:
    return reprlib.repr(value) if isinstance(value, (list, dict)) else repr(value)[:200]


def _nodes(node: Any) -> Iterator[Any]:
    """Yield a node and all below it."""
    yield node
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from (each for part in pair for each in _nodes(part))
    elif isinstance(node, yaml.SequenceNode):
        yield from (each for part in node.value for each in _nodes(part))


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def _inner(hint: Any) -> list[Any]:
    return [typing.get_args(option)[0] for option in _options(hint) if typing.get_origin(option) is list]


def _choices(hint: Any) -> list[str]:
    return [name for option in _options(hint) if typing.get_origin(option) is Literal for name in typing.get_args(option)]


def _fits(value: Any, hint: Any) -> bool:
    return any(_is(value, option) for option in _options(hint))


def _is(value: Any, option: Any) -> bool:
    """Say whether a value is of one of the types that a key may have."""
    origin = typing.get_origin(option)
    if option is Any:
        return True
    if origin is Literal:
        return value in typing.get_args(option)
    if origin is list:
        (inner,) = typing.get_args(option)
        return isinstance(value, list) and all(_fits(each, inner) for each in typing.cast("list[Any]", value))
    if option is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, origin or option) and (option is bool or not isinstance(value, bool))


_PLURALS = {Any: "numbers or rules", str: "texts", float: "numbers", int: "whole numbers"}
_WORDS = {str: "text", float: "a number", int: "a whole number", bool: "true or false"}


def _listed(inner: Any) -> str:
    return " or ".join(_choices(inner)) or _PLURALS.get(inner, "mappings of keys to values")


def _described(hint: Any) -> str:
    words: list[str] = []
    for option in _options(hint):
        if typing.get_origin(option) is list:
            words.append(f"a list of {_listed(typing.get_args(option)[0])}")
        elif typing.get_origin(option) is Literal:
            words.append(" or ".join(typing.get_args(option)))
        elif typing.get_origin(option) is dict or dataclasses.is_dataclass(option):
            words.append("a mapping of keys to values")
        elif option in _WORDS:
            words.append(_WORDS[option])
    return " or ".join(words)
