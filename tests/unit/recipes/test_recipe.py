"""Recipes of others: what YAML can hold and no recipe needs is one error with its line, soon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from warmkit.errors import RecipeError, UsageError
from warmkit.mergekit.schema import is_mergekit
from warmkit.mergekit.translate import read_mergekit
from warmkit.recipes.recipe import MergeRecipe, read_recipe
from warmkit.training.recipe_sections import RewardModelRecipe, WarmRecipe

HALVES = "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30))
REFUSED = {
    "aliases that repeat each other": (f"a0: &a0 [x]\n{HALVES}\n", "aliases repeat too much"),
    "aliases that hold themselves": ("merge: &a\n  models: *a\n", ":1: not YAML: an alias of what it stands in"),
    "many aliases": ("merge: {models: [&a x, " + "*a, " * 1500 + "*a]}", ":1: not YAML: more than 1000 aliases"),
    "deep lists": ("merge: " + "[" * 5000 + "]" * 5000, ":1: not YAML: nested more than 50 deep"),
    "deep aliases": (
        "a0: &a0 [x]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 80)),
        "not YAML: nested more than 50 deep",
    ),
    "a date that is none": ("merge: {models: [2001-99-99]}", ":1: cannot be read as timestamp"),
    "a stamp that is none": ("merge:\n  models: [!!timestamp x]", ":2: cannot be read as timestamp"),
    "a number that is none": ("merge:\n  seed: !!int x", ":2: cannot be read as int"),
    "a boolean that is none": ("merge:\n  angles: !!bool x", ":2: cannot be read as bool"),
    "a huge number": ("merge:\n  seed: 0x" + "f" * 9000, ":2: a whole number beyond 64 bits"),
    "a key that is a list": ("merge:\n  [a]: b", ":2: unknown key"),
    "a key that is a list, deeper": ("merge:\n  models: {[a]: b}", ":2: expected a name as a key"),
    "a tag of Python": ("merge:\n  models: !!python/object:os.x {}", ":2: "),
    "a long text": ("# " + "x" * 1_100_000, ":1: not YAML: a recipe of 1,100,002 characters"),
    "an escape of no character": ('merge: {models: ["\\U00110000"]}', ":1: not YAML"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_recipe_needs_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    text, said = REFUSED[name]
    file = tmp_path / "r.yaml"
    file.write_text(text)
    assert not is_mergekit(file)
    with pytest.raises(RecipeError) as error:
        read_recipe(file, MergeRecipe)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_aliases_that_a_recipe_uses_are_followed(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("merge: {models: &m [a, b], lambda: 0.5, only: *m}")
    assert read_recipe(tmp_path / "r.yaml", MergeRecipe).content.merge.only == ["a", "b"]


def test_what_is_no_file_is_no_recipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"merge: caf\xe9")
    for name in ("pipe.yaml", "loop.yaml", "latin.yaml", "absent.yaml", ""):
        with pytest.raises(RecipeError, match=r"cannot be read|expected a file|no such file"):
            read_recipe(tmp_path / name, MergeRecipe)


def test_a_recipe_of_another_command_names_that_command(tmp_path: Path) -> None:
    for text, schema, command in (
        ("model: {path: x}\nrm: {lr: 1}", MergeRecipe, "train rm"),
        ("merge: {models: [a, b]}", WarmRecipe, "merge"),
        ("merge_method: linear", WarmRecipe, "merge"),
        ("rm: {lr: 1}\nwarm: {runs: 2}", RewardModelRecipe, "warm"),
        ("policy: {lr: 1}\nwarp: {runs: 2}", RewardModelRecipe, "warp"),
    ):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(RecipeError, match=f"r.yaml: a recipe of another command; give it to that: warmkit {command} "):
            read_recipe(tmp_path / "r.yaml", schema)


def test_a_key_without_its_section_is_said_whole(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("model: {path: x}")
    with pytest.raises(UsageError, match=r"--set lr=3: no such key.*: --set rm.lr=3 or --set warm.lr=3$"):
        read_recipe(tmp_path / "r.yaml", WarmRecipe, ["lr=3"])
    with pytest.raises(RecipeError, match=r"unknown key 'rm.lrr'; did you mean 'lr'"):
        read_recipe(tmp_path / "r.yaml", WarmRecipe, ["rm.lrr=3"])


def test_a_parameter_whose_name_is_a_number_is_one_line(tmp_path: Path) -> None:
    text = "models: [{model: a, parameters: {3: 1}}, {model: b, parameters: {weight: 1}}]\nmerge_method: linear\n"
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match="unknown parameter 3 of linear"):
        read_mergekit(tmp_path / "r.yaml")
