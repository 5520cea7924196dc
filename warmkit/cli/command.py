"""Commands made of functions: options, groups of options, error mapping and exit codes, declared once."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import os
import signal
import sys
import typing
from collections.abc import Callable, Generator, Sequence
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from warmkit.cli.console import Console
from warmkit.errors import UsageError, WarmkitError, out_of_memory

INTERRUPTED, TERMINATED = 130, 143
OUTPUT_PANEL = "What is printed"
T = TypeVar("T")


class Terminated(BaseException):
    """SIGTERM arrived."""


def option(default: T, help: str, *names: str, **more: Any) -> T:
    """Declare a parameter of a command, or a field of a group, as an option.

    Args:
        default: What it is where it is not given.
        help: What it means.
        names: How it is written; by default as the parameter.
        **more: What `typer.Option` takes.
    """
    return dataclasses.field(default=default, metadata={"kind": typer.Option, "names": names, "help": help, **more})


def required(help: str, *names: str, **more: Any) -> Any:
    """Declare an option that must be given."""
    return dataclasses.field(metadata={"kind": typer.Option, "names": names, "help": help, **more})


def argument(metavar: str, help: str, default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """Declare what stands on the command line without a name."""
    return dataclasses.field(default=default, metadata={"kind": typer.Argument, "metavar": metavar, "help": help, **more})


def console_options(
    quiet: bool = option(False, "Print errors only.", "--quiet", "-q", rich_help_panel=OUTPUT_PANEL),
    verbose: bool = option(False, "Print more.", "--verbose", "-v", rich_help_panel=OUTPUT_PANEL),
    json: bool = option(False, "Print one JSON document on stdout.", rich_help_panel=OUTPUT_PANEL),
) -> None:
    """Options that every command takes."""


def command(resumes: bool = False, needs_transformers: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn `function(console, ...)` into a command, whose parameters are options.

    A parameter whose type is a dataclass stands for a group of options: its fields are options, and an instance arrives. The
    result is added to a group of commands with `cls=Command`. (Groups are `@dataclass(eq=False, repr=False)`: the methods that
    are left out take longer to make than everything else in a group, and every command pays for all groups.)

    Args:
        resumes: Whether the same command goes on where an interrupted one stopped.
        needs_transformers: Whether it stops with advice where the `train` extra is not installed.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            console = Console(given.pop("quiet"), given.pop("verbose"), given.pop("json"))
            with exit_codes(console, resumes), console.watched():
                if needs_transformers:
                    need_transformers()
                for each in _parameters(function):
                    if fields := _fields(each.annotation):
                        given[each.name] = each.annotation(**{field.name: given.pop(field.name) for field in fields})
                function(console, **given)

        def declare() -> TyperCommand:
            parameters = [*_parameters(function), *_parameters(console_options)]
            options = [field for each in parameters for field in (_fields(each.annotation) or [each])]
            assert len({each.name for each in options}) == len(options), f"{function.__name__}: an option is declared twice"
            return command_of(run, sorted(options, key=lambda each: each.default is not inspect.Parameter.empty))

        def named() -> None:
            raise AssertionError(f"{function.__name__}: expected app.command(cls=Command)")

        named.__name__, named.__doc__ = function.__name__, function.__doc__
        vars(named)["declare"] = declare
        return named

    return decorate


class Command(TyperCommand):
    """Command whose options are declared when they are asked for: a list of commands needs their names and helps alone."""

    @property
    def params(self) -> list[Any]:
        if not self._declared:
            self._declared = True
            made = vars(self.callback)["declare"]()
            self._params += made.params
            self.callback = made.callback
        return self._params

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        several = [name for each in self.params for name in each.opts if str(getattr(each, "metavar", "")).endswith("...")]
        return super().parse_args(ctx, spread(args, [name for name in several if name.startswith("-")]))

    @params.setter
    def params(self, params: list[Any]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._params, self._declared = params, False


def spread(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """Repeat options that take several values before each of them; the next option ends the values.

    Examples:
        >>> spread(["OUT", "--models", "A", "B", "--init", "C"], ["--models"])
        ['OUT', '--models', 'A', '--models', 'B', '--init', 'C']
    """
    result, option = list[str](), None
    for place, word in enumerate(words):
        if word.startswith("-") and len(word) > 1:
            option = word if word in options else None
        elif option is not None and words[place - 1] != option:
            result.append(option)
        result.append(word)
    return result


def command_of(run: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> TyperCommand:
    """Return typer's command of a function that takes parameters by their names."""
    run.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(run)
    made = typer.main.get_command(app)
    assert isinstance(made, TyperCommand)
    return made


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters of a command, or of the dataclass that is a group, as they are declared."""
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = getattr(function, "__dataclass_fields__", {})
    return [
        _declared(each.name, hints[each.name], fields.get(each.name, each.default))
        for each in inspect.signature(function).parameters.values()
        if each.name != "console"
    ]


def _declared(name: str, hint: Any, default: Any) -> inspect.Parameter:
    """Return a parameter for typer; one whose default is a field may be an `option`, else its annotation says all."""
    if isinstance(default, dataclasses.Field):
        default, more = default.default, dict(default.metadata)
        if kind := more.pop("kind", None):
            names = more.pop("names", ()) or ([f"--{name.strip('_').replace('_', '-')}"] if kind is typer.Option else [])
            hint = Annotated[hint, kind(*names, **more)]
    default = inspect.Parameter.empty if default is dataclasses.MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _fields(group: Any) -> list[inspect.Parameter]:
    """Return the options of a dataclass, or of a class that lists its `options`; none of any other type."""
    if hasattr(group, "options"):
        return group.options()
    return _parameters(group) if isinstance(group, type) and dataclasses.is_dataclass(group) else []


def need_transformers() -> None:
    """Stop with advice where the training packages are not installed.

    Raises:
        UsageError: If they are not.
    """
    if importlib.util.find_spec("transformers") is None:
        raise UsageError("this needs transformers; install it: pip install 'warmkit[train]'")


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
