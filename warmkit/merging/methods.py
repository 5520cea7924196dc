"""The table of methods: command-line choices, recipe validation and the methods page derive from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from warmkit.common.display import Displayed
from warmkit.errors import UsageError, nearest
from warmkit.merging.breadcrumbs import breadcrumbs, breadcrumbs_ties
from warmkit.merging.dare import dare_linear, dare_ties
from warmkit.merging.della import della, della_linear
from warmkit.merging.edits import Edit
from warmkit.merging.iso_c import iso_c
from warmkit.merging.karcher import karcher
from warmkit.merging.lerp import lerp
from warmkit.merging.model_stock import model_stock
from warmkit.merging.parameters import (
    ALPHA,
    DENSITY,
    EPSILON,
    GAMMA,
    NORMALIZE,
    SCALE,
    SEED,
    SELECT_TOPK,
    SMALLEST_CHANGE,
    Parameter,
    R,
    checked,
)
from warmkit.merging.ram import ram, ram_plus
from warmkit.merging.sce import sce
from warmkit.merging.slerp import slerp
from warmkit.merging.slerp_weights import slerp_weights
from warmkit.merging.task_arithmetic import task_arithmetic
from warmkit.merging.ties import ties
from warmkit.merging.tsv_m import tsv_m
from warmkit.merging.types import Coefficients
from warmkit.merging.uniform import uniform
from warmkit.words import method_word


@dataclass(frozen=True, repr=False)
class Method(Displayed):
    """Merge method that averages weights: it finds the coefficients of a linear combination.

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

    def _facts(self) -> Mapping[str, object]:
        return {"name": self.name, "summary": self.summary, "needs init": self.needs_init, "paper": self.paper}

    @property
    def follows_arc(self) -> bool:
        """Whether it interpolates angles, and so can meet antiparallel vectors."""
        return self.solve in (slerp, slerp_weights, karcher)


@dataclass(frozen=True, repr=False)
class EditMethod(Displayed):
    """Merge method that edits task vectors before they are summed; see `merging.edits`.

    Attributes:
        name: As written on the command line; `docs/methods/<name>.md` describes it.
        edit: Maps (coefficients, and its parameters by name) to the edit.
        parameters: What it takes; `scale`, which all have, is applied to what it returns.
        mix: What `--coefficients` are: `scales` (used as they are) or `none` (refused).
        grouped: Whether its result depends on which tensors are one group; if not, each tensor is one.
        passes: How often it reads its inputs, at most.
        summary: One line for tables.
        paper: Where it comes from.
        whole: Whether it takes a matrix whole, so that time and memory grow faster than bytes.
    """

    name: str
    edit: Callable[..., Edit]
    parameters: tuple[Parameter, ...]
    mix: Literal["scales", "none"]
    grouped: bool
    passes: int
    summary: str
    paper: str
    whole: bool = False
    space: Literal["none"] = "none"
    needs_init: bool = True
    fewest: int = 1
    follows_arc: bool = False

    def _facts(self) -> Mapping[str, object]:
        own = {each.name: each.default for each in self.parameters}
        return {"name": self.name, "summary": self.summary, "parameters": own, "paper": self.paper}


AnyMethod: TypeAlias = "Method | EditMethod"

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
_EDITS = (
    EditMethod(
        "ties",
        ties,
        (DENSITY.but(0.2), NORMALIZE.but(default=True), SCALE),
        "scales",
        grouped=True,
        passes=4,
        summary="largest changes, mean of those with the elected sign",
        paper="Yadav et al. 2023",
    ),
    EditMethod(
        "dare-linear",
        dare_linear,
        (DENSITY, SEED, SCALE),
        "scales",
        grouped=False,
        passes=1,
        summary="random changes, rescaled, summed",
        paper="Yu et al. 2024",
    ),
    EditMethod(
        "dare-ties",
        dare_ties,
        (DENSITY, SEED, NORMALIZE, SCALE),
        "scales",
        grouped=False,
        passes=1,
        summary="random changes, rescaled, sum of those with the elected sign",
        paper="Yu et al. 2024",
    ),
    EditMethod(
        "breadcrumbs",
        breadcrumbs,
        (DENSITY.but(0.9), GAMMA, SCALE),
        "scales",
        grouped=True,
        passes=4,
        summary="neither the largest changes nor the smallest, summed",
        paper="Davari and Belilovsky 2023",
    ),
    EditMethod(
        "breadcrumbs-ties",
        breadcrumbs_ties,
        (DENSITY.but(0.9), GAMMA, NORMALIZE, SCALE),
        "scales",
        grouped=True,
        passes=4,
        summary="the same, sum of those with the elected sign",
        paper="Davari and Belilovsky 2023",
    ),
    EditMethod(
        "della",
        della,
        (DENSITY, EPSILON, SEED, NORMALIZE.but(default=True), SCALE),
        "scales",
        grouped=False,
        passes=1,
        summary="random changes, large ones more often, mean of those with the elected sign",
        paper="Deep et al. 2024",
    ),
    EditMethod(
        "della-linear",
        della_linear,
        (DENSITY, EPSILON, SEED, SCALE),
        "scales",
        grouped=False,
        passes=1,
        summary="random changes, large ones more often, summed",
        paper="Deep et al. 2024",
    ),
    EditMethod(
        "sce",
        sce,
        (SELECT_TOPK, SCALE),
        "none",
        grouped=True,
        passes=5,
        summary="what varies most, weighed by its size, without the minority's sign",
        paper="Wan et al. 2024",
    ),
    EditMethod(
        "ram",
        ram,
        (SMALLEST_CHANGE, SCALE),
        "none",
        grouped=False,
        passes=1,
        summary="what one model changed, mean of what several did",
        paper="Yuan et al. 2026",
    ),
    EditMethod(
        "ram-plus",
        ram_plus,
        (R, ALPHA, SMALLEST_CHANGE, SCALE),
        "none",
        grouped=True,
        passes=2,
        summary="the same, what is one model's own made larger",
        paper="Yuan et al. 2026",
    ),
    EditMethod(
        "tsv-m",
        tsv_m,
        (SCALE,),
        "none",
        grouped=False,
        passes=2,
        summary="each matrix's strongest singular directions, made orthogonal",
        paper="Gargiulo et al. 2025",
        whole=True,
    ),
    EditMethod(
        "iso-c",
        iso_c,
        (SCALE,),
        "none",
        grouped=False,
        passes=2,
        summary="sum of each matrix's changes, singular values made equal",
        paper="Marczak et al. 2025",
        whole=True,
    ),
)
METHODS: dict[str, AnyMethod] = {method.name: method for method in (*_TABLE, *_EDITS)}


def find_method(name: str) -> AnyMethod:
    """Return the method called `name`, in any case, with dashes or underscores.

    Raises:
        UsageError: With what it is called here, or the nearest valid name, if there is none.
    """
    known = METHODS.get(name.lower().replace("_", "-"))
    if known is None:
        raise UsageError(f"unknown method {name!r}{method_word(name) or nearest(name, METHODS)}")
    return known


def method_parameters(method: AnyMethod, given: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return every parameter of a method beside coefficients, for `count` models.

    Raises:
        UsageError: If one that was given is unknown, belongs to other methods, or has a value out of range.
    """
    having: dict[str, list[str]] = {}
    for each in _EDITS:
        for parameter in each.parameters:
            having.setdefault(parameter.name, []).append(each.name)
    own = method.parameters if isinstance(method, EditMethod) else ()
    return checked(method.name, own, given, count, having)
