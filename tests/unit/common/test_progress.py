"""Bars of long work outside of a notebook; `tests/integration/test_notebook.py` has those in one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import warmkit
from tests.conftest import Family

ROOT = Path(__file__).parents[3]


def merge(family: Family, advance: str) -> str:
    """Merge in a process of its own and return what it says on stderr."""
    models = [str(family.a), str(family.b)]
    out = str(family.a.parent / f"out-{advance}")
    code = f"import warmkit; warmkit.merge({models!r}, {out!r}, init={str(family.init)!r}, advance={advance})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stderr


def test_true_draws_a_bar_to_the_last_byte(family: Family) -> None:
    said = merge(family, "True")
    assert said.startswith("merging ━")
    done, total = said.split(" kB")[0].split()[-1].split("/")
    assert done == total


@pytest.mark.parametrize("advance", ["None", "False"])
def test_a_script_that_asks_for_no_bar_gets_none(family: Family, advance: str) -> None:
    assert merge(family, advance) == ""


def test_a_callback_is_told_every_byte(family: Family) -> None:
    for call in (
        lambda advance: warmkit.merge([family.a, family.b], family.a.parent / "out", init=family.init, advance=advance),
        lambda advance: warmkit.compare([family.a, family.b], init=family.init, advance=advance),
        lambda advance: warmkit.extract_lora(
            family.a, family.a.parent / "adapter", init=family.init, targets=["attn"], advance=advance
        ),
        lambda advance: warmkit.verify(family.a.parent / "out", advance=advance),
    ):
        told: list[tuple[int, int]] = []
        call(lambda size, total, told=told: told.append((size, total)))
        assert sum(size for size, _ in told) > 0
        assert {total for _, total in told} == {told[0][1]}


def test_a_greedy_soup_counts_scores(family: Family) -> None:
    told: list[tuple[int, int]] = []
    score = "echo {} > /dev/null; echo 1"
    warmkit.greedy_soup(family.models, family.a.parent / "soup", score=score, advance=lambda done, of: told.append((done, of)))
    assert told == [(1, 5)] * 5
