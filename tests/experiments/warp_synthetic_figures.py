"""Figures of `warp_synthetic`: thick lines are means over seeds, thin ones single seeds.

Against KL, a mean ends where the first seed ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.experiments import warp_synthetic_report as report
from warmkit.report.reward_models import BLUE, GREEN, GREY, RED

ORANGE, PURPLE, LIGHT_BLUE, BLACK = "#d98200", "#7d3c98", "#7fb3e0", "#222222"
NUMBERS = {"proxy": "proxy reward, above the SFT model", "gold": "gold reward (control)"}
Style = dict[str, dict[str, Any]]
"""Label, colour and kind of line, by the name of the line."""


def panels(rows: int, columns: int, title: str) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 3.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def count(seeds: Sequence[Any]) -> str:
    return "one seed" if len(seeds) == 1 else f"means of {len(seeds)} seeds"


def plot(axis: Any, x: Any, seeds: Any, style: dict[str, Any]) -> None:
    """Draw every seed thin and their mean thick, the mean only where every seed has a value."""
    thin = {key: value for key, value in style.items() if key != "label"}
    if len(seeds) > 1:
        for each in seeds:
            axis.plot(x, each, **{**thin, "marker": "", "lw": 0.6, "alpha": 0.3})
    axis.plot(x, np.mean(seeds, axis=0), **{"lw": 1.8, **style})


def against_kl(axis: Any, seeds: Sequence[Any], styles: Style, number: str, minus: str | None = None) -> None:
    """Draw lines at matched KL, or their difference to one of them."""
    kls = np.linspace(0, 32, 129)
    for name, style in styles.items():
        values = report.curves(seeds, name, number, kls)
        if minus is not None:
            values = values - report.curves(seeds, minus, number, kls)
        plot(axis, kls, values, style)
    axis.set_xlabel("KL to the SFT model, nats")


def against_steps(axis: Any, seeds: Sequence[Any], styles: Style, number: str) -> None:
    for name, style in styles.items():
        lines = [[seed["points"][0], *report.line(seed, name)] for seed in seeds]
        steps = [0, *(point["at"] for point in lines[0][1:])]
        plot(axis, steps, [[point[number] for point in each] for each in lines], {"marker": ".", **style})
    axis.set_xlabel("steps")


def draw_anchors(seeds: Sequence[Any], path: Path) -> None:
    """Draw trajectories of all anchors against steps and against KL (WARP, figures 3a and 3b)."""
    setting, reds, blues = seeds[0]["setting"], ["#e8a198", RED, "#6e1f14"], [LIGHT_BLUE, BLUE, "#0b2545"]
    styles: Style = {"no KL": {"label": "no KL", "color": GREY}}
    for place, beta in enumerate(sorted(setting["static"])):
        styles[f"SFT {beta:g}"] = {"label": f"SFT anchor, beta {beta:g}", "color": reds[place % 3], "ls": "--"}
    for place, beta in enumerate(sorted(setting["ema"])):
        styles[f"EMA {beta:g}"] = {"label": f"EMA anchor, beta {beta:g}", "color": blues[place % 3]}
    figure, axes = panels(2, 2, f"Anchors, {count(seeds)}")
    for row, (number, label) in enumerate(NUMBERS.items()):
        against_steps(axes[row, 0], seeds, styles, number)
        against_kl(axes[row, 1], seeds, styles, number)
        axes[row, 0].set_ylabel(label)
    axes[0, 1].legend(fontsize=8)
    figure.savefig(path, dpi=130)


def draw_fronts(seeds: Sequence[Any], styles: Style, minus: str, path: Path) -> None:
    """Draw lines against KL, and below their differences to the line `minus`."""
    figure, axes = panels(2, 2, f"KL-reward fronts, {count(seeds)}; below: differences, paired by seed")
    for column, (number, label) in enumerate(NUMBERS.items()):
        against_kl(axes[0, column], seeds, styles, number)
        against_kl(axes[1, column], seeds, styles, number, minus)
        axes[0, column].set_ylabel(label)
        axes[1, column].set_ylabel(f"{number}, difference to {styles[minus]['label']}", fontsize=8)
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=130)


def draw_lambda(seeds: Sequence[Any], path: Path) -> None:
    """Draw SLERP and LERP of two policies against lambda (WARP, figures 3c and 8)."""
    figure, axes = panels(1, 3, f"Two policies merged, {count(seeds)}")
    labels = {**NUMBERS, "kl": "KL to the SFT model, nats"}
    for axis, (number, label) in zip(axes[0], labels.items()):
        for name, color in (("SLERP", BLUE), ("LERP", RED)):
            values = [above_the_ends([point[number] for point in report.line(seed, name)]) for seed in seeds]
            plot(axis, seeds[0]["setting"]["lambdas"], values, {"label": name, "color": color, "marker": "o", "ms": 3})
        axis.set_xlabel("lambda, from policy 1 to policy 2")
        axis.set_ylabel(f"{label},\nless the mean of the two policies", fontsize=9)
    axes[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=130)


def above_the_ends(values: Sequence[float]) -> list[float]:
    """Return values on a line less the mean of its two ends: seeds differ more in level than along lambda."""
    middle = (values[0] + values[-1]) / 2
    return [value - middle for value in values]


def draw_all(seeds: Sequence[Any], folder: Path) -> None:
    """Draw every figure into a folder."""
    setting = seeds[0]["setting"]
    first, most, last = report.trajectory(seeds[0]), setting["orders"], setting["iterations"]
    draw_anchors(seeds, folder / "anchors.png")
    draw_lambda(seeds, folder / "lambda.png")
    merged: Style = {first: {"label": "trajectory of policy 1", "color": GREY, "ls": ":"}}
    colors = ("#c7dcf0", LIGHT_BLUE, "#4a90d0", BLUE, "#0b2545")
    for m in range(1, most + 1):
        merged[f"SLERP M = {m}"] = {"label": f"LITI of SLERP, M = {m}", "color": colors[(m - 1) % len(colors)]}
    merged[f"LERP M = {most}"] = {"label": f"LITI of LERP, M = {most}", "color": RED, "ls": "--"}
    draw_fronts(seeds, merged, first, folder / "fronts.png")
    cost = 2 * last
    again: Style = {
        "long run": {"label": f"trajectory of one run of {cost} T", "color": GREY, "ls": ":"},
        f"long run of {cost} T, LITI": {"label": f"LITI of one run of {cost} T", "color": GREEN, "ls": "--"},
        "SLERP M = 2": {"label": "WARP, iteration 1", "color": LIGHT_BLUE},
    }
    for each, color in zip(range(2, last + 1), (BLUE, "#0b2545", PURPLE, ORANGE, BLACK)):
        again[f"WARP {each}, to its init"] = {"label": f"WARP, iteration {each}", "color": color}
    draw_fronts(seeds, again, "long run", folder / "iterations.png")
