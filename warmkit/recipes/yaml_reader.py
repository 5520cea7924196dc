"""Reading recipes: YAML into typed sections; every error names file and line."""

from __future__ import annotations

import dataclasses
import reprlib
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from warmkit.common.bounded_yaml import compose_documents
from warmkit.errors import RecipeError, UsageError, nearest
from warmkit.recipes.key_types import choices, described, fits, inner, options

LARGEST = 1 << 63


class RecipeReader:
    """Turns YAML into sections, and remembers the line of every key.

    Args:
        path: The file.
        checks: Of values, by the name that `metadata["check"]` gives.
    """

    def __init__(self, path: Path, checks: Mapping[str, Callable[[Any], object]]) -> None:
        self.path, self.lines, self._checks = path, dict[str, int](), checks
        self._places: dict[int, str] = {}  # of nodes that do not stand in the file

    def compose(self, text: str, place: str) -> Any:
        documents = self.documents(text, place)
        if len(documents) > 1:
            line = documents[1].start_mark.line + 1 if documents[1] else 1
            problem = "expected a single document in the stream, but found another"
            raise RecipeError(f"{place}:{line}: not YAML: {problem}")
        return documents[0] if documents else None

    def documents(self, text: str, place: str) -> list[Any]:
        """Return the tree of every document of a text."""
        try:
            return compose_documents(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            problem = getattr(error, "problem", None) or error
            if "'\\t'" in str(problem):
                problem = "a tab, where YAML takes spaces only"
            raise RecipeError(f"{place}:{line}: not YAML: {problem}") from None

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
                raise self._error(key_node, f"{prefix + key!r} is there twice; remove one")
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
        section = next((option for option in options(hint) if dataclasses.is_dataclass(option)), None)
        if section is not None and not (isinstance(node, yaml.ScalarNode) and self._plain(node) is None):
            return self.section(node, typing.cast("type[Any]", section), key + ".")
        listed = next((each for each in inner(hint) if dataclasses.is_dataclass(each)), None)
        if listed is not None and isinstance(node, yaml.SequenceNode):
            kind = typing.cast("type[Any]", listed)
            return [self.section(each, kind, f"{key}[{place}].") for place, each in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):  # keys of their own, which no dataclass lists
            self.lines |= {f"{key}.{inner.value}": inner.start_mark.line + 1 for inner, _ in node.value}
        value = self._plain(node)
        if not fits(value, hint):
            near = nearest(value, words) if isinstance(value, str) and (words := choices(hint)) else ""
            raise self._error(node, f"{key} must be {described(hint)}, found {_short(value)}{near}")
        check = declared.metadata.get("check")
        if check and value is not None:
            try:
                (check if callable(check) else self._checks[check])(value)
            except UsageError as error:
                raise self._error(node, f"{key}: {error}") from None
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                raise self._error(node, f"{key} must be {described(hint)} of another form, found {_short(value)}") from None
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


def written_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield every key of a tree with its sections: `warm.runs`."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield f"{prefix}{key.value}"
                yield from written_keys(value, f"{prefix}{key.value}.")


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
