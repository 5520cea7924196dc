"""A merge ends completions where any of its models does, and otherwise keeps the generation config that it copies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import warmkit
from tests.unit.training import tiny, toy
from warmkit.evaluation.policies import EvaluationSettings, PolicyTrial
from warmkit.training.policy import train_policy

pytest.importorskip("transformers")


def model(folder: Path, seed: int, said: dict[str, Any] | None) -> Path:
    tiny.make(folder, "llama", seed=seed)
    file = folder / "generation_config.json"
    file.unlink()
    if said is not None:
        file.write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize(
    ("init", "first", "second", "expected"),
    [
        (
            {"eos_token_id": 2, "top_p": 0.8},
            {"eos_token_id": [2, 5]},
            {"eos_token_id": 6},
            {"eos_token_id": [2, 5, 6], "top_p": 0.8},
        ),
        (None, {"eos_token_id": [2, 5]}, None, {"eos_token_id": [2, 5]}),
        ({"eos_token_id": [2, 5], "top_p": 0.8}, {"eos_token_id": 2}, None, {"eos_token_id": [2, 5], "top_p": 0.8}),
        (None, {"eos_token_id": 2}, {"eos_token_id": 2}, None),
    ],
    ids=["models know more", "the init says nothing", "the init knows more", "all agree"],
)
def test_the_ends_of_a_merge_are_those_of_all_its_models(
    init: Any, first: Any, second: Any, expected: Any, tmp_path: Path
) -> None:
    base, a, b = (model(tmp_path / name, seed, said) for seed, (name, said) in enumerate(zip("iab", (init, first, second))))
    result = warmkit.merge([a, b], tmp_path / "out", init=base, method="slerp", threads=1)
    file = tmp_path / "out" / "generation_config.json"
    assert (json.loads(file.read_text()) if file.exists() else None) == expected
    assert any("also names the ends" in note for note in result.notes) == (expected not in (None, init))
    assert warmkit.verify(tmp_path / "out").files > 0
    if expected == init is not None:
        assert file.read_bytes() == (base / "generation_config.json").read_bytes()


def test_what_is_interpolated_from_a_policy_with_stop_tokens_ends_where_it_was_trained(tmp_path: Path) -> None:
    recipe = toy.recipe(tmp_path, steps=1, stop=["the"])
    trained = train_policy(recipe).path
    warmkit.liti(trained, tmp_path / "out", init=recipe.model.path, eta=0.5, threads=1)
    assert PolicyTrial(EvaluationSettings(recipe.data.train, [])).open(str(tmp_path / "out")).ends == ["</s>", "the"]
