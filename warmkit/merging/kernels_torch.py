"""The two kernels of every merge, in torch: the GPU path, equal to `kernels` byte for byte in `combine` of finite values.

Blocks move through pinned host memory, each worker thread on a stream of its own, so that copies and sums of different
workers overlap. Multiplication and addition are separate kernels: fused, they would round once less than the CPU does.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from warmkit.errors import UsageError
from warmkit.merging.kernels import Block, Space, precision
from warmkit.merging.types import Coefficients, Gram

_TORCH = {"uint16": torch.bfloat16, "int16": torch.float16, "float32": torch.float32, "float64": torch.float64}


class TorchKernels:
    """The kernels on one torch device.

    Raises:
        UsageError: If the device is not there.
    """

    def __init__(self, device: str) -> None:
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UsageError(f"--device {device}: torch sees no CUDA device here; use --device cpu")
        self.device = device
        self._pinned = device.startswith("cuda")
        self._local = threading.local()

    def empty(self, shape: tuple[int, ...], storage: str) -> Block:
        """Return an uninitialised block, in pinned memory where the device is a GPU."""
        size = int(np.prod(shape)) * np.dtype(storage).itemsize
        return torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned).numpy().view(storage).reshape(shape)

    def combine(self, coefficients: Coefficients, inputs: Block, output: Block) -> bool:
        """Write sum_v c_v x_v, as `NumbaKernels.combine` does."""
        with self._stream():
            x = self._load(inputs)
            rows = np.flatnonzero(coefficients)
            if rows.size == 0:
                output[:] = 0
                return bool(x.isfinite().all())
            kind = precision(inputs, output)
            total = torch.zeros((), device=self.device)
            for place, row in enumerate(rows):
                term = x[row].to(_TORCH[kind.__name__]) * float(kind(coefficients[row]))
                total = term if place == 0 else total.add_(term)
            wanted = _TORCH[output.dtype.name]
            result = total if wanted == torch.float64 else total.float().to(wanted)
            _tensor(output).copy_(result)
            return bool(result.isfinite().all()) and bool(x.isfinite().all())

    def combine_all(self, coefficients: NDArray[np.float64], inputs: Block, outputs: Block) -> bool:
        """Write several sums of the same rows, as `NumbaKernels.combine_all` does."""
        finite = [self.combine(row, inputs, output) for row, output in zip(coefficients, outputs)]
        return all(finite)

    def add(self, init: Block, factor: float, vector: Block, output: Block) -> bool:
        """Write x0 + factor d, as `NumbaKernels.add` does."""
        with self._stream():
            kind = _TORCH[precision(init, output).__name__]
            start, step = self._load(init).to(kind), self._load(vector).to(kind)
            total = start if factor == 0 else torch.where(step == 0, start, start + step * float(factor))
            wanted = _TORCH[output.dtype.name]
            result = total if wanted == torch.float64 else total.float().to(wanted)
            _tensor(output).copy_(result)
            return bool(result.isfinite().all())

    def finite(self, inputs: Block) -> bool:
        """Return whether every element of [V, n] is finite."""
        return bool(_tensor(inputs).isfinite().all())

    def gram(self, inputs: Block, space: Space) -> Gram:
        """Return the float64 inner products of the rows, as `NumbaKernels.gram` does up to the order of its sums."""
        with self._stream():
            vectors = self._load(inputs).double()
            if space != "weights":
                vectors = torch.cat([vectors[:1], vectors[1:] - vectors[:1]])
            if space == "task vectors":
                vectors = vectors[1:]
            upper = (vectors @ vectors.T).triu()  # BLAS may sum the two halves in different orders
            return (upper + upper.triu(1).T).cpu().numpy()

    def convert(self, source: Block, target: Block) -> None:
        """Write `source` to `target`, rounding where it is narrower."""
        wanted = _TORCH[target.dtype.name]
        values = _tensor(source)
        _tensor(target).copy_(values.float().to(wanted) if values.dtype == torch.float64 else values.to(wanted))

    def _load(self, block: Block) -> torch.Tensor:
        return _tensor(block).to(self.device, non_blocking=self._pinned)

    def _stream(self) -> Any:
        if not self._pinned:
            return torch.inference_mode()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self.device)
        return torch.cuda.stream(self._local.stream)


def _tensor(block: Block) -> torch.Tensor:
    """View a block as a tensor of the type that its storage stands for."""
    if block.dtype == np.uint16:
        block = block.view(np.int16)
        return torch.from_numpy(block).view(torch.bfloat16)
    return torch.from_numpy(block).view(_TORCH[block.dtype.name])
