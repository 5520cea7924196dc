"""Report of a check against a claim: an answer for every tensor, and one for the model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warmkit.common.display import Displayed
from warmkit.engine.residuals import Answer, Mixture, Tally, judge, scale_of
from warmkit.formats.dtypes import DType
from warmkit.formats.tensors import Tensor

ALONG = 0.95  # cosine with the claimed change from which on what is there is called a multiple of it


@dataclass(frozen=True, repr=False)
class TensorReport(Displayed):
    """Answer for one tensor.

    Attributes:
        name: The tensor.
        answer: `contains`, `does not contain` or `cannot tell`.
        scale: Least-squares factor of the change that is there on the claimed one: 1 as claimed, 0 missing, 2 made twice; None
            where the claim changes nothing that its type can hold.
        residual: Norm of what is there less the claim, relative to the norm of the claimed change; None where that is zero.
        off: Share of the elements that are off by more than rounding.
        differs: Share of the elements that are not the claim rounded once.
        what: What is there instead, or why that cannot be told; empty where the claim is.
    """

    name: str
    answer: Answer
    scale: float | None = None
    residual: float | None = None
    off: float | None = None
    differs: float | None = None
    what: str = ""


@dataclass(frozen=True, repr=False)
class ClaimReport(Displayed):
    """Answer for a model.

    Attributes:
        answer: `does not contain` if one tensor does not; else `contains` if one does that the claim changes; else `cannot
            tell`.
        merged: The model.
        claim: What it is said to be, in words.
        scale: As of a tensor, over all tensors.
        tensors: Every tensor of the claim or the model, in the order of the claim.
        notes: Harmless differences between the inputs.
    """

    answer: Answer
    merged: str
    claim: str
    scale: float | None
    tensors: list[TensorReport]
    notes: list[str]

    def counts(self) -> dict[str, int]:
        """Return how many tensors have each answer."""
        found = [each.answer for each in self.tensors]
        return {answer: found.count(answer) for answer in ("contains", "does not contain", "cannot tell")}

    def as_document(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return {**dataclasses.asdict(self), "counts": self.counts()}

    def _facts(self) -> Mapping[str, object]:
        return {"answer": self.answer, "claim": self.claim, "scale": self.scale, **self.counts()}

    def _rows(self) -> Sequence[Displayed]:
        return self.tensors


def misfit(claimed: Tensor | None, found: Tensor | None) -> str:
    """Say why two tensors of one name cannot be compared; empty where they can."""
    if found is None:
        return "missing"
    if claimed is None:
        return "extra: the claim has no such tensor"
    if claimed.shape != found.shape:
        return f"shape {list(found.shape)}, the claim has {list(claimed.shape)}"
    same = claimed.dtype.kind == found.dtype.kind and (claimed.dtype.kind == "float" or claimed.dtype == found.dtype)
    return "" if same else f"{found.dtype.torch_name}, the claim has {claimed.dtype.torch_name}"


def report_tensor(name: str, found: Tally, mixture: Mixture, dtype: DType, rows: Sequence[str]) -> TensorReport:
    """Return the answer for a tensor of floats; `rows` name the inputs, the first is what the claim starts from."""
    answer, share = judge(found, mixture, dtype), max(1, found.elements)
    return TensorReport(
        name,
        answer,
        scale_of(found),
        math.sqrt(found.residual / found.change) if found.change else None,
        float(found.stored[0]) / share,
        found.differs / share,
        _what(answer, found, rows),
    )


def _what(answer: Answer, found: Tally, rows: Sequence[str]) -> str:
    if answer == "contains":
        return "" if found.change else "unchanged, as claimed"
    if answer == "cannot tell":
        return "the claimed change is lost in rounding"
    if not found.change:
        return "changed; the claim leaves it as it is"
    equal = [name for name, count in zip(rows, found.others) if not count]
    if equal:
        return equal[0] + (": the change is missing" if equal[0] == rows[0] else "")
    return _instead(found)


def _instead(found: Tally) -> str:
    """Say how what is there relates to the claimed change."""
    cosine = found.along / math.sqrt(found.change * found.moved) if found.moved else 0.0
    off = int(found.stored[0])
    if 0 < off <= found.elements / 100:
        return f"{off} of {found.elements:,} elements"
    if abs(cosine) >= ALONG:
        return f"{found.along / found.change:.3g} times the change"
    return f"another change (cosine {cosine:.2f})"


def report_exact(name: str, problem: str, different: bool) -> TensorReport:
    """Return the answer for a tensor that was not compared, or is of integers; `problem` says why it was not."""
    problem = problem or ("other numbers; integers are copied" if different else "")
    return TensorReport(name, "does not contain" if problem else "contains", what=problem or "unchanged, as claimed")


def whole(tensors: Sequence[TensorReport], on_init: bool) -> Answer:
    """Return the answer for the model; with an init, a claim that changes nothing of it cannot be told from it."""
    if any(each.answer == "does not contain" for each in tensors):
        return "does not contain"
    open_ = on_init or any(each.answer == "cannot tell" for each in tensors)
    changed = any(each.answer == "contains" and each.scale is not None for each in tensors)
    return "contains" if changed or not open_ else "cannot tell"
