"""A picture of best-of-N: what a control says of every proxy's choices, against the KL."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from warmkit.evaluation.best_of_n import BestOf
from warmkit.report.figure import BLUE, GREEN, GREY, RED, panels, save

COLOURS = (BLUE, RED, GREEN, "#8e5ea2", "#d98c1f", "#2a9aa5", GREY)
MARKS = "osD^vPX"


def draw_best_of(points: Sequence[BestOf], path: Path) -> None:
    """Draw the control's score against log N - (N-1)/N, a panel a control and a line a chooser, N on top.

    Bands are bootstrap intervals over prompts; those of different choosers move together, since the prompts are the same.

    Raises:
        UsageError: If matplotlib is not installed.

    Source: WARM (Ramé et al., 2024), figure 13.
    """
    choosers, controls = (list(dict.fromkeys(names)) for names in zip(*((each.chooser, each.control) for each in points)))
    figure, axes = panels(len(controls), width=5, height=4)
    for axis, control in zip(axes, controls):
        for place, chooser in enumerate(choosers):
            line = [each for each in points if (each.chooser, each.control) == (chooser, control)]
            kl, colour = [each.kl for each in line], COLOURS[place % len(COLOURS)]
            axis.plot(
                kl, [each.score.value for each in line], f"-{MARKS[place % len(MARKS)]}", ms=4, color=colour, label=chooser
            )
            axis.fill_between(
                kl, [each.score.low for each in line], [each.score.high for each in line], color=colour, alpha=0.1, lw=0
            )
        sizes = {each.n: each.kl for each in points}
        shown = [each for each in sizes if each & (each - 1) == 0] or list(sizes)  # others could cover each other's numbers
        top = axis.secondary_xaxis("top")
        top.set_xticks([sizes[each] for each in shown], [str(each) for each in shown], fontsize=8)
        top.set_xlabel("N", fontsize=8)
        axis.set_xlabel("KL to the policy, nats: log N - (N-1)/N")
        axis.set_ylabel(control)
    axes[0].legend(title="chosen by", fontsize=8, title_fontsize=8)
    save(figure, path)
