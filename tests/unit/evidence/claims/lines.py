"""Lines of what a claim has drawn."""

from __future__ import annotations

from typing import Any

from warmkit.evidence.claims.measurements import Measurements

HELD_OUT = ("validation", "ood")


def line(found: Measurements, part: str, name: str) -> list[dict[str, Any]]:
    return [point for point in found.points if point["part"] == part and point["line"] == name]


def values(found: Measurements, part: str, name: str, column: str) -> list[float]:
    return [point[column] for point in line(found, part, name)]
