"""The page of the command line, generated from the commands.

python -m tests.docs.cli_page > docs/cli.md
"""

from __future__ import annotations

import inspect
from typing import Any

import typer

from warmkit.cli.app import app

HEAD = """\
# Command line: every command and option

`warmkit COMMAND --help` prints the same. This page is generated: `python -m tests.docs.cli_page > docs/cli.md`.

- **Output.** Results go to stdout; progress, notes and errors go to stderr. `--json` prints one JSON document on stdout. `-q`
  prints errors only.
- **Exit codes.** 0: done. 1: an input or the machine is at fault. 2: a wrong command or recipe. 3 and 4: `verify` cannot tell
  whether a [claim](verify.md) holds; it does not. 130: interrupted. 143: terminated.
- **Progress bars** are shown only on a terminal. `NO_COLOR` switches colours off.
- **Paths.** A directory, a `.safetensors` file, or a repository of the Hub: `hf://owner/name[@revision]`, or `owner/name` where
  no such local path exists. `merge`, `liti`, `soup`, `ema` and `compare` also read from [servers and object stores](remote.md).
"""


def commands() -> dict[str, Any]:
    """Return every command by name, those of a sub-app by two words: `train rm`."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if command.hidden:
            continue
        below = getattr(command, "commands", None)
        found |= {name: command} if below is None else {f"{name} {each}": child for each, child in below.items()}
    return found


def page() -> str:
    return "\n".join([HEAD, *(_section(name, command) for name, command in commands().items())])


def _section(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and "--help" not in each.opts]
    usage = " ".join(["warmkit", name, *map(_metavar, arguments)])
    rows = ["| option | meaning | default |", "|---|---|---|", *map(_row, options)]
    return f"## `{usage} [OPTIONS]`\n\n{inspect.cleandoc(command.help)}\n\n" + "\n".join(rows) + "\n"


def _metavar(argument: Any) -> str:
    return (argument.metavar or argument.name.upper()) + ("..." if argument.nargs == -1 else "")


def _row(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    shown = option.show_default if isinstance(option.show_default, str) else option.default
    value = getattr(shown, "value", shown)  # of an enumeration
    default = "required" if option.required else "" if value in (None, False) else f"{value}"
    return f"| {names} | {option.help} | {default} |"


if __name__ == "__main__":
    print(page(), end="")
