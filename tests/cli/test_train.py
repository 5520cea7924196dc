"""`warmkit train` as a user runs it: killed and run again, told wrong things, asked for plans."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import invoke
from tests.unit.training import tiny
from tests.unit.training.killed import kill_after
from warmkit.recipes.recipe import recipe_text
from warmkit.training.recipe_sections import LoraSection, RewardModelRecipe, SftRecipe
from warmkit.training.reward_modeling import train_reward_model
from warmkit.training.sft import train_sft


def written(recipe: Any) -> Path:
    """Write a recipe beside its run."""
    file = Path(recipe.output.path + ".yaml")
    file.write_text(recipe_text(recipe))
    return file


def learned(recipe: Any) -> list[dict[str, Any]]:
    """Return the metrics without what a clock says."""
    lines = (Path(recipe.output.path) / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "examples_per_second"} for line in lines]


def moved(recipe: Any, name: str) -> Any:
    return replace(recipe, output=replace(recipe.output, path=str(Path(recipe.output.path).with_name(name))))


STEPS: dict[str, Any] = {"steps": 60, "save_every": 7, "batch_size": 6, "warmup": 5, "schedule": "cosine"}
RUNS: dict[str, Callable[[Path], RewardModelRecipe]] = {
    "adamw and dropout": lambda folder: tiny.recipe(folder, "bert", dropout=0.2, seed=3, order=4, evaluate_every=20, **STEPS),
    "adafactor, lora and parts": lambda folder: replace(
        tiny.recipe(folder, "llama", optimizer="adafactor", accumulation=2, dropout=0.1, keep=[10, 50], **STEPS),
        lora=LoraSection(2, dropout=0.1),
    ),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_killed_reward_model_goes_on_to_the_same_bytes(case: str, tmp_path: Path) -> None:
    if "lora" in case:
        pytest.importorskip("peft", reason="LoRA needs peft")
    recipe = RUNS[case](tmp_path)
    assert (kill_after(8, "rm", recipe) / "state.pt").exists()
    resumed = json.loads(invoke("train", "rm", written(recipe), "--json").stdout)["resumed"]
    assert resumed >= 7
    assert resumed % 7 == 0
    whole = moved(recipe, "whole")
    assert train_reward_model(whole).resumed == 0
    a, b = Path(recipe.output.path), Path(whole.output.path)
    assert learned(recipe) == learned(whole)
    assert len(learned(recipe)) == 60
    for name in ["model", *(f"step-{step}" for step in recipe.rm.keep)]:
        assert tiny.bytes_of(a / name) == tiny.bytes_of(b / name)
    assert not (a / "state.pt").exists()


def test_a_killed_sft_goes_on_to_the_same_bytes_in_every_model_that_is_kept(tmp_path: Path) -> None:
    base = tiny.recipe(tmp_path, "gpt2", dropout=0.1, keep=[5, 40, 60], **STEPS)
    recipe = SftRecipe(base.model, base.data, base.output, tiny.as_sft(base.rm))
    assert (kill_after(8, "sft", recipe) / "state.pt").exists()
    train_sft(recipe)
    whole = moved(recipe, "whole")
    train_sft(whole)
    assert learned(recipe) == learned(whole)
    for name in ("model", "step-5", "step-40", "step-60"):
        assert tiny.bytes_of(tmp_path / "run" / name) == tiny.bytes_of(tmp_path / "whole" / name)


def test_train_rm_trains_and_says_what_it_is_worth(tmp_path: Path) -> None:
    file = written(tiny.recipe(tmp_path, "bert"))
    done = invoke("train-rm", file, "--set", "rm.steps=2", "--set", "rm.lr=1e-4")
    assert done.stdout.rstrip().endswith(str(tmp_path / "run" / "model"))
    assert "validation" in done.stdout


def test_a_dry_run_trains_nothing(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, "bert")
    plan = json.loads(invoke("train", "rm", written(recipe), "--dry-run", "--json").stdout)
    assert plan["steps"] == 6
    assert plan["data"] == {"train": 24, "validation": 16}
    assert plan["parameters"] == sum(each.numel() for each in tiny.load(Path(recipe.model.path)).model.parameters())
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_exits_with_1_and_names_the_rows(tmp_path: Path) -> None:
    said = invoke("train", "rm", written(tiny.recipe(tmp_path, "bert", lr=1e30, save_every=1)), code=1).stderr
    assert "step 2: the loss is nan in the batch of" in said
    assert f"{tmp_path}/train.jsonl:" in said
    assert "the state of step 1 is kept in" in said
    assert (tmp_path / "run" / "state.pt").exists()


def test_another_recipe_in_the_same_place_is_refused(tmp_path: Path) -> None:
    recipe = tiny.recipe(tmp_path, "bert", steps=1)
    train_reward_model(recipe)
    said = invoke("train", "rm", written(recipe), "--set", "rm.lr=1e-5", code=1).stderr
    assert "holds a run of another recipe" in said
    assert "choose another output.path, or delete it and start again with --force" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--set", "rm.stepps=3"), "--set rm.stepps=3: unknown key 'rm.stepps'; did you mean 'steps'?"),
        (("--set", "rm.steps=3", "--set", "rm.epochs=1"), "steps and epochs say the same thing twice"),
    ],
    ids=["unknown key", "contradiction"],
)
def test_a_mistake_exits_with_2(arguments: tuple[str, ...], expected: str, refused: Callable[..., str], tmp_path: Path) -> None:
    file = written(tiny.recipe(tmp_path, "bert"))
    assert expected in refused("train", "rm", file, *arguments, code=2)
