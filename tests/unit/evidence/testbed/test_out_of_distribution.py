"""Pairs that policies say at a high temperature."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmkit.evidence.testbed import language, oracle
from warmkit.evidence.testbed.out_of_distribution import responses, sampled_preferences
from warmkit.evidence.testbed.pretraining import Shape, pretrain


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return pretrain(tmp_path_factory.mktemp("models") / "sft", 0, 10, 4, shape=Shape(8, 1, 2), keep=[0.5, 1.0])


def test_pairs_are_labelled_by_the_oracle_and_show_exploits(policies: list[Path]) -> None:
    rows = sampled_preferences(policies, 60, 1, oracle.gold)
    assert len(rows) == 60
    exploited = 0
    for row in rows:
        prompts, texts = [row["prompt"]] * 2, [row["chosen"], row["rejected"]]
        chosen, rejected = oracle.gold(prompts, texts)
        assert chosen > rejected
        exploited += max(oracle.exploits(prompts, texts)) > 0
        assert oracle.length(prompts, texts) == [language.LENGTH] * 2
    assert exploited > 10  # untrained policies say all words alike


def test_pairs_are_all_different_and_come_from_their_seed(policies: list[Path]) -> None:
    rows = sampled_preferences(policies, 60, 1, oracle.gold)
    assert len({row["chosen"] for row in rows} | {row["rejected"] for row in rows}) == 120
    assert rows == sampled_preferences(policies, 60, 1, oracle.gold)
    assert rows != sampled_preferences(policies, 60, 2, oracle.gold)


@pytest.mark.parametrize("ending", [False, True])
def test_responses_are_words_of_the_language_and_end_where_they_may(policies: list[Path], ending: bool) -> None:
    found = responses(policies[-1], ["sea wood :", "sky war :"], "seed", temperature=1.0, samples=20, ending=ending)
    assert [len(each) for each in found] == [20, 20]
    texts = [text.split() for each in found for text in each]
    assert {word for words in texts for word in words} <= set(language.WORDS)
    assert (len({len(words) for words in texts}) > 1) == ending


def test_a_higher_temperature_exploits_more(tmp_path: Path) -> None:
    [policy] = pretrain(tmp_path / "sft", 0, 150, 16, 1e-2, shape=Shape(16, 1, 2), keep=[1.0])
    prompts = language.all_prompts()

    def exploits(temperature: float) -> float:
        found = responses(policy, prompts, "seed", temperature=temperature)
        return sum(sum(oracle.exploits([prompt] * 2, each)) for prompt, each in zip(prompts, found))

    assert exploits(3.0) > exploits(0.5)
