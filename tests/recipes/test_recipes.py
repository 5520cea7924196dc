"""Recipes say what the command line says, strictly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Family, Run
from warmkit.recipes.recipe import MergeRecipe, read_recipe
from warmkit.training.command_recipe import CommandWarmRecipe, CommandWarpRecipe
from warmkit.training.policy_recipe import PolicyRecipe
from warmkit.training.recipe_sections import RewardModelRecipe, SftRecipe, WarmRecipe
from warmkit.training.warp_recipe import WarpRecipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
REPRODUCED = sorted(path for path in (ROOT / "recipes" / "reproduce").rglob("*.yaml") if path.stem != "testbed")
SCHEMAS = {
    "merge": MergeRecipe,
    "policy": PolicyRecipe,
    "rm": RewardModelRecipe,
    "sft": SftRecipe,
    "warm": WarmRecipe,
    "warp": WarpRecipe,
}
BY_COMMAND: dict[str, Any] = {"warm": {"command": CommandWarmRecipe}, "warp": {"command": CommandWarpRecipe}}

RECIPE = """\
# a comment
merge:
  method: slerp
  init: {init}
  models: [{a}, {b}]
  lambda: 0.3
  eta: 0.3
output:
  path: out
  dtype: bfloat16
  max_shard_size: 2KB
"""


def written(tmp_path: Path, family: Family, change: Callable[[str], str] = str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(change(RECIPE.format(init=family.init, a=family.a, b=family.b)))
    return path


def test_a_recipe_does_what_the_options_do(family: Family, run: Run, tmp_path: Path) -> None:
    recipe = run("merge", written(tmp_path, family))
    assert recipe.returncode == 0, recipe.stderr
    options = ("--lambda", 0.3, "--eta", 0.3, "--dtype", "bfloat16", "--max-shard-size", "2KB")
    assert run("merge", "--init", family.init, family.a, family.b, *options, "-o", "same").returncode == 0
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 1
    assert [path.read_bytes() for path in shards] == [
        path.read_bytes() for path in sorted((tmp_path / "same").glob("*.safetensors"))
    ]


def test_a_recipe_comes_through_a_pipe(family: Family, run: Run, tmp_path: Path) -> None:
    text = written(tmp_path, family).read_text()
    done = run("merge", "-", "-o", "piped", input=text)
    assert done.returncode == 0, done.stderr
    assert run("merge", "recipe.yaml").returncode == 0
    for path in (tmp_path / "out").glob("*.safetensors"):
        assert (tmp_path / "piped" / path.name).read_bytes() == path.read_bytes()
    done = run("merge", "-", input=text.replace("  eta:", "  etta:"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "standard input:7: unknown key 'merge.etta'" in done.stderr


def test_options_override_the_recipe(family: Family, run: Run, tmp_path: Path) -> None:
    path = written(tmp_path, family)
    done = run("merge", path, "-o", "other", "--dtype", "float32", "--method", "lerp", "--coefficients", "1,3", "--eta", "1")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out").exists()
    arguments = ("merge", "--method", "lerp", "--lambda", 0.75, family.a, family.b, "-o", "same", "--max-shard-size", "2KB")
    assert run(*arguments).returncode == 0
    names = sorted(path.name for path in (tmp_path / "same").glob("*.safetensors"))
    assert all((tmp_path / "other" / name).read_bytes() == (tmp_path / "same" / name).read_bytes() for name in names)


MISTAKES: dict[str, tuple[Callable[[str], str], str]] = {
    "unknown key": (lambda text: text.replace("  eta:", "  etta:"), ":7: unknown key 'merge.etta'; did you mean 'eta'?"),
    "unknown section": (lambda text: text.replace("output:", "outputs:"), ":8: unknown key 'outputs'; did you mean 'output'?"),
    "wrong type": (lambda text: text.replace("eta: 0.3", "eta: much"), ":7: merge.eta must be a number or a list of numbers"),
    "boolean for a number": (lambda text: text.replace("eta: 0.3", "eta: yes"), ":7: merge.eta must be"),
    "not finite": (lambda text: text.replace("eta: 0.3", "eta: .nan"), ":7: merge.eta: eta must be a finite number"),
    "unknown method": (
        lambda text: text.replace("slerp", "slrp"),
        ":3: merge.method: unknown method 'slrp'; did you mean 'slerp'?",
    ),
    "unknown dtype": (lambda text: text.replace("bfloat16", "bf17"), ":10: output.dtype: unknown dtype"),
    "a key twice": (lambda text: text.replace("  eta: 0.3", "  eta: 0.3\n  eta: 0.4"), ":8: 'merge.eta' is there twice"),
    "missing models": (
        lambda text: "merge:\n  method: slerp\noutput:\n  path: out\n",
        ":2: merge: missing key 'models' (or 'slices')",
    ),
    "not YAML": (lambda text: text + "  - [", "not YAML"),
    "empty": (lambda text: "", ":1: the recipe is empty"),
    "a list": (lambda text: "- merge", ":1: expected the recipe to be a mapping"),
    "mix for three models": (
        lambda text: text.replace("lambda: 0.3", "coefficients: [1, 2, 3]"),
        ":6: expected 2 coefficients, one per model, found 3",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_recipe_exits_with_2_and_names_the_line(
    mistake: str, family: Family, refused: Callable[..., str], tmp_path: Path
) -> None:
    change, expected = MISTAKES[mistake]
    path = written(tmp_path, family, change)
    said = refused("merge", path, code=2)
    assert "recipe.yaml" in said
    assert expected in said


def test_numbers_without_a_point_are_numbers(family: Family, tmp_path: Path) -> None:
    path = written(tmp_path, family, lambda text: text.replace("eta: 0.3", "eta: 1e-3"))
    assert read_recipe(path, MergeRecipe).content.merge.eta == 1e-3


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_that_we_ship_is_one_of_the_command_that_its_name_begins_with(path: Path) -> None:
    kind = path.name.split("-")[0]
    content = read_recipe(path, SCHEMAS[kind], instead=BY_COMMAND.get(kind)).content
    assert content.output.path


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 5


@pytest.mark.parametrize("path", REPRODUCED, ids=lambda path: path.stem)
def test_every_recipe_of_a_claim_has_rules_and_figures_for_all_sizes(path: Path) -> None:
    from warmkit.evidence.reproduction.claim_recipe import read_claim, read_testbed

    recipe = read_claim(path.stem)
    assert recipe.statements
    assert recipe.figures
    assert all(each.source for each in recipe.statements)
    assert {read_testbed(size).pretraining.steps > 0 for size in ("nano", "small", "large")} == {True}


def test_every_claim_has_a_recipe_and_names_of_statements_and_figures_are_unique() -> None:
    from warmkit.evidence.reproduction.claim_recipe import read_claim
    from warmkit.evidence.reproduction.claim_table import CLAIMS

    assert {path.stem for path in REPRODUCED} == set(CLAIMS)
    figures = [figure.name for name in CLAIMS for figure in read_claim(name).figures]
    assert len(figures) == len(set(figures))
    for name in CLAIMS:
        statements = [statement.name for statement in read_claim(name).statements]
        assert len(statements) == len(set(statements))
