"""Pictures of policies: the front of KL and reward, what slides along it, and the front of several rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from warmkit.errors import UsageError
from warmkit.evaluation.accuracy import Estimate
from warmkit.evaluation.front import FrontPoint
from warmkit.report.figure import BLUE, GREEN, GREY, RED, panels, save

COLOURS = (BLUE, RED, GREEN, "#8e5ea2", "#d98c1f", "#2a9aa5")
LINES = ("-", ":", "-.", (0, (1, 1)))
KL = "KL to the SFT model, nats"

Trajectories = Mapping[str, Sequence[Mapping[str, float]]]
"""Of training runs, by name: see `evaluation.front.trajectory`."""


def draw_front(fronts: Mapping[str, Sequence[FrontPoint]], trajectories: Trajectories, path: Path) -> None:
    """Draw reward and controls against the KL to the SFT, the trajectories beside them, and what eta or lambda does.

    Several etas make a line a mix; one eta alone makes one line through all mixes.

    Args:
        fronts: Of `evaluation.front.sweep`, by what the legend calls them.
        trajectories: Of training, drawn behind.
        path: Of the figure.

    Raises:
        UsageError: If matplotlib is not installed.

    Source: WARP (Ramé et al., 2024), figures 3, 4 and 8-10.
    """
    everything = [point for points in fronts.values() for point in points]
    names, knob = ["reward", *_names(everything, "control_")], _knob(everything)
    sliding = "eta" if len({point.eta for point in everything}) > 1 else "mix"
    figure, axes = panels(len(names) + 2 * (knob is not None), width=4.2, height=4)
    for axis, name in zip(axes, names):
        _draw_trajectories(axis, trajectories, name)
        for place, (label, points) in enumerate(fronts.items()):
            _draw_front(axis, points, "kl_sft", name, _Look(label, place, sliding))
        axis.set_xlabel(KL)
        axis.set_ylabel(_words(name))
    for axis, name in zip(axes[len(names) :], ("reward", "kl_sft")):
        for place, (label, points) in enumerate(fronts.items()):
            _draw_front(axis, points, str(knob), name, _Look(label, place, sliding))
        axis.set_xlabel(f"{knob}, share of the second policy" if knob == "lambda" else knob)
        axis.set_ylabel(KL if name == "kl_sft" else _words(name))
    axes[0].legend(fontsize=8)
    save(figure, path)


def draw_rewards(
    fronts: Mapping[str, Sequence[FrontPoint]], path: Path, policies: Sequence[str] = (), rewards: Sequence[str] = ()
) -> None:
    """Draw one reward against another, a panel a pair, with the individual policies as end points.

    The mixes of two policies at one eta make a line; those of more policies stay points.

    Args:
        fronts: Of `evaluation.front.sweep`, by what the legend calls them.
        path: Of the figure.
        policies: What the shares are of, for the end points.
        rewards: Names in the points' values; by default every reward and control.

    Raises:
        UsageError: If there are fewer than two rewards, or matplotlib is not installed.

    Source: Rewarded soups (Ramé et al., 2023), figures 1 and 2.
    """
    everything = [point for points in fronts.values() for point in points]
    names = [*rewards] or _names(everything, "reward_", "control_")
    pairs = [*combinations(names, 2)]
    if not pairs:
        raise UsageError(f"a front of rewards needs two rewards or controls, found {', '.join(names) or 'none'}")
    sliding = "mix" if len({_mix(point) for point in everything}) > 1 else "eta"
    figure, axes = panels(len(pairs), width=4.6, height=4.2)
    for axis, (first, second) in zip(axes, pairs):
        for place, (label, points) in enumerate(fronts.items()):
            _draw_front(axis, points, first, second, _Look(label, place, sliding))
        for point in everything:
            if 1 in _mix(point) and point.eta == 1:
                _draw_end(axis, point, first, second, policies)
        axis.set_xlabel(_words(first))
        axis.set_ylabel(_words(second))
        axis.margins(0.12)
    axes[0].legend(fontsize=8)
    save(figure, path)


@dataclass(frozen=True)
class _Look:
    """How a front is drawn: its name, its place among all, and what slides along one of its lines, `eta` or `mix`."""

    label: str
    place: int
    sliding: str

    @property
    def colour(self) -> str:
        return COLOURS[self.place % len(COLOURS)]

    @property
    def offset(self) -> tuple[int, int]:
        """Where texts stand, in points: neighbours write on different sides."""
        return (4, -9) if self.place % 2 == 0 else (-12, 5)


def _draw_trajectories(axis: Any, trajectories: Trajectories, name: str) -> None:
    for place, (label, steps) in enumerate(trajectories.items()):
        known = [each for each in steps if name in each]  # another run may have other controls
        xs, ys = [each["kl_sft"] for each in known], [each[name] for each in known]
        axis.plot(xs, ys, linestyle=LINES[place % len(LINES)], color=GREY, linewidth=1, label=f"training of {label}")


def _draw_front(axis: Any, points: Sequence[FrontPoint], x: str, y: str, look: _Look) -> None:
    """Draw a front's lines, their intervals faint behind them, and write what tells points, or else lines, apart."""
    lines = _lines(points, look.sliding)
    for number, line in enumerate(lines):
        places = [(_at(point, x), _at(point, y)) for point in line]
        xs, ys = [each.value for each, _ in places], [each.value for _, each in places]
        joined = "-" if look.sliding == "eta" or len(_mix(line[0])) == 2 else "none"
        reach = {"xerr": _reach([each for each, _ in places]), "yerr": _reach([each for _, each in places])}
        axis.errorbar(xs, ys, **reach, fmt="none", ecolor=look.colour, alpha=0.25, zorder=2)
        named = "" if number else look.label
        axis.plot(xs, ys, linestyle=joined, color=look.colour, marker="o", markersize=4, label=named, zorder=3)
        texts = _texts(line, look.sliding) if len(lines) == 1 and x not in ("eta", "lambda") else [""] * len(line)
        if len(lines) > 1:
            texts[-1] = _text(line[-1], "mix" if look.sliding == "eta" else "eta")
        for place, value, text in zip(xs, ys, texts):
            axis.annotate(text, (place, value), look.offset, textcoords="offset points", fontsize=6, color=look.colour)


def _draw_end(axis: Any, point: FrontPoint, x: str, y: str, policies: Sequence[str]) -> None:
    """Draw an individual policy."""
    place, number = (point.values[x].value, point.values[y].value), _mix(point).index(1)
    name = policies[number] if policies else f"policy {number + 1}"
    axis.plot(*place, "*", color="black", markersize=11, zorder=4)
    axis.annotate(name, place, (7, 6), textcoords="offset points", fontsize=8)


def _lines(points: Sequence[FrontPoint], sliding: str) -> list[list[FrontPoint]]:
    """Return what one line joins: all etas of a mix, or all mixes at an eta."""
    if sliding == "mix":
        return [[point for point in points if point.eta == eta] for eta in dict.fromkeys(point.eta for point in points)]
    mixes = dict.fromkeys(_mix(point) for point in points)
    return [sorted((point for point in points if _mix(point) == mix), key=lambda point: point.eta) for mix in mixes]


def _reach(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Return how far intervals reach, which rounding may not make negative."""
    return [[max(0.0, each.value - each.low) for each in estimates], [max(0.0, each.high - each.value) for each in estimates]]


def _texts(line: Sequence[FrontPoint], sliding: str) -> list[str]:
    if sliding == "mix" and len(_mix(line[0])) > 2:
        return [""] * len(line)  # too many, too long
    return [f"{point.eta:g}" if sliding == "eta" else f"{_mix(point)[1]:.3g}" for point in line]


def _text(point: FrontPoint, what: str) -> str:
    if what == "eta":
        return f"eta {point.eta:g}"
    mix = _mix(point)
    return f"lambda {mix[1]:.3g}" if len(mix) == 2 else "/".join(f"{share:.2g}" for share in mix)


def _mix(point: FrontPoint) -> tuple[float, ...]:
    return tuple(point.coefficients or ())


def _knob(points: Sequence[FrontPoint]) -> str | None:
    """Return what slides: eta, or else the share of the second of two policies."""
    if len({point.eta for point in points}) > 1:
        return "eta"
    return "lambda" if len({_mix(point) for point in points}) > 1 and len(_mix(points[0])) == 2 else None


def _at(point: FrontPoint, name: str) -> Estimate:
    """Return a number of a point, eta and lambda among them."""
    if name == "eta":
        return Estimate(*[point.eta] * 3)
    return Estimate(*[_mix(point)[1]] * 3) if name == "lambda" else point.values[name]


def _names(points: Sequence[FrontPoint], *prefixes: str) -> list[str]:
    return [name for name in points[0].values if name.startswith(prefixes)]


def _words(name: str) -> str:
    return name.replace("_", " ", 1)
