"""Pictures of reward models: accuracy against M, orders of the members, linear mode connectivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warmkit.evaluation.connectivity import ConnectivityPoint
from warmkit.report.figure import BLUE, GREEN, GREY, RED, panels, save


def draw_accuracies(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path, members: str = "the M best") -> None:
    """Draw accuracy against M on every data set: WA, ENS, the individuals in their order, the probe.

    Args:
        rows: `{"data", "m", "wa", "ens", "individual", "probe"}`.
        names: Of the data sets, one panel each.
        path: Of the figure.
        members: What the averages are of, for the legend.
    """
    figure, axes = panels(len(names))
    for axis, name in zip(axes, names):
        lines = [row for row in rows if row["data"] == name]
        m = [row["m"] for row in lines]
        axis.plot(m, [100 * row["individual"] for row in lines], "o", color=GREY, label="individual number M")
        axis.plot(m, [100 * row["wa"] for row in lines], "-o", color=BLUE, label=f"WA of {members}")
        axis.plot(m, [100 * row["ens"] for row in lines], "--s", color=RED, label=f"ENS of {members}")
        if lines and lines[0]["probe"] is not None:
            axis.axhline(100 * lines[0]["probe"], color=GREEN, linestyle=":", label="probe only")
        axis.set_title(name)
        axis.set_xlabel("M")
        axis.set_xticks(m)
    axes[0].set_ylabel("pairwise accuracy, %")
    axes[0].legend(fontsize=8)
    save(figure, path)


def draw_orders(ranked: Sequence[float], random: Sequence[Sequence[float]], path: Path, data: str) -> None:
    """Draw the accuracy of WA against M, members taken from best to worst and in random orders (WARM, figure 6)."""
    figure, (axis,) = panels(1)
    m = range(1, len(ranked) + 1)
    for number, order in enumerate(random):
        axis.plot(m, [100 * value for value in order], "-", color=GREY, alpha=0.6, label="" if number else "random orders")
    axis.plot(m, [100 * value for value in ranked], "-o", color=BLUE, label="best to worst")
    axis.set_xlabel("M")
    axis.set_xticks(list(m))
    axis.set_ylabel(f"accuracy of WA on {data}, %")
    axis.legend(fontsize=8)
    save(figure, path)


def draw_connectivity(points: Sequence[ConnectivityPoint], names: Sequence[str], labels: tuple[str, str], path: Path) -> None:
    """Draw WA, ENS and the diagonal against lambda on every data set (WARM, figure 2)."""
    figure, axes = panels(len(names))
    for axis, name in zip(axes, names):
        line = [point for point in points if point.data == name]
        x = [point.lambda_ for point in line]
        axis.plot(x, [100 * point.wa for point in line], "-o", color=BLUE, label="WA")
        axis.plot(x, [100 * point.ens for point in line], "--s", color=RED, label="ENS")
        axis.plot(x, [100 * point.diag for point in line], ":", color=GREY, label="diagonal")
        axis.set_title(name)
        axis.set_xlabel(f"lambda, from {labels[0]} to {labels[1]}")
    axes[0].set_ylabel("pairwise accuracy, %")
    axes[0].legend(fontsize=8)
    save(figure, path)
