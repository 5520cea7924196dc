"""Pictures of a WARP pipeline: its fronts, and averages of its last policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from warmkit.evaluation.front import FrontPoint, trajectory


def _points(front: Sequence[dict[str, Any]]) -> list[FrontPoint]:
    return [FrontPoint.from_dict(each) for each in front]


def draw(out: Path, summary: dict[str, Any]) -> None:
    """Draw every front with the trajectories of the runs beside them (figures 1b, 4c), and rewarded soups."""
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        return
    from warmkit.report.policies import draw_front, draw_rewards

    iterations = summary["iterations"]
    fronts = {f"iteration {i + 1}": _points(each["front"]) for i, each in enumerate(iterations) if each["front"]}
    if len(iterations) > 1 and summary["front"]:
        fronts["from the SFT model"] = _points(summary["front"])
    runs = {name: Path(path).parent for each in iterations for name, path in each["policies"].items()}
    trained = {name: trajectory(run) for name, run in runs.items() if (run / "metrics.jsonl").exists()}
    if fronts:
        draw_front(fronts, trained, out / "front.png")
    if summary["soups"]:
        draw_rewards({"soups": _points(summary["soups"])}, out / "soups.png")
