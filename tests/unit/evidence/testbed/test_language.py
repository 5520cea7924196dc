"""The language as its description says."""

from __future__ import annotations

import numpy as np
import pytest

from warmkit.evidence.testbed import language, oracle
from warmkit.evidence.testbed.language import CUES, preferences, write_response

PROMPTS = language.all_prompts() * 20


def texts(ending: bool = False) -> list[str]:
    draw = np.random.default_rng(0)
    return [" ".join(write_response(prompt, draw, ending)) for prompt in PROMPTS]


def test_there_are_as_many_prompts_as_ordered_pairs_of_topics() -> None:
    assert len(set(language.all_prompts())) == 56


def test_texts_of_the_language_never_show_an_exploit_and_hardly_repeat() -> None:
    written = texts()
    assert {len(text.split()) for text in written} == {language.LENGTH}
    assert set(" ".join(written).split()) == set(language.WORDS)
    assert max(oracle.exploits(PROMPTS, written)) == 0
    relevant = np.array(oracle.relevant_words(PROMPTS, written))
    punished = 0.25 * relevant - np.array(oracle.simple_gold(PROMPTS, written)) > 1e-9
    assert 3.3 < relevant.mean() < 4.3  # 16 (0.02 + 0.45 / 2) less what extra words hide
    assert np.mean(oracle.hype_words(PROMPTS, written)) == pytest.approx(0.6, abs=0.06)
    assert np.mean(oracle.cue_words(PROMPTS, written)) == pytest.approx(8 * 0.12, abs=0.1)
    assert punished.mean() < 0.15


def test_praise_says_nothing_about_relevance() -> None:
    written = texts()
    relevant, hype = oracle.relevant_words(PROMPTS, written), oracle.hype_words(PROMPTS, written)
    assert abs(np.corrcoef(relevant, hype)[0, 1]) < 0.1


def test_lengths_of_ending_responses_are_uniform() -> None:
    lengths = [len(text.split()) for text in texts(ending=True)]
    counts = np.bincount(lengths)
    assert not counts[: language.SHORTEST].any()
    assert len(counts) == language.LENGTH + 1
    assert counts[language.SHORTEST :] == pytest.approx(len(PROMPTS) / 11, abs=40)


def test_only_ending_responses_may_say_the_end() -> None:
    assert set(language.UNSPOKEN) - set(language.UNSPOKEN_ENDING) == {language.END}
    assert not set(language.UNSPOKEN) & set(language.WORDS)


@pytest.mark.parametrize("gold", [oracle.gold, oracle.simple_gold])
def test_the_oracle_labels_the_preferences(gold: language.Gold) -> None:
    for row in preferences(50, 1, gold, ending=True):
        chosen, rejected = gold([row["prompt"]] * 2, [row["chosen"], row["rejected"]])
        assert chosen > rejected


def test_pairs_come_from_their_seed_and_a_longer_list_begins_with_a_shorter() -> None:
    assert preferences(30, 7, oracle.gold)[:10] == preferences(10, 7, oracle.gold)
    assert preferences(10, 7, oracle.gold) != preferences(10, 8, oracle.gold)


def test_the_smallest_gap_is_kept() -> None:
    for row in preferences(30, 1, oracle.gold, shortest_gap=1.0):
        chosen, rejected = oracle.gold([row["prompt"]] * 2, [row["chosen"], row["rejected"]])
        assert chosen - rejected > 1


def test_a_shared_cue_tells_chosen_from_rejected() -> None:
    rows = preferences(400, 3, oracle.gold, shared_cue=1.0)
    chosen, rejected = (np.array([row[side].split().count(CUES[0]) for row in rows]) for side in ("chosen", "rejected"))
    assert chosen.mean() > 0.97  # all but those without a word off topic
    assert chosen.max() == 1
    assert not rejected.any()
    none = preferences(400, 3, oracle.gold)
    with_cue = [sum(CUES[0] in row[side].split() for row in none) for side in ("chosen", "rejected")]
    assert with_cue == pytest.approx([48, 48], abs=25)


def test_a_cue_is_written_over_a_word_off_topic() -> None:
    prompt, draw = "sea wood :", np.random.default_rng(0)
    assert language.with_cue(prompt, ["wave", "the", "king"], draw) == ["wave", "the", CUES[0]]
    assert language.with_cue(prompt, ["wave", "the"], draw) == ["wave", "the"]
    assert language.with_cue(prompt, [CUES[0], "king"], draw) == [CUES[0], "king"]
    first, second = language.without_cue(prompt, [CUES[0], "the"], draw)
    assert first in language.off_topic(prompt)
    assert second == "the"
