"""Pictures of the geometry of merging."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from warmkit.checkpoints.staging import writing
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.checkpoints.compare import Comparison


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draw cosines and norm ratios of task vectors and weights, histograms over groups, one colour per pair of models.

    Raises:
        UsageError: If matplotlib is not installed, there is no pair, or the format is unknown.

    Source: WARP (Ramé et al., 2024), figure 11.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise UsageError("--plot needs matplotlib: pip install 'warmkit[plot]'") from None
    if not comparison.groups or not comparison.groups[0].pairs:
        raise UsageError("--plot compares pairs: give at least two models")
    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = (
        ("task_vector_cosine", "Cosine of task vectors"),
        ("weight_cosine", "Cosine of weights"),
        ("task_vector_norm_ratio", "Norm ratio of task vectors"),
        ("weight_norm_ratio", "Norm ratio of weights"),
    )
    for axes, (attribute, title) in zip(figure.subplots(2, 2).flat, panels):
        pairs = comparison.groups[0].pairs
        values = [[getattr(group.pairs[place], attribute) for group in comparison.groups] for place in range(len(pairs))]
        kept = [[value for value in row if value is not None] for row in values]
        labels = [f"{_short(pair.first)} / {_short(pair.second)}" for pair in pairs]
        axes.hist(kept, bins=12, label=labels)  # side by side over the same bins
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_ylabel(f"{comparison.granularity}s")
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=9)
    figure.suptitle(f"Models fine-tuned from {_short(comparison.init)}, by {comparison.granularity}", fontsize=12)
    with writing(path):
        try:
            figure.savefig(path, dpi=130)
        except ValueError as error:
            raise UsageError(f"{path}: {error}") from None


def _short(source: str) -> str:
    return Path(source).name or source
