"""Swapped labels: how many, which, and back again; in Python and as a command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from warmkit.cli.command import Command
from warmkit.cli.corrupt import corrupt as command
from warmkit.data.corruption import corrupt
from warmkit.data.preferences import Pair, read_pairs, write_pairs
from warmkit.errors import UsageError

seeds = st.integers(0, 2**32 - 1)
rates = st.floats(0, 1)


def numbered(count: int) -> list[Pair]:
    return [Pair(f"prompt {number}", f"good {number}", f"bad {number}", where=f"d:{number}") for number in range(count)]


def swapped(pairs: list[Pair]) -> list[int]:
    return [place for place, pair in enumerate(pairs) if pair.corrupt]


@pytest.mark.parametrize(
    ("count", "rate", "expected"),
    [(100, 0.25, 25), (10, 0.25, 2), (14, 0.25, 4), (3, 0.5, 2), (7, 0.1, 1), (5, 0, 0), (5, 1, 5), (1, 0.4, 0), (0, 0.5, 0)],
)
def test_exactly_the_rounded_share_is_swapped(count: int, rate: float, expected: int) -> None:
    assert len(swapped(corrupt(numbered(count), rate, seed=0))) == expected


def test_swapped_pairs_are_marked_and_the_others_are_untouched() -> None:
    pairs = numbered(20)
    for before, after in zip(pairs, corrupt(pairs, 0.4, seed=1)):
        assert (after.prompt, after.where) == (before.prompt, before.where)
        if after.corrupt:
            assert (after.chosen, after.rejected) == (before.rejected, before.chosen)
        else:
            assert after == before


def test_a_seed_decides_which() -> None:
    pairs = numbered(100)
    assert corrupt(pairs, 0.25, seed=3) == corrupt(pairs, 0.25, seed=3)
    assert swapped(corrupt(pairs, 0.25, seed=3)) != swapped(corrupt(pairs, 0.25, seed=4))


def test_the_draw_is_what_it_was() -> None:
    assert swapped(corrupt(numbered(12), 0.25, seed=0)) == [2, 4, 9]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.booleans(), max_size=30), rates, seeds)
def test_corrupting_twice_restores_the_pairs(marks: list[bool], rate: float, seed: int) -> None:
    pairs = [Pair("x", "a", "b", corrupt=mark) for mark in marks]
    assert corrupt(corrupt(pairs, rate, seed), rate, seed) == pairs


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 30), rates, rates, seeds)
def test_a_larger_rate_swaps_what_a_smaller_one_does(count: int, one: float, other: float, seed: int) -> None:
    few, many = (set(swapped(corrupt(numbered(count), rate, seed))) for rate in sorted((one, other)))
    assert few <= many


@pytest.mark.parametrize("rate", [-0.1, 1.1, 25, float("nan"), float("inf")])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(UsageError, match=f"rate: expected a share from 0 to 1, found {rate:g}"):
        corrupt(numbered(2), rate, seed=0)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(UsageError, match="seed: expected 0 or more, found -1"):
        corrupt(numbered(2), 0.5, seed=-1)


# ---- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the verb alone, in the temporary directory, with ten pairs in d.jsonl."""
    monkeypatch.chdir(tmp_path)
    write_pairs(numbered(10), "d.jsonl")
    app = typer.Typer()
    app.command(cls=Command)(command)
    return lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_says_how_many_of_how_many(invoke: Any) -> None:
    done = invoke("d.jsonl", "-o", "out.jsonl", "--rate", 0.3, "--seed", 5)
    assert (done.exit_code, done.stdout) == (0, "out.jsonl: 3 of 10 pairs swapped\n")
    again = read_pairs("out.jsonl")
    assert swapped(again) == swapped(corrupt(read_pairs("d.jsonl"), 0.3, seed=5))


def test_json_tells_what_was_swapped_now_from_what_is_corrupt(invoke: Any) -> None:
    invoke("d.jsonl", "-o", "out.jsonl", "--rate", 0.3)
    done = invoke("out.jsonl", "-o", "clean.jsonl", "--rate", 0.3, "--json")
    expected = {"path": "clean.jsonl", "pairs": 10, "swapped": 3, "corrupt": 0, "rate": 0.3, "seed": 0}
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("d.jsonl", "--rate", 2), 2, "rate: expected a share from 0 to 1, found 2"),
        (("no.jsonl", "--rate", 0.5), 1, "no.jsonl: cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_corrupted_leaves_no_output(
    invoke: Any, tmp_path: Path, arguments: tuple[object, ...], code: int, message: str
) -> None:
    done = invoke(*arguments, "-o", "out.jsonl")
    assert (done.exit_code, done.stderr) == (code, f"error: {message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["d.jsonl"]


def test_only_force_replaces_a_file(invoke: Any) -> None:
    arguments = ("d.jsonl", "-o", "out.jsonl", "--rate", 1)
    assert [invoke(*arguments).exit_code, invoke(*arguments).exit_code] == [0, 1]
    assert invoke(*arguments, "--force").exit_code == 0
