"""Devices that compute: the kernels of each, and how many threads there are for them."""

from __future__ import annotations

import os
from typing import Protocol

from warmkit.errors import UsageError, nearest
from warmkit.merging.kernels import Block, Space
from warmkit.merging.types import Coefficients, Gram


class Kernels(Protocol):
    """`combine`, `add` and `gram` on some device; see `merging.kernels`."""

    device: str

    def empty(self, shape: tuple[int, ...], storage: str) -> Block: ...

    def combine(self, coefficients: Coefficients, inputs: Block, output: Block) -> bool: ...

    def combine_all(self, coefficients: Coefficients, inputs: Block, outputs: Block) -> bool: ...

    def add(self, init: Block, factor: float, vector: Block, output: Block) -> bool: ...

    def finite(self, inputs: Block) -> bool: ...

    def gram(self, inputs: Block, space: Space) -> Gram: ...

    def convert(self, source: Block, target: Block) -> None: ...


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_kernels(device: str) -> Kernels:
    """Return the kernels of a device: numba's for `cpu`, torch's for any other."""
    if device == "cpu":
        from warmkit.merging.kernels import NumbaKernels

        return NumbaKernels()
    if not device.startswith("cuda"):
        raise UsageError(f"unknown device {device!r}{nearest(device, ('cpu', 'cuda'))}")
    from warmkit.merging.kernels_torch import TorchKernels

    return TorchKernels(device)
