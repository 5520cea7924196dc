"""The table of mergekit's methods: what each takes, and what it is called here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from warmkit.errors import UsageError, nearest


@dataclass(frozen=True)
class Known:
    """One method of mergekit.

    Attributes:
        name: Value of `merge_method`.
        weighs: The parameter that every model has, `weight` or `scale`; empty for none.
        shared: Parameters of the whole merge.
        per_model: Other parameters that every model may have.
        base: Whether there is a base model that the others are compared with, or it is a model like any.
    """

    name: str
    weighs: str
    shared: tuple[str, ...]
    base: Literal["required", "optional", "like any"]
    per_model: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*([self.weighs] if self.weighs else []), *self.per_model, *self.shared)


_TASKS = ("normalize", "lambda", "rescale", "int8_mask")

_TABLE = (
    Known("linear", "weight", ("normalize",), "like any"),
    Known("slerp", "", ("t",), "required"),
    Known("nuslerp", "weight", ("nuslerp_flatten", "nuslerp_row_wise"), "optional"),
    Known("task_arithmetic", "weight", _TASKS, "required", ("density",)),
    Known("karcher", "", ("max_iter", "tol"), "like any"),
    Known("model_stock", "", ("filter_wise",), "required"),
    Known("passthrough", "scale", (), "like any"),
    Known("multislerp", "weight", ("normalize_weights", "eps"), "optional"),
    Known("ties", "weight", _TASKS, "required", ("density",)),
    Known("dare_ties", "weight", _TASKS, "required", ("density",)),
    Known("dare_linear", "weight", _TASKS, "required", ("density",)),
    Known("della", "weight", _TASKS, "required", ("density", "epsilon")),
    Known("della_linear", "weight", _TASKS, "required", ("density", "epsilon")),
    Known("breadcrumbs", "weight", _TASKS, "required", ("density", "gamma")),
    Known("breadcrumbs_ties", "weight", _TASKS, "required", ("density", "gamma")),
    Known("sce", "", ("select_topk", "int8_mask"), "required"),
    Known("ram", "", ("epsilon",), "required"),
    Known("ramplus_tl", "", ("r", "alpha", "epsilon"), "required"),
    Known("nearswap", "", ("t",), "required"),
    Known("arcee_fusion", "", (), "required"),
)
KNOWN: dict[str, Known] = {each.name: each for each in _TABLE}
PARAMETERS = frozenset(name for each in _TABLE for name in each.parameters)


def find_method(name: str) -> Known:
    """Return the method called `name`.

    Raises:
        UsageError: If mergekit has none of that name.
    """
    if name not in KNOWN:
        raise UsageError(f"mergekit has no method {name!r}{nearest(name, KNOWN)}")
    return KNOWN[name]
