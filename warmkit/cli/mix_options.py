"""Options that say how models are merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warmkit.cli import completions
from warmkit.cli.command import option
from warmkit.cli.shared_options import Antiparallel, Granularity, etas, given, numbers


@dataclass(eq=False, repr=False)
class Mix:
    """What is merged, and how."""

    method: str | None = option(
        None,
        "Merge method; `warmkit methods` lists them.",
        "--method",
        "-m",
        show_default="slerp",
        autocompletion=completions.method,
    )
    init: str | None = option(None, "What the models were fine-tuned from.")
    lambda_: float | None = option(None, "Share of the second of two models, 0 to 1.")
    coefficients: str | None = option(None, "Weight of each model: 0.5,0.3,0.2.")
    eta: str | None = option(None, "LITI's update rate; several (0,0.3,1) write OUT/eta-0, OUT/eta-0.3, ... at once.")
    granularity: Granularity = None
    antiparallel: Antiparallel = None

    def keywords(self) -> dict[str, Any]:
        """Return what was given, parsed, for the library."""
        parsed = {"coefficients": numbers(self.coefficients, "--coefficients"), "eta": etas(self.eta)}
        return given({**vars(self), **parsed})
