"""Similarity of two answers: its ends, its symmetry, and that a collapsed policy is more alike than the one it came from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training import tiny, toy
from warmkit.errors import UsageError
from warmkit.evaluation import diversity
from warmkit.evaluation.diversity import open_encoder, semantic_similarity, similarity

pytest.importorskip("sacrebleu", reason="similarity needs sacrebleu")


def test_the_same_text_is_100_and_nothing_in_common_is_0() -> None:
    texts = tiny.sentences(20)
    assert similarity([[each, each] for each in texts]).tolist() == [100.0] * 20
    assert similarity([["aaa bbb", "ccc ddd"], ["the cat", "fog"], ["", "the cat"]]).tolist() == [0.0] * 3
    assert similarity([["", ""]]).tolist() == [100.0], "a policy that says nothing says the same"


def test_the_order_of_the_two_does_not_matter() -> None:
    pairs = list(zip(tiny.sentences(40, seed=1), tiny.sentences(40, seed=2)))
    there, back = similarity(pairs), similarity([(b, a) for a, b in pairs])
    assert np.array_equal(there, back)
    assert 0 < there.min() < there.max() < 100


def test_one_text_of_hand_counted_n_grams() -> None:
    # "abc" and "abd": of 1-grams 2 of 3 match, of 2-grams 1 of 2, of 3-grams none; longer ones there are none
    assert similarity([["abc", "abd"]])[0] == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)


def test_more_samples_are_compared_with_their_neighbours() -> None:
    a, b, c = "the cat sleeps", "the cat runs", "old blue river"
    together = similarity([[a, b, c]])[0]
    assert together == pytest.approx((similarity([[a, b]])[0] + similarity([[b, c]])[0]) / 2)


def test_a_collapsed_policy_is_less_diverse_than_its_init(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from dataclasses import replace

    from warmkit.evaluation.policies import EvaluationSettings, PolicyTrial
    from warmkit.training.policy import train_policy

    how = {"steps": 40, "batch_size": 8, "samples": 4, "beta": 0.0, "anchor": "init", "baseline": "leave-one-out"}
    recipe = toy.recipe(tmp_path, lr=3e-3, **how)
    trained = train_policy(recipe).path
    prompts = tiny.write(tmp_path / "many.jsonl", [{"prompt": text} for text in tiny.sentences(40, seed=4)])
    settings = EvaluationSettings(str(prompts), [toy.E], samples=2, max_new_tokens=12)

    def alike(path: object, temperature: float = 0.9) -> float:
        trial = PolicyTrial(replace(settings, temperature=temperature))
        return float(similarity(trial.open(str(path)).answers().texts).mean())

    init = alike(recipe.model.path)
    assert alike(trained) > init + 10
    assert alike(recipe.model.path, temperature=0.01) > init + 30


def test_meanings_are_compared_by_the_cosine_of_neighbours() -> None:
    vectors = {"east": [1.0, 0.0], "north": [0.0, 1.0], "north-east": [0.6, 0.8], "west": [-1.0, 0.0]}
    texts = [["east", "east"], ["north", "east"], ["east", "west"], ["east", "north-east", "north"]]
    found = semantic_similarity(texts, lambda each: np.array([vectors[text] for text in each]))
    assert found.tolist() == pytest.approx([100, 0, -100, (60 + 80) / 2])
    with pytest.raises(UsageError, match="two samples a prompt"):
        semantic_similarity([["east"]], lambda each: np.ones((len(each), 1)))


def test_what_cannot_be_compared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="expected two samples a prompt or more, found 1"):
        similarity([["a", "b"], ["a"]])
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith(("sac", "sen")) else found(name))
    assert not diversity.has_sacrebleu()
    with pytest.raises(UsageError, match=r"pip install 'warmkit\[train\]'"):
        similarity([["a", "b"]])
    with pytest.raises(UsageError, match="pip install sentence-transformers"):
        open_encoder("encoder")
