"""Configurations of mergekit-evolve are refused with the command that searches the same numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from warmkit.cli.app import app
from warmkit.mergekit.evolve import METHODS, advice

TIES = """\
genome:
  models: [A, B]
  merge_method: ties
  base_model: SFT
  layer_granularity: 8
  normalize: true
tasks:
  - name: spartqa_train
    weight: 1.0
  - my_task
"""


def test_its_methods_are_those_of_ours(tmp_path: Path) -> None:
    for name in METHODS:
        (tmp_path / "evolve.yml").write_text(f"genome: {{models: [A, B], merge_method: {name}, base_model: SFT}}\ntasks: [x]\n")
        said = advice(tmp_path / "evolve.yml")
        assert said is not None
        assert f"-m {METHODS[name][0]}" in said


def test_the_command_says_what_to_write_and_what_is_searched_otherwise(tmp_path: Path) -> None:
    recipe = tmp_path / "evolve.yml"
    recipe.write_text(TIES)
    done = CliRunner().invoke(app, ["search", str(recipe), "-o", str(tmp_path / "out")])
    assert done.exit_code == 2
    for part in (
        "is a configuration of mergekit-evolve; write warmkit search A B --init SFT -m ties",
        "--range coefficients=0:1 --range density=0.05:1 --score 'COMMAND {}' -o OUT",
        "layer_granularity: a gradient over the layers is lambda=0:1x4",
        "tasks (spartqa_train, my_task): a command that runs them and prints one number",
    ):
        assert part in " ".join(done.output.split()), done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", ["merge_method: linear\nmodels: []\n", "genome: {merge_method: other, models: []}", "[", "1"]
)
def test_other_files_are_no_configurations_of_it(content: str, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(content)
    assert advice(tmp_path / "other.yaml") is None
    done = CliRunner().invoke(app, ["search", str(tmp_path / "other.yaml"), "-o", str(tmp_path / "out")])
    assert "is no model; name the models, as in warmkit search A B" in " ".join(done.output.split())
