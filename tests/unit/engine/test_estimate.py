"""How long a merge will take, from a sample of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warmkit
from tests.conftest import Family
from warmkit.common.units import duration
from warmkit.engine.devices import find_kernels
from warmkit.engine.estimate import estimate
from warmkit.engine.inputs import FileSource
from warmkit.engine.job import build_job
from warmkit.engine.spec import merge_spec
from warmkit.errors import NonFiniteError, OutputError
from warmkit.formats.dtypes import DTYPES
from warmkit.formats.safetensors_file import build_header


def sparse(folder: Path, layers: int, width: int) -> Path:
    """Write a checkpoint of zeros that takes no room on the disk."""
    folder.mkdir(parents=True)
    tensors = [(f"model.layers.{layer}.mlp.weight", DTYPES["BF16"], (width, width)) for layer in range(layers)]
    header = build_header(tensors, {"format": "pt"})
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + layers * width * width * 2)
    return folder


@pytest.mark.parametrize(
    "options", [{"method": "slerp"}, {"method": "lerp", "granularity": "model"}, {"method": "slerp", "eta": [0.0, 0.5]}]
)
def test_a_small_model_is_its_own_sample_and_leaves_nothing(family: Family, tmp_path: Path, options: dict[str, Any]) -> None:
    plan = warmkit.merge(family.models, tmp_path / "out", init=family.init, dry_run=True, estimate=True, **options)
    assert plan.estimate is not None
    assert 0.9 < plan.estimate.sampled / (plan.bytes_read + plan.bytes_written) <= 1, "all but headers"
    assert plan.estimate.seconds * plan.estimate.bytes_per_second == pytest.approx(plan.estimate.sampled, rel=0.1)
    assert not list(tmp_path.glob("*out*"))


def test_the_time_of_the_whole_follows_from_a_small_sample(tmp_path: Path) -> None:
    init, a, b = (sparse(tmp_path / name, 24, 1024) for name in ("init", "a", "b"))
    sources = [FileSource(str(path), warmkit.open_checkpoint(path).entries) for path in (init, a, b)]
    job = build_job(merge_spec("slerp", 2), sources, sources[0].names, None, allow_nonfinite=False)
    found = estimate(job, find_kernels("cpu"), tmp_path, 1, sample=1 << 24)
    assert found is not None
    one = 1024 * 1024 * 2 * 7  # two readings of three rows, one write
    assert found.sampled == 2 * one
    assert found.seconds == pytest.approx(24 * one / found.bytes_per_second)


def test_a_model_larger_than_the_disk_is_estimated_and_what_lacks_is_told(tmp_path: Path) -> None:
    layers = shutil.disk_usage(tmp_path).free // (2 << 28) + 3
    a, b = (sparse(tmp_path / name, layers, 1 << 14) for name in ("a", "b"))
    with pytest.raises(OutputError, match="are needed and"):
        warmkit.merge([a, b], tmp_path / "out", method="lerp", dry_run=True)
    plan = warmkit.merge([a, b], tmp_path / "out", method="lerp", dry_run=True, estimate=True)
    assert plan.estimate is not None
    assert plan.lacking > 1 << 29


def test_a_sample_finds_what_is_wrong_with_its_inputs(tmp_path: Path) -> None:
    folder = sparse(tmp_path / "a", 1, 64)
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-2, 2)
        file.write(np.array(np.nan, np.float32).tobytes()[2:])
    with pytest.raises(NonFiniteError, match="holds NaN"):
        warmkit.merge([folder, folder], tmp_path / "out", method="lerp", dry_run=True, estimate=True)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.42, "0.42 s"), (59.6, "60 s"), (75, "1 min 15 s"), (3599.7, "1 h 0 min"), (4000, "1 h 7 min"), (2e5, "2 d 8 h")],
)
def test_durations_are_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said
