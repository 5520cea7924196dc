"""Chart of a search: every candidate by two of its scores, and those that no other beats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from warmkit.report.chart import Chart


def search_chart(tried: Sequence[Mapping[str, Any]], front: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Chart:
    """Draw the second score against the first.

    Args:
        tried: Every candidate: `candidate` and `scores`.
        front: Those that no other beats.
        names: Of the scores.
    """
    first, second = names[:2]
    best = {each["number"] for each in front}
    rows = [
        {
            "line": "front" if each["number"] in best else "other candidates",
            first: each["scores"][first],
            second: each["scores"][second],
            "candidate": json.dumps(each["candidate"]),
        }
        for each in sorted(tried, key=lambda each: each["number"] not in best)
    ]
    caption = "The front: candidates that no other beats in all scores."
    return Chart(
        "search", f"{second} against {first}", rows, first, second, kind="points", caption=caption, tips=("candidate",)
    )
