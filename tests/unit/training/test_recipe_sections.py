"""Training recipes are strict: names, types, ranges, choices, and keys that contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from warmkit.errors import RecipeError, UsageError
from warmkit.recipes.recipe import read_recipe, recipe_text
from warmkit.training.recipe_sections import Optimization, RewardModelRecipe, SftRecipe, WarmRecipe

RECIPE = """\
model:
  path: init
data:
  train: train.jsonl
  validation: validation.jsonl
rm:
  lr: 1e-4
  steps: 10
warm:
  runs: 4
  lr: [1e-4, 2e-5]
output:
  path: out
"""


def read(tmp_path: Path, text: str = RECIPE, overrides: Sequence[str] = (), schema: Any = WarmRecipe) -> Any:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    return read_recipe(file, schema, overrides).content


def test_numbers_in_exponents_are_numbers_in_lists_too(tmp_path: Path) -> None:
    content = read(tmp_path)
    assert content.rm.lr == 1e-4
    assert content.warm.lr == [1e-4, 2e-5]
    assert read(tmp_path, overrides=["warm.lr=[3e-5, 1]"]).warm.lr == [3e-5, 1]


def test_a_recipe_written_out_reads_back_as_itself(tmp_path: Path) -> None:
    content = read(tmp_path, overrides=["lora.rank=4", "rm.dropout=0.1", "rm.keep=[2, 4]"])
    assert read(tmp_path, recipe_text(content)) == content


MISTAKES: dict[str, tuple[str, str, str]] = {
    "unknown key": ("  steps:", "  step:", r":8: unknown key 'rm\.step'; did you mean 'steps'\?"),
    "unknown section": ("warm:", "wram:", r":9: unknown key 'wram'; did you mean 'warm'\?"),
    "wrong type": ("steps: 10", "steps: ten", r":8: rm\.steps must be a whole number, found 'ten'"),
    "a number with a point for steps": ("steps: 10", "steps: 1e1", r":8: rm\.steps must be a whole number, found 10\.0"),
    "a boolean for a number": ("runs: 4", "runs: yes", r":10: warm\.runs must be a whole number, found True"),
    "a number for a list": ("lr: [1e-4, 2e-5]", "lr: 1e-4", r":11: warm\.lr must be a list of numbers, found 0\.0001"),
    "a word in a list": ("[1e-4, 2e-5]", "[1e-4, much]", r":11: warm\.lr must be a list of numbers"),
    "out of range": ("runs: 4", "runs: 1", r":10: warm\.runs: expected a number at least 2, found 1"),
    "out of range in a list": ("[1e-4, 2e-5]", "[1e-4, -1]", r":11: warm\.lr: expected a number at least 0, found -1"),
    "not a number": ("lr: 1e-4", "lr: .nan", r":7: rm\.lr: expected a number at least 0, found nan"),
    "a choice": (
        "steps: 10",
        "schedule: cosin",
        r":8: rm\.schedule must be constant or linear or cosine.*did you mean 'cosine'\?",
    ),
    "a choice far off": ("steps: 10", "precision: 16", r":8: rm\.precision must be auto or float32 or bfloat16, found 16"),
    "steps and epochs": ("steps: 10", "steps: 10\n  epochs: 2", r":7: rm: steps and epochs say the same thing twice"),
    "too many parts": ("steps: 10", "accumulation: 17", r":7: rm: accumulation 17 splits a batch_size of 16"),
    "m without top": ("runs: 4", "runs: 4\n  final: best\n  m: 2", r":10: warm: m is the number of models of final: top"),
    "m of too few": ("runs: 4", "runs: 4\n  final: top\n  m: 5", r":10: warm: m 5 is more than the 4 runs"),
    "a key missing": ("  path: init", "  max_length: 64", r":2: missing key 'model\.path'"),
    "a section missing": ("output:\n  path: out\n", "", r":1: missing key 'output'"),
    "a key twice": ("steps: 10", "lr: 1", r":8: 'rm\.lr' is there twice"),
    "text for a section": ("  path: out", "  out", r":13: expected output to be a mapping of keys to values"),
    "nothing for a section": ("  path: out", "", r":12: output must be a mapping of keys to values, found None"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_names_its_line(mistake: str, tmp_path: Path) -> None:
    old, new, expected = MISTAKES[mistake]
    assert RECIPE.count(old) == 1
    with pytest.raises(RecipeError, match=r"recipe\.yaml" + expected):
        read(tmp_path, RECIPE.replace(old, new))


def test_overrides_lie_over_the_file_and_make_sections(tmp_path: Path) -> None:
    content = read(tmp_path, overrides=["rm.steps=20", "probe.l2=1e-2", "warm.exclude=[run-1, run-2]", "output.path=a=b"])
    assert content.rm.steps == 20
    assert content.probe.l2 == 0.01
    assert content.warm.exclude == ["run-1", "run-2"]
    assert content.output.path == "a=b"
    assert content.rm.lr == 1e-4


def test_an_override_can_unset_a_key(tmp_path: Path) -> None:
    content = read(tmp_path, overrides=["rm.steps=", "rm.epochs=2"])
    assert (content.rm.steps, content.rm.epochs) == (None, 2)


BAD_OVERRIDES = {
    "rm.steps": r"--set rm\.steps: expected section\.key=value",
    "=3": r"--set =3: expected section\.key=value",
    "rm.stepps=3": r"--set rm\.stepps=3: unknown key 'rm\.stepps'; did you mean 'steps'\?",
    "rn.steps=3": r"--set rn\.steps=3: unknown key 'rn'",
    "rm.steps=many": r"--set rm\.steps=many: rm\.steps must be a whole number",
    "rm.lr=-1": r"--set rm\.lr=-1: rm\.lr: expected a number at least 0",
    "rm.keep=[1": r"--set rm\.keep=\[1:\d+: not YAML",
    "rm.steps.more=1": r"--set rm\.steps\.more=1: rm\.steps is no section",
    "rm.epochs=1": r"rm: steps and epochs say the same thing twice",
}


@pytest.mark.parametrize("override", BAD_OVERRIDES)
def test_a_bad_override_says_which_and_why(override: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=BAD_OVERRIDES[override]):
        read(tmp_path, overrides=[override])


def test_each_command_knows_its_own_sections(tmp_path: Path) -> None:
    for schema in (RewardModelRecipe, SftRecipe):
        with pytest.raises(RecipeError, match="a recipe of another command; give it to that: warmkit warm "):
            read(tmp_path, schema=schema)


@pytest.mark.parametrize(
    ("how", "examples", "steps"),
    [({}, 160, 10), ({"epochs": 2.5}, 160, 25), ({"steps": 7}, 160, 7), ({"epochs": 0.001}, 160, 1), ({}, 3, 1)],
)
def test_steps_follow_from_epochs(how: dict[str, Any], examples: int, steps: int) -> None:
    assert Optimization(batch_size=16, **how).steps_for(examples) == steps
