"""Axes: noise is no cliff, one run far out does not flatten the others, and every axis has ticks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from warmkit.report.axes import axis_of
from warmkit.report.chart import Chart

KL = "KL to the SFT model, nats"


def lines(reach: dict[str, float]) -> Chart:
    """Return paths in the plane of KL and reward, each as far as it reaches."""
    rows = [{"line": name, "kl": share * most, "reward": share} for name, most in reach.items() for share in (0.0, 0.5, 1.0)]
    return Chart("c", "C", rows, "kl", "reward", KL, order="reward")


def values(*found: float, title: str = "angle, degrees") -> Chart:
    return Chart("c", "C", [{"x": x, "y": y} for x, y in enumerate(found)], "x", "y", "layer", title)


@pytest.mark.parametrize(
    ("found", "title", "domain"),
    [
        ((84.1, 84.7), "angle, degrees", (79.4, 89.4)),
        ((0.2, 0.4), "angle, degrees", (0.0, 10.0)),
        ((57.0, 83.0), "angle, degrees", (57.0, 83.0)),
        ((99.9, 99.9), "pairwise accuracy, %", (98.0, 100.0)),
        ((0.3, 0.4), "reward", (0.3, 0.4)),
        ((2e-4, 2e-4), "learning rate", (1e-4, 3e-4)),
        ((0.0, 0.0), "loss", (-0.5, 0.5)),
    ],
)
def test_an_axis_is_never_narrower_than_its_unit_asks(
    found: tuple[float, float], title: str, domain: tuple[float, float]
) -> None:
    assert axis_of(values(*found, title=title), "y").domain == pytest.approx(domain)


def test_an_axis_holds_bands_and_references() -> None:
    chart = replace(values(60.0, 70.0), reference=90)
    assert axis_of(chart, "y").domain == (60.0, 90.0)
    band = replace(chart, rows=[{"x": 0, "y": 60.0, "a": 40.0, "b": 95.0}], low="a", high="b")
    assert axis_of(band, "y").domain == (40.0, 95.0)
    assert axis_of(replace(chart, kind="bars"), "y").domain == (0.0, 90.0)


def test_a_kl_is_logarithmic_where_one_run_is_far_out() -> None:
    axis = axis_of(lines({"a": 2.0, "b": 3.0, "wild": 40.0}), "x")
    assert (axis.kind, axis.constant) == ("symlog", 1.0)
    assert axis.ticks == [0.0, 1.0, 2.0, 5.0, 10.0, 20.0]
    assert axis.title == ["KL to the SFT model, nats, logarithmic"]


@pytest.mark.parametrize("reach", [{"a": 2.0, "b": 3.0, "c": 9.0}, {"a": 40.0}, {"a": 20.0, "b": 40.0, "c": 1.0}])
def test_a_kl_is_linear_where_runs_go_about_as_far_or_most_are_far(reach: dict[str, float]) -> None:
    assert axis_of(lines(reach), "x").kind == "linear"


def test_only_a_kl_bends() -> None:
    assert axis_of(replace(lines({"a": 2.0, "b": 3.0, "wild": 40.0}), x_title="step"), "x").kind == "linear"


@pytest.mark.parametrize(
    ("places", "ticks"),
    [([1, 30], [1, 2, 5, 10, 20]), ([1e-6, 3e-6], [1e-6, 2e-6]), ([1e-6, 0.5], [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1])],
)
def test_a_logarithmic_axis_has_ticks_within_a_decade_too(places: list[float], ticks: list[float]) -> None:
    axis = axis_of(Chart("c", "C", [{"x": x, "y": 1} for x in places], "x", "y", "learning rate", log_x=True), "x")
    assert (axis.kind, axis.ticks) == ("log", pytest.approx(ticks))
    assert axis.small == (max(places) < 1e-3)


def test_a_long_title_is_wrapped() -> None:
    axis = axis_of(values(1.0, title="control reward above the best single model's, standard deviations"), "y")
    assert len(axis.title) == 2
