"""What all pictures share: colours, panels in a row, and how they are written."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from warmkit.checkpoints.staging import writing
from warmkit.errors import UsageError

BLUE, RED, GREY, GREEN = "#1f5fa8", "#c0392b", "#8a8a8a", "#2e8b57"


def require_matplotlib() -> None:
    """Raise a clear error where pictures cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("figures need matplotlib; install it: pip install 'warmkit[plot]'")


def panels(count: int, width: float = 3.4, height: float = 3.6) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, side by side.

    Args:
        count: Of the panels.
        width: Inches of each.
        height: Inches of all.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.0, width * count), height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def save(figure: Any, path: Path) -> None:
    """Write a figure in the format that the file's name says.

    Raises:
        OutputError: If it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
