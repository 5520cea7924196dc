"""WARM, WARP and `eval policy` on a mixture of experts, whichever of its two layouts the first model is stored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.unit.modeling.test_layouts_in_memory import as_in_memory, loaded, policy
from tests.unit.modeling.test_weights import mixture
from tests.unit.pipelines import test_warm, test_warp
from tests.unit.training import tiny
from warmkit.cli.app import app
from warmkit.modeling.reward_model import load_scorer
from warmkit.pipelines.warm import run_warm
from warmkit.pipelines.warp import run_warp

pytestmark = pytest.mark.usefixtures("children_are_forks")


def names(folder: Path) -> set[str]:
    return set(load_file(folder / "model.safetensors"))


def numbers(model: Any) -> Mapping[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_warp_learns_and_merges_the_same_weights_from_either_layout(tmp_path: Path) -> None:
    one = policy(tmp_path / "one", "MixtralForCausalLM", 1)
    inside = as_in_memory(one, tmp_path / "inside", loaded(one))
    assert not names(one) & {name for name in names(inside) if "expert" in name}
    found = []
    for init in (one, inside):
        content = test_warp.recipe(tmp_path / f"of-{init.name}", steps=[3, 3])
        content = replace(content, model=replace(content.model, path=str(init)))
        run_warp(content)
        found.append(numbers(loaded(Path(content.output.path) / "model")))
    before = numbers(loaded(one))
    assert all(np.any(value != before[name]) for name, value in found[0].items() if "experts" in name)
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)


def test_warm_learns_and_averages_the_same_weights_from_either_layout(tmp_path: Path) -> None:
    one = mixture(tmp_path / "one", 1)
    inside = as_in_memory(one, tmp_path / "inside", load_scorer(one).model)
    found = []
    for init in (one, inside):
        content = test_warm.recipe(tmp_path / f"of-{init.name}")
        content = replace(content, model=replace(content.model, path=str(init)))
        run_warm(content)
        found.append(numbers(load_scorer(Path(content.output.path) / "model").model))
    for name, value in found[0].items():
        np.testing.assert_array_equal(found[1][name], value, err_msg=name)


def test_eval_policy_finds_the_same_numbers_in_either_layout(tmp_path: Path) -> None:
    init, one = (policy(tmp_path / name, "MixtralForCausalLM", seed) for seed, name in enumerate(("init", "one")))
    inside = as_in_memory(one, tmp_path / "inside", loaded(one))
    held_out = tiny.write(tmp_path / "held-out.jsonl", [{"prompt": text} for text in tiny.sentences(3)])
    found = []
    for each in (one, inside):
        command = ["eval", "policy", str(each), "--sft", str(init), "--prompts", str(held_out), "--max-new-tokens", "6"]
        command += ["--reward", "tests.unit.training.toy:count_e", "--json"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        found.append(done.stdout.replace(str(each), "MODEL"))
    assert found[0] == found[1]
