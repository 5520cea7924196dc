"""On a GPU: the same bytes as on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import warmkit
from tests.conftest import make_family
from warmkit.merging.kernels import NumbaKernels
from warmkit.merging.kernels_torch import TorchKernels
from warmkit.merging.methods import METHODS

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_a_merge_on_the_gpu_writes_the_bytes_of_one_on_the_cpu(method: str, dtype: torch.dtype, tmp_path: Path) -> None:
    family = make_family(tmp_path, dtype)
    for device in ("cpu", "cuda"):
        warmkit.merge(family.models, tmp_path / device, init=family.init, method=method, device=device)
    files = [(tmp_path / device / "model.safetensors").read_bytes() for device in ("cpu", "cuda")]
    assert files[0] == files[1]


@pytest.mark.parametrize("storage", ["uint16", "int16", "float32", "float64"])
def test_combine_on_the_gpu_is_combine_on_the_cpu(storage: str) -> None:
    generator = np.random.default_rng(0)
    values = generator.standard_normal((5, 100_000))
    source = {"uint16": torch.bfloat16, "int16": torch.float16}.get(storage, getattr(torch, storage, None))
    tensor = torch.from_numpy(values).to(source)
    inputs = (tensor.view(torch.int16) if storage == "uint16" else tensor).numpy().view(storage)
    outputs = [np.empty(100_000, storage) for _ in range(2)]
    coefficients = generator.standard_normal(5)
    for kernels, output in zip((NumbaKernels(), TorchKernels("cuda")), outputs):
        assert kernels.combine(coefficients, inputs, output)
    np.testing.assert_array_equal(*outputs)
