"""Models put together from layers of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import warmkit
from tests.conftest import CONFIG, Family, Stopped, save, stop_at, tensors_of, weights
from warmkit import LayerRange, Slice
from warmkit.errors import MismatchError, OutputError, UnsupportedError, UsageError, WarmkitError

THREE = {**CONFIG, "num_hidden_layers": 3}
LISTS = {"layer_types": ["full", "sliding", "full"], "mlp_only_layers": [1]}


@pytest.fixture
def models(tmp_path: Path) -> Family:
    """Three layers each, as their config says."""
    return Family(*(save(tmp_path / name, weights(seed), THREE) for seed, name in enumerate(("sft", "a", "b", "c"))))


def one(model: Path, first: int, end: int, **numbers: Any) -> Slice:
    return Slice((LayerRange(model, first, end),), **numbers)


def stack(models: Family, output: Path, **options: Any) -> warmkit.MergeResult:
    return warmkit.merge_slices([one(models.a, 0, 2), one(models.b, 1, 3)], output, **options)


def test_layers_of_two_models_are_stacked_bit_by_bit_under_new_numbers(models: Family, tmp_path: Path) -> None:
    stack(models, tmp_path / "out", max_shard_size="2KB")
    a, b, found = weights(1), weights(2), tensors_of(tmp_path / "out")
    origins = [(a, 0), (a, 1), (b, 1), (b, 2)]
    assert len(found) == 3 + 4 * 3
    for layer, (source, number) in enumerate(origins):
        for rest in ("attn.weight", "mlp.weight", "norm.weight"):
            assert torch.equal(found[f"model.layers.{layer}.{rest}"], source[f"model.layers.{number}.{rest}"])
    assert torch.equal(found["model.embed_tokens.weight"], a["model.embed_tokens.weight"])
    assert torch.equal(found["lm_head.weight"], b["lm_head.weight"])
    assert torch.equal(found["model.norm.weight"], b["model.norm.weight"])


def test_the_config_counts_the_layers_and_lists_what_each_is(models: Family, tmp_path: Path) -> None:
    for model in (models.init, *models.models):
        (model / "config.json").write_text(json.dumps({**THREE, **LISTS}))
    stack(models, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == 4
    assert config["layer_types"] == ["full", "sliding", "sliding", "full"]
    assert config["mlp_only_layers"] == [1, 2]
    assert {key: config[key] for key in CONFIG} == CONFIG


def test_the_manifest_says_what_came_from_where_and_verifies(models: Family, tmp_path: Path) -> None:
    stack(models, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "warmkit.json").read_text())
    assert manifest["rows"] == [f"{models.a}[0:2] + {models.b}[1:3]"]
    assert [each["sources"] for each in manifest["parameters"]["slices"]] == [[f"{models.a}[0:2]"], [f"{models.b}[1:3]"]]
    assert len(manifest["models"][0]["files"]) == 2
    warmkit.verify(tmp_path / "out")


def test_a_slice_can_be_a_merge_with_gradients_over_its_own_layers(models: Family, tmp_path: Path) -> None:
    both = (LayerRange(models.a, 0, 2), LayerRange(models.b, 1, 3))
    slices = [Slice(both, lambda_=[0.25, 0.75]), one(models.c, 2, 3)]
    warmkit.merge_slices(slices, tmp_path / "out", method="lerp")
    a, b, c, found = weights(1), weights(2), weights(3), tensors_of(tmp_path / "out")
    for layer, share in enumerate((0.25, 0.75)):
        exact = (1 - share) * a[f"model.layers.{layer}.mlp.weight"].double()
        exact += share * b[f"model.layers.{layer + 1}.mlp.weight"].double()
        np.testing.assert_allclose(found[f"model.layers.{layer}.mlp.weight"].double(), exact, rtol=1e-6, atol=1e-7)
    assert torch.equal(found["model.layers.2.attn.weight"], c["model.layers.2.attn.weight"])
    embedding = 0.75 * a["model.embed_tokens.weight"].double() + 0.25 * b["model.embed_tokens.weight"].double()
    np.testing.assert_allclose(found["model.embed_tokens.weight"].double(), embedding, rtol=1e-6, atol=1e-7)
    assert torch.equal(found["lm_head.weight"], c["lm_head.weight"])


def test_slices_move_from_layers_of_the_init(models: Family, tmp_path: Path) -> None:
    slices = [one(models.a, 0, 2, init=(1, 3), eta=0.5), one(models.b, 1, 2)]
    warmkit.merge_slices(slices, tmp_path / "out", init=models.init, method="task-arithmetic", coefficients=[0.8])
    zero, a, b, found = weights(0), weights(1), weights(2), tensors_of(tmp_path / "out")
    for layer, source, number, base, scale in ((0, a, 0, 1, 0.4), (1, a, 1, 2, 0.4), (2, b, 1, 1, 0.8)):
        init = zero[f"model.layers.{base}.norm.weight"].double()
        exact = init + scale * (source[f"model.layers.{number}.norm.weight"].double() - init)
        np.testing.assert_allclose(found[f"model.layers.{layer}.norm.weight"].double(), exact, rtol=1e-6, atol=1e-6)


def test_all_layers_of_whole_models_are_the_merge_of_them(models: Family, tmp_path: Path) -> None:
    both = (LayerRange(models.a, 0, 3), LayerRange(models.b, 0, 3))
    warmkit.merge_slices([Slice(both)], tmp_path / "slices", init=models.init, method="slerp", lambda_=0.3)
    warmkit.merge([models.a, models.b], tmp_path / "whole", init=models.init, lambda_=0.3)
    assert all(
        torch.equal(tensor, tensors_of(tmp_path / "whole")[name]) for name, tensor in tensors_of(tmp_path / "slices").items()
    )


@pytest.mark.parametrize(("first", "resumes"), [(1, True), (0, False)])
def test_an_interrupted_stack_goes_on_with_the_same_layers_alone(
    models: Family, tmp_path: Path, first: int, resumes: bool
) -> None:
    with pytest.raises(Stopped):
        stack(models, tmp_path / "out", threads=1, advance=stop_at(6))
    slices = [one(models.a, 0, 2), one(models.b, first, first + 2)]
    assert (warmkit.merge_slices(slices, tmp_path / "out").resumed > 0) is resumes
    warmkit.merge_slices(slices, tmp_path / "fresh")
    mine, fresh = (tmp_path / name / "model.safetensors" for name in ("out", "fresh"))
    assert mine.read_bytes() == fresh.read_bytes()


def test_models_of_different_depth_stack(models: Family, tmp_path: Path) -> None:
    short = {name: tensor for name, tensor in weights(2).items() if "layers.2" not in name}
    b = save(tmp_path / "short", short, {**THREE, "num_hidden_layers": 2, "layer_types": ["full", "full"]})
    (models.a / "config.json").write_text(json.dumps({**THREE, "layer_types": LISTS["layer_types"]}))
    result = warmkit.merge_slices([one(models.a, 0, 3), one(b, 0, 2)], tmp_path / "out")
    assert len(tensors_of(tmp_path / "out")) == 3 + 5 * 3
    assert not [note for note in result.notes if "num_hidden_layers" in note]


def narrow(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor[:20] if "mlp" in name else tensor for name, tensor in tensors.items()}


MISTAKES: dict[str, tuple[Any, type[WarmkitError], str]] = {
    "past the end": (lambda m, _: [one(m.a, 0, 4)], UsageError, r"slice 1: .*a has layers 0 to 3, found \[0, 4\]"),
    "empty": (lambda m, _: [one(m.a, 2, 2)], UsageError, "slice 1: .*layers 0 to 3"),
    "no slice": (lambda m, _: [], UsageError, "expected at least one slice"),
    "unequal": (
        lambda m, _: [Slice((LayerRange(m.a, 0, 2), LayerRange(m.b, 0, 1)))],
        UsageError,
        "slice 1: expected the same number of layers from every model",
    ),
    "too many numbers": (lambda m, _: [one(m.a, 0, 2, coefficients=[1, 2])], UsageError, "slice 1: expected 1 coefficients"),
    "two stacks": (
        lambda m, t: [one(save(t / "odd", {**weights(1), "vision.blocks.0.w": torch.ones(2)}), 0, 2)],
        UnsupportedError,
        "one stack of layers, found model.layers, vision.blocks",
    ),
    "another shape": (
        lambda m, t: [one(m.a, 0, 2), one(save(t / "odd", narrow(weights(2)), THREE), 0, 1)],
        MismatchError,
        "odd: layer 0 has other tensors or shapes than the layers of",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_slices_that_do_not_fit_are_refused(mistake: str, models: Family, tmp_path: Path) -> None:
    slices, kind, message = MISTAKES[mistake]
    with pytest.raises(kind, match=message):
        warmkit.merge_slices(slices(models, tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_inside_any_input_is_refused(models: Family) -> None:
    with pytest.raises(OutputError, match="is an input"):
        stack(models, models.b, force=True)
