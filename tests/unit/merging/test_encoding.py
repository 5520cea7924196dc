"""Codes from numbers, against torch, transformers and compressed-tensors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers.integrations.finegrained_fp8 import Fp8Quantize

from warmkit.merging import encoding
from warmkit.merging.codes import E8M0, FP4

DATA = Path(__file__).parents[2] / "data" / "quantised"


def test_numbers_are_rounded_to_fp8_as_torch_rounds_them() -> None:
    draw = torch.Generator().manual_seed(0)
    drawn = [torch.randn(2000, generator=draw) * scale for scale in (0.001, 0.01, 0.1, 1, 30, 300)]
    ends = torch.tensor([0.0, -0.0, 1e-30, 2**-10, -(2**-10), 3 * 2**-10, 448.0, 464.0, 1e5, -1e5])
    numbers = torch.cat([*drawn, torch.arange(-448, 449, 0.125), ends])
    expected = numbers.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
    np.testing.assert_array_equal(encoding.small_floats(numbers.numpy(), 4, 3, encoding.LARGEST), expected.numpy())


def test_numbers_are_rounded_to_the_nearest_fp4_ties_to_even() -> None:
    found = FP4[encoding.small_floats(np.linspace(-7, 7, 4001, dtype=np.float32), 2, 1, 6.0)]
    distance = np.abs(np.linspace(-7, 7, 4001)[:, None] - FP4[None]).min(1)
    np.testing.assert_allclose(np.abs(found - np.linspace(-7, 7, 4001)), distance, atol=1e-6)
    ties = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -5.0], np.float32)
    assert FP4[encoding.small_floats(ties, 2, 1, 6.0)].tolist() == [0, 1, 1, 2, 2, 4, 4, -4]


@pytest.mark.parametrize("form", ["float", "ue8m0"])
def test_scales_of_blocks_are_those_of_transformers(form: str) -> None:
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 1, 64)[:, None]
    weight[:32, :32] = 0
    config = {"quantization_config": SimpleNamespace(weight_block_size=[32, 32], scale_fmt=form)}
    quantise: Any = Fp8Quantize(SimpleNamespace(**config))
    expected = quantise.convert({"w.weight": weight})
    largest = weight.reshape(2, 32, 3, 32).abs().amax((1, 3)).numpy()
    inverse, forward = encoding.fp8_scales(largest)
    stored: Any = expected["w.weight_scale_inv"]
    if form == "ue8m0":
        powers, forward = encoding.power_scales(inverse)
        np.testing.assert_array_equal(powers, stored.view(torch.uint8).numpy())
        np.testing.assert_array_equal(E8M0[powers] * forward, 1)
    else:
        np.testing.assert_array_equal(inverse, stored.numpy())
    scaled = weight.numpy() * forward.repeat(32, 0).repeat(32, 1)
    found = encoding.small_floats(scaled, 4, 3, encoding.LARGEST)
    np.testing.assert_array_equal(found, expected["w.weight"].view(torch.uint8).numpy())


def test_mxfp4_is_that_of_compressed_tensors() -> None:
    said = load_file(DATA / "said" / "mxfp4-codes.safetensors")
    packed, exponents = encoding.mxfp4(said["weight"].numpy())
    np.testing.assert_array_equal(exponents, said["weight_scale"].numpy())
    np.testing.assert_array_equal(packed.reshape(8, 32), said["weight_packed"].numpy())


def test_what_was_mxfp4_becomes_the_same_numbers() -> None:
    draw = np.random.default_rng(2)
    packed = draw.integers(0, 256, (50, 3, 16)).astype(np.uint8)
    packed[:5] = 0
    packed[5:10] &= 0x11  # small codes alone: another exponent says the same
    numbers = encoding.fp4_numbers(packed, draw.integers(10, 240, (50, 3)).astype(np.uint8))
    np.testing.assert_array_equal(encoding.fp4_numbers(*encoding.mxfp4(numbers)), numbers)
