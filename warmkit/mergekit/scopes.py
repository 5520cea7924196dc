"""A recipe of mergekit as slices of models with their parameters, each found in its scopes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from warmkit.errors import RecipeError, nearest
from warmkit.layouts.layer_settings import Rule, Setting, is_constant
from warmkit.mergekit.method_table import PARAMETERS, Known
from warmkit.mergekit.schema import MergekitRecipe
from warmkit.recipes.recipe import Recipe


@dataclass(frozen=True)
class Scope:
    """One `parameters:` of a recipe.

    Attributes:
        key: Where it stands, `models[0].parameters` for instance.
        content: What it says.
    """

    key: str
    content: Mapping[str, Any]


@dataclass(frozen=True)
class Input:
    """One model of a slice.

    Attributes:
        model: As `open_checkpoint` takes it.
        layers: First layer and the one after the last; None for all.
        scopes: Its parameters, the nearest first.
    """

    model: str
    layers: tuple[int, int] | None
    scopes: tuple[Scope, ...]


@dataclass(frozen=True)
class Section:
    """One slice of the result, or all of it.

    Attributes:
        key: Where it stands.
        inputs: The models that are merged.
        base: What the others are compared with, if it is not one of them.
        scopes: Parameters of the whole slice, the nearest first.
    """

    key: str
    inputs: tuple[Input, ...]
    base: Input | None
    scopes: tuple[Scope, ...]


class Scopes:
    """Looks parameters up, and says what is wrong where it stands; `notes` gathers what mergekit passes over.

    Args:
        recipe: What was read.
        known: Its method.
        places: Where the models are that the recipe calls by the names of other documents.
    """

    def __init__(self, recipe: Recipe[MergekitRecipe], known: Known, places: Mapping[str, str]) -> None:
        self.recipe, self.known, self.places = recipe, known, places
        self.notes: list[str] = []

    def error(self, key: str, message: str) -> RecipeError:
        """Return an error at the line of a key, of the first inside it, or of the nearest around it."""
        lines, place = self.recipe.lines, key
        inside = [line for name, line in lines.items() if name.startswith(f"{key}.")]
        while place and place not in lines:
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
        line = lines[key] if key in lines else inside[0] if inside else lines.get(place, 1)
        return RecipeError(f"{self.recipe.path}:{line}: {message}")

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def scope(self, key: str, content: Mapping[str, Any] | None) -> tuple[Scope, ...]:
        """Return a scope with the parameters that the method takes.

        Raises:
            RecipeError: If it names a parameter that no method of mergekit has.
        """
        kept: dict[str, Any] = {}
        for name, value in (content or {}).items():
            if name in self.known.parameters:
                kept[name] = value
            elif name in PARAMETERS:
                self.note(f"{key}.{name}: {self.known.name} does not use it")
            else:
                near = nearest(name, self.known.parameters or sorted(PARAMETERS))
                raise self.error(f"{key}.{name}", f"unknown parameter {name!r} of {self.known.name}{near}")
        return (Scope(key, kept),) if kept else ()

    def setting(self, name: str, scopes: Sequence[Scope], default: float | None) -> Setting:
        """Return a parameter as rules: those of the nearest scope first, and of the next where none of them fits.

        Raises:
            RecipeError: If it is no number, gradient or list of filters, or is said nowhere and has no default.
        """
        rules: list[Rule] = []
        for scope in scopes:
            if name in scope.content and scope.content[name] is not None:
                rules += self._rules(f"{scope.key}.{name}", scope.content[name])
            if rules and rules[-1].pattern is None:
                break
        if not rules and default is None:
            whose = "of the recipe" if name in self.known.shared else "of each model"
            raise self.error("merge_method", f"{self.known.name} needs {name!r}; add it to parameters {whose}, as {name}: 0.5")
        if default is not None and (not rules or rules[-1].pattern is not None):
            rules.append(Rule((default,)))
        return tuple(rules)

    def flag(self, name: str, scopes: Sequence[Scope], default: bool) -> bool:
        """Return a parameter that is true or false, for all tensors alike.

        Raises:
            RecipeError: If it is neither, or changes over the model.
        """
        for scope in scopes:
            value: Any = scope.content.get(name)
            if value is None:
                continue
            if value in (True, False):  # 1 and 0 as well, which mergekit takes too
                return bool(value)
            raise self.error(f"{scope.key}.{name}", f"{name} must be true or false for all tensors, found {value!r}")
        return default

    def constant(self, setting: Setting) -> float | None:
        """Return the number that a setting is everywhere, None if it changes."""
        return setting[0].values[0] if is_constant(setting) else None

    def _rules(self, key: str, value: Any) -> list[Rule]:
        if isinstance(value, dict):
            return self._conditions(key, [value])
        rows = cast("list[Any]", value) if isinstance(value, list) else [value]
        if rows and all(isinstance(each, dict) for each in rows):
            return self._conditions(key, rows)
        return [Rule(self._values(key, value))]

    def _values(self, key: str, value: Any) -> tuple[float, ...]:
        rows = cast("list[Any]", value) if isinstance(value, list) else [value]
        if not rows or not all(isinstance(each, int | float) for each in rows):
            raise self.error(key, f"{key} must be a number, a list of numbers or a list of filters, found {value!r}")
        return tuple(map(float, rows))

    def _conditions(self, key: str, rows: Sequence[dict[str, Any]]) -> list[Rule]:
        rules: list[Rule] = []
        for row in rows:
            if unknown := next((name for name in row if name not in ("filter", "value")), None):
                raise self.error(key, f"{key}: unknown key {unknown!r}{nearest(unknown, ('filter', 'value'))}")
            if "value" not in row:
                raise self.error(key, f"{key}: missing key 'value'")
            pattern: Any = row.get("filter")
            if pattern is not None and not isinstance(pattern, str):
                raise self.error(key, f"{key}: filter must be text, found {pattern!r}")
            if pattern not in (None, "", "*") and ("*" in pattern or "?" in pattern):
                self.note(
                    f"{key}: no tensor is called {pattern!r}; mergekit looks for the very text of a filter, so this fits none"
                )
                continue
            rules.append(Rule(self._values(key, row["value"]), None if pattern in (None, "", "*") else pattern))
            if rules[-1].pattern is None:
                break
        return rules
