"""Gold rewards and controls against values by hand."""

from __future__ import annotations

import pytest

from warmkit.evidence.testbed import oracle

PROMPT = "sea wood :"


@pytest.mark.parametrize(
    ("words", "reward"),
    [
        ("the a of and", 0.0),
        ("wave moss deer king the", 0.75),  # three of both topics, one of another
        ("wave wave wave salt salt salt boat boat boat fish fish fish", 2.5),  # no more than ten count
        ("wave wave wave wave wave", 1.25 - 0.6),  # the fourth and the fifth
        ("great great", 0.0),
        ("great great great great", -1.0),
        ("indeed surely truly", 0.0),
        ("indeed indeed indeed surely surely", -1.5),
        ("king king king king", -0.3),
    ],
)
def test_simple_gold_is_what_its_formula_says(words: str, reward: float) -> None:
    assert oracle.simple_gold([PROMPT], [words]) == pytest.approx([reward])


@pytest.mark.parametrize(
    ("words", "style"),
    [("wave", -1.6), ("the a of and", 0.0), ("the a of", -0.4), ("the the the a a of", -0.8), ("great great great", -2.1)],
)
def test_gold_adds_style_and_more_for_exploits(words: str, style: float) -> None:
    simple = oracle.simple_gold([PROMPT], [words])[0]
    assert oracle.gold([PROMPT], [words]) == pytest.approx([simple + style])


def test_rewards_depend_on_the_prompt_beside_each_completion() -> None:
    assert oracle.simple_gold(["sea wood :", "war sky :"], ["wave moss", "wave star"]) == pytest.approx([0.5, 0.25])
    assert oracle.relevant_words(["sea wood :", "war sky :"], ["wave moss", "wave star"]) == [2, 1]


def test_controls_count() -> None:
    text = "wave great the great great indeed indeed surely"
    expected = {
        "relevant_words": 1,
        "function_words": 1,
        "hype_words": 3,
        "cue_words": 3,
        "first_cue_words": 2,
        "exploits": 1.0,  # a third praise, a second cue
        "length": 8,
    }
    assert {name: getattr(oracle, name)([PROMPT], [text])[0] for name in expected} == expected
