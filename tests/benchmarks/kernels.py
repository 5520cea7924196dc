"""The candidates for the two kernels, on one core, on blocks that lie in cache.

    python -m tests.benchmarks.kernels

torch.compile needs a C++ compiler; its row is left out where there is none.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from warmkit.engine.digests import block_digests
from warmkit.merging.kernels import NumbaKernels
from warmkit.merging.kernels_torch import TorchKernels

BLOCK = 1 << 18
torch.set_num_threads(1)


def nanoseconds(function: Callable[[], object], repeats: int = 20, rounds: int = 9) -> float:
    """Return the median time per element of a block."""
    function()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(repeats):
            function()
        times.append((time.perf_counter() - began) / repeats / BLOCK * 1e9)
    return statistics.median(times)


def torch_blocks(rows: list[torch.Tensor], coefficients: list[float], out: torch.Tensor) -> Callable[[], None]:
    """Widen, scale and add in float32 with preallocated buffers: plain torch at its best."""
    total, term = torch.empty(BLOCK), torch.empty(BLOCK)

    def combine() -> None:
        total.copy_(rows[0]).mul_(coefficients[0])
        for row, coefficient in zip(rows[1:], coefficients[1:]):
            total.add_(term.copy_(row), alpha=coefficient)
        out.copy_(total)

    return combine


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    print(f"{'nanoseconds per element':34} {'2 models':>9} {'init + 2':>9}")
    rows = [torch.randn(BLOCK, generator=generator).bfloat16() for _ in range(3)]
    block = torch.stack([row.view(torch.int16) for row in rows]).numpy().view(np.uint16)
    out = torch.empty(BLOCK, dtype=torch.bfloat16)
    output = np.empty(BLOCK, np.uint16)
    numba, generic = NumbaKernels(), TorchKernels("cpu")
    coefficients = np.array([0.6, 0.3, 0.1])

    def row(name: str, *functions: Callable[[], object]) -> None:
        print(f"{name:34} " + " ".join(f"{nanoseconds(function):9.3f}" for function in functions), flush=True)

    row("combine, numba (float32)", *(lambda n=n: numba.combine(coefficients[:n], block[:n], output) for n in (2, 3)))
    row("combine, torch blocks, float32", *(torch_blocks(rows[:n], coefficients[:n].tolist(), out) for n in (2, 3)))
    row("combine, TorchKernels, float64", *(lambda n=n: generic.combine(coefficients[:n], block[:n], output) for n in (2, 3)))
    try:
        compiled = torch.compile(lambda a, b: (0.6 * a.double() + 0.4 * b.double()).float().bfloat16())
        compiled3 = torch.compile(lambda a, b, c: (0.6 * a.double() + 0.3 * b.double() + 0.1 * c.double()).float().bfloat16())
        row("combine, torch.compile, float64", lambda: compiled(*rows[:2]), lambda: compiled3(*rows))
        single = torch.compile(lambda a, b: (0.6 * a.float() + 0.4 * b.float()).bfloat16())
        single3 = torch.compile(lambda a, b, c: (0.6 * a.float() + 0.3 * b.float() + 0.1 * c.float()).bfloat16())
        row("combine, torch.compile, float32", lambda: single(*rows[:2]), lambda: single3(*rows))
    except Exception as error:
        print(f"torch.compile: {type(error).__name__}: {str(error).splitlines()[0][:80]}")
    row("gram, numba", lambda: numba.gram(block[:2], "task vectors"), lambda: numba.gram(block, "task vectors"))
    row("gram, TorchKernels", lambda: generic.gram(block[:2], "task vectors"), lambda: generic.gram(block, "task vectors"))
    row("digest of one row", lambda: block_digests(block[0].data.cast("B"), 2))


if __name__ == "__main__":
    main()
