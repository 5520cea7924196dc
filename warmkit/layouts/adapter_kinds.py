"""Adapters of other kinds than LoRA whose merged weight is dense and local, by peft's arithmetic.

    s B diag(E) A                       AdaLoRA
    s (B1 A1) * (B2 A2)                 LoHa: element by element, which is a product of rank r^2
    diag(b) B diag(d) A                 VeRA, A and B shared by all modules
    s kron(C, D)                        LoKr
    l W, or W l                         IA3, a factor for each output (of feedforward modules: for each input)

Source: Zhang et al., 2023 (AdaLoRA); Hyeon-Woo et al., 2022 (LoHa); Kopiczko et al., 2024 (VeRA); Yeh et al., 2024 (LoKr); Liu
et al., 2022 (IA3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmkit.errors import FormatError
from warmkit.formats.dtypes import DType
from warmkit.formats.held import read_whole
from warmkit.formats.tensors import Tensor
from warmkit.layouts.adapted import Edit
from warmkit.layouts.adapter_file import Adapter, Module
from warmkit.layouts.adapter_rotations import changed_rows
from warmkit.layouts.adapter_rules import Rule
from warmkit.merging import low_rank
from warmkit.merging.low_rank import LowRank
from warmkit.sources.files import Files, WeightFile

Matrices: TypeAlias = "Mapping[str, NDArray[Any]]"
RANKNUM = 1e-5  # what AdaLoRA adds to the rank that it divides by


@dataclass(frozen=True)
class Formula:
    """A difference that is a product of what the adapter holds.

    Attributes:
        parts: What it holds, by its names.
        shape: Of the tensor that it is added to.
        factors: Returns the product's two factors, [out, rank] and [rank, in].
        transposed: Whether the base stores [in, out].
    """

    parts: Mapping[str, Tensor]
    shape: tuple[int, ...]
    factors: Callable[[Matrices], tuple[NDArray[Any], NDArray[Any]]]
    transposed: bool = False
    magnitude: Tensor | None = None

    @property
    def file(self) -> WeightFile:
        return next(iter(self.parts.values())).file

    def load(self, files: Files, dtype: DType) -> LowRank:
        """Read and pack both factors."""
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found in the output, and named
            left, right = self.factors({name: read_whole(files, each, dtype) for name, each in self.parts.items()})
        left, right = (right.T, left.T) if self.transposed else (left, right)
        return low_rank.pack(left.astype(dtype.storage), right.astype(dtype.storage))


Change: TypeAlias = "Formula | Rule"


def changes(
    adapter: Adapter, module: Module, base: Mapping[str, Tensor], weight: str, transposed: bool
) -> Mapping[str, Change]:
    """Return what happens to a module's weight and, with IA3, to its bias.

    Args:
        adapter: Of any of these kinds.
        module: Of its parts.
        base: The base's tensors.
        weight: The weight's name there.
        transposed: Whether the base stores it [in, out].

    Raises:
        FormatError: If parts are missing, or do not fit one another.
    """
    try:
        return _KINDS[adapter.config.kind](adapter, module, base, weight, transposed)
    except (KeyError, ValueError, IndexError) as error:
        shapes = ", ".join(f"{name} {list(each.shape)}" for name, each in module.parts.items())
        raise FormatError(
            f"{adapter.file}: module {module.name!r} has {shapes}, which are not the parts of {adapter.config.kind} ({error}): "
            "the file is not complete"
        ) from None


def _product(parts: Mapping[str, Tensor], left: str, right: str, transposed: bool) -> tuple[int, ...]:
    """Return the shape of a product; ValueError if its factors do not fit."""
    (out, rank), (other, into) = parts[left].shape, parts[right].shape
    if rank != other:
        raise ValueError(f"{left} and {right} do not fit")
    return (into, out) if transposed else (out, into)


def _adalora(adapter: Adapter, module: Module, base: Mapping[str, Tensor], weight: str, transposed: bool) -> dict[str, Change]:
    parts, scale = module.parts, adapter.config.alpha / (adapter.config.rank + RANKNUM)
    if parts["lora_E"].shape != (parts["lora_A"].shape[0], 1):
        raise ValueError("lora_E and lora_A do not fit")
    shape = _product(parts, "lora_B", "lora_A", transposed)
    return {"weight": Formula(parts, shape, lambda m: (m["lora_B"] * scale, m["lora_A"] * m["lora_E"]), transposed)}


def _loha(adapter: Adapter, module: Module, base: Mapping[str, Tensor], weight: str, transposed: bool) -> dict[str, Change]:
    parts, scale = module.parts, adapter.config.scale_of(module.key)
    shape = _product(parts, "hada_w1_a", "hada_w1_b", transposed)
    if shape != _product(parts, "hada_w2_a", "hada_w2_b", transposed):
        raise ValueError("its two products have two shapes")

    def factors(m: Matrices) -> tuple[NDArray[Any], NDArray[Any]]:
        left = m["hada_w1_a"][:, :, None] * m["hada_w2_a"][:, None] * scale
        right = m["hada_w1_b"][:, None] * m["hada_w2_b"][None]
        return left.reshape(len(left), -1), right.reshape(-1, right.shape[2])

    return {"weight": Formula(parts, shape, factors, transposed)}


def _vera(adapter: Adapter, module: Module, base: Mapping[str, Tensor], weight: str, transposed: bool) -> dict[str, Change]:
    parts = {**module.parts, "vera_A": adapter.shared["vera_A"], "vera_B": adapter.shared["vera_B"]}
    (out,), (rank,) = parts["vera_lambda_b"].shape, parts["vera_lambda_d"].shape
    into = min(base[weight].shape[0 if transposed else 1], parts["vera_A"].shape[1]) if weight in base else 0
    if rank != parts["vera_A"].shape[0] or rank != parts["vera_B"].shape[1] or out > parts["vera_B"].shape[0]:
        raise ValueError("vera_A and vera_B do not fit")

    def factors(m: Matrices) -> tuple[NDArray[Any], NDArray[Any]]:
        return m["vera_lambda_b"][:, None] * m["vera_B"][:out], m["vera_lambda_d"][:, None] * m["vera_A"][:, :into]

    return {"weight": Formula(parts, (into, out) if transposed else (out, into), factors, transposed)}


def _lokr(adapter: Adapter, module: Module, base: Mapping[str, Tensor], weight: str, transposed: bool) -> dict[str, Change]:
    parts, scale = module.parts, adapter.config.scale_of(module.key)
    sides = [_side(parts, f"lokr_w{number}") for number in (1, 2)]
    (a, b), (c, d) = (
        (names, _product(parts, *names, False) if len(names) == 2 else parts[names[0]].shape)[1] for names in sides
    )

    def load(files: Files, dtype: DType) -> Edit:
        read = [[read_whole(files, parts[name], dtype) for name in names] for names in sides]
        one, two = (each[0] if len(each) == 1 else each[0] @ each[1] for each in read)
        one = one * one.dtype.type(scale)

        def edit(start: int, piece: NDArray[Any]) -> None:
            rows = np.arange(start // (b * d), (start + piece.size - 1) // (b * d) + 1)
            block = one[rows // c][:, :, None] * two[rows % c][:, None]
            piece += block.reshape(-1)[start % (b * d) :][: piece.size]

        return edit

    return {"weight": Rule(parts[sides[0][0]], (a * c, b * d), load)}


def _side(parts: Mapping[str, Tensor], name: str) -> tuple[str, ...]:
    return (name,) if name in parts else (f"{name}_a", f"{name}_b")


def _ia3(adapter: Adapter, module: Module, base: Mapping[str, Tensor], weight: str, transposed: bool) -> dict[str, Change]:
    own = module.parts["ia3_l"]
    inputs, count = own.shape[0] == 1 and own.shape[1] > 1, own.elements
    by_column = inputs is not transposed
    there = base[weight].shape if weight in base else (count, count)
    if len(own.shape) != 2 or len(there) != 2:
        raise ValueError("ia3_l or the weight is no matrix")

    def rule(shape: tuple[int, ...], columns: int, by_column: bool) -> Rule:
        def load(files: Files, dtype: DType) -> Edit:
            factors = read_whole(files, own, dtype).ravel()
            return lambda start, piece: low_rank.scale(piece, start, columns, by_column, factors)

        return Rule(own, shape, load)

    shape = (there[0], count) if by_column else (count, there[1])
    found: dict[str, Change] = {"weight": rule(shape, shape[1], by_column)}
    if not inputs and f"{weight.removesuffix('weight')}bias" in base:
        found["bias"] = rule((count,), 1, by_column=False)
    return found


def replaced_rows(own: Tensor, rows: tuple[int, ...], target: Tensor) -> Rule:
    """Return the rule that puts the rows of `own` in the places of an embedding's rows (`trainable_token_indices`)."""
    width = target.shape[-1]

    def load(files: Files, dtype: DType) -> Edit:
        values, places = read_whole(files, own, dtype), {row: place for place, row in enumerate(rows)}

        def edit(start: int, piece: NDArray[Any]) -> None:
            for row in range(start // width, (start + piece.size - 1) // width + 1):
                if row in places:
                    low, high = max(row * width, start), min((row + 1) * width, start + piece.size)
                    piece[low - start : high - start] = values[places[row]][low - row * width : high - row * width]

        return edit

    return Rule(own, target.shape, load)


_KINDS: dict[str, Callable[[Adapter, Module, Mapping[str, Tensor], str, bool], Mapping[str, Change]]] = {
    **dict.fromkeys(("OFT", "BOFT", "HRA", "MISS"), changed_rows),
    "ADALORA": _adalora,
    "IA3": _ia3,
    "LOHA": _loha,
    "LOKR": _lokr,
    "VERA": _vera,
}
