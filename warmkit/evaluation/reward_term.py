"""What a recipe or an option says of a reward."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmkit.errors import UsageError


@dataclass(frozen=True)
class RewardTerm:
    """One of `rewards:` or `controls:`; exactly one of `model`, `function` and `command` says what it is.

    Attributes:
        name: In the metrics; by default what follows from the other keys.
        weight: In the sum.
        model: A reward model, or several whose scores are averaged (ENS).
        function: `module:name` of a Python function; it gets the prompts and the completions, two lists of text of the same
            length, and returns a number for each.
        command: A shell command; it reads a line of JSON for each completion (`prompt`, `completion`) and prints a number for
            each.
    """

    name: str | None = None
    weight: float = 1.0
    model: str | list[str] | None = None
    function: str | None = None
    command: str | None = None

    def __post_init__(self) -> None:
        given = [key for key in ("model", "function", "command") if getattr(self, key)]
        if len(given) != 1:
            raise UsageError(f"expected one of model, function and command, found {' and '.join(given) or 'none'}")
        if self.function is not None and not all(self.function.partition(":")):
            raise UsageError(f"expected a function as module:name, found {self.function!r}")

    @property
    def label(self) -> str:
        """What the metrics call it."""
        if self.name is not None:
            return self.name
        if self.function is not None:
            return self.function.rpartition(":")[2]
        return "command" if self.model is None else "model" if isinstance(self.model, str) else "ensemble"


def parse_reward_term(text: str) -> RewardTerm:
    """Read `[NAME=][WEIGHT*]WHAT`, the short form of a term on the command line.

    WHAT is a reward model's directory or repository (several, joined by commas, are an ensemble), `module:function`, or
    `command: LINE`.

    Raises:
        UsageError: If there is nothing to score with.

    Example:
        >>> parse_reward_term("gold=0.5*rewards:gold")
        RewardTerm(name='gold', weight=0.5, model=None, function='rewards:gold', command=None)
    """
    named = re.fullmatch(r"(?:(?P<name>[\w-]+)=)?(?:(?P<weight>-?[\d.]+)\*)?(?P<what>.+)", text.strip())
    if named is None:
        raise UsageError(f"expected a reward as [NAME=][WEIGHT*]WHAT, found {text!r}")
    what: str = named["what"]
    how: dict[str, Any] = {"name": named["name"], "weight": float(named["weight"] or 1)}
    if what.startswith("command:"):
        return RewardTerm(**how, command=what.removeprefix("command:").strip())
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", what) and not Path(what).exists():
        return RewardTerm(**how, function=what)
    models = what.split(",")
    return RewardTerm(**how, model=models[0] if len(models) == 1 else models)
