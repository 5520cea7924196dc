"""The options that several commands share, each declared once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from warmkit.cli import completions
from warmkit.errors import UsageError

if TYPE_CHECKING:
    from warmkit.merging.parameters import Parameter

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
METHOD_PANEL = "Parameters of methods"
INPUT_PANEL = "What is read"
TENSOR_PANEL = "Which tensors"
RESULT_PANEL = "What is written"
PLACE_PANEL = "Where it runs"

Models = Annotated[
    list[str], typer.Argument(metavar="MODEL", help="Directories, .safetensors files, Hub repositories or addresses.")
]
Init = Annotated[str | None, typer.Option("--init", help="What the models were fine-tuned from.")]
OutputPath = Annotated[Path, typer.Option("--output", "-o", help="Directory to create.", show_default=False)]
Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        rich_help_panel=INPUT_PANEL,
        help="Read Hub repositories by byte ranges; their weights never touch the disk.",
    ),
]
Eta = Annotated[
    str | None,
    typer.Option("--eta", help="LITI's update rate; several (0,0.3,1) write OUT/eta-0, OUT/eta-0.3, ... at once."),
]

AllowPickle = Annotated[
    bool,
    typer.Option(
        "--allow-pickle",
        rich_help_panel=INPUT_PANEL,
        help="Also read what torch saved: .bin, .pt, .ckpt and distributed checkpoints.",
    ),
]


def output_options(
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            rich_help_panel=RESULT_PANEL,
            autocompletion=completions.dtype,
            help="float32, bfloat16, float16 or float64.",
            show_default="each tensor's own",
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option("--max-shard-size", rich_help_panel=RESULT_PANEL, help="Largest weight file.", show_default="5GB"),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", rich_help_panel=PLACE_PANEL, help="Worker threads.", show_default="one a core")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device", rich_help_panel=PLACE_PANEL, autocompletion=completions.device, help="cpu or cuda.", show_default="cpu"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint at OUT, in one step at the end.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            rich_help_panel=RESULT_PANEL,
            help="Go on where an interrupted run of the same command stopped.",
        ),
    ] = True,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", rich_help_panel=INPUT_PANEL, help="Accept NaN and infinity in the weights.")
    ] = False,
    stream: Stream = False,
    sha256: Annotated[
        bool,
        typer.Option("--sha256", rich_help_panel=RESULT_PANEL, help="Record SHA-256 of every file; slower than the merge."),
    ] = False,
    allow_pickle: AllowPickle = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            rich_help_panel=INPUT_PANEL,
            help="Take doubts for errors: a model given twice, or equal to its init; a lambda of 30.",
        ),
    ] = False,
    vocabulary: Annotated[
        str | None,
        typer.Option(
            "--vocabulary",
            rich_help_panel=TENSOR_PANEL,
            autocompletion=completions.vocabulary,
            help="Tokens of the result, where vocabularies differ: strict (refuse), union, init or common.",
            show_default="strict",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            rich_help_panel=TENSOR_PANEL,
            help="Merge only tensors with such names ('model.layers.*'); copy the others from the init, or from the first "
            "model. Repeatable.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            rich_help_panel=TENSOR_PANEL,
            help="Do not merge tensors with such names ('lm_head.*'); copy them from the init, or from the first model. "
            "Repeatable.",
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            "--heads",
            rich_help_panel=TENSOR_PANEL,
            autocompletion=completions.heads,
            help="Heads of the result: init, or models (their mean, for reward models on an SFT init).",
            show_default="init",
        ),
    ] = None,
) -> None:
    """How results are written."""


class WithMethodParameters(TyperCommand):
    """Command with an option for every parameter that some merge method has of its own, as the methods declare them.

    They are made when the options are asked for, not when the command is: the list of commands needs no numpy.
    """

    @property
    def params(self) -> list[Any]:
        if not self._complete:
            self._complete = True
            self._params += _own_options()
        return self._params

    @params.setter
    def params(self, params: list[Any]) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._params, self._complete = params, False

    def invoke(self, ctx: Any) -> Any:
        """Run the command; the parameters of methods, which its function does not name, are kept for `own_given`."""
        from warmkit.merging.methods import parameters_by_name

        _own.set({name: ctx.params.pop(name, None) for name in parameters_by_name()})
        return super().invoke(ctx)


_own: ContextVar[dict[str, Any]] = ContextVar("parameters of methods on the command line")


def _own_options() -> list[Any]:
    """Return the options of parameters of methods, made as those of any command are."""
    from warmkit.merging.methods import parameters_by_name

    def own(**given: Any) -> None: ...

    options = {name: _own_option(name, methods) for name, methods in parameters_by_name().items()}
    own.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess]
        [inspect.Parameter(name, KEYWORD_ONLY, default=None, annotation=each) for name, each in options.items()]
    )
    own.__annotations__ = options
    app = typer.Typer(add_completion=False)
    app.command()(own)
    return [each for each in typer.main.get_command(app).params if each.name in options]


def _own_option(name: str, methods: Mapping[str, Parameter]) -> Any:
    """Return the option of a parameter, which several methods may have with defaults and words of their own."""
    first, defaults = next(iter(methods.values())), {each.default for each in methods.values()}
    option = f"--{name.replace('_', '-')}"
    shown = f"{next(iter(defaults)):g}" if len(defaults) == 1 else "the method's"
    told = typer.Option(
        f"{option}/--no-{option[2:]}" if first.kind is bool else option,
        help=_own_help(methods),
        show_default=shown,
        rich_help_panel=METHOD_PANEL,
    )
    return Annotated[(str if first.per_model else first.kind) | None, told]


def _own_help(methods: Mapping[str, Parameter]) -> str:
    by_words: dict[str, list[str]] = {}
    for method, each in methods.items():
        if each.words:
            by_words.setdefault(each.words.rstrip("."), []).append(method)
    named = len(by_words) > 1 or len(methods) < 3
    said = [f"{', '.join(names)}: {words[0].lower()}{words[1:]}" if named else words for words, names in by_words.items()]
    return f"{'. '.join(said)}{'; or one per model' if next(iter(methods.values())).per_model else ''}."


def own_given() -> dict[str, Any]:
    """Return the parameters of methods that the command line gives, lists parsed."""
    from warmkit.merging.methods import parameters_by_name

    taken = dict(_own.get())
    for name, methods in parameters_by_name().items():
        if next(iter(methods.values())).per_model and (values := numbers(taken[name], f"--{name}")):
            taken[name] = values[0] if len(values) == 1 else values
    return taken


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Drop what was not given on the command line, so that defaults live in one place, the library."""
    return {name: value for name, value in options.items() if value is not None}


def writing(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `output_options` for the library: a dry run tells how long the run would take."""
    return {**given(options), "estimate": bool(options.get("dry_run"))}


def numbers(text: str | None, option: str) -> list[float] | None:
    """Parse `0.5,0.3,0.2`.

    Raises:
        UsageError: If a part is no number.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{option}: expected numbers with commas between them, found {text!r}") from None


def etas(text: str | None) -> float | list[float] | None:
    """Parse one eta, or several."""
    parsed = numbers(text, "--eta")
    return parsed[0] if parsed is not None and len(parsed) == 1 else parsed
