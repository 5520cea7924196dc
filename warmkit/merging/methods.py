"""The table of methods: command-line choices, recipe validation and the methods page derive from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from warmkit.errors import UsageError, nearest
from warmkit.merging.karcher import karcher
from warmkit.merging.lerp import lerp
from warmkit.merging.model_stock import model_stock
from warmkit.merging.slerp import slerp
from warmkit.merging.slerp_weights import slerp_weights
from warmkit.merging.task_arithmetic import task_arithmetic
from warmkit.merging.types import Coefficients
from warmkit.merging.uniform import uniform


@dataclass(frozen=True)
class Method:
    """One way to find the coefficients of a merge.

    Attributes:
        name: As written on the command line; `docs/methods/<name>.md` describes it.
        solve: Maps (Gram matrix or None, shares) to coefficients of the task vectors.
        space: Whose Gram matrix it reads; `none` if it reads no weights to decide.
        needs_init: Whether the result depends on an initialisation even at eta = 1.
        mix: What `--coefficients` are: `shares` (not negative for arcs, normalised to sum 1), `scales` (used as they are),
            or `none` (refused).
        fewest: Smallest number of models.
        summary: One line for tables.
        paper: Where it comes from.
    """

    name: str
    solve: Callable[..., Coefficients]
    space: Literal["none", "task vectors", "weights"]
    needs_init: bool
    mix: Literal["shares", "scales", "none"]
    fewest: int
    summary: str
    paper: str

    @property
    def follows_arc(self) -> bool:
        """Whether it interpolates angles, and so can meet antiparallel vectors."""
        return self.solve in (slerp, slerp_weights, karcher)


_TABLE = (
    Method("lerp", lerp, "none", False, "shares", 1, "weighted mean of the weights", "Utans 1996"),
    Method("slerp", slerp, "task vectors", True, "shares", 1, "arc between task vectors, keeps their norm", "WARP eq. 26"),
    Method("uniform", uniform, "none", False, "none", 1, "plain mean of the weights", "Model soups, WARM"),
    Method(
        "task-arithmetic",
        task_arithmetic,
        "none",
        True,
        "scales",
        1,
        "init plus scaled task vectors",
        "Ilharco et al. 2023",
    ),
    Method("karcher", karcher, "task vectors", True, "shares", 1, "spherical mean, independent of order", "Karcher 1977"),
    Method("model-stock", model_stock, "task vectors", True, "none", 2, "mean, pulled to the init by its angles", "Jang 2024"),
    Method("slerp-weights", slerp_weights, "weights", False, "shares", 1, "arc between full weights (ablation)", "WARP C.2"),
)
METHODS: dict[str, Method] = {method.name: method for method in _TABLE}


def find_method(name: str) -> Method:
    """Return the method called `name`.

    Raises:
        UsageError: With the nearest valid name, if there is none.
    """
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}{nearest(name, METHODS)}")
    return METHODS[name]
