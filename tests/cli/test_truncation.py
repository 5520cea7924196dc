"""Prompts that lose tokens are told by every verb that lets policies answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.unit.training import tiny, toy
from warmkit.recipes.recipe import recipe_text
from warmkit.training.policy_recipe import PolicyRecipe

LENGTH = "tests.unit.training.toy:length"
PROMPTS = ["the cat", "the dog", "the cat sees the dog and the dog sees the cat " * 3]


@pytest.fixture
def recipe(tmp_path: Path) -> PolicyRecipe:
    """A recipe whose policies see 10 tokens of a prompt: of three, one does not fit."""
    made = toy.recipe(tmp_path)
    tiny.write(tmp_path / "held-out.jsonl", [{"prompt": text} for text in PROMPTS])
    tiny.make(tmp_path / "other", "llama", 2)
    return replace(made, model=replace(made.model, max_length=16, overlong="truncate"))


def told(stderr: str) -> list[str]:
    said = "1 of 3 prompts are too long and lost their oldest tokens"
    return [line.removesuffix(said) for line in stderr.splitlines() if line.endswith(said)]


@pytest.mark.parametrize(
    ("verb", "loaded"),
    [
        (("eval", "policy", "llama", "other"), ["llama", "other"]),
        (("bon", "llama", "--control", f"c={LENGTH}", "--samples", 2), ["llama"]),
        (("sxs", "llama", "other"), ["llama", "other"]),
        (("front", "other", "--init", "llama", "--eta", "0,1"), ["llama"]),
    ],
    ids=["eval policy", "bon", "sxs", "front"],
)
def test_each_policy_that_is_loaded_is_named(
    verb: tuple[object, ...], loaded: list[str], call: Call, recipe: PolicyRecipe
) -> None:
    Path("recipe.yaml").write_text(recipe_text(recipe))
    assert told(call(*verb, "--recipe", "recipe.yaml").stderr) == [f"note: {name}: " for name in loaded]


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["trained", "planned"])
def test_a_training_names_the_data(more: tuple[str, ...], call: Call, recipe: PolicyRecipe) -> None:
    Path("recipe.yaml").write_text(recipe_text(replace(recipe, data=replace(recipe.data, train="held-out.jsonl"))))
    assert told(call("train", "policy", "recipe.yaml", *more).stderr) == ["note: data.train: ", "note: data.validation: "]


def test_prompts_that_fit_are_no_news(call: Call, recipe: PolicyRecipe) -> None:
    tiny.write(Path("held-out.jsonl"), [{"prompt": text} for text in PROMPTS[:2]])
    Path("recipe.yaml").write_text(recipe_text(recipe))
    assert "too long" not in call("eval", "policy", "llama", "--recipe", "recipe.yaml").stderr
