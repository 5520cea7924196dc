"""Command line of a run: a template whose placeholders are filled, quoted for the shell, and the same in its environment."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from warmkit.common.shell import with_argument
from warmkit.errors import UsageError, nearest

_PLACEHOLDER = re.compile(r"\$\{|\{\{|\}\}|\{(?P<name>\w+)\}", re.ASCII)
_BRACES = {"${": "$\0(", "{{": "\0(", "}}": "\0)"}


def check_template(line: str, known: Collection[str], key: str = "command.run", needed: Collection[str] = ("output",)) -> None:
    """Check that a template has the placeholders that it needs, and no others than those that are known.

    One without any is of a program that looks into its environment.

    Raises:
        UsageError: If not.

    Examples:
        >>> check_template("train.py --lr {lr} -o {output}", ["output", "lr"])
        >>> check_template("awk '{{print $1}}' ${HOME}/x {output}", ["output"])
    """
    names = [match["name"] for match in _PLACEHOLDER.finditer(line) if match["name"]]
    for name in names:
        if name not in known:
            cure = "an argument of your own needs its values in command.grid, and {{ and }} are braces"
            raise UsageError(f"{key}: unknown placeholder {{{name}}}{nearest(name, known)}; {cure}")
    for name in needed:
        if names and name not in names and f"WARMKIT_{name.upper()}" not in line:
            raise UsageError(f"{key}: expected {{{name}}} beside {{{names[0]}}}, found {line!r}")


def fill(line: str, values: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return a line for the shell, and the arguments that "$1", "$2", ... stand for in it.

    Examples:
        >>> fill("train.py {init} --lr {lr} {{}}", {"init": "my model", "lr": 1e-05})
        ('train.py "$1" --lr 1e-05 {}', ['my model', '1e-05'])
    """
    texts = {name: str(value) for name, value in values.items()}
    line = _PLACEHOLDER.sub(lambda match: match[0] if match["name"] else _BRACES[match[0]], line)
    for number, (name, text) in enumerate(texts.items(), 1):
        line = with_argument(line, f"{{{name}}}", text, number)
    return line.replace("\0(", "{").replace("\0)", "}"), list(texts.values())


def environment(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the values as variables: WARMKIT_INIT, WARMKIT_SEED and so on."""
    return {f"WARMKIT_{name.upper()}": str(value) for name, value in values.items()}
