"""A pool is sampled once, reads as it was written, and is scored as often as one likes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.training import tiny, toy
from warmkit.data.prompts import Prompt
from warmkit.errors import DataError, MismatchError
from warmkit.evaluation import pool as pools
from warmkit.evaluation.policies import EvaluationSettings, PolicyTrial
from warmkit.evaluation.pool import Pool, check_comparable, is_pool, read_pool, sample_pool, score_pool
from warmkit.evaluation.reward_term import RewardTerm
from warmkit.evaluation.rewards import open_terms
from warmkit.evaluation.tournament import play_by_rewards

POOL = Pool([Prompt("grün", "a:1"), Prompt([{"role": "user", "content": "hi"}], "a:2")], [["e", "é\n"], ["", "ee e"]])
LENGTH = RewardTerm(function="tests.unit.training.toy:length", weight=-2)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> EvaluationSettings:
    prompts = [{"prompt": text} for text in tiny.sentences(5)]
    file = tiny.write(tmp_path_factory.mktemp("pool") / "prompts.jsonl", prompts)
    return EvaluationSettings(str(file), [], samples=4, max_new_tokens=6, seed=3)


def sampled(folder: Path, settings: EvaluationSettings, advance: Any = None, **changes: Any) -> Pool:
    path = str(tiny.model("llama", folder / "llama"))
    return sample_pool(PolicyTrial(replace(settings, **changes)).open(path), advance)


def test_a_policy_answers_every_prompt_as_often_as_asked(tmp_path: Path, settings: EvaluationSettings) -> None:
    found = sampled(tmp_path, settings)
    assert [each.content for each in found.prompts] == tiny.sentences(5)
    assert [len(each) for each in found.texts] == [4] * 5
    assert len({text for texts in found.texts for text in texts}) > 10
    assert found == sampled(tmp_path, settings, batch_size=1)
    assert found != sampled(tmp_path, settings, seed=4)


def test_a_tokenizer_without_padding_is_padded_with_anything(tmp_path: Path, settings: EvaluationSettings) -> None:
    path = str(tiny.model("gpt2", tmp_path / "gpt2"))
    candidates = [PolicyTrial(replace(settings, pad_token=pad)).open(path) for pad in (None, "<|spare|>", "a")]
    found = [sample_pool(each).texts for each in candidates]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("at_a_time", [4, 8, 512])
def test_a_pool_has_the_answers_that_an_evaluation_judges(
    at_a_time: int, tmp_path: Path, settings: EvaluationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "AT_A_TIME", at_a_time)
    path = str(tiny.model("llama", tmp_path / "llama"))
    candidate = PolicyTrial(replace(settings, rewards=[LENGTH])).open(path)
    assert sample_pool(candidate).texts == candidate.answers().texts


def test_a_large_pool_is_sampled_in_parts(
    tmp_path: Path, settings: EvaluationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "AT_A_TIME", 8)
    same = tiny.write(tmp_path / "same.jsonl", [{"prompt": "the cat"}] * 5)
    done: list[tuple[int, int]] = []
    found = sampled(tmp_path, settings, lambda *each: done.append(each), prompts=str(same))
    assert done == [(2, 5), (2, 5), (1, 5)]
    assert [len(each) for each in found.texts] == [4] * 5
    assert len({tuple(each) for each in found.texts}) == 5, "every part has random numbers of its own"


def test_it_reads_as_it_was_written(tmp_path: Path) -> None:
    POOL.write(tmp_path / "new" / "pool.jsonl")
    found = read_pool(tmp_path / "new" / "pool.jsonl")
    assert found.texts == POOL.texts
    assert [each.content for each in found.prompts] == [each.content for each in POOL.prompts]
    assert is_pool(str(tmp_path / "new" / "pool.jsonl"))
    assert not is_pool(str(tmp_path / "new"))
    assert not is_pool("org/model")


def test_scores_stand_where_the_texts_do_without_weights() -> None:
    (scores,) = score_pool(POOL, open_terms([LENGTH]))
    assert scores.tolist() == [[1, 2], [0, 4]]


def test_policies_play_by_the_weighted_sum() -> None:
    other = Pool(POOL.prompts, [["ee", "e"], ["", "e"]])
    result = play_by_rewards({"a": POOL, "b": other, "c": POOL}, open_terms([toy.E, LENGTH]))
    assert result.rewards["a"].tolist() == [[-1, -4], [0, -5]]
    assert result.matches["a", "b"].outcomes.tolist() == [[1, 0], [0.5, 0]]
    assert list(result.matches) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert result.win_rates()["a"] == {"b": 0.375, "c": 0.5}
    assert result.win_rates()["b"] == {"a": 0.625, "c": 0.625}
    second = list(result.rows())[1]
    assert second["answers"] == {"a": "é\n", "b": "e", "c": "é\n"}
    assert second["rewards"] == {"a": -4, "b": -1, "c": -4}
    assert second["verdicts"][0] == {"a": "a", "b": "b", "outcome": 0, "score": -1.5}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a"}, "expected completions to be a list of texts, found None"),
        ({"prompt": "a", "completions": []}, "expected completions to be a list of texts"),
        ({"prompt": "a", "completions": ["a", 1]}, "expected completions to be a list of texts"),
        ({"prompt": "a", "completions": "abc"}, "expected completions to be a list of texts"),
        ({"completions": ["a", "b"]}, "expected the key 'prompt'"),
        ({"prompt": "a", "completions": ["a"]}, "expected 2 completions, as many as the first prompt has, found 1"),
    ],
)
def test_rows_that_are_no_pool_are_refused_with_their_line(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    file = tiny.write(tmp_path / "pool.jsonl", [{"prompt": "x", "completions": ["a", "b"]}, row])
    with pytest.raises(DataError, match=r"pool\.jsonl:2: " + said):
        read_pool(file)


def test_answers_to_other_prompts_are_not_compared() -> None:
    with pytest.raises(MismatchError, match="b: expected the prompts that a answered"):
        check_comparable({"a": POOL, "b": Pool(POOL.prompts[::-1], POOL.texts)})
    with pytest.raises(MismatchError, match="b: expected 2 answers to every prompt, as a has, found 1"):
        check_comparable({"a": POOL, "b": Pool(POOL.prompts, [["e"], ["e"]])})
