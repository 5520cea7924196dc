"""Coefficients and eta that change from tensor to tensor, and the groups that they split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from warmkit.errors import UsageError
from warmkit.layouts.layer_settings import Setting, depths, value_at, write_setting


@dataclass(frozen=True)
class Mix:
    """The settings of one stretch of layers.

    Attributes:
        coefficients: One setting per model; None weighs as the method does without.
        eta: Of LITI.
        own: Parameters that the method has for each model, `density` for instance, where they change.
    """

    coefficients: tuple[Setting, ...] | None
    eta: Setting
    own: Mapping[str, tuple[Setting, ...]] = field(default_factory=lambda: {})

    def written(self) -> dict[str, Any]:
        """Return what a recipe would say."""
        rows = None if self.coefficients is None else [write_setting(each) for each in self.coefficients]
        own = {name: [write_setting(each) for each in settings] for name, settings in self.own.items()}
        return {"coefficients": rows, "eta": write_setting(self.eta), **own}


@dataclass(frozen=True)
class Place:
    """Where a tensor of the result stands.

    Attributes:
        stretch: Number of the mix that it follows.
        depth: From 0 to 1, in that stretch.
        sources: Its name in every model.
        used: How many of the models take part; the others have coefficient 0.
    """

    stretch: int
    depth: float
    sources: tuple[str, ...]
    used: int


@dataclass(frozen=True)
class Local:
    """The numbers of one tensor: coefficients as given, None for the method's own; eta; parameters of the method."""

    coefficients: tuple[float, ...] | None
    eta: float
    own: tuple[tuple[str, tuple[float, ...]], ...] = ()


@dataclass(frozen=True)
class Variation:
    """How the numbers of a merge change over the model.

    Attributes:
        stretches: One mix, or one for each slice of layers.
        places: Where every tensor stands; empty where there is one mix, over the model's own layers.
    """

    stretches: tuple[Mix, ...]
    places: Mapping[str, Place] = field(default_factory=lambda: {})

    @property
    def moves(self) -> bool:
        """Whether eta is other than 1 anywhere, so that the initialisation takes part."""
        return any(value != 1 for mix in self.stretches for rule in mix.eta for value in rule.values)

    def written(self) -> list[dict[str, Any]]:
        """Return what a recipe would say, for the manifest."""
        return [mix.written() for mix in self.stretches]

    def split(self, groups: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], dict[str, Local]]:
        """Split groups whose tensors have different numbers.

        Returns:
            The groups, and the numbers of each. A part is named after its group and the patterns that made it.

        Raises:
            UsageError: If no rule fits a tensor.
        """
        names = [name for group in groups.values() for name in group]
        places = self.places or _whole(names, self.stretches[0])
        parts, numbers = dict[str, list[str]](), dict[str, Local]()
        for group, members in groups.items():
            found: dict[Local, tuple[str, list[str]]] = {}
            for tensor in members:
                local, label = self._local(tensor, places[tensor])
                found.setdefault(local, (label, []))[1].append(tensor)
            for number, (local, (label, tensors)) in enumerate(found.items()):
                name = group if len(found) == 1 else f"{group} ({label})"
                name = f"{name} {number + 1}" if name in parts else name
                parts[name], numbers[name] = tensors, local
        return parts, numbers

    def _local(self, tensor: str, place: Place) -> tuple[Local, str]:
        mix, patterns = self.stretches[place.stretch], list[str]()

        def at(setting: Setting, name: str, what: str) -> float:
            number, value = value_at(setting, name, place.depth, what)
            patterns.append(setting[number].pattern or "others")
            return value

        rows: list[float] | None = None
        if mix.coefficients is not None:
            known = zip(mix.coefficients, place.sources[: place.used])
            rows = [at(setting, name, f"the coefficient of model {m + 1}") for m, (setting, name) in enumerate(known)]
            rows += [0.0] * (len(place.sources) - place.used)
        eta = at(mix.eta, tensor, "eta")
        own = tuple(
            (what, tuple(at(setting, name, f"the {what} of model {m + 1}") for m, (setting, name) in enumerate(known)))
            for what, known in ((what, zip(settings, place.sources)) for what, settings in mix.own.items())
        )
        label = ", ".join(dict.fromkeys(each for each in patterns if each != "others")) or "others"
        return Local(None if rows is None else tuple(rows), eta, own), label


def _whole(names: Sequence[str], mix: Mix) -> dict[str, Place]:
    models = len(mix.coefficients or next(iter(mix.own.values()), ()))
    found = depths(names)
    return {name: Place(0, found[name], (name,) * models, models) for name in names}


def check_count(coefficients: Sequence[Any], models: int) -> None:
    """Check that there is a coefficient for every model.

    Raises:
        UsageError: If there are more or fewer.
    """
    if len(coefficients) != models:
        raise UsageError(f"expected {models} coefficients, one per model, found {len(coefficients)}")
