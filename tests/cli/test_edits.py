"""Methods that edit task vectors, from the command line and from recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import warmkit
from tests.conftest import Family, Run

Refused = Callable[..., str]


def test_every_parameter_arrives_from_the_command_line_and_over_a_recipe(family: Family, run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    models = ", ".join(str(path) for path in family.models)
    recipe.write_text(
        f"merge:\n  models: [{models}]\n  init: {family.init}\n  method: della\n"
        "  density: [0.5, 0.4, 0.3]\n  epsilon: 1e-1\n  seed: 3\n  normalize: false\n"
    )
    done = run("merge", recipe, "-o", "out", "--seed", 7, "--scale", 0.5, "--normalize", "--coefficients", "1,2,1")
    assert done.returncode == 0, done.stderr
    expected = {"density": [0.5, 0.4, 0.3], "epsilon": [0.1] * 3, "seed": 7, "normalize": True, "scale": 0.5}
    parameters = json.loads((tmp_path / "out" / "warmkit.json").read_text())["parameters"]
    assert {name: parameters[name] for name in expected} == expected
    given = {**expected, "coefficients": [1, 2, 1]}
    warmkit.merge(family.models, tmp_path / "same", init=family.init, method="della", **given)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "same")]
    assert files[0] == files[1]


def test_a_parameter_that_a_method_lacks_is_refused_by_name_with_its_line(
    family: Family, refused: Refused, tmp_path: Path
) -> None:
    said = refused("merge", "--init", family.init, family.a, family.b, "-o", "out", "--density", "0.5", code=2)
    assert "slerp has no density; it is a parameter of ties, dare-linear" in said
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"merge:\n  models: [{family.a}]\n  init: {family.init}\n  method: ties\n  gamma: 0.1\n")
    assert f"{recipe}:5: ties has no gamma" in refused("merge", recipe, "-o", "out", code=2)


def test_numbers_that_are_none_are_refused(family: Family, refused: Refused) -> None:
    merge = ("merge", "--method", "ties", "--init", family.init, family.a, family.b, "-o", "out")
    assert "--density: expected numbers with commas between them, found 'half'" in refused(*merge, "--density", "half", code=2)
    assert "density must be a finite number above 0 and at most 1, found 2.0" in refused(*merge, "--density", "2", code=2)
