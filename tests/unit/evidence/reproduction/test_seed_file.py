"""A seed's file gives back what was measured, in few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from warmkit.errors import DataError
from warmkit.evidence.reproduction.seed_file import read_seed, rounded, text_of


def document(claim: str, points: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "claim": claim,
        "seed": 3,
        "size": "small",
        "setting": {"testbed": {"version": 2, "evaluated": 64}, "claim": {"etas": [0.3, 1.0]}},
        "numbers": {"lead": 0.123456789, "missing": None},
        "points": points,
        "seconds": 12.3,
        "about": {"commit": "abc"},
    }


def point(line: str, at: float | str, **numbers: float | None) -> dict[str, Any]:
    return {"part": "front", "line": line, "at": at, **numbers}


POINTS = [
    point("WA", 0.0, kl=1 / 3, gold=2e-9 / 3),
    point("WA", 1.0, kl=200 / 3, gold=-1.5),
    point("ENS", 0, kl=1.0, gold=None),
    point("ENS", "run-1", kl=1.0),
    point("WA", 2.0, kl=7.0, gold=1.0),
]


def test_what_was_measured_comes_back_in_its_order(tmp_path: Path) -> None:
    documents = [document("warp-slerp", POINTS), document("warm-theory", [])]
    file = tmp_path / "seed-3.jsonl"
    file.write_text(text_of(documents))
    assert read_seed(file) == rounded(documents)
    assert file.read_text().count("\n") == 3  # what all share, and a line a claim
    assert text_of(read_seed(file)) == file.read_text()


def test_numbers_keep_six_digits() -> None:
    assert rounded([1 / 3, 200 / 3, 2e-9 / 3, -123456.789, 3, "a", None, True]) == [
        0.333333,
        66.6667,
        6.66667e-10,
        -123457.0,
        3,
        "a",
        None,
        True,
    ]


def test_ten_seeds_of_a_thousand_points_are_small() -> None:
    points = [
        point(f"line {place // 15}", float(place), **{f"c{n}": place / 7 + n for n in range(12)}) for place in range(1000)
    ]
    assert 10 * len(text_of([document("warm-rl", points)])) < 2_000_000


@pytest.mark.parametrize("text", ["", "[]", "{}\n{}", '{"seed": 1}\n{"claim": 1}', "not JSON"])
def test_anything_else_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "seed-3.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=r"seed-3.jsonl: expected what one seed gave"):
        read_seed(file)
