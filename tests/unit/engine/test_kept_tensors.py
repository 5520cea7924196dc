"""`--only` and `--exclude`: what is chosen is merged, the rest is the init's to the byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import warmkit
from tests.conftest import CONFIG, Family, Run, make_family, save, weights
from warmkit.errors import UsageError

METHODS = ["lerp", "slerp", "slerp-weights", "karcher", "task-arithmetic", "model-stock"]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_what_is_chosen_is_merged_as_ever_and_the_rest_is_the_init(method: str, family: Family, tmp_path: Path) -> None:
    models = family.models[:2]
    whole = warmkit.merge(models, tmp_path / "whole", init=family.init, method=method)
    part = warmkit.merge(models, tmp_path / "part", init=family.init, method=method, only=["model.layers.[01].*", "lm_head*"])
    merged, chosen, init = tensors(whole.path), tensors(part.path), weights(0)
    for name in init:
        inside = name.startswith(("model.layers.0.", "model.layers.1.", "lm_head"))
        assert torch.equal(chosen[name], merged[name] if inside else init[name]), name
    assert [group.name for group in part.groups] == ["lm_head.weight", "model.layers.0", "model.layers.1"]


def test_a_part_of_a_layer_has_the_angle_of_that_part(family: Family, tmp_path: Path) -> None:
    part = warmkit.merge(family.models[:2], tmp_path / "part", init=family.init, exclude=["*.mlp.*"])
    by_tensor = {name: tensors(path) for name, path in zip("iab", (family.init, *family.models[:2]))}
    names = [f"model.layers.0.{each}.weight" for each in ("attn", "norm")]
    a, b = (torch.cat([(by_tensor[m][n] - by_tensor["i"][n]).ravel().double() for n in names]) for m in "ab")
    group = next(group for group in part.groups if group.name == "model.layers.0")
    assert group.angles is not None
    assert group.angles[0][1] == pytest.approx(float(torch.rad2deg(torch.acos(a @ b / a.norm() / b.norm()))))


def test_without_an_init_the_rest_is_the_first_model(family: Family, tmp_path: Path) -> None:
    out = warmkit.soup(family.models, tmp_path / "out", exclude=["lm_head.*"]).path
    assert torch.equal(tensors(out)["lm_head.weight"], weights(1)["lm_head.weight"])
    assert not torch.equal(tensors(out)["model.norm.weight"], weights(1)["model.norm.weight"])


def test_excluded_tensors_may_differ_in_shape_or_be_missing(family: Family, tmp_path: Path) -> None:
    headless = {name: tensor for name, tensor in weights(1).items() if name != "lm_head.weight"}
    other = {**weights(2), "lm_head.weight": torch.zeros(7, 8)}
    paths = [save(tmp_path / "x", headless), save(tmp_path / "y", other)]
    out = warmkit.merge(paths, tmp_path / "out", init=family.init, exclude=["lm_head.*"]).path
    assert torch.equal(tensors(out)["lm_head.weight"], weights(0)["lm_head.weight"])


def test_kept_tensors_take_the_type_that_is_asked_for(tmp_path: Path) -> None:
    family = make_family(tmp_path)
    out = warmkit.merge(family.models[:2], tmp_path / "out", init=family.init, exclude=["lm_head.*"], dtype="bfloat16").path
    assert torch.equal(tensors(out)["lm_head.weight"], weights(0)["lm_head.weight"].bfloat16())


def test_integer_tensors_that_differ_can_be_excluded(tmp_path: Path) -> None:
    paths = [save(tmp_path / name, {**weights(seed), "ids": torch.arange(4) + seed}) for seed, name in enumerate("iab")]
    out = warmkit.merge(paths[1:], tmp_path / "out", init=paths[0], exclude=["ids"]).path
    assert tensors(out)["ids"].tolist() == [0, 1, 2, 3]


def test_the_manifest_and_a_note_say_what_was_kept(family: Family, tmp_path: Path) -> None:
    result = warmkit.merge(family.models[:2], tmp_path / "out", init=family.init, only=["model.layers.*"])
    manifest = json.loads((tmp_path / "out" / "warmkit.json").read_text())
    expected = ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"]
    assert manifest["kept"] == {"only": ["model.layers.*"], "exclude": [], "source": str(family.init), "tensors": expected}
    assert f"3 of 12 tensors are copied from {family.init} (--only, --exclude)" in result.notes
    assert warmkit.verify(tmp_path / "out").tensors == 12


@pytest.mark.parametrize("pattern", ["lm_haed.*", "layers.*"])
def test_a_pattern_that_matches_nothing_is_an_error(pattern: str, family: Family, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"matches no tensor; names are like 'lm_head\.weight'"):
        warmkit.soup(family.models, tmp_path / "out", only=[pattern])


def test_a_choice_of_nothing_is_an_error(family: Family, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave no tensor"):
        warmkit.soup(family.models, tmp_path / "out", exclude=["*"])


def test_the_command_and_the_recipe_say_it(family: Family, run: Run, tmp_path: Path) -> None:
    recipe = {"merge": {"models": [str(family.a), str(family.b)], "method": "lerp", "exclude": ["lm_head.*"]}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    done = run("merge", "recipe.yaml", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "1 of 12 tensors are copied" in done.stderr
    done = run("merge", "recipe.yaml", "-o", "both", "--exclude", "model.norm.*", "--exclude", "model.embed*")
    assert "2 of 12 tensors are copied" in done.stderr  # the command's patterns replace the recipe's
    assert CONFIG["architectures"] == json.loads((tmp_path / "both" / "config.json").read_text())["architectures"]


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_kept_tensors_are_copied_where_coefficients_do_not_sum_to_one(dtype: str | None, tmp_path: Path) -> None:
    family = make_family(tmp_path, torch.bfloat16)
    numbers = {"init": "zero", "method": "task-arithmetic", "coefficients": [0.5, 0.25]}
    out = warmkit.merge(family.models[:2], tmp_path / "out", **numbers, exclude=["lm_head.*"], dtype=dtype).path
    assert torch.equal(
        tensors(out)["lm_head.weight"], tensors(family.a)["lm_head.weight"].to(tensors(out)["lm_head.weight"].dtype)
    )
    assert not torch.equal(tensors(out)["model.norm.weight"].bfloat16(), tensors(family.a)["model.norm.weight"])
