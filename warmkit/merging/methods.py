"""The table of methods: command-line choices, recipe validation and the methods page derive from it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any, Literal

from warmkit.common.display import Displayed
from warmkit.errors import UsageError, nearest
from warmkit.merging.arcee_fusion import arcee_fusion
from warmkit.merging.breadcrumbs import breadcrumbs, breadcrumbs_ties
from warmkit.merging.dare import dare_linear, dare_ties
from warmkit.merging.della import della, della_linear
from warmkit.merging.edits import Edit
from warmkit.merging.expo import expo
from warmkit.merging.iso_c import iso_c
from warmkit.merging.karcher import karcher
from warmkit.merging.lerp import lerp
from warmkit.merging.model_stock import model_stock
from warmkit.merging.multislerp import multislerp
from warmkit.merging.nearswap import nearswap
from warmkit.merging.parameters import SCALE, Parameter, checked, own_parameters
from warmkit.merging.ram import ram, ram_plus
from warmkit.merging.relex import relex
from warmkit.merging.sce import sce
from warmkit.merging.slerp import slerp
from warmkit.merging.slerp_weights import slerp_weights
from warmkit.merging.task_arithmetic import task_arithmetic
from warmkit.merging.ties import ties
from warmkit.merging.tsv_m import tsv_m
from warmkit.merging.types import Antiparallel, Coefficients, Gram
from warmkit.merging.uniform import uniform
from warmkit.words import method_word


@dataclass(frozen=True, repr=False)
class Method(Displayed):
    """Merge method: a function, whose signature says what it needs.

    - `shares` or `scales`, [M]: what the user mixes, normalised to sum 1, or used as they are. With neither, `--coefficients`
      is refused.
    - `models`: their number.
    - `gram`, [M, M]: products of the task vectors of one group, which are read for it (`of="weights"`: of the weights).
    - `antiparallel`: it follows an arc, and so can meet vectors that have none between them.
    - Anything else is a parameter of its own, with its default and range; see `merging.parameters`.

    A function that returns `Coefficients` makes a linear combination of the task vectors; one that returns an `Edit` changes
    them element by element, or matrix by matrix, before they are summed.

    Attributes:
        name: As written on the command line; `docs/methods/<name>.md` describes it.
        function: Named as its file, in this folder.
        summary: One line for tables.
        paper: Where it comes from.
        of: Whose Gram matrix it reads, if any.
        fewest: Smallest number of models.
        grouped: Of an edit: whether its result depends on which tensors are one group; if not, each tensor is one.
        passes: Of an edit: how often it reads its inputs, at most.
        whole: Of an edit: whether it takes a matrix whole, so that time and memory grow faster than bytes.
        beyond: Whether its coefficients do not sum to 1, though its shares do, so that the init takes part.
        by: What is one group by default, of a method that finds coefficients.
    """

    name: str
    function: Callable[..., Any]
    summary: str
    paper: str
    of: Literal["task vectors", "weights"] = "task vectors"
    fewest: int = 1
    grouped: bool = False
    passes: int = 1
    whole: bool = False
    beyond: bool = False
    by: Literal["layer", "tensor"] = "layer"

    def _facts(self) -> Mapping[str, object]:
        own = {each.name: each.default for each in self.parameters}
        facts = {"name": self.name, "summary": self.summary, "needs init": self.needs_init, "parameters": own or None}
        return {**facts, "paper": self.paper}

    @cached_property
    def _asks(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.function).parameters)

    @cached_property
    def edits(self) -> bool:
        """Whether it edits task vectors; if not, it finds coefficients."""
        return typing.get_type_hints(self.function)["return"] == Edit

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """What it has of its own."""
        return (*own_parameters(self.function), *([SCALE] if self.edits else []))

    @property
    def mix(self) -> Literal["shares", "scales", "none"]:
        """What `--coefficients` are."""
        return "scales" if "scales" in self._asks else "shares" if "shares" in self._asks else "none"

    @property
    def space(self) -> Literal["none", "task vectors", "weights"]:
        """Whose Gram matrix it reads."""
        return self.of if "gram" in self._asks else "none"

    @property
    def needs_init(self) -> bool:
        """Whether the result depends on an initialisation even at eta = 1: it does not, of an average."""
        return self.edits or self.space == "task vectors" or self.mix == "scales" or self.beyond

    @property
    def follows_arc(self) -> bool:
        """Whether it interpolates angles, and so can meet antiparallel vectors."""
        return "antiparallel" in self._asks

    def solve(
        self,
        gram: Gram | None,
        shares: Coefficients,
        antiparallel: Antiparallel = "error",
        own: Mapping[str, Any] = MappingProxyType({}),
    ) -> Coefficients:
        """Return the coefficients of the task vectors, [M], from their products, [M, M], and what the user mixes, [M].

        `own` are the method's own parameters; those that are not given have their defaults.
        """
        known = {"gram": gram, "shares": shares, "scales": shares, "models": len(shares), "antiparallel": antiparallel}
        return self.function(**{name: known[name] for name in self._asks & known.keys()}, **own)

    def edit(self, scales: Coefficients, own: Mapping[str, Any]) -> Edit:
        """Return the edit, from what the user mixes, [M], and its own parameters."""
        return self.function(**({"scales": scales} if "scales" in self._asks else {}), **own)


_TABLE = (
    Method("lerp", lerp, "weighted mean of the weights", "Utans 1996"),
    Method("slerp", slerp, "arc between task vectors, keeps their norm", "WARP eq. 26"),
    Method("uniform", uniform, "plain mean of the weights", "Model soups, WARM"),
    Method("task-arithmetic", task_arithmetic, "init plus scaled task vectors", "Ilharco et al. 2023"),
    Method("karcher", karcher, "spherical mean, independent of order", "Karcher 1977"),
    Method("multislerp", multislerp, "mean of directions, at the mean length", "Goddard 2024"),
    Method("model-stock", model_stock, "mean, pulled to the init by its angles", "Jang 2024", fewest=2),
    Method("expo", expo, "beyond a model, away from the init", "Zheng et al. 2024", beyond=True),
    Method("relex", relex, "a run continued along its strongest direction", "Wei et al. 2026", fewest=2, by="tensor"),
    Method("slerp-weights", slerp_weights, "arc between full weights (ablation)", "WARP C.2", of="weights"),
    Method("ties", ties, "largest changes, mean of those with the elected sign", "Yadav et al. 2023", grouped=True, passes=4),
    Method("dare-linear", dare_linear, "random changes, rescaled, summed", "Yu et al. 2024"),
    Method("dare-ties", dare_ties, "random changes, rescaled, sum of those with the elected sign", "Yu et al. 2024"),
    Method(
        "breadcrumbs",
        breadcrumbs,
        "neither the largest changes nor the smallest, summed",
        "Davari and Belilovsky 2023",
        grouped=True,
        passes=4,
    ),
    Method(
        "breadcrumbs-ties",
        breadcrumbs_ties,
        "the same, sum of those with the elected sign",
        "Davari and Belilovsky 2023",
        grouped=True,
        passes=4,
    ),
    Method("nearswap", nearswap, "changes, none larger than a limit, summed", "alchemonaut 2024"),
    Method("arcee-fusion", arcee_fusion, "changes that matter most, by size and softmax, summed", "Arcee AI 2025", passes=4),
    Method("della", della, "random changes, large ones more often, mean of those with the elected sign", "Deep et al. 2024"),
    Method("della-linear", della_linear, "random changes, large ones more often, summed", "Deep et al. 2024"),
    Method(
        "sce",
        sce,
        "what varies most, weighed by its size, without the minority's sign",
        "Wan et al. 2024",
        grouped=True,
        passes=5,
    ),
    Method("ram", ram, "what one model changed, mean of what several did", "Yuan et al. 2026"),
    Method("ram-plus", ram_plus, "the same, what is one model's own made larger", "Yuan et al. 2026", grouped=True, passes=2),
    Method(
        "tsv-m",
        tsv_m,
        "each matrix's strongest singular directions, made orthogonal",
        "Gargiulo et al. 2025",
        passes=2,
        whole=True,
    ),
    Method(
        "iso-c", iso_c, "sum of each matrix's changes, singular values made equal", "Marczak et al. 2025", passes=2, whole=True
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in _TABLE}


@cache
def parameters_by_name() -> dict[str, dict[str, Parameter]]:
    """Return every parameter that some method has of its own, by its name and that of the method."""
    found: dict[str, dict[str, Parameter]] = {}
    for method in _TABLE:
        for each in method.parameters:
            found.setdefault(each.name, {})[method.name] = each
    return found


def find_method(name: str) -> Method:
    """Return the method called `name`, in any case, with dashes or underscores.

    Raises:
        UsageError: With what it is called here, or the nearest valid name, if there is none.
    """
    known = METHODS.get(name.lower().replace("_", "-"))
    if known is None:
        raise UsageError(f"unknown method {name!r}{method_word(name) or nearest(name, METHODS)}")
    return known


def method_parameters(method: Method, given: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return every parameter of a method beside coefficients, for `count` models.

    Raises:
        UsageError: If one that was given is unknown, belongs to other methods, or has a value out of range.
    """
    having = {name: list(methods) for name, methods in parameters_by_name().items()}
    return checked(method.name, method.parameters, given, count, having)
