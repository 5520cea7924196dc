"""A picture of policies side by side: who wins against whom, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from warmkit.evaluation.win_rates import Match
from warmkit.report.figure import panels, save


def draw_win_rates(names: Sequence[str], matches: Mapping[tuple[str, str], Match], path: Path) -> None:
    """Draw the win rate of every policy (rows) against every other (columns), the score of seven steps below it.

    Args:
        names: Of the policies.
        matches: One for every two of them.
        path: Of the figure.

    Raises:
        UsageError: If matplotlib is not installed.
    """
    both = {**matches, **{(b, a): match.reversed() for (a, b), match in matches.items()}}
    side = 2.2 + 0.9 * len(names)
    figure, (axis,) = panels(1, width=side + 1, height=side)
    rates = [[both[a, b].win_rate.value if a != b else float("nan") for b in names] for a in names]
    image = axis.imshow(rates, cmap="RdBu", vmin=0, vmax=1)
    for row, a in enumerate(names):
        for column, b in enumerate(names):
            if a != b:
                rate, score = rates[row][column], both[a, b].score.value
                colour = "white" if abs(rate - 0.5) > 0.3 else "black"
                axis.text(column, row, f"{100 * rate:.1f}\n{score:+.2f}", ha="center", va="center", color=colour, fontsize=9)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("against")
    axis.set_title("win rate, %, and score, -1.5 to 1.5", fontsize=9)
    axis.grid(visible=False)
    figure.colorbar(image, ax=axis, label="win rate", shrink=0.8)
    save(figure, path)
