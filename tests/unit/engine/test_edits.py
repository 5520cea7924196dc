"""Merges on disk by methods that edit task vectors: against plain numpy on whole tensors, and what the engine adds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import warmkit
from tests.conftest import Family, make_family, save
from tests.unit.engine.reference import half_ulp, layers
from tests.unit.merging.edits import EDITS, reference
from tests.unit.verbs.test_merge import outputs, tensors_of
from warmkit.engine.digests import BLOCK
from warmkit.errors import NonFiniteError, UsageError

every = pytest.mark.parametrize("method", EDITS)
SLACK = {torch.float32: 2.0**-38, torch.float16: 2.0**-22, torch.bfloat16: 2.0**-22}
GROUPED = [name for name, method in EDITS.items() if method.grouped]
WEIGHTS = [1.0, 0.5, 2.0]


def flat(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().numpy().ravel()


def coefficients_of(method: str) -> list[float] | None:
    return WEIGHTS if EDITS[method].mix == "scales" else None


def assert_close(found: torch.Tensor, init: np.ndarray, vector: np.ndarray) -> None:
    exact = init + vector
    error = np.abs(flat(found) - exact)
    assert np.all(error <= half_ulp(exact, found.dtype) + SLACK[found.dtype] * (np.abs(init) + np.abs(vector)))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_tensor_matches_the_reference_to_rounding(method: str, dtype: torch.dtype, tmp_path: Path) -> None:
    family = make_family(tmp_path, dtype, shards=2)
    weights = coefficients_of(method)
    warmkit.merge(family.models, tmp_path / "out", init=family.init, method=method, coefficients=weights, scale=0.5, eta=0.8)
    init, merged = tensors_of(family.init), tensors_of(tmp_path / "out")
    models = [tensors_of(path) for path in family.models]
    for name, found in merged.items():
        assert (found.dtype, found.shape) == (dtype, init[name].shape)
        vectors = np.array([flat(model[name]) - flat(init[name]) for model in models])
        vector = reference(method, vectors, weights, tuple(found.shape), tensor=name, init=flat(init[name]))
        assert_close(found, flat(init[name]), 0.4 * vector)
    assert any(not torch.equal(merged[name], init[name]) for name in init)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """bfloat16 models with a tensor that several tasks read, whose rows end inside blocks and whose values tie."""
    folder = tmp_path_factory.mktemp("long")
    rows, width = 200, 10_733  # flat: singular values cost its square
    assert rows * width > 2 * BLOCK
    base = torch.randn(rows * width + 5000, generator=torch.Generator().manual_seed(9)) * 0.02
    paths = []
    for seed, name in enumerate(("sft", "a", "b", "c")):
        own = 0.0004 * torch.randn(len(base), generator=torch.Generator().manual_seed(seed)) if seed else 0
        value = (base + own).bfloat16()
        paths.append(save(folder / name, {"layers.0.w": value[:-5000].reshape(rows, width), "layers.0.b": value[-5000:]}))
    return Family(*paths)


@every
def test_a_tensor_of_several_blocks_has_the_same_bytes_for_any_threads_and_shards(
    method: str, long: Family, tmp_path: Path
) -> None:
    for threads, size in ((1, "5GB"), (8, "1MB")):
        out = tmp_path / str(threads)
        warmkit.merge(long.models[:2], out, init=long.init, method=method, threads=threads, max_shard_size=size)
        assert outputs(out) == outputs(tmp_path / "1")
    init, merged = tensors_of(long.init), tensors_of(tmp_path / "1")
    models = [tensors_of(path) for path in long.models[:2]]
    for name, found in merged.items():
        vectors = np.array([flat(model[name]) - flat(init[name]) for model in models])
        assert_close(
            found, flat(init[name]), reference(method, vectors, None, tuple(found.shape), tensor=name, init=flat(init[name]))
        )


@pytest.mark.parametrize("method", GROUPED)
@pytest.mark.parametrize("granularity", ["layer", "model"])
def test_a_group_of_tensors_is_ranked_as_one(method: str, granularity: str, family: Family, tmp_path: Path) -> None:
    warmkit.merge(family.models, tmp_path / "out", init=family.init, method=method, granularity=granularity)
    init, merged = tensors_of(family.init), tensors_of(tmp_path / "out")
    models = [tensors_of(path) for path in family.models]
    groups = layers(list(init)) if granularity == "layer" else {"model": list(init)}
    for names in groups.values():
        zero, *full = (np.concatenate([flat(each[name]) for name in names]) for each in (init, *models))
        expected = zero + reference(method, np.array(full) - zero)
        found = np.concatenate([flat(merged[name]) for name in names])
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@every
def test_a_sweep_returns_the_init_at_zero_and_what_single_merges_write(method: str, family: Family, tmp_path: Path) -> None:
    result = warmkit.merge(family.models, tmp_path / "sweep", init=family.init, method=method, eta=[0.0, 0.4, 1.0])
    assert outputs(result.outputs[0.0]) == outputs(family.init)
    for eta in (0.4, 1.0):
        warmkit.merge(family.models, tmp_path / f"{eta}", init=family.init, method=method, eta=eta)
        assert outputs(result.outputs[eta]) == outputs(tmp_path / f"{eta}")
    warmkit.merge(family.models, tmp_path / "scaled", init=family.init, method=method, scale=0.4)
    assert outputs(tmp_path / "scaled") == outputs(tmp_path / "0.4")
    warmkit.verify(tmp_path / "sweep")


@every
def test_angles_can_be_measured_on_the_way(method: str, family: Family, tmp_path: Path) -> None:
    result = warmkit.merge(family.models, tmp_path / "out", init=family.init, method=method, angles=True)
    slerp = warmkit.merge(family.models, tmp_path / "slerp", init=family.init, method="slerp", granularity="tensor")
    assert result.mean_angle == slerp.mean_angle
    warmkit.merge(family.models, tmp_path / "plain", init=family.init, method=method)
    assert outputs(tmp_path / "plain") == outputs(tmp_path / "out")


@every
def test_the_manifest_holds_every_parameter_and_the_report_shows_them(method: str, family: Family, tmp_path: Path) -> None:
    from warmkit.report.runs.merge import merge as report

    warmkit.merge(family.models, tmp_path / "out", init=family.init, method=method)
    parameters = json.loads((tmp_path / "out" / "warmkit.json").read_text())["parameters"]
    assert parameters.keys() >= {each.name for each in EDITS[method].parameters}
    assert "What was merged" in {section.title for section in report(tmp_path / "out").sections}


@every
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_found_even_where_a_mask_hides_it(
    method: str, value: float, family: Family, tmp_path: Path
) -> None:
    broken = tensors_of(family.b)
    broken["model.layers.1.mlp.weight"][3, 2:5] = value
    bad = save(tmp_path / "bad", broken)
    with pytest.raises(NonFiniteError, match=r"'model.layers.1.mlp.weight' of .*bad holds NaN or infinity"):
        warmkit.merge([family.a, bad], tmp_path / "out", init=family.init, method=method)
    warmkit.merge([family.a, bad], tmp_path / "out", init=family.init, method=method, allow_nonfinite=True)


@every
def test_an_init_is_needed(method: str, family: Family, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{method} needs --init"):
        warmkit.merge(family.models, tmp_path / "out", method=method)


@every
def test_float64_models_are_merged_in_float64(method: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.rand(30, 11, dtype=torch.float64, generator=generator) for _ in range(4)]
    init, *models = (save(tmp_path / str(number), {"w": tensor}) for number, tensor in enumerate(tensors))
    warmkit.merge(models, tmp_path / "out", init=init, method=method)
    vectors = np.array([flat(tensor - tensors[0]) for tensor in tensors[1:]])
    expected = flat(tensors[0]) + reference(method, vectors, None, (30, 11), tensor="w", init=flat(tensors[0]))
    np.testing.assert_allclose(flat(tensors_of(tmp_path / "out")["w"]), expected, rtol=1e-13, atol=1e-14)


def test_a_dry_run_counts_every_reading(family: Family, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {}
    for method in ("ties", "dare-linear"):
        result = warmkit.merge(family.models, tmp_path / "out", init=family.init, method=method, dry_run=True)
        sizes[method] = result.bytes_read
    assert sizes["ties"] == 4 * sizes["dare-linear"]
