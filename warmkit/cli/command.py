"""How a function becomes a command: shared options, error mapping and exit codes, declared once."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import sys
import typing
from collections.abc import Callable, Generator
from typing import Annotated, Any

import typer

from warmkit.cli.console import Console
from warmkit.errors import WarmkitError, out_of_memory

INTERRUPTED, TERMINATED = 130, 143
OUTPUT_PANEL = "What is printed"


class Terminated(BaseException):
    """SIGTERM arrived."""


def console_options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=OUTPUT_PANEL, help="Print errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", rich_help_panel=OUTPUT_PANEL, help="Print more.")] = False,
    json: Annotated[
        bool, typer.Option("--json", rich_help_panel=OUTPUT_PANEL, help="Print one JSON document on stdout.")
    ] = False,
) -> None:
    """Options that every command takes."""


def command(*shared: Callable[..., Any], resumes: bool | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn `function(console, ...)` into a command.

    Its parameters and those of every function in `shared` become options; the shared ones arrive as keyword arguments.

    Args:
        shared: Functions whose parameters are options of several commands.
        resumes: Whether the same command goes on where an interrupted one stopped; by default those with shared options do.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            console = Console(given.pop("quiet"), given.pop("verbose"), given.pop("json"))
            with exit_codes(console, resumes=bool(shared) if resumes is None else resumes), console.watched():
                function(console, **given)

        groups = (function, *shared, console_options)
        parameters = {each.name: each for group in groups for each in _parameters(group)}
        required_first = sorted(parameters.values(), key=lambda each: each.default is not inspect.Parameter.empty)
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__signature__ = inspect.Signature(required_first)  # pyright: ignore[reportFunctionMemberAccess]
        run.__annotations__ = {each.name: each.annotation for each in parameters.values()}
        return run

    return decorate


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(function, include_extras=True)
    plain = (each for each in inspect.signature(function).parameters.values() if each.kind != each.VAR_KEYWORD)
    return [
        each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for each in plain
        if each.name != "console"
    ]


@contextlib.contextmanager
def exit_codes(console: Console, resumes: bool) -> Generator[None, None, None]:
    """Map a user's error to one or two lines and its exit code; a bug keeps its traceback."""
    advice = "; the same command goes on where this one stopped" if resumes else ""

    def stop(*_: Any) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except WarmkitError as error:
        console.error(str(error), type(error).__name__)
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:  # whoever read the result has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(WarmkitError.exit_code) from None
    except OSError as error:
        if (said := _environment(error)) is None:
            raise
        console.error(said, "EnvironmentError")
        raise typer.Exit(WarmkitError.exit_code) from None
    except (MemoryError, RuntimeError) as error:
        if "Symlink loop" in str(error):  # of pathlib
            console.error(f"{error}; remove the link", "EnvironmentError")
            raise typer.Exit(WarmkitError.exit_code) from None
        if not out_of_memory(error):
            raise
        console.error("out of memory; lower the length (max_length), the batch or the jobs at a time", "OutOfMemory")
        raise typer.Exit(WarmkitError.exit_code) from None
    except KeyboardInterrupt:
        console.error("interrupted" + advice, "Interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except Terminated:
        console.error("terminated" + advice, "Terminated")
        raise typer.Exit(TERMINATED) from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def _environment(error: OSError) -> str | None:
    """Return what the system says of a path: no permission, a loop of links, too long a name; None for anything else."""
    if error.strerror is None or error.filename is None:
        return None
    return f"{os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename}: {error.strerror}"
