"""`warmkit train policy`: a table, a document, a plan, and one line for what went wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import invoke
from tests.unit.training import toy
from warmkit.recipes.recipe import recipe_text
from warmkit.training.policy_recipe import PolicyRecipe, RewardTerm

pytest.importorskip("transformers")


def written(recipe: PolicyRecipe) -> Path:
    file = Path(recipe.output.path).with_name("recipe.yaml")
    file.write_text(recipe_text(recipe))
    return file


def test_it_trains_and_shows_rewards_controls_and_kl(tmp_path: Path) -> None:
    control = RewardTerm(function="tests.unit.training.toy:length")
    recipe = replace(toy.recipe(tmp_path, keep=[2]), controls=[control])
    done = invoke("train-policy", written(recipe), "--set", "policy.steps=2")
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[-2:] == [str(tmp_path / "run" / "step-2"), str(tmp_path / "run" / "model")]
    for name in ("reward", "control length", "kl anchor", "kl sft", "entropy", "length", "without eos"):
        assert any(line.startswith(name) for line in lines), name
    again = json.loads(invoke("train", "policy", written(recipe), "--set", "policy.steps=2", "--json").stdout)
    assert again["resumed"] == again["steps"] == 2
    assert again["validation_control_length"] > 0


def test_a_dry_run_trains_nothing(tmp_path: Path) -> None:
    plan = json.loads(invoke("train", "policy", written(toy.recipe(tmp_path)), "--dry-run", "--json").stdout)
    assert plan["steps"] == 3
    assert plan["data"] == {"train": 12, "validation": 5}
    assert plan["recipe"]["rewards"] == [{"weight": 1.0, "function": "tests.unit.training.toy:count_e"}]
    assert not (tmp_path / "run").exists()


def test_a_run_above_its_ceiling_says_so(tmp_path: Path) -> None:
    done = invoke("train", "policy", written(toy.recipe(tmp_path, lr=1e-2, kl_ceiling=0.01, steps=30)))
    assert "the KL is above policy.kl_ceiling" in done.stderr


def test_a_reward_that_fails_exits_with_1_and_a_mistake_with_2(tmp_path: Path) -> None:
    broken = RewardTerm(function="tests.unit.training.toy:broken")
    said = invoke("train", "policy", written(toy.recipe(tmp_path, rewards=[broken])), code=1).stderr
    assert "reward tests.unit.training.toy:broken: KeyError: 'gold'" in said
    said = invoke("train", "policy", written(toy.recipe(tmp_path)), "--set", "rewards=[{modell: rm}]", code=2).stderr
    assert "unknown key 'rewards[0].modell'; did you mean 'model'?" in said


def test_free_keys_may_change_and_others_may_not(tmp_path: Path) -> None:
    file = written(toy.recipe(tmp_path, steps=1))
    invoke("train", "policy", file)
    invoke("train", "policy", file, "--set", "policy.save_every=7", "--set", "data.validation=")
    said = invoke("train", "policy", file, "--set", "policy.beta=0.2", code=1).stderr
    assert "holds a run of another recipe" in said
