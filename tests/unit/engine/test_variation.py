"""Merges whose numbers change from tensor to tensor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import warmkit
from tests.conftest import SHAPES, Family, Stopped, stop_at, weights
from warmkit.errors import UsageError

LAYERS = 3


def share(name: str) -> float:
    """Return lambda of the recipe below, worked out by name."""
    layer = re.search(r"layers\.(\d)", name)
    if "mlp" in name and layer:
        return (0.0, 0.5, 1.0)[int(layer[1])]
    return 0.25


RULES: list[dict[str, Any]] = [{"pattern": "mlp", "value": [0, 1]}, {"value": 0.25}]


def load(folder: Path) -> dict[str, torch.Tensor]:
    return {name: lazy.load().double() for name, lazy in warmkit.open_checkpoint(folder).items()}


def test_lambda_by_rule_and_depth_is_the_average_of_each_tensor(family: Family, tmp_path: Path) -> None:
    warmkit.merge([family.a, family.b], tmp_path / "out", method="lerp", lambda_=RULES)
    a, b = weights(1), weights(2)
    for name, found in load(tmp_path / "out").items():
        exact = (1 - share(name)) * a[name].double() + share(name) * b[name].double()
        np.testing.assert_allclose(found, exact, rtol=1e-7, atol=1e-7)
    assert torch.equal(load(tmp_path / "out")["model.layers.0.mlp.weight"], a["model.layers.0.mlp.weight"].double())


def test_coefficients_say_the_same_as_lambda_and_change_the_normalisation_of_each_tensor(
    family: Family, tmp_path: Path
) -> None:
    first = [{"pattern": "mlp", "value": [2, 0]}, {"value": 1.5}]
    second = [{"pattern": "mlp", "value": [0, 2]}, {"value": 0.5}]
    warmkit.merge([family.a, family.b], tmp_path / "lambda", method="lerp", lambda_=RULES)
    warmkit.merge([family.a, family.b], tmp_path / "out", method="lerp", coefficients=[first, second])
    one, two = (tmp_path / name / "model.safetensors" for name in ("lambda", "out"))
    assert one.read_bytes() == two.read_bytes()


def test_a_group_is_split_where_its_tensors_have_different_numbers(family: Family, tmp_path: Path) -> None:
    result = warmkit.merge([family.a, family.b], tmp_path / "out", init=family.init, lambda_=RULES)
    names = {group.name: group.tensors for group in result.groups}
    assert names["model.layers.1 (mlp)"] == 1
    assert names["model.layers.1 (others)"] == 2
    assert sum(names.values()) == len(SHAPES)
    angles = {group.name: group.angles for group in result.groups}
    assert angles["model.layers.1 (mlp)"] != angles["model.layers.1 (others)"]


def test_eta_by_rule_draws_each_tensor_back_by_its_own(family: Family, tmp_path: Path) -> None:
    rules = [{"pattern": "attn", "value": 0}, {"value": [1, 0.5]}]
    warmkit.merge([family.a, family.b], tmp_path / "out", init=family.init, method="lerp", eta=rules)
    zero, a, b = weights(0), weights(1), weights(2)
    found = load(tmp_path / "out")
    mean = {name: (a[name].double() + b[name].double()) / 2 for name in a}
    for layer, eta in enumerate((1, 0.75, 0.5)):
        name = f"model.layers.{layer}.norm.weight"
        np.testing.assert_allclose(found[name], (1 - eta) * zero[name].double() + eta * mean[name], rtol=1e-6, atol=1e-7)
        assert torch.equal(found[f"model.layers.{layer}.attn.weight"], zero[f"model.layers.{layer}.attn.weight"].double())


def test_density_by_rule_and_depth_prunes_each_tensor_by_its_own(family: Family, tmp_path: Path) -> None:
    rules = [{"pattern": "mlp", "value": [0.25, 0.75]}, {"value": 1}]
    warmkit.merge([family.a], tmp_path / "out", init=family.init, method="ties", density=rules)
    zero, a, found = weights(0), weights(1), load(tmp_path / "out")
    for layer, density in enumerate((0.25, 0.5, 0.75)):
        name = f"model.layers.{layer}.mlp.weight"
        assert int((found[name] != zero[name].double()).sum()) == int(density * zero[name].numel())
    np.testing.assert_allclose(found["lm_head.weight"], a["lm_head.weight"].double(), rtol=1e-6, atol=1e-7)


def test_constant_rules_write_the_bytes_of_plain_numbers(family: Family, tmp_path: Path) -> None:
    warmkit.merge([family.a, family.b], tmp_path / "plain", init=family.init, lambda_=0.3)
    warmkit.merge([family.a, family.b], tmp_path / "rules", init=family.init, lambda_=[{"value": [0.3, 0.3]}])
    one, two = (tmp_path / name / "model.safetensors" for name in ("plain", "rules"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(("again", "resumes"), [([0, 1], True), ([0, 0.5], False)])
def test_an_interrupted_merge_goes_on_with_the_same_rules_alone(
    family: Family, tmp_path: Path, again: list[float], resumes: bool
) -> None:
    models = [family.a, family.b]
    with pytest.raises(Stopped):
        warmkit.merge(models, tmp_path / "out", method="lerp", lambda_=[0, 1], threads=1, advance=stop_at(6))
    result = warmkit.merge(models, tmp_path / "out", method="lerp", lambda_=again)
    assert (result.resumed > 0) is resumes
    warmkit.merge(models, tmp_path / "fresh", method="lerp", lambda_=again)
    one, two = (tmp_path / name / "model.safetensors" for name in ("out", "fresh"))
    assert one.read_bytes() == two.read_bytes()


def test_an_init_of_zero_takes_weights_for_task_vectors(family: Family, tmp_path: Path) -> None:
    warmkit.merge([family.a, family.b], tmp_path / "sum", init="zero", method="task-arithmetic", coefficients=[0.5, -2])
    for name, found in load(tmp_path / "sum").items():
        exact = 0.5 * weights(1)[name].double() - 2 * weights(2)[name].double()
        np.testing.assert_allclose(found, exact, rtol=1e-6, atol=1e-6)
    warmkit.merge([family.a, family.b], tmp_path / "zero", init="zero", method="slerp", lambda_=0.3)
    warmkit.merge([family.a, family.b], tmp_path / "weights", method="slerp-weights", lambda_=0.3)
    one, two = (tmp_path / name / "model.safetensors" for name in ("zero", "weights"))
    assert one.read_bytes() == two.read_bytes()


def test_one_model_of_scale_one_from_zero_is_copied_bit_by_bit(family: Family, tmp_path: Path) -> None:
    warmkit.merge([family.a], tmp_path / "out", init="zero", method="task-arithmetic")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (family.a / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lambda_": [{"pattern": "mlp", "value": 1}]}, "the coefficient of model 1 says nothing of 'lm_head.weight'"),
        ({"coefficients": [[1, 0], [-1, 1]]}, r"group .*: the coefficients \[1.0, -1.0\] sum to 0"),
        ({"coefficients": [[1, 0]]}, "expected 2 coefficients, one per model, found 1"),
        ({"lambda_": [0, 1], "coefficients": [1, 1]}, "say the same thing"),
        ({"method": "slerp-weights", "lambda_": [0, 1.5]}, "coefficients cannot be negative"),
        ({"method": "ties", "init": "@", "density": [[0.5, 1.5], 0.5]}, "group .*density must be a finite number above 0"),
        ({"method": "ties", "init": "@", "density": [[0.5, 1]]}, "density: expected one number, or 2, one per model; found 1"),
        ({"method": "lerp", "init": "zero", "eta": 0.5}, "eta with an init of zero would shrink the model"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(
    family: Family, tmp_path: Path, parameters: dict[str, Any], message: str
) -> None:
    parameters = {name: family.init if value == "@" else value for name, value in parameters.items()}
    with pytest.raises(UsageError, match=message):
        warmkit.merge([family.a, family.b], tmp_path / "out", **{"method": "lerp", **parameters})
    assert not (tmp_path / "out").exists()
