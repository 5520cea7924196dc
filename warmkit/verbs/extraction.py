"""Result of an extraction: what the adapter holds and what it loses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.common.display import Displayed
from warmkit.common.units import duration, number


@dataclass(frozen=True, repr=False)
class ModuleLoss(Displayed):
    """Rank and loss of one module of an extracted adapter.

    Attributes:
        name: The module.
        rank: Of its factors.
        squared_norm: Of its task vector.
        squared_loss: Of what the factors miss, as they were written.
        exact: Whether no factors of this rank lose less; else they were found by a randomised decomposition.
    """

    name: str
    rank: int
    squared_norm: float
    squared_loss: float
    exact: bool


@dataclass(frozen=True, repr=False)
class RestLoss(Displayed):
    """Tensor that no factors hold.

    Attributes:
        name: The tensor.
        squared_norm: Of its task vector.
        saved: Whether it was saved whole.
    """

    name: str
    squared_norm: float
    saved: bool


@dataclass(frozen=True, repr=False)
class Extraction(Displayed):
    """LoRA adapter that `extract_lora` wrote, and what it does not hold of the model.

    Attributes:
        path: The adapter.
        base: What it names as its base.
        modules: Modules with factors.
        rest: Other tensors that differ from the base.
        parameters: Numbers in the adapter.
        notes: Harmless differences between the inputs.
        seconds: How long it took.
    """

    path: Path
    base: str
    modules: tuple[ModuleLoss, ...]
    rest: tuple[RestLoss, ...]
    parameters: int
    notes: tuple[str, ...]
    seconds: float

    def _facts(self) -> Mapping[str, object]:
        return {
            "path": self.path,
            "base": self.base,
            "modules": len(self.modules),
            "rank": " to ".join(map(str, sorted({*(f([each.rank for each in self.modules]) for f in (min, max))}))),
            "parameters": number(self.parameters),
            "lost": f"{self.lost:.2%} of the squared norm",
            "time": duration(self.seconds),
        }

    def _rows(self) -> Sequence[Displayed]:
        return self.modules

    @property
    def squared_norm(self) -> float:
        return sum(each.squared_norm for each in (*self.modules, *self.rest))

    @property
    def lost(self) -> float:
        """The share of the squared norm of the whole task vector that the adapter does not hold."""
        unsaved = sum(each.squared_norm for each in self.rest if not each.saved)
        missed = sum(each.squared_loss for each in self.modules) + unsaved
        return missed / self.squared_norm if self.squared_norm else 0.0

    def as_document(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {**dataclasses.asdict(self), "path": str(self.path), "squared_norm": self.squared_norm, "lost": self.lost}
