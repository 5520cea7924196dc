"""Pictures of a WARP pipeline: its fronts, and averages of its last policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmkit.evaluation.front import trajectory
from warmkit.training.command_run import FINISHED


def draw(out: Path, summary: dict[str, Any]) -> None:
    """Draw every front with the trajectories of the runs beside them (figures 1b, 4c), and rewarded soups."""
    from warmkit.report.specification import can_draw

    if not can_draw():
        return
    from warmkit.report import picture
    from warmkit.report.html_page import charts_in
    from warmkit.report.runs.fronts import front_charts, reward_charts

    iterations = summary["iterations"]
    fronts = {f"iteration {i + 1}": each["front"] for i, each in enumerate(iterations) if each["front"]}
    if len(iterations) > 1 and summary["front"]:
        fronts["from the SFT model"] = summary["front"]
    runs = {name: Path(path).parent for each in iterations for name, path in each["policies"].items()}
    ours = {name: run for name, run in runs.items() if not (run / FINISHED).exists()}  # a command logs other numbers
    trained = {name: trajectory(run) for name, run in ours.items() if (run / "metrics.jsonl").exists()}
    if fronts:
        picture.draw(charts_in(front_charts(fronts, trained)), out / "front.png")
    if summary["soups"]:
        picture.draw(reward_charts({"soups": summary["soups"]}), out / "soups.png")
