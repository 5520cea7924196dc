"""Adapters that turn the rows of a weight, or add blocks to them: a row at a time, by peft's arithmetic.

    W diag(R_1, ..., R_n)^T             OFT, R orthogonal: Cayley's transform of a skew matrix, or the start of its series
    diag(s) W diag(R_1, ..., R_n)^T     BOFT without butterflies
    W H_1 ... H_r                       HRA, H = I - 2 u u^T
    W + (B ... B)^T                     MiSS, a block [rank, out] again and again along the inputs
    W + W_j B_i + B_i                   MiSS "bat", blocks [rank, rank]

Source: Qiu et al., 2023 (OFT); Liu et al., 2024 (BOFT); Yuan et al., 2024 (HRA); Kang and Yin, 2024 (MiSS).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import UnsupportedError
from warmkit.formats.dtypes import DTYPES, DType
from warmkit.formats.held import read_whole
from warmkit.formats.tensors import Tensor
from warmkit.layouts.adapted import Edit
from warmkit.layouts.adapter_file import Adapter, Module
from warmkit.layouts.adapter_rules import Rule
from warmkit.merging import low_rank
from warmkit.sources.files import Files

Array: TypeAlias = "NDArray[Any]"
TILED = 16  # size of blocks from which on a compiled product is faster than one term after another
NEUMANN = (0, 18, 0)  # the version of peft that changed the series

Turn: TypeAlias = Callable[[Array, NDArray[np.int64]], None]
"""Changes rows [n, in] in place, given their numbers."""


def changed_rows(
    adapter: Adapter, module: Module, base: Mapping[str, Tensor], weight: str, transposed: bool
) -> dict[str, Rule]:
    """Return what happens to a module's weight.

    Args:
        adapter: OFT, BOFT, HRA or MiSS.
        module: Of its parts.
        base: The base's tensors.
        weight: The weight's name there.
        transposed: Whether the base stores it [in, out].

    Raises:
        KeyError: If parts are missing.
        UnsupportedError: If it is of a variant that is not read.
        ValueError: If parts do not fit the weight.
    """
    own, load = _KINDS[adapter.config.kind](adapter, module)
    there = base[weight].shape if weight in base else (1, 1)
    if transposed or len(there) != 2:
        raise _unsupported(adapter, module, f"a weight of shape {list(there)}, which is no matrix [out, in]")
    shape = _shape_for(adapter, module, own, there)

    def edit(files: Files, dtype: DType) -> Edit:
        turn = load(files, dtype, shape)

        def rows(start: int, piece: Array) -> None:
            first = start // shape[1]
            turn(piece.reshape(-1, shape[1]), np.arange(first, first + piece.size // shape[1]))

        return rows

    return {"weight": Rule(own, shape, edit, shape[1])}


def _unsupported(adapter: Adapter, module: Module, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{adapter.file}: module {module.name!r} has {what}: not read of {adapter.config.kind}; merge it with peft "
        "(merge_and_unload), and give the result"
    )


Load: TypeAlias = Callable[[Files, DType, tuple[int, ...]], Turn]
"""Reads what an adapter holds of a module, and returns what it does to rows of a weight of a shape."""


def _shape_for(adapter: Adapter, module: Module, own: Tensor, there: tuple[int, ...]) -> tuple[int, int]:
    """Return the shape of the weight that parts are for: that of the one which is there, as far as they leave it open."""
    sizes, (out, into) = own.shape, there
    if adapter.config.kind == "OFT":
        size = _block(sizes[1])
        return out, sizes[0] * size if sizes[0] > 1 else _multiple(into, size)
    if adapter.config.kind == "BOFT":
        return module.parts["boft_s"].shape[0], sizes[1] * sizes[2]
    if adapter.config.kind == "HRA":
        return out, sizes[0]
    if len(sizes) == 3 and sizes[1] == sizes[2]:
        return sizes[0] * sizes[1], _multiple(into, sizes[1])
    if len(sizes) != 2:
        raise ValueError(f"miss_block has {len(sizes)} dimensions")
    return _multiple(out, sizes[1]), max(into, sizes[0])


def _multiple(size: int, of: int) -> int:
    """Return a size where it is a multiple, else what it must be a multiple of."""
    return size if size % of == 0 else of


# ---- blocks that turn -----------------------------------------------------------------------------------------------


def _oft(adapter: Adapter, module: Module) -> tuple[Tensor, Load]:
    own, said = module.parts["oft_R"], adapter.config.options
    if len(own.shape) != 2:
        raise _unsupported(adapter, module, f"oft_R {list(own.shape)}, as peft had it before 0.15")
    if not isinstance(said.get("use_cayley_neumann"), bool):
        raise _unsupported(adapter, module, "a config without use_cayley_neumann, which says how its rotations are made")
    if said["use_cayley_neumann"] and (adapter.config.version or ()) < NEUMANN:
        raise _unsupported(adapter, module, "the series of peft before 0.18.0 (use_cayley_neumann), which is another one")

    def load(files: Files, dtype: DType, shape: tuple[int, ...]) -> Turn:
        skew = skew_matrices(read_whole(files, own, DTYPES["F64"]))
        if said.get("coft"):
            skew = _constrained(skew, float(said.get("eps", 6e-5)))
        terms = int(said.get("num_cayley_neumann_terms", 5)) if said["use_cayley_neumann"] else None
        matrices = _cayley(skew) if terms is None else series(skew, terms)
        count = shape[1] // skew.shape[1]
        return _turning(np.broadcast_to(matrices, (count, *skew.shape[1:])).astype(dtype.storage))

    return own, load


def _boft(adapter: Adapter, module: Module) -> tuple[Tensor, Load]:
    own, scale = module.parts["boft_R"], module.parts["boft_s"]
    if len(own.shape) != 4 or own.shape[0] != 1:
        raise _unsupported(adapter, module, f"boft_R {list(own.shape)}, with butterflies (boft_n_butterfly_factor)")

    def load(files: Files, dtype: DType, shape: tuple[int, ...]) -> Turn:
        given = read_whole(files, own, DTYPES["F64"])[0]
        scales = read_whole(files, scale, dtype).ravel()
        inner = _turning(_cayley((given - given.transpose(0, 2, 1)) / 2).astype(dtype.storage))

        def turn(rows: Array, numbers: NDArray[np.int64]) -> None:
            inner(rows, numbers)
            rows *= scales[numbers][:, None]

        return turn

    return own, load


def _turning(matrices: Array) -> Turn:
    """Return what multiplies blocks of rows by the transposes of matrices, [blocks, size, size]."""
    count, size = matrices.shape[:2]
    if size < TILED:
        return lambda rows, numbers: _small(rows.reshape(-1, count, size), matrices.transpose(0, 2, 1))
    product = _products(matrices.transpose(0, 2, 1))

    def turn(rows: Array, numbers: NDArray[np.int64]) -> None:
        blocks = rows.reshape(-1, count, size)
        for place in range(count):
            blocks[:, place] = product(blocks[:, place], place)

    return turn


def _small(blocks: Array, matrices: Array) -> None:
    """Multiply blocks [n, blocks, size] by matrices in place, term by term: the bytes are those of every machine."""
    found = blocks[:, :, :1] * matrices[:, 0]
    for place in range(1, matrices.shape[1]):
        found += blocks[:, :, place, None] * matrices[:, place]
    blocks[:] = found


def _products(matrices: Array) -> Callable[[Array, int], Array]:
    """Return what multiplies rows [n, size] by one of several matrices, with the bytes of every machine."""
    packed = [low_rank.pack(each[:0], each) for each in matrices]
    return lambda rows, number: low_rank.multiply(rows, packed[number])


def _block(count: int) -> int:
    """Return the size of a matrix that has a number of elements above its diagonal; ValueError if there is none."""
    size = (1 + math.isqrt(1 + 8 * count)) // 2
    if size * (size - 1) // 2 != count:
        raise ValueError(f"no matrix has {count} elements above its diagonal")
    return size


def skew_matrices(upper: Array) -> Array:
    """Return the skew matrices of which these are the elements above the diagonal, row by row."""
    size = _block(upper.shape[1])
    matrices = np.zeros((len(upper), size, size))
    matrices[(slice(None), *np.triu_indices(size, 1))] = upper
    return matrices - matrices.transpose(0, 2, 1)


def _constrained(skew: Array, eps: float) -> Array:
    """Return skew matrices that are at most as large as COFT lets them be; peft finds that in float32."""
    most = float(np.float32(1) / np.sqrt(np.float32(len(skew))) * np.float32(eps))
    norms = np.sqrt((skew**2).sum((1, 2), keepdims=True))
    return np.where(norms <= most, skew, most * skew / np.where(norms > 0, norms, 1))


def _cayley(skew: Array) -> Array:
    """Return (I - S) (I + S)^-1."""
    one = np.eye(skew.shape[1])
    return np.linalg.solve((one + skew).transpose(0, 2, 1), (one - skew).transpose(0, 2, 1)).transpose(0, 2, 1)


def series(skew: Array, terms: int) -> Array:
    """Return I + 2 S + 2 S^2 + ... + S^n as peft cuts the series: n is terms - 1, of three terms 3; of two it is I + 2 S."""
    last = max(3, terms - 1) if terms > 2 else 0
    factors = [2.0] * (last - 1) + [1.0] if last else [2.0] * (terms - 1)
    found, power = np.eye(skew.shape[1]) + np.zeros_like(skew), skew
    for factor in factors:
        found = found + factor * power
        power = power @ skew
    return found


# ---- whole rows -----------------------------------------------------------------------------------------------------


def _hra(adapter: Adapter, module: Module) -> tuple[Tensor, Load]:
    own, orthogonal = module.parts["hra_u"], bool(adapter.config.options.get("apply_GS"))

    def load(files: Files, dtype: DType, shape: tuple[int, ...]) -> Turn:
        vectors = _normed(read_whole(files, own, DTYPES["F64"]).T, orthogonal).astype(dtype.storage)

        def turn(rows: Array, numbers: NDArray[np.int64]) -> None:
            for vector in vectors:
                rows -= (rows * vector).sum(1, keepdims=True) * (2 * vector)

        return turn

    return own, load


def _normed(vectors: Array, orthogonal: bool) -> Array:
    """Return vectors of length 1, made orthogonal one after another where that is asked for."""
    found: list[Array] = []
    for vector in vectors:
        rest = vector
        for other in found if orthogonal else ():
            rest = rest - (other * rest).sum() * other
        found.append(rest / np.sqrt((rest * rest).sum()))
    return np.stack(found)


def _miss(adapter: Adapter, module: Module) -> tuple[Tensor, Load]:
    own = module.parts["miss_block"]

    def load(files: Files, dtype: DType, shape: tuple[int, ...]) -> Turn:
        block, (out, into) = read_whole(files, own, dtype), shape
        if block.ndim == 3:
            return _bat(block)
        by_row = np.tile(block, (1, out // block.shape[1])).T
        places = np.arange(into) % len(block)

        def turn(rows: Array, numbers: NDArray[np.int64]) -> None:
            rows += by_row[numbers][:, places]

        return turn

    return own, load


def _bat(blocks: Array) -> Turn:
    size, product = blocks.shape[1], _products(blocks)

    def turn(rows: Array, numbers: NDArray[np.int64]) -> None:
        for block in range(numbers[0] // size, numbers[-1] // size + 1):
            inside = numbers // size == block
            parts = rows[inside].reshape(-1, size)
            added = product(parts, block).reshape(int(inside.sum()), -1, size) + blocks[block, numbers[inside] % size][:, None]
            rows[inside] += added.reshape(len(added), -1)

    return turn


_KINDS: dict[str, Callable[[Adapter, Module], tuple[Tensor, Load]]] = {"OFT": _oft, "BOFT": _boft, "HRA": _hra, "MISS": _miss}
