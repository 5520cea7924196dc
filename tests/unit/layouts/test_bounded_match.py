"""Expressions match what Python's `re` matches, in a time that their lengths bound."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmkit.errors import FormatError, UnsupportedError
from warmkit.layouts.adapter_config import read_config
from warmkit.layouts.bounded_match import ends_with

ATOMS = ["a", "b", ".", r"\.", "q_proj", "[ab]", "[^a]", "[0-9x]", r"\d", r"\W", "(a|b)", "(?:ab|)", "^", "$", "x|y", "[]a]"]
PATTERNS = st.lists(
    st.tuples(st.sampled_from(ATOMS), st.sampled_from(["", "*", "+", "?", "{2}", "{1,}", "{,2}", "{1,2}", "*?", "{x"])),
    max_size=5,
).map(lambda parts: "".join(atom + times for atom, times in parts))
NESTED = (
    PATTERNS | PATTERNS.map(lambda one: f"({one})*") | st.tuples(PATTERNS, PATTERNS).map(lambda two: f"({two[0]}|{two[1]})+")
)


@given(NESTED, st.text(alphabet="ab.qx1-", max_size=12))
def test_expressions_match_as_in_python(pattern: str, name: str) -> None:
    try:
        expected = re.match(rf"(.*\.)?({pattern})$", name) is not None
    except re.error:
        return
    assert ends_with(pattern, name) is expected


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|aa)+(a|aa)+b", "a*a*a*a*a*a*b", "((a{1,9}){1,9})b", "(.*.*.*)*b"])
def test_expressions_that_repeat_in_repetitions_take_a_moment(pattern: str) -> None:
    assert not ends_with(pattern, "a" * 300)
    assert ends_with(pattern, "model." + "a" * 40 + "b")


@pytest.mark.parametrize("pattern", [r"(a)\1", "(?=a)a", "(?i)a", r"\bA", "(a{999}){999}", "(?P<x>a)"])
def test_what_needs_more_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(UnsupportedError, match="the expression"):
        ends_with(pattern, "a")


def config(folder: Path, **more: object) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, **more}))
    return folder


def test_the_patterns_of_an_adapter_are_matched_in_bounded_time(tmp_path: Path) -> None:
    read = read_config(config(tmp_path, rank_pattern={"(.*.*.*)*x": 3, r"layers\.[01]\.q": 5}))
    assert read.rank_of("model.layers.1.q") == 5
    assert read.rank_of("m" * 300) == 2


@pytest.mark.parametrize(
    "more",
    [
        {"rank_pattern": {"(": 1}},
        {"rank_pattern": {"(" * 5000 + ")" * 5000: 1}},
        {"rank_pattern": {"a{99999999999999}": 1}},
        {"rank_pattern": [1]},
        {"lora_alpha": [1]},
        {"lora_alpha": True},
        {"r": 1 << 70, "lora_alpha": 10**400},
        {"alpha_pattern": {"a": "x"}},
    ],
)
def test_a_config_of_another_form_is_named(more: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises((FormatError, UnsupportedError), match=re.escape(str(tmp_path / "adapter_config.json"))):
        read_config(config(tmp_path, **more))
