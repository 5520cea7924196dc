"""Reward terms: what a recipe or an option says of a reward."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.common.functions import NAMED
from warmkit.common.http_client import check_address
from warmkit.errors import UsageError


@dataclass(frozen=True)
class RewardTerm:
    """One of `rewards:` or `controls:`; exactly one of `model`, `function`, `command` and `endpoint` says what it is.

    Attributes:
        name: In the metrics; by default what follows from the other keys.
        weight: In the sum.
        model: A reward model, or several whose scores are averaged (ENS).
        function: `module:name` of a Python function; it gets the prompts and the completions, two lists of text of the same
            length, and returns a number for each.
        command: A shell command; it reads a line of JSON for each completion (`prompt`, `completion`) and prints a number for
            each.
        endpoint: Address of a server; it gets `{"prompts": [...], "completions": [...], "query": [...]}` (a query is a prompt
            and its completion in one text) and returns `{"rewards": [...]}`, a number for each, as OpenRLHF's reward model
            servers do. What WARMKIT_ENDPOINT_KEY holds goes along as a bearer token.
    """

    name: str | None = None
    weight: float = 1.0
    model: str | list[str] | None = None
    function: str | None = None
    command: str | None = None
    endpoint: str | None = None

    def __post_init__(self) -> None:
        given = [key for key in ("model", "function", "command", "endpoint") if getattr(self, key)]
        if len(given) != 1:
            raise UsageError(f"expected one of model, function, command and endpoint, found {' and '.join(given) or 'none'}")
        if self.function is not None and not all(self.function.partition(":")):
            raise UsageError(f"expected a function as module:name, found {self.function!r}")
        if self.endpoint is not None:
            check_address(self.endpoint, "http://host/score")

    @property
    def label(self) -> str:
        """What the metrics call it."""
        if self.name is not None:
            return self.name
        if self.function is not None:
            return self.function.rpartition(":")[2]
        if self.model is not None:
            return "model" if isinstance(self.model, str) else "ensemble"
        return "command" if self.endpoint is None else "endpoint"


def check_labels(terms: Iterable[RewardTerm], key: str) -> None:
    """Refuse two terms that the metrics could not tell apart.

    Raises:
        UsageError: If there are two of one label.
    """
    labels = [term.label for term in terms]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UsageError(f"{key}: two terms are called {twice[0]!r}; give them names")


def parse_reward_term(text: str) -> RewardTerm:
    """Read `[NAME=][WEIGHT*]WHAT`, the short form of a term on the command line.

    WHAT is a reward model's directory or repository (several, joined by commas, are an ensemble), `module:function`,
    `command: LINE`, or the address of a server, `http://host/score`.

    Raises:
        UsageError: If there is nothing to score with.

    Examples:
        >>> parse_reward_term("gold=0.5*rewards:gold")
        RewardTerm(name='gold', weight=0.5, model=None, function='rewards:gold', command=None, endpoint=None)
    """
    named = re.fullmatch(r"(?:(?P<name>[\w-]+)=)?(?:(?P<weight>-?[\d.]+)\*)?(?P<what>.+)", text.strip())
    if named is None:
        raise UsageError(f"expected a reward as [NAME=][WEIGHT*]WHAT, found {text!r}")
    what: str = named["what"]
    how: dict[str, Any] = {"name": named["name"], "weight": float(named["weight"] or 1)}
    if what.startswith("command:"):
        return RewardTerm(**how, command=what.removeprefix("command:").strip())
    if re.match(r"https?://", what, re.IGNORECASE):
        return RewardTerm(**how, endpoint=what)
    if NAMED.fullmatch(what) and not Path(what).exists():
        return RewardTerm(**how, function=what)
    models = what.split(",")
    return RewardTerm(**how, model=models[0] if len(models) == 1 else models)
